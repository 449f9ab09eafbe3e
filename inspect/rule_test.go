package inspect_test

import (
	"net/netip"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// TestConditions shows each match, which stands in a chain of its own with
// accept behind it.
func TestConditions(t *testing.T) {
	tcp, udp := ruleset.Proto(ruleset.ProtoTCP), ruleset.Proto(ruleset.ProtoUDP)
	dport := field("tcp", "dport")
	is, isNot := ruleset.Is, ruleset.IsNot
	flags := func(b byte) ruleset.Value { return ruleset.Value{Type: ruleset.TypeTCPFlag, Data: string([]byte{b})} }
	ports := &ruleset.Set{Anonymous: true, Key: ruleset.TypeInetService, Elements: []ruleset.Element{
		{Key: ruleset.Port(80)}, {Key: ruleset.Port(443)}, {Key: ruleset.Port(8000), End: ruleset.Port(8010)},
	}}
	many := &ruleset.Set{Anonymous: true, Key: ruleset.TypeInetService}
	for p := range uint16(8) {
		many.Elements = append(many.Elements, ruleset.Element{Key: ruleset.Port(p + 1)})
	}
	states := &ruleset.Set{Anonymous: true, Key: ruleset.TypeCtState, Elements: []ruleset.Element{
		{Key: state(ruleset.StateEstablished)}, {Key: state(ruleset.StateRelated)},
	}}
	rows := []struct {
		match ruleset.Match
		want  string
	}{
		{is(iifname, ruleset.Iface("eth0")), "came in by interface eth0"},
		{isNot(iifname, ruleset.Iface("eth0")), "did not come in by interface eth0"},
		{is(oifname, ruleset.Iface("nft-1")), "leaves by bridge nft-1 (network web)"},
		{isNot(oifname, ruleset.Iface("nft-1")), "does not leave by bridge nft-1 (network web)"},
		{is(iifname, ruleset.Value{Type: ruleset.TypeIfname, Data: "veth"}), "came in by an interface whose name begins with veth"},
		{is(ruleset.Meta{Key: ruleset.MetaIIF}, ruleset.HostUint32(ruleset.TypeIfIndex, 1)), "came in by interface lo"},
		{is(ruleset.Meta{Key: ruleset.MetaOIF}, ruleset.HostUint32(ruleset.TypeIfIndex, 7)), "leaves by the interface with number 7"},
		{ruleset.In(iifname, "bridges"), "came in by an interface in set bridges (2 elements)"},
		{ruleset.In(iifname, "gone"), "came in by an interface in set gone"},
		{is(ruleset.IPSaddr, ruleset.Addr(addr("10.0.1.2"))), "comes from 10.0.1.2 (container web-1)"},
		{is(ruleset.IPDaddr, ruleset.Addr(addr("10.0.1.1"))), "goes to 10.0.1.1 (this host in network web)"},
		{isNot(ruleset.IPDaddr, ruleset.Addr(addr("192.0.2.1"))), "is IPv4 and does not go to 192.0.2.1"},
		{isNot(ruleset.IP6Daddr, ruleset.Addr(addr("2001:db8::1"))), "is IPv6 and does not go to 2001:db8::1"},
		{ruleset.InPrefix{Left: ruleset.IPSaddr, Prefix: prefix("10.0.1.0/24")}, "comes from an address in 10.0.1.0/24 (network web)"},
		{ruleset.InPrefix{Left: ruleset.IPDaddr, Prefix: prefix("127.0.0.0/8")}, "goes to an address in 127.0.0.0/8 (loopback)"},
		{ruleset.InPrefix{Left: ruleset.IP6Saddr, Op: ruleset.NotEqual, Prefix: prefix("fe80::/10")},
			"is IPv6 and does not come from an address in fe80::/10 (link-local)"},
		{ruleset.InRange{Left: ruleset.IPSaddr, From: ruleset.Addr(addr("10.0.0.1")), To: ruleset.Addr(addr("10.0.0.9"))},
			"comes from an address from 10.0.0.1 to 10.0.0.9"},
		{is(dport, ruleset.Port(80)), "goes to tcp port 80"},
		{isNot(dport, ruleset.Port(80)), "is tcp and does not go to tcp port 80"},
		{is(field("udp", "sport"), ruleset.Port(53)), "comes from udp port 53"},
		{is(ruleset.THDport, ruleset.Port(53)), "goes to port 53"},
		{ruleset.InRange{Left: dport, From: ruleset.Port(8000), To: ruleset.Port(8010)}, "goes to a tcp port from 8000 to 8010"},
		{ruleset.Compare{Left: dport, Op: ruleset.Less, Right: ruleset.Port(1024)}, "goes to a tcp port below 1024"},
		{ruleset.Lookup{Left: dport, Anonymous: ports}, "goes to tcp port 80, 443 or 8000-8010"},
		{ruleset.Lookup{Left: dport, Anonymous: many}, "goes to tcp port 1, 2, 3, 4, 5 or 3 more"},
		{ruleset.Lookup{Left: dport, Op: ruleset.NotEqual, Set: "open"}, "is tcp and does not go to a tcp port in set open (1 element)"},
		{is(l4proto, tcp), "is tcp"},
		{ruleset.In(l4proto, "open"), "has protocol in set open (1 element)"},
		{ruleset.Lookup{Left: ruleset.FibDaddrType, Anonymous: &ruleset.Set{Elements: []ruleset.Element{
			{Key: ruleset.HostUint32(ruleset.TypeFibAddrType, 3)}, {Key: ruleset.HostUint32(ruleset.TypeFibAddrType, 5)},
		}}}, "goes to an address that is broadcast or multicast by the routing table"},
		{isNot(l4proto, udp), "is not udp"},
		{is(ruleset.IPProtocol, tcp), "is tcp"},
		{is(ruleset.IP6NextHdr, tcp), "has next header tcp"},
		{is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv4)), "is IPv4"},
		{is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv6)), "is IPv6"},
		{is(field("icmp", "type"), ruleset.Value{Type: ruleset.TypeICMPType, Data: "\x08"}), "is icmp of type echo-request"},
		{isNot(field("icmpv6", "type"), ruleset.Value{Type: ruleset.TypeICMPv6Type, Data: "\x80"}), "is icmpv6 of another type than echo-request"},
		{is(mark, ruleset.HostUint32(ruleset.TypeMark, 2)), "carries mark 0x00000002"},
		{is(ruleset.Masked{Expr: mark, Mask: ruleset.HostUint32(ruleset.TypeMark, 3)}, ruleset.HostUint32(ruleset.TypeMark, 2)),
			"has 0x00000002 in the bits 0x00000003 of its mark"},
		{is(ruleset.Meta{Key: ruleset.MetaSKUID}, ruleset.HostUint32(ruleset.TypeUID, 1000)), "was sent by a program of user 1000"},
		{isNot(ruleset.Meta{Key: ruleset.MetaSKUID}, ruleset.HostUint32(ruleset.TypeUID, 0)), "was sent by a program of another user than 0"},
		{ruleset.Has(ctState, state(ruleset.StateEstablished|ruleset.StateRelated)),
			"belongs to an established connection or a connection that another one brought about (related)"},
		{ruleset.Lookup{Left: ctState, Anonymous: states},
			"belongs to an established connection or a connection that another one brought about (related)"},
		{is(ctState, state(ruleset.StateNew)), "belongs to a new connection"},
		{ruleset.HasAny{Left: ctState, Op: ruleset.NotEqual, Flags: state(ruleset.StateInvalid)},
			"does not belong to an invalid connection (one that tracking cannot make out)"},
		{is(ctState, state(ruleset.StateNew|ruleset.StateInvalid)), "has connection state invalid,new"},
		{ruleset.Has(ctStat, ruleset.HostUint32(ruleset.TypeCtStatus, ruleset.StatusDNAT)),
			"belongs to a connection whose destination was translated (it came in through a published port or another dnat)"},
		{ruleset.HasAny{Left: ctStat, Op: ruleset.NotEqual, Flags: ruleset.HostUint32(ruleset.TypeCtStatus, ruleset.StatusDNAT)},
			"belongs to a connection whose destination was not translated"},
		{ruleset.Has(ctStat, ruleset.HostUint32(ruleset.TypeCtStatus, 6)), "belongs to a connection with status seen-reply or assured"},
		{is(ruleset.Ct{Key: ruleset.CtProtoDst, Dir: ruleset.Original}, ruleset.Port(8080)),
			"belongs to a connection that was first aimed at port 8080"},
		{is(ruleset.Ct{Key: ruleset.CtIPSaddr, Dir: ruleset.Original}, ruleset.Addr(addr("10.0.1.2"))),
			"belongs to a connection that was begun by 10.0.1.2 (container web-1)"},
		{is(ruleset.Ct{Key: ruleset.CtMark}, ruleset.HostUint32(ruleset.TypeMark, 1)), "has connection mark 0x00000001"},
		{local, "goes to an address of this host itself (loopback included)"},
		{is(ruleset.FibDaddrType, ruleset.HostUint32(ruleset.TypeFibAddrType, 3)), "goes to an address that is broadcast by the routing table"},
		{is(ruleset.Fib{Flags: "saddr . iif", Result: "oif"}, ruleset.HostUint32(ruleset.TypeIfIndex, 0)),
			"came in by an interface by which no route leads back to its source"},
		{is(ruleset.Fib{Flags: "daddr . iif", Result: "type"}, ruleset.HostUint32(ruleset.TypeFibAddrType, 2)),
			"has routing answer for daddr . iif (type) local"},
		{ruleset.HasAny{Left: field("tcp", "flags"), Flags: flags(0x12)}, "has tcp flag syn or ack set"},
		{is(field("tcp", "flags"), flags(0x12)), "has of the tcp flags exactly syn ack set"},
		{is(ruleset.Masked{Expr: field("tcp", "flags"), Mask: flags(0x17)}, flags(2)), "has of the tcp flags fin syn rst ack exactly syn set"},
		{ruleset.In(ruleset.ConcatOf(iifname, oifname), "pairs"),
			"has its input interface and output interface together in set pairs (1 element)"},
		{is(ruleset.RawPayload(ruleset.NetworkHeader, 6, 2), ruleset.Value{Type: ruleset.TypeInteger, Data: "\x00\x05"}),
			"has 5 in the 16 bits at bit 48 of the network header"},
		{ruleset.Compare{Left: ruleset.IPTTL, Op: ruleset.LessOrEqual, Right: ruleset.Value{Type: ruleset.TypeInteger, Data: "\x05"}},
			"has time to live at most 5"},
	}
	sets := []ruleset.Set{
		{Name: "bridges", Key: ruleset.TypeIfname, Elements: []ruleset.Element{bridge("nft-1"), bridge("nft-2")}},
		{Name: "open", Key: ruleset.TypeInetService, Elements: []ruleset.Element{{Key: ruleset.Port(80)}}},
		{Name: "pairs", Key: ruleset.ConcatTypes(ruleset.TypeIfname, ruleset.TypeIfname), Elements: []ruleset.Element{
			{Key: ruleset.Concat(ruleset.Iface("a"), ruleset.Iface("b"))},
		}},
	}
	for _, row := range rows {
		m := named(webNames, table(ruleset.FamilyInet, "t", sets, base("c", "filter", ruleset.HookForward, 0, rule(row.match, drop))))
		check(t, say(m, object(inspect.KindRule, "c", 0)), "A packet that "+row.want+" is dropped. Nothing later sees it.")
	}
}

