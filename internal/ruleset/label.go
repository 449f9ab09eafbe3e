package ruleset

import "strings"

// labelSeparator stands between the labels of the parts of a concatenation.
const labelSeparator = "\n"

// NameInterfaces gives the numbers of interfaces in the ruleset the names that
// they have on the host; name returns "" for one that is gone.
func (rs *Ruleset) NameInterfaces(name func(index uint64) string) {
	for i := range rs.Tables {
		rs.Tables[i].NameInterfaces(name)
	}
}

// NameInterfaces is [Ruleset.NameInterfaces] of one table.
func (t *Table) NameInterfaces(name func(index uint64) string) {
	label := labeller(name)
	for j := range t.Sets {
		for k := range t.Sets[j].Elements {
			e := &t.Sets[j].Elements[k]
			for _, v := range []*Value{&e.Key, &e.End, &e.Data, &e.DataEnd} {
				*v = label.label(*v)
			}
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			r.NameInterfaces(name)
		}
	}
}

// NameInterfaces is [Ruleset.NameInterfaces] of one rule.
func (r Rule) NameInterfaces(name func(index uint64) string) {
	for k, p := range r.Parts {
		r.Parts[k] = labeller(name).part(p)
	}
}

type labeller func(uint64) string

// hasInterfaces says whether a value of the type holds the number of an
// interface.
func (t Type) hasInterfaces() bool { return strings.Contains(string(t), string(TypeIfIndex)) }

// label is the value with the names of its interfaces.
func (l labeller) label(v Value) Value {
	if !v.Type.hasInterfaces() || v.Data == "" {
		return v
	}
	v.Label = ""
	parts := v.Parts()
	labels := make([]string, len(parts))
	for i, p := range parts {
		if n, ok := p.Uint(); ok && p.Type == TypeIfIndex {
			labels[i] = l(n)
		}
	}
	v.Label = strings.Join(labels, labelSeparator)
	return v
}

func (l labeller) part(p Part) Part {
	switch p := p.(type) {
	case Compare:
		p.Right = l.label(p.Right)
		return p
	case Dup:
		p.To, p.Device = l.expr(p.To), l.expr(p.Device)
		return p
	case Forward:
		p.Device = l.expr(p.Device)
		return p
	}
	return p
}

func (l labeller) expr(x Expr) Expr {
	if c, ok := x.(Const); ok {
		c.Value = l.label(c.Value)
		return c
	}
	return x
}
