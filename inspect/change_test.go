package inspect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// changed writes changes one a line: the sign, the object and its text.
func changed(list []inspect.Change) []string {
	out := []string{}
	for _, c := range list {
		switch c.Kind {
		case inspect.Added:
			out = append(out, fmt.Sprintf("+ %s: %s", c.Object, strings.Join(c.After, " ")))
		case inspect.Removed:
			out = append(out, fmt.Sprintf("- %s: %s", c.Object, strings.Join(c.Before, " ")))
		case inspect.Moved:
			out = append(out, fmt.Sprintf("> %s from %d", c.Object, c.From+1))
		default:
			out = append(out, fmt.Sprintf("~ %s: %s => %s", c.Object, strings.Join(c.Before, " "), strings.Join(c.After, " ")))
		}
	}
	return out
}

func counted(n uint64) ruleset.Counter { return ruleset.Counter{Packets: n, Bytes: n} }

// comment is a rule that differs from others by its comment alone.
func comment(s string) ruleset.Rule { return rule(counter, accept).Because(s) }

func comments(words string) []ruleset.Rule {
	var out []ruleset.Rule
	for w := range strings.FieldsSeq(words) {
		out = append(out, comment(w))
	}
	return out
}

func TestChangesOfRules(t *testing.T) {
	const at = "rule inet t c"
	for _, row := range []struct {
		was, is string
		want    []string
	}{
		{"a b c", "a b c", nil},
		{"", "a", []string{"+ 1"}},
		{"a", "", []string{"- 1"}},
		{"a b c", "a x b c", []string{"+ 2"}},
		{"a b c", "a c", []string{"- 2"}},
		{"a b c", "b c a", []string{"> 3 from 1"}},
		{"a b c d", "d a b c", []string{"> 1 from 4"}},
		{"a a a", "a a", []string{"- 3"}},
		{"a b", "b x", []string{"- 1", "+ 2"}},
		{"a b c d e", "a x c y e", []string{"- 2", "- 4", "+ 2", "+ 4"}},
	} {
		model1 := model(table(ruleset.FamilyInet, "t", nil, chain("c", comments(row.was)...)))
		model2 := model(table(ruleset.FamilyInet, "t", nil, chain("c", comments(row.is)...)))
		var got []string
		for _, l := range changed(model2.Changes(model1)) {
			l, _, _ = strings.Cut(l, ":")
			got = append(got, strings.Replace(l, at+" ", "", 1))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%q to %q: %v, want %v", row.was, row.is, got, row.want)
		}
	}
}

// TestWhatDoesNotCount: counters, handles, the times of elements and the order
// of all but rules.
func TestWhatDoesNotCount(t *testing.T) {
	was := table(ruleset.FamilyInet, "t", []ruleset.Set{
		{Name: "a", Key: ruleset.TypeIfname, Elements: []ruleset.Element{bridge("x"), bridge("y")}},
		{Name: "b", Key: ruleset.TypeIfname},
	}, chain("c", rule(counted(1), accept)), chain("d"))
	was.Objects = []ruleset.Object{{Kind: "counter", Name: "n", State: counted(1)}}
	x := bridge("x")
	x.Counter, x.Expires = &ruleset.Counter{Packets: 3}, 1000
	is := table(ruleset.FamilyInet, "t", []ruleset.Set{
		{Name: "b", Key: ruleset.TypeIfname, Handle: 5},
		{Name: "a", Key: ruleset.TypeIfname, Elements: []ruleset.Element{bridge("y"), x}},
	}, chain("d"), chain("c", ruleset.Rule{Parts: []ruleset.Part{counted(7), accept}, Handle: 9}))
	is.Handle, is.Objects = 4, []ruleset.Object{{Kind: "counter", Name: "n", State: counted(9), Handle: 2}}
	other := table(ruleset.FamilyIP, "o", nil)
	check(t, changed(model(is, other).Changes(model(other, was))), []string{}...)
}

