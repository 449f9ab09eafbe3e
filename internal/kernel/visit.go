package kernel

import rs "nftnet/internal/ruleset"

// Visitor gets a ruleset piece by piece, in the order in which nft lists it.
// A ruleset of a hundred thousand rules takes ten times as much memory as its
// text where all of it is kept.
type Visitor interface {
	// Restart makes void what came before: the ruleset changed meanwhile.
	Restart()
	// Table begins a table, with all that it holds but rules.
	Table(*rs.Table)
	// Chain begins a chain of the table, Rule is its next rule, EndChain its end.
	Chain(*rs.Chain)
	Rule(*rs.Rule)
	EndChain()
	// EndTable ends the table.
	EndTable()
}

// Visit reads the ruleset as it is at one moment, as [Conn.Read] does, and
// hands it to v, table by table.
func (c *Conn) Visit(f Filter, v Visitor) error {
	return c.retried(func() error {
		v.Restart()
		return c.readOnce(&reader{sock: c.sock, filter: f, known: map[string]knownSet{}, visitor: v, links: c.linkNames()})
	})
}

// visit hands a table over whose rules are not read yet. Chains that have no
// name are read first: they are a part of the rules that call them.
func (r *reader) visit(t *rs.Table, sets map[string]knownSet) error {
	anonymous := rs.Table{Family: t.Family, Name: t.Name}
	for i := range t.Chains {
		if c := &t.Chains[i]; c.Anonymous {
			if err := r.rules(t, c, sets, func(rule rs.Rule) { c.Rules = append(c.Rules, rule) }); err != nil {
				return err
			}
			anonymous.Chains = append(anonymous.Chains, *c)
		}
	}
	joinAnonymous(&anonymous)
	anonymous.NameInterfaces(r.links)
	t.NameInterfaces(r.links)
	r.visitor.Table(t)
	one := rs.Chain{Rules: make([]rs.Rule, 1)}
	for i := range t.Chains {
		c := &t.Chains[i]
		if c.Anonymous {
			continue
		}
		r.visitor.Chain(c)
		err := r.rules(t, c, sets, func(rule rs.Rule) {
			rule.NameInterfaces(r.links)
			if len(anonymous.Chains) > 0 {
				one.Rules[0] = rule
				joinAnonymous(&rs.Table{Chains: append(anonymous.Chains[:len(anonymous.Chains):len(anonymous.Chains)], one)})
			}
			r.visitor.Rule(&rule)
		})
		if err != nil {
			return err
		}
		r.visitor.EndChain()
	}
	r.visitor.EndTable()
	return nil
}
