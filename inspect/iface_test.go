package inspect_test

import (
	"slices"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// TestInterfacesThatAreNotThere: at output a packet has no input interface, at
// prerouting and input no output interface, and what the host itself sends has
// no input interface at postrouting. A name is then empty: a test for a name
// fails, one for another name holds.
func TestInterfacesThatAreNotThere(t *testing.T) {
	eth0 := ruleset.Iface("eth0")
	index := func(n uint32) ruleset.Value { return ruleset.HostUint32(ruleset.TypeIfIndex, n) }
	oif := ruleset.Meta{Key: ruleset.MetaOIF}
	iif := ruleset.Meta{Key: ruleset.MetaIIF}
	group := ruleset.Meta{Key: ruleset.MetaIIFGroup}
	const (
		noIn  = "At hook output a packet has no input interface: "
		noOut = "At hook input a packet has no output interface: "
		never = "none passes that test here."
		ever  = "every one passes that test here."
	)
	rows := []struct {
		name  string
		hooks []ruleset.Hook
		part  ruleset.Part
		want  []string
	}{
		{"forward", []ruleset.Hook{ruleset.HookForward}, ruleset.Is(iifname, eth0), nil},
		{"iifname at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.Is(iifname, eth0), []string{"! " + noIn + never}},
		{"another iifname at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.IsNot(iifname, eth0), []string{noIn + ever}},
		{"no iifname at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.Is(iifname, ruleset.Iface("")), []string{noIn + ever}},
		{"oifname at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.Is(oifname, eth0), nil},
		{"oifname at input", []ruleset.Hook{ruleset.HookInput}, ruleset.Is(oifname, eth0), []string{"! " + noOut + never}},
		{"set at input", []ruleset.Hook{ruleset.HookInput}, ruleset.In(oifname, "s"), []string{"! " + noOut + never}},
		{"not in a set at input", []ruleset.Hook{ruleset.HookInput}, ruleset.Lookup{Left: oifname, Op: ruleset.NotEqual, Set: "s"}, []string{noOut + ever}},
		{"pair at input", []ruleset.Hook{ruleset.HookInput}, ruleset.In(ruleset.ConcatOf(iifname, oifname), "s"), []string{"! " + noOut + never}},
		{"index at input", []ruleset.Hook{ruleset.HookInput}, ruleset.Is(oif, index(2)), []string{"! " + noOut + never}},
		{"index 0 at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.Is(iif, index(0)), []string{noIn + ever}},
		{"not index 0 at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.IsNot(iif, index(0)), []string{"! " + noIn + never}},
		{"not index 77 at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.IsNot(iif, index(77)), []string{noIn + ever}},
		// A group cannot be read where there is no interface.
		{"another group at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.IsNot(group, ruleset.HostUint32(ruleset.TypeDevGroup, 1)), []string{"! " + noIn + never}},
		{"map at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.VMap{Key: iifname, Map: "m"},
			[]string{"At hook output a packet has no input interface: nothing is found for it."}},
		{"iifname at two hooks", []ruleset.Hook{ruleset.HookOutput, ruleset.HookPrerouting}, ruleset.Is(iifname, eth0),
			[]string{"Packets from hook output have no input interface and never pass that test."}},
		{"another iifname at two hooks", []ruleset.Hook{ruleset.HookOutput, ruleset.HookPrerouting}, ruleset.IsNot(iifname, eth0),
			[]string{"Packets from hook output have no input interface and always pass that test."}},
		{"iifname at postrouting", []ruleset.Hook{ruleset.HookPostrouting}, ruleset.Is(iifname, eth0),
			[]string{"What this host itself sends has no input interface at hook postrouting and never passes that test."}},
		{"another iifname at postrouting", []ruleset.Hook{ruleset.HookPostrouting}, ruleset.IsNot(iifname, eth0),
			[]string{"What this host itself sends has no input interface at hook postrouting and always passes that test."}},
		{"map at postrouting", []ruleset.Hook{ruleset.HookPostrouting}, ruleset.VMap{Key: iifname, Map: "m"},
			[]string{"What this host itself sends has no input interface at hook postrouting: nothing is found for it."}},
		{"mark at output", []ruleset.Hook{ruleset.HookOutput}, ruleset.Is(mark, ruleset.HostUint32(ruleset.TypeMark, 1)), nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			chains := []ruleset.Chain{chain("x", rule(row.part, counter))}
			for _, h := range row.hooks {
				chains = append(chains, base(string(h), "filter", h, 0, rule(ruleset.JumpTo("x"))))
			}
			sets := []ruleset.Set{{Name: "s", Key: ruleset.TypeIfname}, {Name: "m", Key: ruleset.TypeIfname, Data: ruleset.TypeVerdict}}
			check(t, say(model(table(ruleset.FamilyInet, "t", sets, chains...)), object(inspect.KindRule, "x", 0))[1:], append([]string{}, row.want...)...)
		})
	}
	// Who may come by a rule that is not understood may have an interface.
	verdicts := ruleset.Set{Name: "m", Key: ruleset.TypeIfname, Data: ruleset.TypeVerdict,
		Elements: []ruleset.Element{{Key: eth0, Verdict: ruleset.JumpTo("x")}}}
	m := model(table(ruleset.FamilyInet, "t", []ruleset.Set{verdicts}, chain("x", rule(ruleset.Is(iifname, eth0), counter)),
		base("o", "filter", ruleset.HookOutput, 0, rule(ruleset.JumpTo("x"))), base("f", "filter", ruleset.HookForward, 0, rule(ruleset.Opaque{Name: "lookup"}))))
	if got := say(m, object(inspect.KindRule, "x", 0)); !slices.Contains(got, "Packets from hook output have no input interface and never pass that test.") {
		t.Errorf("%q", got)
	}
}
