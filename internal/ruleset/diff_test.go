package ruleset_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	rs "nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
)

// apply does what the kernel does with a batch, in memory, and refuses what the
// kernel refuses: nothing may be removed while something refers to it, nothing
// may be referred to before it is there.
func apply(have rs.Ruleset, batch rs.Batch) (rs.Ruleset, error) {
	out := rs.Merge(have) // a copy
	for i := range out.Tables {
		for j := range out.Tables[i].Chains {
			out.Tables[i].Chains[j].UserOwned = false
		}
	}
	for _, c := range batch {
		if err := applyChange(&out, c); err != nil {
			return out, fmt.Errorf("%s: %w", c, err)
		}
	}
	return out, nil
}

func applyChange(out *rs.Ruleset, c rs.Change) error {
	table := out.Table(c.Family, c.Table)
	switch {
	case c.Chain == nil && c.Set == nil && c.Verb == rs.Add:
		if table != nil {
			return fmt.Errorf("file exists")
		}
		out.Tables = append(out.Tables, rs.Table{Family: c.Family, Name: c.Table})
		return nil
	case table == nil:
		return fmt.Errorf("no such table")
	case c.Chain == nil && c.Set == nil:
		out.Tables = slices.DeleteFunc(out.Tables, func(t rs.Table) bool { return t.Family == c.Family && t.Name == c.Table })
		return nil
	case c.Rule != nil:
		return addRule(table, c)
	case c.Elements != nil:
		return changeElements(table, c)
	case c.Set != nil:
		return changeSet(table, c)
	}
	return changeChain(table, c)
}

func addRule(table *rs.Table, c rs.Change) error {
	chain := table.Chain(c.Chain.Name)
	if chain == nil || c.Verb != rs.Add {
		return fmt.Errorf("no such chain")
	}
	for _, name := range rs.Targets(*c.Rule) {
		if to := table.Chain(name); to == nil || to.Base != nil {
			return fmt.Errorf("cannot go to %s", name)
		}
	}
	for _, p := range c.Rule.Parts {
		name, key, verdicts := "", rs.Type(""), false
		switch p := p.(type) {
		case rs.Lookup:
			name, key = p.Set, p.Left.Type()
		case rs.VMap:
			name, key, verdicts = p.Map, p.Key.Type(), true
		default:
			continue
		}
		if s := table.Set(name); s == nil || s.Key != key || verdicts != (s.Data == rs.TypeVerdict) {
			return fmt.Errorf("no such set: %s", name)
		}
	}
	chain.Rules = append(chain.Rules, *c.Rule)
	return nil
}

func changeChain(table *rs.Table, c rs.Change) error {
	chain := table.Chain(c.Chain.Name)
	if (chain != nil) == (c.Verb == rs.Add) {
		return fmt.Errorf("there, or not there")
	}
	switch c.Verb {
	case rs.Add:
		table.Chains = append(table.Chains, rs.Chain{Name: c.Chain.Name, Base: c.Chain.Base})
	case rs.Flush:
		chain.Rules = nil
	case rs.Delete:
		if len(chain.Rules) > 0 || referred(table, func(r rs.Rule) bool { return slices.Contains(rs.Targets(r), chain.Name) }, chain.Name) {
			return fmt.Errorf("busy")
		}
		table.Chains = slices.DeleteFunc(table.Chains, func(t rs.Chain) bool { return t.Name == c.Chain.Name })
	}
	return nil
}

// referred says whether a rule, or an element that goes to chain, is in the way
// of a removal.
func referred(table *rs.Table, by func(rs.Rule) bool, chain string) bool {
	for _, s := range table.Sets {
		if slices.ContainsFunc(s.Elements, func(e rs.Element) bool { return chain != "" && e.Verdict.Chain == chain }) {
			return true
		}
	}
	return slices.ContainsFunc(table.Chains, func(c rs.Chain) bool { return slices.ContainsFunc(c.Rules, by) })
}

