package ruleset_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	rs "nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
)

func one(sets []rs.Set, chains ...rs.Chain) rs.Ruleset {
	return rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyInet, Name: "t", Sets: sets, Chains: chains}}}
}

func set(name string, ports ...uint16) rs.Set {
	s := rs.Set{Name: name, Key: rs.TypeInetService}
	for _, p := range ports {
		s.Elements = append(s.Elements, rs.Element{Key: rs.Port(p)})
	}
	return s
}

func chain(name string, ports ...uint16) rs.Chain {
	c := rs.Chain{Name: name}
	for _, p := range ports {
		c.Rules = append(c.Rules, rs.NewRule(rs.Is(rs.THDport, rs.Port(p))))
	}
	return c
}

func TestMergeUnitesWhatHasTheSameName(t *testing.T) {
	a := one([]rs.Set{set("both", 1, 2), set("a", 1)}, chain("both", 1), chain("a", 1))
	b := one([]rs.Set{set("b", 2), set("both", 2, 3)}, chain("both", 2, 1), chain("b", 2))
	b.Tables = append(b.Tables, rs.Table{Family: rs.FamilyIP, Name: "t"})

	want := one([]rs.Set{set("both", 1, 2, 3), set("a", 1), set("b", 2)}, chain("both", 1, 2, 1), chain("a", 1), chain("b", 2))
	want.Tables = append(want.Tables, rs.Table{Family: rs.FamilyIP, Name: "t"})
	if diff := cmp.Diff(want.String(), rs.Merge(a, b).String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMergeTakesTheFirstDefinition(t *testing.T) {
	first, second := set("s", 1), set("s", 1)
	first.Comment, second.Comment = "first", "second"
	second.Elements[0].Comment = "second"
	base := chain("c")
	base.Base = &rs.Base{Type: "filter", Hook: rs.HookInput, Policy: rs.Drop}
	got := rs.Merge(one([]rs.Set{first}, base), one([]rs.Set{second}, chain("c")))
	if diff := cmp.Diff(one([]rs.Set{first}, base).String(), got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestMergeLeavesItsPartsAlone: nat and isolation share their sets with
// whatever they are merged to.
func TestMergeLeavesItsPartsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rulesettest.Random().Draw(t, "a"), rulesettest.Random().Draw(t, "b")
		beforeA, beforeB := a.String(), b.String()
		both := rs.Merge(a, b)
		for i := range both.Tables {
			table := &both.Tables[i]
			for j := range table.Sets {
				table.Sets[j].Elements = append(table.Sets[j].Elements, rs.Element{CatchAll: true})
			}
			for j := range table.Chains {
				table.Chains[j].Rules = append(table.Chains[j].Rules, rs.NewRule(rs.Counter{}))
			}
		}
		if a.String() != beforeA || b.String() != beforeB {
			t.Fatal("a part changed")
		}
	})
}

func TestMergeWithNothingIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rulesettest.Random().Draw(t, "ruleset")
		for _, got := range []rs.Ruleset{rs.Merge(r), rs.Merge(r, rs.Ruleset{}), rs.Merge(rs.Ruleset{}, r)} {
			if diff := cmp.Diff(r.String(), got.String()); diff != "" {
				t.Fatalf("(-in +out)\n%s", diff)
			}
		}
	})
}

func TestSortedRulesetsPrintTheSameInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rulesettest.Random().Draw(t, "ruleset")
		before := r.String()
		shuffled := rs.Ruleset{Tables: rapid.Permutation(r.Tables).Draw(t, "tables")}
		for i := range shuffled.Tables {
			table := &shuffled.Tables[i]
			table.Sets = rapid.Permutation(table.Sets).Draw(t, "sets")
			table.Chains = rapid.Permutation(table.Chains).Draw(t, "chains")
			for j := range table.Sets {
				table.Sets[j].Elements = rapid.Permutation(table.Sets[j].Elements).Draw(t, "elements")
			}
		}
		if diff := cmp.Diff(r.Sorted().String(), shuffled.Sorted().String()); diff != "" {
			t.Fatalf("(-in order +out of order)\n%s", diff)
		}
		if r.String() != before {
			t.Fatal("sorting changed its argument")
		}
	})
}

func TestUserChainKeepsWhatItsRulesReach(t *testing.T) {
	verdicts := rs.Set{Name: "theirs", Key: rs.TypeInetService, Data: rs.TypeVerdict,
		Elements: []rs.Element{{Key: rs.Port(1), Verdict: rs.JumpTo("by-map")}}}
	user := rs.Chain{Name: "user", Rules: []rs.Rule{
		rs.NewRule(rs.VMap{Key: rs.THDport, Map: "theirs"}), rs.NewRule(rs.JumpTo("by-rule")), rs.NewRule(rs.In(rs.THDport, "ours")),
	}}
	have := one([]rs.Set{verdicts, set("ours", 1), set("deep", 9), set("gone")}, user, chain("by-map", 1),
		rs.Chain{Name: "by-rule", Rules: []rs.Rule{rs.NewRule(rs.In(rs.THDport, "deep"))}}, chain("gone"))

	ours := set("ours", 2)
	ours.Counter = true
	want := one([]rs.Set{ours}, rs.Chain{Name: "user", UserOwned: true})
	batch := rs.Diff(have, want)
	got, err := apply(have, batch)
	if err != nil {
		t.Fatal(err)
	}
	expected := one([]rs.Set{verdicts, ours, set("deep", 9)}, user, chain("by-map", 1),
		rs.Chain{Name: "by-rule", Rules: []rs.Rule{rs.NewRule(rs.In(rs.THDport, "deep"))}})
	if diff := cmp.Diff(text(expected), text(got)); diff != "" {
		t.Errorf("(-want +got)\n%s\nby\n%s", diff, batch)
	}
}
