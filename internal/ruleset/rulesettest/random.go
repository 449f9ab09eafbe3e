package rulesettest

import (
	"net/netip"

	"pgregory.net/rapid"

	rs "nftnet/internal/ruleset"
)

// UserChain is the chain of the user in random rulesets.
const UserChain = "user"

// Random makes small rulesets that the kernel takes: tables with sets, maps,
// verdict maps that lead to chains, chains that jump to others, base chains,
// and a chain of the user. The few names come back in each of them with another
// content, and often with another definition.
func Random() *rapid.Generator[rs.Ruleset] {
	return rapid.Custom(func(t *rapid.T) rs.Ruleset {
		var out rs.Ruleset
		for _, name := range []string{"t", "u"} {
			if rapid.IntRange(0, 9).Draw(t, "has "+name) > 0 {
				out.Tables = append(out.Tables, randomTable(t, name))
			}
		}
		return out
	})
}

func randomTable(t *rapid.T, name string) rs.Table {
	table := rs.Table{Family: rs.FamilyInet, Name: name}
	yes := func(label string) bool { return rapid.Bool().Draw(t, label) }
	for _, leaf := range []string{"leaf0", "leaf1"} {
		if yes("has " + leaf) {
			table.Chains = append(table.Chains, rs.Chain{Name: leaf, Rules: randomRules(t, table, nil)})
		}
	}
	leaves := chainNames(table)
	// A user's rules may refer to x0 and x1: what these are stays.
	for _, s := range []struct {
		name  string
		kinds []setKind
	}{{"x0", allKinds[:1]}, {"x1", allKinds[1:2]}, {"y0", allKinds}, {"y1", allKinds}} {
		if yes("has " + s.name) {
			table.Sets = append(table.Sets, randomSet(t, s.name, s.kinds, leaves))
		}
	}
	// Each chain jumps to those before it only: there are no loops. Sets and
	// chains may have the same name.
	targets := leaves
	for _, name := range []string{"x0", "x1", "x2"} {
		if yes("has chain " + name) {
			table.Chains = append(table.Chains, rs.Chain{Name: name, Rules: randomRules(t, table, targets)})
			targets = append(targets, name)
		}
	}
	if name == "t" {
		table.Chains = append(table.Chains, rs.Chain{Name: UserChain, UserOwned: true})
		targets = append(targets, UserChain)
	}
	for _, hook := range []rs.Hook{rs.HookInput, rs.HookOutput} {
		if !yes("has chain " + string(hook)) {
			continue
		}
		c := rs.Chain{Name: string(hook), Rules: randomRules(t, table, targets), Base: &rs.Base{
			Type: "filter", Hook: hook, Policy: rs.Accept, Priority: rapid.SampledFrom([]int32{0, -10}).Draw(t, "priority"),
		}}
		if yes("drops") {
			c.Base.Policy = rs.Drop
		}
		table.Chains = append(table.Chains, c)
	}
	return table
}

func chainNames(t rs.Table) []string {
	var names []string
	for _, c := range t.Chains {
		names = append(names, c.Name)
	}
	return names
}

// setKind is a kind of set with keys that do not overlap.
type setKind struct {
	key, data rs.Type
	interval  bool
	elements  []rs.Element
}

var (
	service  = rs.TypeInetService
	target   = rs.ConcatTypes(rs.TypeIPv4Addr, service)
	addr     = rs.Addr(netip.MustParseAddr("192.0.2.1"))
	last     = rs.Addr(netip.MustParseAddr("192.0.2.9"))
	ports    = []rs.Element{{Key: rs.Port(1)}, {Key: rs.Port(2)}, {Key: rs.Port(3)}, {Key: rs.Port(4)}}
	allKinds = []setKind{
		{key: service, elements: ports},
		{key: service, data: rs.TypeVerdict, elements: ports},
		{key: service, interval: true, elements: []rs.Element{
			{Key: rs.Port(1)}, {Key: rs.Port(2), End: rs.Port(9)}, {Key: rs.Port(10), End: rs.Port(10000)}, {Key: rs.Port(60000), End: rs.Port(65535)},
		}},
		{key: rs.ConcatTypes(rs.TypeInetProto, service), data: target, elements: []rs.Element{
			{Key: rs.Concat(rs.Proto(rs.ProtoTCP), rs.Port(1))}, {Key: rs.Concat(rs.Proto(rs.ProtoUDP), rs.Port(1))},
		}},
		{key: target, interval: true, elements: []rs.Element{
			{Key: rs.Concat(addr, rs.Port(1)), End: rs.Concat(last, rs.Port(9))}, {Key: rs.Concat(addr, rs.Port(20))},
		}},
		{key: rs.TypeIfname, elements: []rs.Element{{Key: rs.Iface("a0")}, {Key: rs.Iface("b0")}}},
	}
)

func randomSet(t *rapid.T, name string, kinds []setKind, leaves []string) rs.Set {
	kind := rapid.SampledFrom(kinds).Draw(t, "kind of "+name)
	s := rs.Set{
		Name: name, Key: kind.key, Data: kind.data, Counter: rapid.Bool().Draw(t, "counts"),
		Comment: rapid.SampledFrom([]string{"", "a set"}).Draw(t, "comment"),
		Size:    rapid.SampledFrom([]uint32{0, 128}).Draw(t, "size"),
	}
	if kind.interval {
		s.Flags = []string{"interval"}
	}
	for _, e := range kind.elements {
		if !rapid.Bool().Draw(t, "has element") {
			continue
		}
		e.Comment = rapid.SampledFrom([]string{"", "net=a", "net=b ep=c"}).Draw(t, "comment")
		switch s.Data {
		case "":
		case rs.TypeVerdict:
			e.Verdict = rapid.SampledFrom(verdicts(leaves)).Draw(t, "verdict")
		default:
			e.Data = rs.Concat(addr, rs.Port(rapid.Uint16Range(80, 81).Draw(t, "port")))
		}
		s.Elements = append(s.Elements, e)
	}
	return s
}