var webNames = inspect.Names{
	Networks: []inspect.Network{{
		ID: "4f2a9c01d3e5b6a7", Name: "web", Bridge: "nft-1",
		Subnets: []inspect.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
	}},
	Endpoints: []inspect.Endpoint{{
		ID: "e1c0ffee0011aabb", NetworkID: "4f2a9c01d3e5b6a7", Container: "web-1",
		Addrs: []netip.Addr{addr("10.0.1.2"), addr("fd00:1::2")},
	}},
}

// TestActions shows each statement in a nat chain or a filter chain, as the
// first of two rules.
func TestActions(t *testing.T) {
	const next = " It then goes on to the next rule."
	const decided = " That decides the translation: no later nat rule at this hook is asked, chains of other types still see the packet."
	to := ruleset.Addr(addr("10.0.1.2"))
	rows := []struct {
		parts []ruleset.Part
		typ   string
		want  []string
	}{
		{parts: []ruleset.Part{counter}, want: []string{"Every packet that gets here is counted." + next}},
		{parts: []ruleset.Part{counter}, typ: "nat", want: []string{"Every packet that gets here is counted (once for each connection)." + next}},
		{parts: []ruleset.Part{ruleset.Counter{Packets: 3, Bytes: 4200}}, want: []string{
			"Every packet that gets here is counted." + next, "So far 3 packets, 4.2 kB."}},
		{parts: []ruleset.Part{ruleset.Counter{Packets: 1, Bytes: 60}}, typ: "nat", want: []string{
			"Every packet that gets here is counted (once for each connection)." + next,
			"So far the first packet of 1 connection."}},
		{parts: []ruleset.Part{ruleset.Log{Prefix: "in: "}, drop}, want: []string{
			`Every packet that gets here is written to the kernel's log as "in: " and dropped. Nothing later sees it.`}},
		{parts: []ruleset.Part{ruleset.Log{Group: 5, HasGroup: true}}, want: []string{
			"Every packet that gets here is handed to netlink group 5 for logging." + next}},
		{parts: []ruleset.Part{ruleset.Mangle{Left: mark, Right: ruleset.HostUint32(ruleset.TypeMark, 1)}},
			want: []string{"Every packet that gets here is given mark 0x00000001." + next}},
		{parts: []ruleset.Part{ruleset.Mangle{Left: ruleset.Meta{Key: ruleset.MetaNFTrace}, Right: ruleset.Value{Type: ruleset.TypeBoolean, Data: "\x01"}}},
			want: []string{"Every packet that gets here is marked for tracing (nft monitor trace shows its way)." + next}},
		{parts: []ruleset.Part{ruleset.Notrack{}}, want: []string{"Every packet that gets here is kept out of connection tracking." + next}},
		{parts: []ruleset.Part{ruleset.Reject{}}, want: []string{
			"Every packet that gets here is refused: dropped, and its sender is told so (port-unreachable). Nothing later sees it."}},
		{parts: []ruleset.Part{ruleset.Reject{With: "tcp reset"}}, want: []string{
			"Every packet that gets here is refused: dropped, and its sender is told so (tcp reset). Nothing later sees it."}},
		{parts: []ruleset.Part{ruleset.Verdict{Kind: ruleset.Queue}}, want: []string{
			"Every packet that gets here is handed to a program (queue). That program decides about it."}},
		{parts: []ruleset.Part{ruleset.Limit{Rate: 10, Unit: "minute", Burst: 5}, accept}, want: []string{
			"A packet that keeps within 10 packets per minute (bursts of 5) is accepted. That ends c; no other chain of nftables at this hook sees it."}},
		{parts: []ruleset.Part{ruleset.Limit{Rate: 1024, Unit: "second", Over: true, Bytes: true}, drop}, want: []string{
			"A packet that goes beyond 1024 bytes per second is dropped. Nothing later sees it."}},
		{parts: []ruleset.Part{ruleset.Masquerade{}}, typ: "nat", want: []string{
			"Every packet that gets here is given the address of the interface that it leaves by as its source (masquerade)." + decided}},
		{parts: []ruleset.Part{ruleset.Masquerade{Flags: []string{"random"}}}, typ: "nat", want: []string{
			"Every packet that gets here is given the address of the interface that it leaves by as its source (masquerade) (random)." + decided}},
		{parts: []ruleset.Part{ruleset.Redirect{Port: ruleset.Port(3000)}}, typ: "nat", want: []string{
			"Every packet that gets here is sent to this host itself, port 3000 (redirect)." + decided}},
		{parts: []ruleset.Part{ruleset.NAT{Kind: ruleset.DNAT, Family: "ip", Addr: to, Port: ruleset.Port(80)}}, typ: "nat", want: []string{
			"A packet that is IPv4 is given the destination 10.0.1.2 (container web-1) port 80." + decided}},
		{parts: []ruleset.Part{ruleset.Is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv4)), ruleset.NAT{Kind: ruleset.SNAT, Family: "ip", Addr: to}},
			typ: "nat", want: []string{"A packet that is IPv4 is given the source 10.0.1.2 (container web-1)." + decided}},
		{parts: []ruleset.Part{ruleset.NAT{Kind: ruleset.DNAT, Family: "ip", Key: ruleset.ConcatOf(l4proto, ruleset.THDport), Map: "pub"}}, typ: "nat", want: []string{
			"A packet that is IPv4 is given the destination that map pub (0 elements) holds for its protocol and destination port." + decided +
				" One that the map does not hold goes on to the next rule."}},
		// A statement before a match acts on what the match then stops.
		{parts: []ruleset.Part{counter, ruleset.Is(l4proto, ruleset.Proto(6)), accept}, want: []string{
			"Every packet that gets here is counted; one of these that is tcp is accepted. That ends c; no other chain of nftables at this hook sees it."}},
		{parts: []ruleset.Part{ruleset.Is(l4proto, ruleset.Proto(6))}, want: []string{"A packet that is tcp is left as it is." + next}},
		{parts: nil, want: []string{"This rule has no parts: nothing happens to a packet." + next}},
		// continue goes on in the rule; nothing stands behind a verdict that ends it.
		{parts: []ruleset.Part{ruleset.Verdict{Kind: ruleset.Continue}, counter}, want: []string{"Every packet that gets here is counted." + next}},
		{parts: []ruleset.Part{drop, counter}, want: []string{
			"Every packet that gets here is dropped. Nothing later sees it. No packet gets to the rest of this rule: counter packets 0 bytes 0."}},
		{parts: []ruleset.Part{ruleset.Is(field("tcp", "dport"), ruleset.Port(22)), ruleset.Is(ruleset.IPDaddr, to), drop}, want: []string{
			"A packet that goes to tcp port 22 of 10.0.1.2 (container web-1) is dropped. Nothing later sees it."}},
		// Address and port of one side become one phrase, also with something between.
		{parts: []ruleset.Part{ruleset.Is(ruleset.IPSaddr, to), ruleset.Is(ruleset.IPDaddr, ruleset.Addr(addr("10.0.1.3"))),
			ruleset.Is(field("tcp", "sport"), ruleset.Port(80)), drop}, want: []string{
			"A packet that comes from tcp port 80 of 10.0.1.2 (container web-1) and goes to 10.0.1.3 is dropped. Nothing later sees it."}},
	}
	for _, row := range rows {
		if row.typ == "" {
			row.typ = "filter"
		}
		sets := []ruleset.Set{{Name: "pub", Key: ruleset.ConcatTypes(ruleset.TypeInetProto, ruleset.TypeInetService),
			Data: ruleset.ConcatTypes(ruleset.TypeIPv4Addr, ruleset.TypeInetService)}}
		m := named(webNames, table(ruleset.FamilyInet, "t", sets,
			base("c", row.typ, ruleset.HookPostrouting, 100, rule(row.parts...), rule(counter))))
		check(t, say(m, object(inspect.KindRule, "c", 0)), row.want...)
	}
}

