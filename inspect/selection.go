package inspect

import (
	"fmt"
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// Selection is a part of a model for who does not want to see all of it. Notes
// still speak of the rest. A nil Selection is the whole model.
type Selection struct {
	m       *Model
	objects map[Object]bool
	// sentence says what is selected, and what is left out.
	sentence string
}

// Has says whether an object is part of the selection. The ruleset always is;
// a hook is where a selected chain is called there.
func (s *Selection) Has(o Object) bool {
	switch {
	case s == nil || o.Kind == KindRuleset:
		return true
	case o.Kind == KindHook:
		h, _ := s.m.Hook(o)
		return slices.ContainsFunc(h.Chains, func(b *BaseChain) bool { return s.objects[b.Object] })
	}
	return s.objects[o]
}

// Notes say what is selected and what is left out.
func (s *Selection) Notes() []Note {
	return []Note{{Object: Object{Kind: KindRuleset}, Level: Info, Topic: TopicWhat, Sentence: s.sentence}}
}

// Table is the selected part of a table.
func (s *Selection) Table(t ruleset.Table) ruleset.Table {
	if s == nil {
		return t
	}
	o := tableObject(&t)
	t.Objects, t.Flowtables = nil, nil
	var chains []ruleset.Chain
	for _, c := range t.Chains {
		if s.Has(o.chain(c.Name)) {
			c.Rules = kept(c.Rules, func(i int) bool { return s.Has(o.chain(c.Name).rule(i)) })
			chains = append(chains, c)
		}
	}
	var sets []ruleset.Set
	for _, set := range t.Sets {
		if set.Anonymous || s.Has(o.set(set.Name)) {
			set.Elements = kept(set.Elements, func(i int) bool { return set.Anonymous || s.Has(o.set(set.Name).element(i)) })
			sets = append(sets, set)
		}
	}
	t.Chains, t.Sets = chains, sets
	return t
}

func kept[T any](list []T, keep func(int) bool) []T {
	var out []T
	for i, x := range list {
		if keep(i) {
			out = append(out, x)
		}
	}
	return out
}

// SelectChain selects the chains of a name, with the sets that their rules look
// up. An empty family or table stands for every one.
func (m *Model) SelectChain(family ruleset.Family, table, name string) (*Selection, error) {
	s := &Selection{m: m, objects: map[Object]bool{}}
	var found, other []string
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		if family != "" && t.Family != family || table != "" && t.Name != table {
			continue
		}
		var names []string
		for _, c := range m.Order(t) {
			if names = append(names, c.Name); c.Name == name {
				found = append(found, m.chainName(tableObject(t).chain(name), nil))
				s.addChain(tableObject(t).chain(name))
			}
		}
		if len(names) > 0 {
			other = append(other, fmt.Sprintf("%s (table %s %s)", strings.Join(names, ", "), t.Family, t.Name))
		}
	}
	switch {
	case len(found) > 0:
		s.sentence = m.say.Say("select.chain", "chains", m.say.And(found))
		return s, nil
	case len(other) == 0:
		return nil, fmt.Errorf("no chain %q: there are no chains", name)
	}
	return nil, fmt.Errorf("no chain %q: there are %s", name, strings.Join(other, "; "))
}

// add selects an object and what it is a part of.
func (s *Selection) add(o Object) {
	s.objects[o] = true
	switch o.Kind {
	case KindRule:
		s.add(o.chain(o.Chain))
	case KindElement:
		s.add(o.set(o.Set))
	case KindChain, KindSet:
		s.add(Object{Kind: KindTable, Family: o.Family, Table: o.Table})
	}
}

// addChain selects a chain, its rules, and the sets that they look up.
func (s *Selection) addChain(chain Object) {
	info := s.m.chains[chain]
	s.add(chain)
	for i, r := range info.chain.Rules {
		s.add(chain.rule(i))
		for _, name := range ruleset.SetsOf(r) {
			s.addSet(chain.set(name))
		}
	}
}

// addSet selects a set with its elements.
func (s *Selection) addSet(set Object) {
	info := s.m.sets[set]
	if info == nil {
		return
	}
	s.add(set)
	for i := range info.set.Elements {
		s.add(set.element(i))
	}
}
