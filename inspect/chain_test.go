package inspect_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// first is what the first sentence on an object says.
func first(m *inspect.Model, o inspect.Object) string {
	notes := m.Explain(o)
	if len(notes) == 0 {
		return ""
	}
	return notes[0].Sentence
}

// TestVerdicts: accept ends one base chain only, drop everything, return in a
// base chain means its policy, jump comes back and goto does not.
func TestVerdicts(t *testing.T) {
	const every = "Every packet that gets here is "
	accepts := rule(accept)
	rows := []struct {
		name   string
		chains []ruleset.Chain
		others []ruleset.Table
		ask    string
		want   string
	}{
		{name: "accept, nothing later", chains: []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, accepts)}, ask: "f",
			want: every + "accepted. That ends f; no other chain of nftables at this hook sees it."},
		{name: "accept, a later chain", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, accepts), base("g", "filter", ruleset.HookForward, 10), base("e", "filter", ruleset.HookForward, -10),
		}, ask: "f", want: every + "accepted. That ends only f; at hook forward there still follows: g."},
		{name: "accept, a chain of a table of one family", chains: []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, accepts)},
			others: []ruleset.Table{table(ruleset.FamilyIP, "u", nil, base("F", "filter", ruleset.HookForward, 1))}, ask: "f",
			want: every + "accepted. That ends only f; at hook forward there still follows: F of table ip u."},
		{name: "accept, an equal priority", chains: []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, accepts)},
			others: []ruleset.Table{table(ruleset.FamilyIP, "u", nil, base("F", "filter", ruleset.HookForward, 0))}, ask: "f",
			want: every + "accepted. That ends only f; at hook forward there still follows: perhaps F of table ip u."},
		{name: "accept in a chain of two hooks", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x"))), base("i", "filter", ruleset.HookInput, 0, rule(ruleset.JumpTo("x"))),
			base("j", "filter", ruleset.HookInput, 1), chain("x", accepts),
		}, ask: "x", want: every + "accepted. That ends only the base chain by which it came (i or f); later chains at the hook still see it."},
		{name: "accept in a chain that nothing calls", chains: []ruleset.Chain{chain("x", accepts)}, ask: "x",
			want: every + "accepted. That ends the base chain by which it came; later chains at the hook still see it."},
		{name: "drop", chains: []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, rule(drop)), base("g", "filter", ruleset.HookForward, 10)},
			ask: "f", want: every + "dropped. Nothing later sees it."},
		{name: "return in a base chain", chains: []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, rule(ret))}, ask: "f",
			want: every + "taken out of this chain. It then meets the policy of f (accept)."},
		{name: "return", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(counter), rule(ruleset.JumpTo("x"))), chain("x", rule(ret)),
		}, ask: "x", want: every + "taken out of this chain. It then goes on after rule 2 of f."},
		{name: "return after goto", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.GotoChain("x")), rule(counter)), chain("x", rule(ret)),
		}, ask: "x", want: every + "taken out of this chain. It then meets the policy of f (accept)."},
		{name: "return after jump and goto", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x"))), chain("x", rule(ruleset.GotoChain("y"))), chain("y", rule(ret)),
		}, ask: "y", want: every + "taken out of this chain. It then goes on after rule 1 of f."},
		{name: "return where nothing calls", chains: []ruleset.Chain{chain("x", rule(ret))}, ask: "x",
			want: every + "taken out of this chain. It then goes back to the chain that called this one."},
		{name: "jump", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x")), rule(counter)), chain("x", rule(counter)),
		}, ask: "f", want: every + "sent through chain x. If nothing there decides, it comes back and goes on to the next rule."},
		{name: "jump in the last rule", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x"))), chain("x", rule(counter)),
		}, ask: "f", want: every + "sent through chain x. If nothing there decides, it comes back and meets the policy of f (accept)."},
		{name: "jump to an empty chain", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x")), rule(counter)), chain("x"),
		}, ask: "f", want: every + "sent through chain x. That chain is empty, so it comes straight back and goes on to the next rule."},
		{name: "goto", chains: []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.GotoChain("x")), rule(counter)), chain("x"),
		}, ask: "f", want: every + "sent to chain x for good. It does not come back here: from the end of x it meets the policy of f (accept)."},
		{name: "a circle of jumps", chains: []ruleset.Chain{chain("x", rule(ruleset.GotoChain("y"))), chain("y", rule(ruleset.GotoChain("x")))}, ask: "x",
			want: every + "sent to chain y for good. It does not come back here: from the end of y it goes back to the chain that called this one."},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := model(append([]ruleset.Table{table(ruleset.FamilyInet, "t", nil, row.chains...)}, row.others...)...)
			if got := first(m, object(inspect.KindRule, row.ask, 0)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

// TestVerdictMaps shows what a rule says of its map.
func TestVerdictMaps(t *testing.T) {
	verdict := func(name string, v ruleset.Verdict) ruleset.Element {
		return ruleset.Element{Key: ruleset.Iface(name), Verdict: v}
	}
	named := func(elements ...ruleset.Element) (ruleset.VMap, []ruleset.Set) {
		return ruleset.VMap{Key: iifname, Map: "m"}, []ruleset.Set{{Name: "m", Key: ruleset.TypeIfname, Data: ruleset.TypeVerdict, Elements: elements}}
	}
	every := ruleset.Element{CatchAll: true, Verdict: drop}
	rows := []struct {
		name     string
		elements []ruleset.Element
		want     string
	}{
		{"empty", nil, "Every packet that gets here is treated as map m (0 elements) says for its input interface. One that is not there goes on to the next rule."},
		{"verdicts", []ruleset.Element{verdict("a", accept), verdict("b", drop), verdict("c", drop)},
			"Every packet that gets here is treated as map m (3 elements) says for its input interface. The map now says: accept or drop. One that is not there goes on to the next rule."},
		{"jumps come back", []ruleset.Element{verdict("a", ruleset.JumpTo("x"))},
			"Every packet that gets here is treated as map m (1 element) says for its input interface. The map now says: go through chain x. One that is not there, or that comes back undecided, goes on to the next rule."},
		{"a verdict for every other", []ruleset.Element{verdict("a", accept), every},
			"Every packet that gets here is treated as map m (2 elements) says for its input interface. The map now says: accept or drop."},
		{"jumps, and a verdict for every other", []ruleset.Element{verdict("a", ruleset.JumpTo("x")), every},
			"Every packet that gets here is treated as map m (2 elements) says for its input interface. The map now says: go through chain x or drop. One that comes back undecided goes on to the next rule."},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			v, sets := named(row.elements...)
			m := model(table(ruleset.FamilyInet, "t", sets, base("f", "filter", ruleset.HookForward, 0, rule(v), rule(counter)), chain("x", rule(counter))))
			if got := first(m, object(inspect.KindRule, "f", 0)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
	v, sets := named(verdict("a", ruleset.Verdict{Kind: ruleset.Continue}), verdict("b", drop))
	goesOn := model(table(ruleset.FamilyInet, "t", sets, base("f", "filter", ruleset.HookForward, 0, rule(v, counter, accept))))
	check(t, say(goesOn, object(inspect.KindRule, "f", 0)),
		"Every packet that gets here is treated as map m (2 elements) says for its input interface; one of these that is told by the map to go on is counted and accepted. "+
			"The map now says: go on or drop. One that is not there meets the policy of f (accept). That ends f; no other chain of nftables at this hook sees it.")
	anonymous := &ruleset.Set{Name: "__map0", Anonymous: true, Key: ruleset.TypeCtState, Data: ruleset.TypeVerdict, Elements: []ruleset.Element{
		{Key: state(ruleset.StateInvalid), Verdict: drop}, {Key: state(ruleset.StateNew), Verdict: ruleset.JumpTo("x")},
	}}
	m := model(table(ruleset.FamilyInet, "t", nil, base("f", "filter", ruleset.HookForward, 0,
		rule(ruleset.VMap{Key: ctState, Map: "__map0", Anonymous: anonymous})), chain("x", rule(counter))))
	check(t, say(m, object(inspect.KindRule, "f", 0)),
		"Every packet that gets here is treated by its connection state (invalid: drop, new: go through chain x). One that is not there, or that comes back undecided, meets the policy of f (accept).")
	check(t, say(m, object(inspect.KindChain, "x", 0)),
		"A packet gets here by rule 1 of f (jump).", "So it sees packets at hook forward (from f).",
		"A packet that no rule here decides goes on after rule 1 of f.")
}

// TestOrder: the chains of all tables at a hook, in the order in which the
// kernel calls them.
func TestOrder(t *testing.T) {
	m := model(
		table(ruleset.FamilyInet, "t", nil,
			base("late", "filter", ruleset.HookOutput, 200), base("nat2", "nat", ruleset.HookOutput, 300),
			base("between", "filter", ruleset.HookOutput, -50), base("nat1", "nat", ruleset.HookOutput, -150),
			base("beside", "filter", ruleset.HookOutput, -100)),
		table(ruleset.FamilyIP, "four", nil, base("first", "filter", ruleset.HookOutput, -300), base("same4", "filter", ruleset.HookOutput, 0)),
		table(ruleset.FamilyIP6, "six", nil, base("same6", "filter", ruleset.HookOutput, 0)),
		table(ruleset.FamilyBridge, "br", nil, base("frames", "filter", ruleset.HookOutput, -200)),
		ruleset.Table{Family: ruleset.FamilyIP, Name: "off", Flags: []string{"dormant"}, Chains: []ruleset.Chain{base("never", "filter", ruleset.HookOutput, 0)}},
	)
	var hooks []string
	for _, h := range m.Hooks {
		hooks = append(hooks, h.Object.String())
	}
	check(t, hooks, "hook bridge output", "hook ip prerouting", "hook ip input", "hook ip forward", "hook ip output", "hook ip postrouting")
	h, _ := m.Hook(inspect.Object{Kind: inspect.KindHook, Layer: inspect.LayerIP, Hook: ruleset.HookOutput})
	var got []string
	for _, b := range h.Chains {
		mark := ""
		if b.Unordered {
			mark = " ?"
		}
		got = append(got, fmt.Sprintf("%d %s%s", b.At, b.Chain.Name, mark))
	}
	// Nat chains run together at -100 whatever their own number, and beside
	// "beside" in an order that is not known. same4 and same6 meet no packet
	// together.
	check(t, got, "-300 first", "-100 beside ?", "-100 nat1 ?", "-100 nat2 ?", "-50 between", "0 same4", "0 same6", "200 late")
	check(t, say(m, object(inspect.KindChain, "nat2", 0)),
		"A base chain of type nat: the kernel calls it at hook output for every IPv4 and IPv6 packet, at priority 300. "+
			"Nat chains are called together when the kernel translates, at -100: its own number only orders it among them.",
		"Before it at this hook: first of table ip four and nat1. After it: between, same4 of table ip four, same6 of table ip6 six and late. "+
			"At the same priority, in an order that the kernel does not tell: beside.",
		"Policy accept: a packet that gets to the end goes on to what comes after this chain.")
	never := inspect.Object{Kind: inspect.KindChain, Family: ruleset.FamilyIP, Table: "off", Chain: "never"}
	check(t, say(m, never), "! The table is dormant: the kernel does not call this chain.",
		"Policy accept: a packet that gets to the end goes on to what comes after this chain.")
	never.Kind, never.Chain = inspect.KindTable, ""
	check(t, say(m, never), "A table for IPv4.", "! It is dormant: the kernel calls none of its chains.")
}

// TestHooks shows the sentences on hooks.
func TestHooks(t *testing.T) {
	ingress := ruleset.Chain{Name: "in", Base: &ruleset.Base{
		Type: "filter", Hook: ruleset.HookIngress, Priority: 0, Policy: ruleset.Drop, Devices: []string{"eth0", "eth1"},
	}}
	m := model(table(ruleset.FamilyNetdev, "n", nil, ingress), table(ruleset.FamilyARP, "a", nil, base("i", "filter", ruleset.HookInput, 0)),
		table(ruleset.FamilyInet, "t", nil, base("f", "filter", ruleset.HookForward, 0), base("g", "route", ruleset.HookForward, 0)))
	got := map[string][]string{}
	for _, h := range m.Hooks {
		got[h.Object.String()] = say(m, h.Object)
	}
	want := map[string][]string{
		"hook device ingress eth0": {"Every packet as it comes from interface eth0, before everything else.", "One chain is called here: in of table netdev n (0)."},
		"hook device ingress eth1": {"Every packet as it comes from interface eth1, before everything else.", "One chain is called here: in of table netdev n (0)."},
		"hook arp input":           {"ARP packets that come in.", "One chain is called here: i of table arp a (0)."},
		"hook ip prerouting":       {"Every packet that comes in by an interface, before routing decides where it goes; also what this host sends to itself by lo. Destinations are translated here.", "No chain is called here."},
		"hook ip input":            {"Packets for this host itself, before a program gets them.", "No chain is called here."},
		"hook ip forward": {
			"Packets that this host passes on from one interface to another, to and from containers too. What this host itself sends or receives does not come here.",
			"2 chains are called here, in this order as far as it can be known: f of table inet t (0), g of table inet t (0).",
			"Of chains with the same number the kernel calls first the one that was made last; it does not tell which that is.",
		},
		"hook ip output":      {"Packets that this host itself sends. They have no input interface.", "No chain is called here."},
		"hook ip postrouting": {"Every packet that is about to leave by an interface, passed on or of this host's own. Sources are translated here.", "No chain is called here."},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	check(t, say(m, inspect.Object{Kind: inspect.KindChain, Family: ruleset.FamilyNetdev, Table: "n", Chain: "in"}),
		"A base chain of type filter: the kernel calls it at hook ingress of eth0 and hook ingress of eth1 for every packet, at priority 0 (filter).",
		"No other chain of nftables is called at hook ingress of eth0 for these packets.",
		"Policy drop: a packet that gets to the end is dropped.")
}

// TestChains shows how a packet gets to a regular chain and where its end
// leads.
func TestChains(t *testing.T) {
	jumps := func(n int) []ruleset.Element {
		var out []ruleset.Element
		for i := range n {
			out = append(out, ruleset.Element{Key: ruleset.Iface(fmt.Sprint("br", i)), Verdict: ruleset.JumpTo("x")})
		}
		return out
	}
	verdicts := ruleset.Set{Name: "m", Key: ruleset.TypeIfname, Data: ruleset.TypeVerdict, Elements: jumps(2)}
	vmap := rule(ruleset.VMap{Key: iifname, Map: "m"})
	rows := []struct {
		name   string
		sets   []ruleset.Set
		chains []ruleset.Chain
		want   []string
	}{
		{"nothing leads here", nil, []ruleset.Chain{chain("x", rule(counter))}, []string{"Nothing leads here: no packet meets these rules."}},
		{"nothing that is understood leads here", nil, []ruleset.Chain{chain("x"), base("f", "filter", ruleset.HookForward, 0, rule(ruleset.Opaque{Name: "lookup"}))},
			[]string{"No rule that is understood leads here."}},
		{"a map", []ruleset.Set{verdicts}, []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, vmap), chain("x", rule(counter))}, []string{
			"A packet gets here by rule 1 of f (jump in 2 elements of map m).", "So it sees packets at hook forward (from f).",
			"A packet that no rule here decides goes on after rule 1 of f."}},
		{"a map that nobody looks up", []ruleset.Set{verdicts}, []ruleset.Chain{chain("x", rule(accept))}, []string{
			"A packet gets here by 2 elements of map m (jump), which no rule that is understood looks up."}},
		{"jump and goto", nil, []ruleset.Chain{
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x")), rule(ruleset.GotoChain("x"))), chain("x"),
		}, []string{
			"A packet gets here by rule 1 of f (jump) or rule 2 of f (goto).", "So it sees packets at hook forward (from f).",
			"It is empty: a packet meets the policy of f (accept) or goes on after rule 1 of f."}},
		{"nat", nil, []ruleset.Chain{base("p", "nat", ruleset.HookPrerouting, -100, rule(ruleset.JumpTo("x"))), chain("x", rule(counter))}, []string{
			"A packet gets here by rule 1 of p (jump).", "So it sees packets at hook prerouting (from p).",
			"A packet that no rule here decides goes on after rule 1 of p.",
			"Only the first packet of each connection comes here: counters count connections, not packets."}},
		{"nat and filter", nil, []ruleset.Chain{base("p", "nat", ruleset.HookPrerouting, -100, rule(ruleset.JumpTo("x"))),
			base("f", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("x"))), chain("x", rule(drop))}, []string{
			"A packet gets here by rule 1 of p (jump) or rule 1 of f (jump).", "So it sees packets at hook prerouting (from p) and hook forward (from f)."}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			check(t, say(model(table(ruleset.FamilyInet, "t", row.sets, row.chains...)), object(inspect.KindChain, "x", 0)), row.want...)
		})
	}
}