func changeSet(table *rs.Table, c rs.Change) error {
	set := table.Set(c.Set.Name)
	if (set != nil) == (c.Verb == rs.Add) {
		return fmt.Errorf("there, or not there")
	}
	if c.Verb == rs.Add {
		s := *c.Set
		s.Elements = nil
		table.Sets = append(table.Sets, s)
		return nil
	}
	if referred(table, func(r rs.Rule) bool { return slices.Contains(rs.SetsOf(r), set.Name) }, "") {
		return fmt.Errorf("busy")
	}
	table.Sets = slices.DeleteFunc(table.Sets, func(s rs.Set) bool { return s.Name == c.Set.Name })
	return nil
}

func changeElements(table *rs.Table, c rs.Change) error {
	set := table.Set(c.Set.Name)
	if set == nil {
		return fmt.Errorf("no such set")
	}
	for _, e := range c.Elements {
		at := slices.IndexFunc(set.Elements, func(o rs.Element) bool { return o.Key == e.Key && o.End == e.End })
		switch {
		case (at >= 0) == (c.Verb == rs.Add):
			return fmt.Errorf("element %s is there, or not there", e)
		case c.Verb == rs.Delete:
			set.Elements = slices.Delete(slices.Clone(set.Elements), at, at+1)
		case e.Key.Type != set.Key || e.Verdict.Chain != "" && table.Chain(e.Verdict.Chain) == nil:
			return fmt.Errorf("element %s does not fit", e)
		default:
			set.Elements = append(set.Elements, e)
		}
	}
	return nil
}

func text(r rs.Ruleset) string { return r.Sorted().Text(rs.Format{Stateless: true}) }

func TestDiffTurnsAnyRulesetIntoAnyOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, err := apply(rs.Ruleset{}, rs.Diff(rs.Ruleset{}, rulesettest.Random().Draw(t, "have")))
		if err != nil {
			t.Fatal(err)
		}
		if table := have.Table(rs.FamilyInet, "t"); table != nil {
			table.Chain(rulesettest.UserChain).Rules = rulesettest.UserRules(*table).Draw(t, "user's rules")
		}
		want := rulesettest.Random().Draw(t, "want")

		batch := rs.Diff(have, want)
		got, err := apply(have, batch)
		if err != nil {
			t.Fatalf("%v\nin\n%s\nfrom\n%s\nto\n%s", err, batch, text(have), text(want))
		}
		if diff := cmp.Diff(text(rulesettest.WithUserRules(have, want)), text(got)); diff != "" {
			t.Fatalf("(-want +got)\n%s\nby\n%s\nfrom\n%s", diff, batch, text(have))
		}
		if again := rs.Diff(got, want); len(again) > 0 {
			t.Fatalf("a second time there is left to do:\n%s", again)
		}
		if left, err := apply(got, rs.Diff(got, rs.Ruleset{})); err != nil || len(left.Tables) > 0 {
			t.Fatalf("removed, there is left (%v):\n%s", err, left)
		}
	})
}

func TestDiffOfEqualRulesetsIsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rulesettest.Random().Draw(t, "ruleset")
		if batch := rs.Diff(r, r); len(batch) > 0 {
			t.Fatalf("left to do:\n%s", batch)
		}
		if batch := rs.Diff(r.Sorted(), r); len(batch) > 0 {
			t.Fatalf("the order of sets and chains counts:\n%s", batch)
		}
	})
}

func TestDiffLeavesCountersAndHandlesAlone(t *testing.T) {
	set := rs.Set{Name: "s", Key: rs.TypeInetService, Counter: true, Elements: []rs.Element{{Key: rs.Port(1)}}}
	chain := rs.Chain{Name: "c", Rules: []rs.Rule{rs.NewRule(rs.Counter{}, rs.Verdict{Kind: rs.Drop})}}
	want := rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyInet, Name: "t", Sets: []rs.Set{set}, Chains: []rs.Chain{chain}}}}

	set.Handle, chain.Handle = 7, 8
	set.Elements = []rs.Element{{Key: rs.Port(1), Counter: &rs.Counter{Packets: 5}, Expires: 9}}
	chain.Rules = []rs.Rule{{Handle: 9, Parts: []rs.Part{rs.Counter{Packets: 5, Bytes: 500}, rs.Verdict{Kind: rs.Drop}}}}
	have := rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyInet, Name: "t", Handle: 1, Sets: []rs.Set{set}, Chains: []rs.Chain{chain}}}}
	if batch := rs.Diff(have, want); len(batch) > 0 {
		t.Errorf("left to do:\n%s", batch)
	}
}
