package inspect

import (
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/ruleset"
)

// Explain gives the notes on an object, the most telling first; none on an
// object that is not in the model.
func (m *Model) Explain(o Object) []Note {
	switch o.Kind {
	case KindRuleset:
		return m.rulesetNotes()
	case KindHook:
		if h, ok := m.Hook(o); ok {
			return m.hookNotes(h)
		}
	case KindTable:
		if t := m.Ruleset.Table(o.Family, o.Table); t != nil {
			return m.tableNotes(o, t)
		}
	case KindChain:
		if info := m.chains[o]; info != nil {
			return m.chainNotes(info)
		}
	case KindRule:
		info := m.chains[o.chain(o.Chain)]
		if info != nil && o.Index >= 0 && o.Index < len(info.chain.Rules) {
			// What iptables stored is explained as what it does.
			native := info.chain.Rules[o.Index].Native()
			s := &scope{m: m, in: info.table, info: info, rule: &native, index: o.Index}
			return s.notes()
		}
	case KindSet:
		if info := m.sets[o]; info != nil {
			return m.setNotes(info)
		}
	case KindElement:
		info := m.sets[o.set(o.Set)]
		if info != nil && o.Index >= 0 && o.Index < len(info.set.Elements) {
			return m.elementNotes(info, o.Index)
		}
	}
	return nil
}

// Objects lists everything in the model: the ruleset, the hooks, then each
// table with its chains, rules, sets and elements. Sets without a name are part
// of their rules.
func (m *Model) Objects() []Object {
	out := []Object{{Kind: KindRuleset}}
	for _, h := range m.Hooks {
		out = append(out, h.Object)
	}
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		table := tableObject(t)
		out = append(out, table)
		for _, c := range m.Order(t) {
			chain := table.chain(c.Name)
			out = append(out, chain)
			for j := range c.Rules {
				out = append(out, chain.rule(j))
			}
		}
		for _, s := range t.Sets {
			if s.Anonymous {
				continue
			}
			set := table.set(s.Name)
			out = append(out, set)
			for j := range s.Elements {
				out = append(out, set.element(j))
			}
		}
	}
	return out
}

func (m *Model) rulesetNotes() []Note {
	o := Object{Kind: KindRuleset}
	var chains, rules, sets, elements int
	for _, t := range m.Ruleset.Tables {
		chains += len(t.Chains)
		for _, c := range t.Chains {
			rules += len(c.Rules)
		}
		for _, s := range t.Sets {
			if !s.Anonymous {
				sets++
				elements += len(s.Elements)
			}
		}
	}
	if len(m.Ruleset.Tables) == 0 {
		return []Note{{Object: o, Level: Info, Topic: TopicWhat, Sentence: m.say.Say("ruleset.empty")}}
	}
	counts := []string{
		m.say.Count("tables", uint64(len(m.Ruleset.Tables))), m.say.Count("chains", uint64(chains)),
		m.say.Count("rules", uint64(rules)), m.say.Count("sets", uint64(sets)), m.say.Count("elements", uint64(elements)),
	}
	notes := []Note{
		{Object: o, Level: Info, Topic: TopicWhat, Sentence: m.say.Say("sentence", "text", m.say.And(counts))},
		{Object: o, Level: Info, Topic: TopicOrder, Sentence: m.say.Say("ruleset.ways")},
	}
	if n := len(m.opaque); n > 0 {
		note := Note{Object: o, Level: Unknown, Topic: TopicWhat, Sentence: m.say.Count("ruleset.opaque", uint64(n))}
		for _, u := range m.opaque {
			note.Evidence = append(note.Evidence, m.evidence(u))
		}
		notes = append(notes, note)
	}
	return notes
}

func (m *Model) hookNotes(h Hook) []Note {
	o := h.Object
	id := "hook." + string(o.Layer) + "." + string(o.Hook)
	what := m.say.Say(id, "device", o.Device)
	if what == id {
		what = m.say.Say("hook.other", "hook", string(o.Hook))
	}
	notes := []Note{{Object: o, Level: Info, Topic: TopicWhat, Sentence: what}}
	if len(h.Chains) == 0 {
		return append(notes, Note{Object: o, Level: Info, Topic: TopicOrder, Sentence: m.say.Say("hook.empty")})
	}
	order := Note{Object: o, Level: Info, Topic: TopicOrder}
	var names []string
	for _, b := range h.Chains {
		names = append(names, m.say.Say("hook.entry", "at", strconv.Itoa(int(b.At)), "chain", m.chainName(b.Object, nil)))
		order.Evidence = append(order.Evidence, m.evidence(b.Object))
	}
	list := strings.Join(names, m.say.Say("list.comma"))
	order.Sentence = m.say.Count("hook.order", uint64(len(names)), "chains", list)
	doubt := slices.ContainsFunc(h.Chains, func(b *BaseChain) bool { return b.Unordered })
	if doubt {
		order.Sentence = m.say.Say("hook.doubt", "n", strconv.Itoa(len(names)), "chains", list)
	}
	if slices.ContainsFunc(h.Chains, func(b *BaseChain) bool { return !b.meets(h.Chains[0]) }) {
		order.Sentence += m.say.Say("sentence.join") + m.say.Say("hook.families")
	}
	notes = append(notes, order)
	if doubt {
		notes = append(notes, Note{Object: o, Level: Info, Topic: TopicOrder, Sentence: m.say.Say("hook.unordered")})
	}
	return notes
}

func (m *Model) tableNotes(o Object, t *ruleset.Table) []Note {
	id := "table." + string(t.Family)
	what := m.say.Say(id)
	if what == id {
		what = m.say.Say("table.other", "family", string(t.Family))
	}
	notes := []Note{{Object: o, Level: Info, Topic: TopicWhat, Sentence: what}}
	for _, f := range t.Flags {
		n := Note{Object: o, Level: Info, Topic: TopicCustom, Sentence: m.say.Say("table.flag."+f, "flag", f)}
		if f == "dormant" {
			n.Level = Warn
		}
		notes = append(notes, n)
	}
	return notes
}
