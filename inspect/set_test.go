package inspect_test

import (
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

const owner = "net=4f2a9c01d3e5 ep=e1c0ffee0011"

var (
	typePublish = ruleset.ConcatTypes(ruleset.TypeInetProto, ruleset.TypeInetService)
	typeTarget  = ruleset.ConcatTypes(ruleset.TypeIPv4Addr, ruleset.TypeInetService)
	typeAt      = ruleset.ConcatTypes(ruleset.TypeIPv4Addr, ruleset.TypeInetProto, ruleset.TypeInetService)
)

func to(a string, port uint16) ruleset.Value {
	return ruleset.Concat(ruleset.Addr(addr(a)), ruleset.Port(port))
}

// TestPublishedPorts shows an element of a map of published ports, by the way
// in which rules look it up.
func TestPublishedPorts(t *testing.T) {
	tcp8080 := ruleset.Concat(ruleset.Proto(6), ruleset.Port(8080))
	at := ruleset.Concat(ruleset.Addr(addr("127.0.0.1")), ruleset.Proto(6), ruleset.Port(8080))
	lookup := func(kind ruleset.NATKind, key ...ruleset.Expr) ruleset.Rule {
		return rule(ruleset.NAT{Kind: kind, Family: "ip", Key: ruleset.ConcatOf(key...), Map: "m"})
	}
	gate := base("p", "nat", ruleset.HookPrerouting, -100, rule(local, ruleset.JumpTo("x")))
	open := base("o", "nat", ruleset.HookOutput, -100, rule(ruleset.JumpTo("x")))
	rows := []struct {
		name    string
		key     ruleset.Value
		comment string
		chains  []ruleset.Chain
		want    []string
	}{
		{"any address of this host", tcp8080, owner, []ruleset.Chain{gate, chain("x", lookup(ruleset.DNAT, l4proto, ruleset.THDport))},
			[]string{"tcp port 8080 on any IPv4 address of this host goes to 10.0.1.2 port 80, container web-1 of network web."}},
		{"one way without a gate", tcp8080, owner, []ruleset.Chain{gate, open, chain("x", lookup(ruleset.DNAT, l4proto, ruleset.THDport))},
			[]string{"tcp port 8080 on any IPv4 address goes to 10.0.1.2 port 80, container web-1 of network web."}},
		{"one address", at, owner, []ruleset.Chain{gate, chain("x", lookup(ruleset.DNAT, ruleset.IPDaddr, l4proto, ruleset.THDport))},
			[]string{"tcp port 8080 on 127.0.0.1 goes to 10.0.1.2 port 80, container web-1 of network web."}},
		{"no owner", tcp8080, "", []ruleset.Chain{gate, chain("x", lookup(ruleset.DNAT, l4proto, ruleset.THDport))},
			[]string{"tcp port 8080 on any IPv4 address of this host goes to 10.0.1.2 (container web-1) port 80."}},
		{"an owner without a name", tcp8080, "net=aaaaaaaaaaaa ep=bbbbbbbbbbbb", []ruleset.Chain{gate, chain("x", lookup(ruleset.DNAT, l4proto, ruleset.THDport))},
			[]string{"tcp port 8080 on any IPv4 address of this host goes to 10.0.1.2 port 80, endpoint bbbbbbbbbbbb of network aaaaaaaaaaaa."}},
		{"by source", at, owner, []ruleset.Chain{gate, chain("x", lookup(ruleset.DNAT, ruleset.IPSaddr, l4proto, ruleset.THDport))},
			[]string{"A packet that comes from 127.0.0.1 and goes to tcp port 8080 gets the destination 10.0.1.2 port 80, container web-1 of network web."}},
		{"snat", tcp8080, owner, []ruleset.Chain{gate, chain("x", lookup(ruleset.SNAT, l4proto, ruleset.THSport))},
			[]string{"A packet that comes from tcp port 8080 gets the source 10.0.1.2 port 80, container web-1 of network web."}},
		{"nobody", tcp8080, owner, nil, []string{"tcp with 8080 leads to 10.0.1.2 port 80, container web-1 of network web."}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			set := ruleset.Set{Name: "m", Key: row.key.Type, Data: typeTarget, Elements: []ruleset.Element{{Key: row.key, Data: to("10.0.1.2", 80), Comment: row.comment}}}
			check(t, say(named(webNames, table(ruleset.FamilyInet, "t", []ruleset.Set{set}, row.chains...)), object(inspect.KindElement, "m", 0)), row.want...)
		})
	}
}