func verdicts(targets []string) []rs.Verdict {
	out := []rs.Verdict{{Kind: rs.Accept}, {Kind: rs.Drop}}
	for _, name := range targets {
		out = append(out, rs.JumpTo(name), rs.GotoChain(name))
	}
	return out
}

func randomRules(t *rapid.T, table rs.Table, targets []string) []rs.Rule {
	rule := rapid.Custom(func(t *rapid.T) rs.Rule {
		r := rs.NewRule(rapid.SampledFrom(matches(table)).Draw(t, "match"))
		if rapid.Bool().Draw(t, "counts") {
			r.Parts = append(r.Parts, rs.Counter{})
		}
		if _, ends := r.Parts[0].(rs.VMap); !ends {
			r.Parts = append(r.Parts, rapid.SampledFrom(verdicts(targets)).Draw(t, "verdict"))
		} else {
			r.Parts = r.Parts[:1]
		}
		return r.Because(rapid.SampledFrom([]string{"", "net=a"}).Draw(t, "comment"))
	})
	return rapid.SliceOfN(rule, 0, 4).Draw(t, "rules")
}

// matches are matches that a rule of the table can begin with.
func matches(table rs.Table) []rs.Part {
	out := []rs.Part{
		rs.Is(rs.THDport, rs.Port(22)), rs.InPrefix{Left: rs.IPSaddr, Op: rs.Equal, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		rs.IsNot(rs.Meta{Key: rs.MetaIIFName}, rs.Iface("lo")),
	}
	for _, s := range table.Sets {
		var key rs.Expr
		switch s.Key {
		case service:
			key = rs.THDport
		case target:
			key = rs.ConcatOf(rs.IPSaddr, rs.THDport)
		case rs.TypeIfname:
			key = rs.Meta{Key: rs.MetaOIFName}
		default:
			key = rs.ConcatOf(rs.Meta{Key: rs.MetaL4Proto}, rs.THDport)
		}
		switch s.Data {
		case "":
			out = append(out, rs.Lookup{Left: key, Op: rs.NotEqual, Set: s.Name}, rs.In(key, s.Name))
		case rs.TypeVerdict:
			out = append(out, rs.VMap{Key: key, Map: s.Name})
		}
	}
	return out
}

// UserRules makes rules that a user of the table may put into their chain. What
// they reach refers to no other sets than x0 and x1: rules that must stay, and
// look up keys that their set no longer has, no change can satisfy.
func UserRules(table rs.Table) *rapid.Generator[[]rs.Rule] {
	known := rs.Table{}
	for _, s := range table.Sets {
		if s.Name == "x0" || s.Name == "x1" {
			known.Sets = append(known.Sets, s)
		}
	}
	var targets []string
	for _, c := range table.Chains {
		if c.Base == nil && c.Name != UserChain && onlyRefersTo(table, c, known) {
			targets = append(targets, c.Name)
		}
	}
	return rapid.Custom(func(t *rapid.T) []rs.Rule { return randomRules(t, known, targets) })
}

// onlyRefersTo says whether a chain, and those that it jumps to, refer to the
// sets of known only.
func onlyRefersTo(table rs.Table, c rs.Chain, known rs.Table) bool {
	for _, r := range c.Rules {
		for _, s := range rs.SetsOf(r) {
			if known.Set(s) == nil {
				return false
			}
		}
		for _, name := range rs.Targets(r) {
			if to := table.Chain(name); to == nil || !onlyRefersTo(table, *to, known) {
				return false
			}
		}
	}
	return true
}

// WithUserRules is what have should become when want is wanted and the user's
// chain of have holds rules: want, those rules, and of have what they reach.
func WithUserRules(have, want rs.Ruleset) rs.Ruleset {
	out := rs.Merge(want)
	for i := range out.Tables {
		w := &out.Tables[i]
		h := have.Table(w.Family, w.Name)
		chain := w.Chain(UserChain)
		if h == nil || chain == nil || h.Chain(chain.Name) == nil {
			continue
		}
		chain.Rules = h.Chain(chain.Name).Rules
		for more := true; more; {
			more = reach(h, w)
		}
	}
	return out
}

// reach takes over what the user's rules reach and is not there yet; false
// where nothing was missing. All other rules of w find everything already.
func reach(h, w *rs.Table) bool {
	var sets, chains []string
	for _, c := range w.Chains {
		for _, r := range c.Rules {
			sets, chains = append(sets, rs.SetsOf(r)...), append(chains, rs.Targets(r)...)
		}
	}
	for _, s := range w.Sets {
		for _, e := range s.Elements {
			if e.Verdict.Chain != "" {
				chains = append(chains, e.Verdict.Chain)
			}
		}
	}
	more := false
	for _, name := range sets {
		if s := h.Set(name); s != nil && w.Set(name) == nil {
			w.Sets, more = append(w.Sets, *s), true
		}
	}
	for _, name := range chains {
		if c := h.Chain(name); c != nil && w.Chain(name) == nil {
			w.Chains, more = append(w.Chains, *c), true
		}
	}
	return more
}
