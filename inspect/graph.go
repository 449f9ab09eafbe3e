package inspect

import (
	"slices"

	"nftnet/internal/ruleset"
)

// connect enters who reaches the chains and who uses the sets of a table.
func (m *Model) connect(t *ruleset.Table) {
	table := tableObject(t)
	for i := range t.Chains {
		chain := table.chain(t.Chains[i].Name)
		if m.chains[chain].chain != &t.Chains[i] {
			continue
		}
		for j, r := range t.Chains[i].Rules {
			m.connectRule(chain.rule(j), r)
		}
	}
	for i := range t.Sets {
		if info := m.sets[table.set(t.Sets[i].Name)]; info.set == &t.Sets[i] {
			m.connectSet(info)
		}
	}
}

func (m *Model) connectRule(rule Object, r ruleset.Rule) {
	opaque := false
	for _, p := range r.Native().Parts {
		switch p := p.(type) {
		case ruleset.Opaque:
			opaque = true
		case ruleset.Compat:
			if _, ok := p.IPTables(); !ok {
				opaque = true
			}
		case ruleset.Verdict:
			m.addCaller(rule.chain(p.Chain), Caller{Rule: rule, Kind: p.Kind})
		case ruleset.Lookup:
			m.addUse(rule, p.Set, Use{Rule: rule, Key: p.Left, Part: p})
		case ruleset.VMap:
			m.addUse(rule, p.Map, Use{Rule: rule, Key: p.Key, Part: p})
			if p.Anonymous != nil && m.sets[rule.set(p.Map)] == nil {
				m.connectElements(rule, p.Anonymous, []Object{rule})
			}
		case ruleset.NAT:
			if p.Key != nil {
				m.addUse(rule, p.Map, Use{Rule: rule, Key: p.Key, Part: p})
			}
		case ruleset.SetUpdate:
			m.addUse(rule, p.Set, Use{Rule: rule, Key: p.Key, Part: p})
		case ruleset.ObjectRef:
			if p.Key != nil {
				m.addUse(rule, p.Map, Use{Rule: rule, Key: p.Key, Part: p})
			}
		}
		for _, l := range ruleset.MapsIn(p) {
			m.addUse(rule, l.Map, Use{Rule: rule, Key: l.Key, Part: p})
		}
	}
	if opaque {
		m.opaque = append(m.opaque, rule)
		m.doubtful[Object{Kind: KindTable, Family: rule.Family, Table: rule.Table}] = true
	}
}

func (m *Model) addCaller(chain Object, c Caller) {
	if info := m.chains[chain]; info != nil && chain.Chain != "" {
		info.callers = append(info.callers, c)
	}
}

func (m *Model) addUse(rule Object, set string, u Use) {
	if info := m.sets[rule.set(set)]; info != nil {
		info.users = append(info.users, u)
	}
}

// connectSet enters the chains that the elements of a verdict map lead to, for
// each rule that looks the map up. A map that no rule is known to look up leads
// to them all the same: a rule that is not understood may use it.
func (m *Model) connectSet(info *setInfo) {
	var rules []Object
	for _, u := range info.users {
		if _, ok := u.Part.(ruleset.VMap); ok {
			rules = append(rules, u.Rule)
		}
	}
	if len(rules) == 0 {
		rules = []Object{{}}
	}
	m.connectElements(info.object, info.set, rules)
	if slices.ContainsFunc(info.set.Elements, func(e ruleset.Element) bool { return opaqueElement(info.set, e) }) {
		m.opaque = append(m.opaque, info.object)
	}
}

// opaqueElement says whether an element has parts that are not understood.
func opaqueElement(s *ruleset.Set, e ruleset.Element) bool {
	if s.Data == ruleset.TypeVerdict && e.Verdict.Kind == "" {
		return true
	}
	return slices.ContainsFunc(e.Extra, func(p ruleset.Part) bool {
		_, opaque := notUnderstood(p)
		return opaque
	})
}

// connectElements enters callers for the verdicts in the elements of a map; in
// is any object of the map's table.
func (m *Model) connectElements(in Object, s *ruleset.Set, rules []Object) {
	counts := map[ruleset.Verdict]int{}
	var order []ruleset.Verdict
	for _, e := range s.Elements {
		if e.Verdict.Chain == "" {
			continue
		}
		if counts[e.Verdict] == 0 {
			order = append(order, e.Verdict)
		}
		counts[e.Verdict]++
	}
	for _, v := range order {
		for _, r := range rules {
			m.addCaller(in.chain(v.Chain), Caller{Rule: r, Kind: v.Kind, Map: s.Name, Elements: counts[v]})
		}
	}
}

// reach finds for every chain the base chains from which a packet may get
// there.
func (m *Model) reach() {
	next := map[Object][]Object{}
	for chain, info := range m.chains {
		for _, c := range info.callers {
			if c.Rule == (Object{}) {
				info.guessed = true
				continue
			}
			from := c.Rule.chain(c.Rule.Chain)
			next[from] = append(next[from], chain)
		}
	}
	for _, h := range m.Hooks {
		for _, b := range h.Chains {
			if b.Hook != h.Object {
				continue
			}
			m.walk(next, b.Object, func(info *chainInfo) { info.from = append(info.from, b) })
		}
	}
	for chain, info := range m.chains {
		if info.guessed {
			m.walk(next, chain, func(i *chainInfo) { i.guessed = true })
		}
	}
}

// walk visits each chain once that can be reached from one.
func (m *Model) walk(next map[Object][]Object, from Object, visit func(*chainInfo)) {
	seen := map[Object]bool{from: true}
	todo := []Object{from}
	for len(todo) > 0 {
		info := m.chains[todo[0]]
		visit(info)
		for _, o := range next[todo[0]] {
			if !seen[o] {
				seen[o] = true
				todo = append(todo, o)
			}
		}
		todo = todo[1:]
	}
}

// Order lists the chains of a table as they are best read: each base chain in
// the order in which a packet meets it, with the chains it calls behind it, and
// those that nothing calls at the end.
func (m *Model) Order(t *ruleset.Table) []*ruleset.Chain {
	var out []*ruleset.Chain
	seen := map[Object]bool{}
	var visit func(Object)
	visit = func(o Object) {
		info := m.chains[o]
		if info == nil || seen[o] {
			return
		}
		seen[o] = true
		out = append(out, info.chain)
		for _, r := range info.chain.Rules {
			for _, target := range m.targets(t, r) {
				visit(o.chain(target))
			}
		}
	}
	for _, h := range m.Hooks {
		for _, b := range h.Chains {
			if b.Table == t {
				visit(b.Object)
			}
		}
	}
	for i := range t.Chains {
		if len(m.chains[tableObject(t).chain(t.Chains[i].Name)].callers) == 0 {
			visit(tableObject(t).chain(t.Chains[i].Name))
		}
	}
	for i := range t.Chains {
		visit(tableObject(t).chain(t.Chains[i].Name))
	}
	return out
}

// targets lists the chains that a rule may lead to, by its verdict or by the
// elements of a map.
func (m *Model) targets(t *ruleset.Table, r ruleset.Rule) []string {
	out := ruleset.Targets(r)
	for _, p := range r.Parts {
		v, ok := p.(ruleset.VMap)
		if !ok || v.Anonymous != nil {
			continue
		}
		if s := m.set(t, v.Map); s != nil {
			for _, e := range s.Elements {
				if e.Verdict.Chain != "" {
					out = append(out, e.Verdict.Chain)
				}
			}
		}
	}
	return unique(out)
}