// TestChanges: one of each kind, in the words of nft and in plain ones.
func TestChanges(t *testing.T) {
	dropping := base("input", "filter", ruleset.HookInput, 0)
	dropping.Base.Policy = ruleset.Drop
	later := base("output", "filter", ruleset.HookOutput, 10)
	limited := bridge("z")
	limited.Timeout = 60000
	was := model(
		table(ruleset.FamilyIP, "gone", nil, chain("c", rule(drop))),
		table(ruleset.FamilyInet, "t", []ruleset.Set{
			{Name: "old", Key: ruleset.TypeIfname}, {Name: "s", Key: ruleset.TypeIfname, Elements: []ruleset.Element{bridge("x"), bridge("z")}},
		}, base("input", "filter", ruleset.HookInput, 0, rule(accept)), base("output", "filter", ruleset.HookOutput, 0), chain("old")),
	)
	dormant := table(ruleset.FamilyInet, "t", []ruleset.Set{
		{Name: "s", Key: ruleset.TypeIfname, Flags: []string{"timeout"}, Elements: []ruleset.Element{bridge("y"), limited}},
	}, dropping, later, chain("new"))
	dormant.Flags = []string{"dormant"}
	list := model(dormant).Changes(was)
	check(t, changed(list),
		"- table ip gone: table ip gone",
		"- chain ip gone c: chain c",
		"- rule ip gone c 1: drop",
		"~ table inet t: table inet t => table inet t flags dormant",
		"- set inet t old: set old type ifname",
		"~ set inet t s: set s type ifname => set s type ifname flags timeout",
		`- element inet t s 1: "x"`,
		`~ element inet t s 2: "z" => "z" timeout 1m`,
		`+ element inet t s 1: "y"`,
		"~ chain inet t input: chain input type filter hook input priority filter; policy accept; => chain input type filter hook input priority filter; policy drop;",
		"~ chain inet t output: chain output type filter hook output priority filter; policy accept; => chain output type filter hook output priority filter + 10; policy accept;",
		"- chain inet t old: chain old",
		"+ chain inet t new: chain new",
		"- rule inet t input 1: accept",
	)
	var sentences []string
	for _, c := range list {
		sentences = append(sentences, c.Sentence)
	}
	check(t, sentences,
		"Table ip gone is gone.",
		"Chain c is gone.",
		"Gone: Every packet that gets here is dropped. Nothing later sees it.",
		"Table inet t has other flags or another comment.",
		"The set old is gone.",
		"The set s is defined otherwise.",
		"Gone: Holds interface x.",
		"Now: Holds interface z.",
		"New: Holds interface y.",
		"Its policy was accept. Policy drop: a packet that gets to the end is dropped.",
		"Chain output is defined otherwise.",
		"Chain old is gone.",
		"Chain new is new.",
		"Gone: Every packet that gets here is accepted. That ends input; no other chain of nftables at this hook sees it.",
	)
}

// TestChangesOfLongChains: a thousand rules in another order, and ten thousand
// equal ones, are compared without delay.
func TestChangesOfLongChains(t *testing.T) {
	var was, is []ruleset.Rule
	for i := range 1000 {
		was = append(was, comment(fmt.Sprint(i)))
	}
	is = slices.Clone(was)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(is), func(i, j int) { is[i], is[j] = is[j], is[i] })
	a := model(table(ruleset.FamilyInet, "t", nil, chain("c", was...)))
	b := model(table(ruleset.FamilyInet, "t", nil, chain("c", is...)))
	for _, c := range b.Changes(a) {
		if c.Kind != inspect.Moved {
			t.Fatalf("%v", c)
		}
	}
	was, is = nil, nil
	for range 10_000 {
		was, is = append(was, comment("same")), append(is, comment("same"))
	}
	was, is = append(was, comment("x")), append([]ruleset.Rule{comment("y")}, is[:9_000]...)
	a = model(table(ruleset.FamilyInet, "t", nil, chain("c", was...)))
	b = model(table(ruleset.FamilyInet, "t", nil, chain("c", is...)))
	if got := len(b.Changes(a)); got != 1002 {
		t.Errorf("%d changes, want 1000 and 2", got)
	}
}

// TestChangesOfTheKernel: what nft did is what is told, and what was loaded
// again is not different.
func TestChangesOfTheKernel(t *testing.T) {
	ns := nstest.NewNS(t, "changes")
	ns.Exec(t, "nft", `table inet t {
		set s { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90, 192.0.2.1 . 443 }; }
		chain c {
			type filter hook input priority 0;
			ip saddr . tcp dport { 10.0.0.0/8 . 1-5, 192.0.2.1 . 9 } counter accept
			tcp dport { 22, 80, 443 } accept
			ct state vmap { established : accept, invalid : drop }
		}
	}`)
	conn := connect(t, ns)
	before := live(t, conn)
	text := ns.Exec(t, "nft", "list", "ruleset")
	ns.Exec(t, "nft", "flush", "ruleset")
	ns.Exec(t, "nft", text)
	check(t, changed(live(t, conn).Changes(before)), []string{}...)
	ns.Exec(t, "nft", "insert rule inet t c iif lo accept; add element inet t s { 198.51.100.1 . 22 }; add chain inet t c { policy drop; }")
	check(t, changed(live(t, conn).Changes(before)),
		"+ element inet t s 3: 198.51.100.1 . 22",
		"~ chain inet t c: chain c type filter hook input priority filter; policy accept; => chain c type filter hook input priority filter; policy drop;",
		`+ rule inet t c 1: iif "lo" accept`)
}