// TestElements shows the other kinds of elements.
func TestElements(t *testing.T) {
	br := ruleset.Iface("nft-1")
	pair := ruleset.Concat(br, br)
	in := func(key ruleset.Expr) []ruleset.Chain {
		return []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, rule(ruleset.In(key, "s"), drop)), chain("x")}
	}
	vmap := func(key ruleset.Expr) []ruleset.Chain {
		return []ruleset.Chain{base("f", "filter", ruleset.HookForward, 0, rule(ruleset.VMap{Key: key, Map: "s"})), chain("x")}
	}
	verdict := func(key ruleset.Type) ruleset.Set { return ruleset.Set{Key: key, Data: ruleset.TypeVerdict} }
	rows := []struct {
		name    string
		set     ruleset.Set
		element ruleset.Element
		chains  []ruleset.Chain
		want    []string
	}{
		{"bridge", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: br, Comment: "net=4f2a9c01d3e5"}, in(iifname),
			[]string{"Stands for a packet that came in by bridge nft-1 (network web)."}},
		{"nobody looks it up", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: br}, nil, []string{"Holds bridge nft-1 (network web)."}},
		{"two keys", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: ruleset.Iface("eth0"), Comment: owner},
			append(in(iifname), base("g", "filter", ruleset.HookForward, 1, rule(ruleset.In(oifname, "s"), drop))),
			[]string{"Holds interface eth0.", "It is there for container web-1 of network web."}},
		{"a comment of somebody else", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: br, Comment: "uplink"}, in(iifname),
			[]string{"Stands for a packet that came in by bridge nft-1 (network web)."}},
		{"address and port", ruleset.Set{Key: typeAt}, ruleset.Element{Key: ruleset.Concat(ruleset.Addr(addr("10.0.1.2")), ruleset.Proto(17), ruleset.Port(53)), Comment: owner},
			in(ruleset.ConcatOf(ruleset.IPDaddr, l4proto, ruleset.THDport)),
			[]string{"Stands for a packet that goes to udp port 53 of 10.0.1.2 (container web-1).", "It is there for container web-1 of network web."}},
		{"range", ruleset.Set{Key: ruleset.TypeInetService, Flags: []string{"interval"}}, ruleset.Element{Key: ruleset.Port(80), End: ruleset.Port(90)},
			in(field("tcp", "dport")), []string{"Stands for a packet that goes to a tcp port from 80 to 90."}},
		{"prefix", ruleset.Set{Key: ruleset.TypeIPv4Addr}, ruleset.Element{Key: ruleset.Addr(addr("10.0.0.0")), End: ruleset.Addr(addr("10.255.255.255"))},
			in(ruleset.IPSaddr), []string{"Stands for a packet that comes from an address in 10.0.0.0/8."}},
		{"verdict", verdict(ruleset.TypeIfname), ruleset.Element{Key: br, Verdict: ruleset.GotoChain("x")}, vmap(oifname),
			[]string{"A packet that leaves by bridge nft-1 (network web) is sent to chain x for good."}},
		{"verdict of a pair", verdict(pair.Type), ruleset.Element{Key: pair, Verdict: accept}, vmap(ruleset.ConcatOf(iifname, oifname)),
			[]string{"A packet that came in by bridge nft-1 (network web) and leaves by bridge nft-1 (network web) is accepted."}},
		{"verdict for every other", verdict(ruleset.TypeIfname), ruleset.Element{CatchAll: true, Verdict: drop}, vmap(iifname),
			[]string{"Every other packet is dropped."}},
		{"verdict that nobody looks up", verdict(ruleset.TypeIfname), ruleset.Element{Key: br, Verdict: ruleset.JumpTo("x")}, []ruleset.Chain{chain("x")},
			[]string{"For bridge nft-1 (network web) the packet is sent through chain x."}},
		{"verdict that is not understood", verdict(ruleset.TypeIfname), ruleset.Element{Key: br}, vmap(iifname),
			[]string{"? What it does with a packet is not understood yet."}},
		{"a range that a map holds", ruleset.Set{Key: ruleset.TypeIPv4Addr, Data: ruleset.TypeIPv4Addr, DataInterval: true},
			ruleset.Element{Key: ruleset.Addr(addr("10.0.0.1")), Data: ruleset.Addr(addr("10.1.0.0")), DataEnd: ruleset.Addr(addr("10.1.0.7"))}, nil,
			[]string{"10.0.0.1 leads to 10.1.0.0/29."}},
		{"named object", ruleset.Set{Key: ruleset.TypeInetService, Data: "counter"}, ruleset.Element{Key: ruleset.Port(80), Object: "web"}, nil,
			[]string{"80 leads to the counter “web”."}},
		{"every", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{CatchAll: true}, in(iifname), []string{"Stands for every packet."}},
		{"mark for every other", ruleset.Set{Key: ruleset.TypeIPv4Addr, Data: ruleset.TypeMark}, ruleset.Element{CatchAll: true, Data: ruleset.HostUint32(ruleset.TypeMark, 1)}, nil,
			[]string{"every other leads to 0x00000001."}},
		{"counter", ruleset.Set{Key: ruleset.TypeIfname, Counter: true}, ruleset.Element{Key: br, Counter: &ruleset.Counter{Packets: 2, Bytes: 120}}, in(iifname),
			[]string{"Stands for a packet that came in by bridge nft-1 (network web).", "So far 2 packets, 120 B."}},
		{"timeout", ruleset.Set{Key: ruleset.TypeIfname, Flags: []string{"timeout"}}, ruleset.Element{Key: br, Timeout: 60000, Expires: 41300}, in(iifname),
			[]string{"Stands for a packet that came in by bridge nft-1 (network web).", "It goes in 41s."}},
		{"limit", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: br, Extra: []ruleset.Part{ruleset.Limit{Rate: 5, Unit: "second", Burst: 5}}}, in(iifname),
			[]string{"Stands for a packet that came in by bridge nft-1 (network web). With each: limit rate 5/second."}},
		{"quota", ruleset.Set{Key: ruleset.TypeIfname}, ruleset.Element{Key: br, Extra: []ruleset.Part{ruleset.Opaque{Name: "quota"}}}, in(iifname),
			[]string{"? Stands for a packet that came in by bridge nft-1 (network web). With each: “quota” (not understood yet)."}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.set.Name, row.set.Elements = "s", []ruleset.Element{row.element}
			check(t, say(named(webNames, table(ruleset.FamilyInet, "t", []ruleset.Set{row.set}, row.chains...)), object(inspect.KindElement, "s", 0)), row.want...)
		})
	}
}

