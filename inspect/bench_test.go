package inspect_test

import (
	"fmt"
	"io"
	"net/netip"
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

// BenchmarkFindings asks for 100 networks that publish 10 ports each what a
// foreign chain of 1,000 rules does to them.
func BenchmarkFindings(b *testing.B) {
	h := theHost()
	h.Sites = nil
	for i := range 100 {
		s := inspect.Site{Network: inspect.Network{Bridge: fmt.Sprint("nft-", i), Subnets: []inspect.Subnet{
			{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		}}}
		for p := range 10 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 2})
			s.Ports = append(s.Ports, inspect.Port{Proto: ruleset.ProtoTCP, Host: addrPort(fmt.Sprint("0.0.0.0:", 10*i+p+1)), Container: netip.AddrPortFrom(a, uint16(p+1))})
		}
		h.Sites = append(h.Sites, s)
	}
	var rules []ruleset.Rule
	for i := range 1000 {
		rules = append(rules, rule(ruleset.Is(ruleset.IPSaddr, ruleset.Addr(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))), drop))
	}
	m := model(table(ruleset.FamilyInet, "filter", nil, forwardDrop(rules...)))
	for b.Loop() {
		if got := m.Findings(h); len(got) == 0 {
			b.Fatal("nothing was found")
		}
	}
}
