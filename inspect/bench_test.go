package inspect_test

import (
	"fmt"
	"io"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
)

// BenchmarkText explains a host with 10,000 rules, 10,000 chains behind a map
// and 10,000 published ports.
func BenchmarkText(b *testing.B) {
	const n = 10000
	verdicts := ruleset.Set{Name: "v", Key: ruleset.TypeMark, Data: ruleset.TypeVerdict}
	ports := ruleset.Set{Name: "m", Key: typePublish, Data: typeTarget}
	var rules []ruleset.Rule
	chains := []ruleset.Chain{base("p", "nat", ruleset.HookPrerouting, -100, rule(local, ruleset.JumpTo("x"))),
		chain("x", rule(ruleset.NAT{Kind: ruleset.DNAT, Family: "ip", Key: ruleset.ConcatOf(l4proto, ruleset.THDport), Map: "m"}))}
	for i := range n {
		name := fmt.Sprint("c", i)
		verdicts.Elements = append(verdicts.Elements, ruleset.Element{Key: ruleset.HostUint32(ruleset.TypeMark, uint32(i)), Verdict: ruleset.JumpTo(name)})
		ports.Elements = append(ports.Elements, ruleset.Element{Key: ruleset.Concat(ruleset.Proto(6), ruleset.Port(uint16(i))), Data: to("10.0.1.2", 80), Comment: owner})
		rules = append(rules, rule(ruleset.Is(ruleset.IPDaddr, ruleset.Addr(addr("10.0.1.2"))), ruleset.Is(field("tcp", "dport"), ruleset.Port(uint16(i))), counter, accept))
		chains = append(chains, chain(name, rule(counter)))
	}
	rules = append(rules, rule(ruleset.VMap{Key: mark, Map: "v"}))
	chains = append(chains, base("f", "filter", ruleset.HookForward, 0, rules...))
	rs := ruleset.Ruleset{Tables: []ruleset.Table{table(ruleset.FamilyInet, "t", []ruleset.Set{verdicts, ports}, chains...)}}
	for b.Loop() {
		m := inspect.NewModel(rs, webNames)
		if err := view.Text(io.Discard, m, view.Options{All: true}); err != nil {
			b.Fatal(err)
		}
	}
}