// TestSets shows what a set holds and who looks it up.
func TestSets(t *testing.T) {
	uses := []ruleset.Chain{
		base("p", "nat", ruleset.HookPrerouting, -100, rule(ruleset.NAT{Kind: ruleset.DNAT, Family: "ip", Key: ruleset.ConcatOf(l4proto, ruleset.THDport), Map: "m"})),
		base("f", "filter", ruleset.HookForward, 0, rule(ruleset.In(iifname, "s"), drop), rule(ruleset.In(oifname, "s"), drop)),
	}
	sets := []ruleset.Set{
		{Name: "s", Key: ruleset.TypeIfname, Flags: []string{"constant", "interval", "timeout", "dynamic"}, Size: 65535, Counter: true, Elements: []ruleset.Element{bridge("eth0")}},
		{Name: "m", Key: typePublish, Data: typeTarget, Counter: true},
		{Name: "w", Key: ruleset.TypeInetService, Data: "counter", Timeout: 90000, Extra: []ruleset.Part{ruleset.Limit{Rate: 5, Unit: "second", Burst: 5}}},
		{Name: "v", Key: ruleset.ConcatTypes(ruleset.TypeCtState, ruleset.TypeDSCP), Data: ruleset.TypeVerdict},
	}
	m := model(table(ruleset.FamilyInet, "t", sets, uses...))
	check(t, say(m, object(inspect.KindSet, "s", 0)),
		"A set; each element is an interface. It holds 1 now. An element may be a range. Elements may go by themselves when their time is up. Rules may add elements while packets pass. It takes no more than 65535.",
		"Looked up by rule 1 of f (input interface) and rule 2 of f (output interface).",
		"Each element counts the packets that were found in it.")
	check(t, say(m, object(inspect.KindSet, "m", 0)),
		"A map from a protocol and a port to an IPv4 address and a port. It holds 0 elements now.",
		"Looked up by rule 1 of p (protocol and destination port).",
		"Each element counts the connections that were found in it: a nat chain sees only the first packet of each.")
	check(t, say(m, object(inspect.KindSet, "v", 0)),
		"A map from a connection state and a value of type dscp to a verdict. It holds 0 elements now.", "No rule looks it up.")
	check(t, say(m, object(inspect.KindSet, "w", 0)),
		"A map from a port to a named counter. It holds 0 elements now. An element goes after 1m30s if it does not say otherwise. With each: limit rate 5/second.", "No rule looks it up.")
	opaque := model(table(ruleset.FamilyInet, "t", sets[2:], base("f", "filter", ruleset.HookForward, 0, rule(ruleset.Opaque{Name: "dynset"}))))
	check(t, say(opaque, object(inspect.KindSet, "v", 0))[1:], "No rule that is understood looks it up.")
}
