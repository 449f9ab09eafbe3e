package ruleset

import (
	"maps"
	"slices"
)

// SetsOf lists the names of the sets and maps that a rule refers to by name.
func SetsOf(r Rule) []string {
	names := map[string]bool{}
	for _, p := range r.Parts {
		switch p := p.(type) {
		case Lookup:
			if p.Anonymous == nil {
				names[p.Set] = true
			}
		case VMap:
			if p.Anonymous == nil {
				names[p.Map] = true
			}
		case NAT:
			if p.Map != "" && p.Anonymous == nil {
				names[p.Map] = true
			}
		case SetUpdate:
			names[p.Set] = !p.Meter
		case ObjectRef:
			if p.Map != "" && p.Anonymous == nil {
				names[p.Map] = true
			}
		}
		for _, m := range MapsIn(p) {
			if m.Anonymous == nil {
				names[m.Map] = true
			}
		}
	}
	maps.DeleteFunc(names, func(_ string, named bool) bool { return !named })
	return slices.Sorted(maps.Keys(names))
}

// MapsIn lists the lookups in maps that are part of the expressions of a
// statement.
func MapsIn(p Part) []MapExpr {
	switch p := p.(type) {
	case Mangle:
		return mapsOf(p.From)
	case NAT:
		return mapsOf(p.To)
	case Redirect:
		return mapsOf(p.To)
	case Dup:
		return append(mapsOf(p.To), mapsOf(p.Device)...)
	case Forward:
		return append(mapsOf(p.Device), mapsOf(p.Addr)...)
	case TProxy:
		return append(mapsOf(p.Addr), mapsOf(p.Port)...)
	case Enqueue:
		return mapsOf(p.By)
	case SetUpdate:
		return mapsOf(p.Data)
	}
	return nil
}

func mapsOf(x Expr) []MapExpr {
	switch x := x.(type) {
	case MapExpr:
		return append(mapsOf(x.Key), x)
	case Binary:
		return mapsOf(x.Left)
	case Masked:
		return mapsOf(x.Expr)
	case ConcatExpr:
		var out []MapExpr
		for _, p := range x.Parts {
			out = append(out, mapsOf(p)...)
		}
		return out
	}
	return nil
}

// Targets lists the chains that a rule may jump or go to by itself; chains
// named in a verdict map are the map's.
func Targets(r Rule) []string {
	var chains []string
	for _, p := range r.Parts {
		switch p := p.(type) {
		case Verdict:
			if p.Chain != "" {
				chains = append(chains, p.Chain)
			}
		case VMap:
			if p.Anonymous != nil {
				for _, e := range p.Anonymous.Elements {
					if e.Verdict.Chain != "" {
						chains = append(chains, e.Verdict.Chain)
					}
				}
			}
		}
	}
	return chains
}