// TestUserChain: DOCKER-USER gets its story as far as the callers bear it out.
func TestUserChain(t *testing.T) {
	const story = "By Docker's custom this chain belongs to the user of the host, for rules that stand before those made for containers."
	const hint = " Destinations are translated before this hook, so a published port is matched by its number on the host as “meta l4proto tcp ct original proto-dst 8080”." +
		" What this host itself sends does not come here."
	rows := []struct {
		name   string
		chains []ruleset.Chain
		want   string
	}{
		{"first", []ruleset.Chain{base("FORWARD", "filter", ruleset.HookForward, 0, rule(ruleset.JumpTo("DOCKER-USER")), rule(accept), rule(counter))},
			story + " FORWARD comes here first: accept here skips the 2 rules behind it there, drop ends the packet's way, return or the end of this chain goes on to them." + hint},
		{"second", []ruleset.Chain{base("FORWARD", "filter", ruleset.HookForward, 0, rule(counter), rule(ruleset.JumpTo("DOCKER-USER")))}, story + hint},
		{"at output", []ruleset.Chain{base("OUTPUT", "filter", ruleset.HookOutput, 0, rule(ruleset.JumpTo("DOCKER-USER")))}, story},
		{"not called", nil, story},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := model(table(ruleset.FamilyInet, "t", nil, append(row.chains, chain("DOCKER-USER"))...))
			i := slices.IndexFunc(m.Explain(object(inspect.KindChain, "DOCKER-USER", 0)), func(n inspect.Note) bool { return n.Topic == inspect.TopicCustom })
			if got := m.Explain(object(inspect.KindChain, "DOCKER-USER", 0))[i].Sentence; got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

// TestNeverReached: a rule behind one that takes every packet says so, with
// that rule as evidence.
func TestNeverReached(t *testing.T) {
	m := model(table(ruleset.FamilyInet, "t", nil, base("f", "filter", ruleset.HookForward, 0,
		rule(ruleset.Is(l4proto, ruleset.Proto(6)), drop), rule(counter, drop), rule(accept))))
	want := []inspect.Note{
		{Object: object(inspect.KindRule, "f", 2), Level: inspect.Info, Topic: inspect.TopicWhat,
			Sentence: "Every packet that gets here is accepted. That ends f; no other chain of nftables at this hook sees it."},
		{Object: object(inspect.KindRule, "f", 2), Level: inspect.Warn, Topic: inspect.TopicReach,
			Sentence: "No packet gets here: rule 2 of f takes every one.",
			Evidence: []inspect.Evidence{{Object: object(inspect.KindRule, "f", 1), Text: "counter drop"}}},
	}
	if d := cmp.Diff(want, m.Explain(object(inspect.KindRule, "f", 2))); d != "" {
		t.Error(d)
	}
	if notes := m.Explain(object(inspect.KindRule, "f", 1)); len(notes) != 1 {
		t.Errorf("rule 2 is reached: %v", notes)
	}
}

// TestReadingOrder: each base chain with what it calls, what nothing calls
// last.
func TestReadingOrder(t *testing.T) {
	tab := table(ruleset.FamilyInet, "t", nil, chain("unused"), chain("b"), base("post", "nat", ruleset.HookPostrouting, 100), chain("circle1", rule(ruleset.JumpTo("circle2"))),
		chain("circle2", rule(ruleset.JumpTo("circle1"))), chain("a", rule(ruleset.JumpTo("b"))), base("pre", "filter", ruleset.HookPrerouting, 0, rule(ruleset.JumpTo("a"))))
	m := model(tab)
	var got []string
	for _, c := range m.Order(&m.Ruleset.Tables[0]) {
		got = append(got, c.Name)
	}
	check(t, got, "pre", "a", "b", "post", "unused", "circle1", "circle2")
}

// TestObjectsThatAreNotThere have no notes.
func TestObjectsThatAreNotThere(t *testing.T) {
	m := model(table(ruleset.FamilyInet, "t", []ruleset.Set{{Name: "s", Key: ruleset.TypeIfname}}, base("f", "filter", ruleset.HookForward, 0)))
	for _, o := range []inspect.Object{
		{}, {Kind: inspect.KindHook}, {Kind: inspect.KindTable, Family: ruleset.FamilyIP, Table: "t"},
		object(inspect.KindChain, "x", 0), object(inspect.KindRule, "f", 0), object(inspect.KindRule, "f", -1), object(inspect.KindSet, "x", 0), object(inspect.KindElement, "s", 0),
	} {
		if notes := m.Explain(o); len(notes) > 0 {
			t.Errorf("%s: %v", o, notes)
		}
	}
	if m.Callers(object(inspect.KindChain, "x", 0)) != nil || m.Uses(object(inspect.KindSet, "x", 0)) != nil {
		t.Error("there are callers and users")
	}
	check(t, say(model(), inspect.Object{Kind: inspect.KindRuleset}), "There are no tables: nftables lets every packet pass.")
}