// TestPartsNotUnderstood: they are named, and nothing is claimed about them.
func TestPartsNotUnderstood(t *testing.T) {
	osf := ruleset.Opaque{Name: "osf", Data: "\x01"}
	recent := ruleset.Compat{Name: "recent"}
	rows := []struct {
		parts []ruleset.Part
		want  string
	}{
		{[]ruleset.Part{osf, drop},
			"? A packet that gets past the part “osf” (not understood yet) is dropped. Nothing later sees it."},
		{[]ruleset.Part{ruleset.Is(l4proto, ruleset.Proto(6)), recent, counter, drop},
			"? A packet that is tcp and gets past the part “xt match recent” (not understood yet) is counted and dropped. Nothing later sees it."},
		{[]ruleset.Part{osf, recent, accept},
			"? A packet that gets past the parts “osf” and “xt match recent” (not understood yet) is accepted. That ends c; no other chain of nftables at this hook sees it."},
		{[]ruleset.Part{ruleset.Is(l4proto, ruleset.Proto(6)), ruleset.Opaque{Name: "dup"}},
			"? A packet that is tcp is given to the part “dup” (not understood yet). What that does to it is not known: unless it ends the packet's way, it goes on to the next rule."},
		{[]ruleset.Part{counter, ruleset.Compat{Target: true, Name: "TPROXY"}},
			"? Every packet that gets here is counted and handed to the iptables target “TPROXY” (not understood yet). What becomes of it then depends on that target."},
	}
	for _, row := range rows {
		m := model(table(ruleset.FamilyInet, "t", nil, base("c", "filter", ruleset.HookForward, 0, rule(row.parts...), rule(counter))))
		check(t, say(m, object(inspect.KindRule, "c", 0)), row.want)
		if got := m.Unknown(); len(got) != 1 || got[0] != object(inspect.KindRule, "c", 0) {
			t.Errorf("unknown: %v", got)
		}
	}
}
