package nftjson

import (
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

func (p printer) sets(t *ruleset.Table) lazy {
	return each(t.Sets, func(s *ruleset.Set) bool { return !s.Anonymous }, func(s *ruleset.Set) any {
		if s.Data == "" {
			return one("set", p.set(t, s))
		}
		return one("map", p.set(t, s))
	})
}

// set is a set or map (set_print_json).
func (p printer) set(t *ruleset.Table, s *ruleset.Set) object {
	o := object{{"family", string(t.Family)}, {"name", s.Name}, {"table", t.Name}, {"type", keyType(s.Key)}, {"handle", s.Handle}}
	o = o.with(s.Comment != "", "comment", s.Comment).with(s.Data != "", "map", typeName(s.Data))
	constant := slices.Contains(s.Flags, "constant")
	o = o.with(s.Policy != "" && !constant, "policy", s.Policy).with(s.Size != 0 && !constant, "size", uint64(s.Size))
	o = o.with(len(s.Flags) > 0, "flags", texts(s.Flags))
	o = span(o, "timeout", s.Timeout)
	o = span(o, "gc-interval", s.GCInterval)
	o = o.with(s.AutoMerge, "auto-merge", true).with(s.DataInterval, "interval", true)
	if s.KeyOf != nil {
		o = append(o, member{"typeof", p.expr(s.KeyOf)})
	}
	if s.DataOf != nil {
		o = append(o, member{"map_typeof", p.expr(s.DataOf)})
	}
	o = o.with(len(s.Elements) > 0, "elem", p.elements(s))
	return o.with(s.Counter || len(s.Extra) > 0, "stmt", p.setState(s))
}

// span adds an amount of time, of which nft writes whole seconds.
func span(o object, key string, ms uint64) object {
	return o.with(ms != 0, key, ms/1000).with(ms%1000 != 0, key+"_ms", ms)
}

// setState are the parts that every element of a set gets: without numbers.
func (p printer) setState(s *ruleset.Set) array {
	p.stateless = true
	var counter *ruleset.Counter
	if s.Counter {
		counter = &ruleset.Counter{}
	}
	var out array
	for _, part := range stateful(counter, s.Extra, s.CounterLast) {
		out = append(out, p.part(part))
	}
	return out
}

func stateful(counter *ruleset.Counter, extra []ruleset.Part, last bool) []ruleset.Part {
	switch {
	case counter == nil:
		return extra
	case last:
		return append(slices.Clone(extra), *counter)
	}
	return append([]ruleset.Part{*counter}, extra...)
}

// typeName is nft's name for a type.
func typeName(t ruleset.Type) string {
	parts := t.Parts()
	names := make([]string, len(parts))
	for i, part := range parts {
		switch names[i] = string(part.Base()); part.Base() {
		case ruleset.TypeHostInteger, ruleset.TypeRaw:
			names[i] = string(ruleset.TypeInteger)
		case ruleset.TypeDate:
			names[i] = string(ruleset.TypeTime)
		}
	}
	return strings.Join(names, " . ")
}

// keyType is the name of a type, or the list of those of a concatenation.
func keyType(t ruleset.Type) any { return oneOrMore(strings.Split(typeName(t), " . ")) }

func (p printer) elements(s *ruleset.Set) lazy {
	return each(s.Elements, all, func(e *ruleset.Element) any { return p.element(e) })
}

// element is a key, or the pair of a key and what a map holds for it.
func (p printer) element(e *ruleset.Element) any {
	key := p.elementKey(e)
	switch {
	case e.Verdict.Kind != "":
		return array{key, p.verdict(e.Verdict)}
	case e.Object != "":
		return array{key, e.Object}
	case e.Data.Data != "":
		return array{key, interval(e.Data, e.DataEnd)}
	}
	return key
}

// elementKey is a key with what the element carries (set_elem_expr_json), which
// stands beside it by its own name.
func (p printer) elementKey(e *ruleset.Element) any {
	var key any = "*"
	if !e.CatchAll {
		key = interval(e.Key, e.End)
	}
	o := span(one("val", key), "timeout", e.Timeout)
	o = o.with(e.Expires != 0 && !p.stateless, "expires", e.Expires/1000).with(e.Comment != "", "comment", e.Comment)
	for _, part := range stateful(e.Counter, e.Extra, e.CounterLast) {
		if s, ok := p.part(part).(object); ok {
			o = append(o, s...)
		}
	}
	if len(o) == 1 {
		return key
	}
	return one("elem", o)
}

// interval is a value, or the values from it to end; those of a concatenation
// part by part.
func interval(begin, end ruleset.Value) any {
	if end.Data == "" {
		return setMember(begin)
	}
	from, to := begin.Parts(), end.Parts()
	out := make(array, len(from))
	for i := range from {
		out[i] = spanOf(from[i], to[i])
	}
	if len(out) == 1 {
		return out[0]
	}
	return one("concat", out)
}

// spanOf is a value, a prefix or a range.
func spanOf(from, to ruleset.Value) any {
	if from == to {
		return setMember(from)
	}
	if prefix, ok := ruleset.PrefixOf(from, to); ok {
		return prefixOf(prefix)
	}
	if name, ok := ruleset.WildcardOf(from, to); ok {
		return value(name)
	}
	return one("range", array{numeric(from), numeric(to)})
}

// setMember is a value as a member of a set: flags of it are joined by an
// operator.
func setMember(v ruleset.Value) any {
	parts := v.Parts()
	out := make(array, len(parts))
	for i, part := range parts {
		out[i] = alternatives(part)
	}
	if len(out) == 1 {
		return out[0]
	}
	return one("concat", out)
}
