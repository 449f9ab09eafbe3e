package ruleset_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

func ip(s string) rs.Value                { return rs.Addr(netip.MustParseAddr(s)) }
func prefix(s string) netip.Prefix        { return netip.MustParsePrefix(s) }
func meta(key rs.MetaKey) rs.Meta         { return rs.Meta{Key: key} }
func ct(key rs.CtKey) rs.Ct               { return rs.Ct{Key: key} }
func mark(n uint32) rs.Value              { return rs.HostUint32(rs.TypeMark, n) }
func state(n uint32) rs.Value             { return rs.HostUint32(rs.TypeCtState, n) }
func host(n uint32) rs.Value              { return rs.HostUint32(rs.TypeHostInteger, n) }
func bytes(t rs.Type, b ...byte) rs.Value { return rs.Value{Type: t, Data: string(b)} }

func field(proto, name string) rs.Payload {
	f, ok := rs.Field(proto, name)
	if !ok {
		panic("no field " + proto + " " + name)
	}
	return f
}

func anonymous(key rs.Type, elements ...rs.Element) *rs.Set {
	return &rs.Set{Name: "__set0", Key: key, Anonymous: true, Elements: elements}
}

// Where nft can load a part.
const (
	filter = "filter"
	nat    = "nat"
	// nowhere marks what is no line of nft's.
	nowhere = ""
)

// partRows lists a part of each kind and what it looks like in nft's words.
var partRows = []struct {
	part  rs.Part
	text  string
	where string
}{
	{rs.Is(meta(rs.MetaIIFName), rs.Iface("eth0")), `iifname "eth0"`, filter},
	{rs.IsNot(meta(rs.MetaOIFName), rs.Iface("lo")), `oifname != "lo"`, filter},
	{rs.Is(meta(rs.MetaIIFName), bytes(rs.TypeIfname, 'e', 't', 'h')), `iifname "eth*"`, filter},
	{rs.Is(meta(rs.MetaIIFName), rs.Iface("eth*")), `iifname "eth\*"`, filter},
	{rs.Is(meta(rs.MetaL4Proto), rs.Proto(rs.ProtoTCP)), "meta l4proto tcp", filter},
	{rs.Is(meta(rs.MetaL4Proto), rs.Proto(253)), "meta l4proto 253", filter},
	{rs.Is(meta(rs.MetaNFProto), rs.NFProto(rs.NFProtoIPv6)), "meta nfproto ipv6", filter},
	{rs.Is(meta(rs.MetaMark), mark(0x1234)), "meta mark 0x00001234", filter},
	{rs.Compare{Left: meta(rs.MetaMark), Op: rs.Greater, Right: mark(5)}, "meta mark > 0x00000005", filter},
	{rs.Is(meta(rs.MetaLength), host(1500)), "meta length 1500", filter},
	{rs.Is(meta(rs.MetaProtocol), bytes(rs.TypeEtherType, 0x08, 0x06)), "meta protocol arp", filter},
	{rs.Is(meta(rs.MetaProtocol), bytes(rs.TypeEtherType, 0x12, 0x34)), "meta protocol 0x1234", filter},
	{rs.Is(meta(rs.MetaPktType), bytes(rs.TypePktType, 1)), "meta pkttype broadcast", filter},
	{rs.Is(meta(rs.MetaPriority), rs.HostUint32(rs.TypeClassID, 0x1002a)), "meta priority 1:2a", filter},
	{rs.Is(meta(rs.MetaPriority), rs.HostUint32(rs.TypeClassID, 0)), "meta priority none", filter},
	{rs.Is(meta(rs.MetaIIFGroup), rs.HostUint32(rs.TypeDevGroup, 0)), `iifgroup "default"`, filter},
	{rs.Is(meta(rs.MetaSKUID), rs.HostUint32(rs.TypeUID, 1000)), "meta skuid 1000", filter},
	{rs.Is(rs.IPSaddr, ip("192.0.2.1")), "ip saddr 192.0.2.1", filter},
	{rs.Is(rs.IP6Daddr, ip("2001:db8::1")), "ip6 daddr 2001:db8::1", filter},
	{rs.InPrefix{Left: rs.IPDaddr, Op: rs.Equal, Prefix: prefix("127.0.0.0/8")}, "ip daddr 127.0.0.0/8", filter},
	{rs.InPrefix{Left: rs.IP6Saddr, Op: rs.NotEqual, Prefix: prefix("fe80::/10")}, "ip6 saddr != fe80::/10", filter},
	{rs.Compare{Left: rs.IPTTL, Op: rs.Less, Right: bytes(rs.TypeInteger, 5)}, "ip ttl < 5", filter},
	{rs.Is(rs.IPProtocol, rs.Proto(rs.ProtoUDP)), "ip protocol udp", filter},
	{rs.Is(rs.THDport, rs.Port(53)), "th dport 53", filter},
	{rs.InRange{Left: field("tcp", "dport"), From: rs.Port(1000), To: rs.Port(1999)}, "tcp dport 1000-1999", filter},
	{rs.InRange{Left: field("udp", "sport"), Op: rs.NotEqual, From: rs.Port(1), To: rs.Port(9)}, "udp sport != 1-9", filter},
	{rs.InRange{Left: meta(rs.MetaL4Proto), From: rs.Proto(6), To: rs.Proto(17)}, "meta l4proto 6-17", filter},
	{rs.InRange{Left: rs.IPSaddr, From: ip("192.0.2.1"), To: ip("192.0.2.9")}, "ip saddr 192.0.2.1-192.0.2.9", filter},
	{rs.Is(field("icmp", "type"), bytes(rs.TypeICMPType, 8)), "icmp type echo-request", filter},
	{rs.Is(field("icmpv6", "type"), bytes(rs.TypeICMPv6Type, 135)), "icmpv6 type nd-neighbor-solicit", filter},
	{rs.Is(rs.EtherSaddr, bytes(rs.TypeEtherAddr, 2, 0, 0x5e, 0x10, 0, 1)), "ether saddr 02:00:5e:10:00:01", filter},
	{rs.Is(rs.RawPayload(rs.TransportHeader, 4, 2), bytes(rs.TypeInteger, 0x12, 0x34)), "@th,32,16 0x1234", filter},
	{rs.Compare{Left: rs.Masked{Expr: meta(rs.MetaMark), Mask: mark(0xff)}, Op: rs.Equal, Right: mark(1)}, "meta mark & 0x000000ff == 0x00000001", filter},
	{rs.Compare{Left: rs.Masked{Expr: meta(rs.MetaMark), Mask: mark(0xff)}, Op: rs.Greater, Right: mark(1)}, "meta mark & 0x000000ff > 0x00000001", filter},
	{rs.Compare{Left: rs.Masked{Expr: rs.RawPayload(rs.NetworkHeader, 6, 2), Mask: bytes(rs.TypeInteger, 0x1f, 0xff)},
		Op: rs.NotEqual, Right: bytes(rs.TypeInteger, 0, 0)}, "@nh,48,16 & 0x1fff != 0x0", filter},
	{rs.Has(field("tcp", "flags"), bytes(rs.TypeTCPFlag, 2)), "tcp flags syn", filter},
	{rs.HasAny{Left: field("tcp", "flags"), Op: rs.NotEqual, Flags: bytes(rs.TypeTCPFlag, 5)}, "tcp flags ! fin,rst", filter},
	{rs.Is(field("tcp", "flags"), bytes(rs.TypeTCPFlag, 18)), "tcp flags == syn | ack", nowhere}, // nft prints 0x12
	{rs.Is(rs.Masked{Expr: field("tcp", "flags"), Mask: bytes(rs.TypeTCPFlag, 18)}, bytes(rs.TypeTCPFlag, 2)), "tcp flags syn / syn,ack", filter},
	{rs.IsNot(rs.Masked{Expr: field("tcp", "flags"), Mask: bytes(rs.TypeTCPFlag, 2)}, bytes(rs.TypeTCPFlag, 2)), "tcp flags & syn != syn", filter},
	{rs.Has(ct(rs.CtState), state(rs.StateEstablished|rs.StateRelated)), "ct state established,related", filter},
	{rs.IsNot(ct(rs.CtState), state(rs.StateNew)), "ct state != new", filter},
	{rs.Has(ct(rs.CtStatus), rs.HostUint32(rs.TypeCtStatus, rs.StatusDNAT)), "ct status dnat", filter},
	{rs.Is(rs.Ct{Key: rs.CtIPDaddr, Dir: rs.Original}, ip("192.0.2.1")), "ct original ip daddr 192.0.2.1", filter},
	{rs.Is(ct(rs.CtDirection), bytes(rs.TypeCtDir, 1)), "ct direction reply", filter},
	{rs.Is(ct(rs.CtExpiration), rs.HostUint32(rs.TypeTime, 93_784_000)), "ct expiration 1d2h3m4s", filter},
	{rs.Is(ct(rs.CtZone), bytes(rs.TypeHostInteger, 9, 0)), "ct zone 9", filter},
	{rs.Has(ct(rs.CtLabel), bytes(rs.TypeCtLabel, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)), "ct label 9", filter},
	{rs.Is(rs.FibDaddrType, rs.HostUint32(rs.TypeFibAddrType, rs.FibLocal)), "fib daddr type local", filter},
	{rs.Is(rs.Fib{Flags: "saddr . iif", Result: "check"}, bytes(rs.TypeBoolean, 0)), "fib saddr . iif oif missing", filter},
	{rs.Is(rs.Fib{Flags: "daddr", Result: "oifname"}, rs.Iface("eth0")), `fib daddr oifname "eth0"`, filter},
	{rs.In(rs.ConcatOf(rs.IPSaddr, meta(rs.MetaL4Proto), rs.THDport), "triples"), "ip saddr . meta l4proto . th dport @triples", filter},
	{rs.Lookup{Left: rs.THDport, Op: rs.NotEqual, Set: "ports"}, "th dport != @ports", filter},
	{rs.Lookup{Left: rs.THDport, Set: "__set0", Anonymous: anonymous(rs.TypeInetService, rs.Element{Key: rs.Port(22)},
		rs.Element{Key: rs.Port(80), End: rs.Port(90)})}, "th dport { 22, 80-90 }", filter},
	{rs.Lookup{Left: rs.IPSaddr, Set: "__set0", Anonymous: anonymous(rs.TypeIPv4Addr,
		rs.Element{Key: ip("10.0.0.0"), End: ip("10.255.255.255")}, rs.Element{Key: ip("192.0.2.1"), End: ip("192.0.2.3")})},
		"ip saddr { 10.0.0.0/8, 192.0.2.1-192.0.2.3 }", filter},
	{rs.Counter{Packets: 3, Bytes: 200}, "counter packets 3 bytes 200", filter},
	{rs.Verdict{Kind: rs.Accept}, "accept", filter},
	{rs.Verdict{Kind: rs.Drop}, "drop", filter},
	{rs.Verdict{Kind: rs.Continue}, "continue", filter},
	{rs.Verdict{Kind: rs.Return}, "return", filter},
	{rs.JumpTo("other"), "jump other", filter},
	{rs.GotoChain("other"), "goto other", filter},
	{rs.VMap{Key: meta(rs.MetaIIFName), Map: "verdicts"}, "iifname vmap @verdicts", filter},
	{rs.VMap{Key: ct(rs.CtState), Map: "__map0", Anonymous: anonymous(rs.TypeCtState,
		rs.Element{Key: state(2), Verdict: rs.Verdict{Kind: rs.Accept}}, rs.Element{Key: state(8), Verdict: rs.JumpTo("other")})},
		"ct state vmap { established : accept, new : jump other }", filter},
	{rs.Reject{}, "reject", filter},
	{rs.Reject{With: "tcp reset"}, "reject with tcp reset", nowhere}, // nft asks for "meta l4proto tcp" before it
	{rs.Reject{With: "icmpx admin-prohibited"}, "reject with icmpx admin-prohibited", filter},
	{rs.Log{}, "log", filter},
	{rs.Log{Prefix: `a \ b`, Level: "info"}, `log prefix "a \ b" level info`, filter},
	{rs.Log{Prefix: "x", Group: 0, HasGroup: true}, `log prefix "x" group 0`, filter},
	{rs.Limit{Rate: 5, Unit: "second", Burst: 5}, "limit rate 5/second", filter},
	{rs.Limit{Rate: 5, Unit: "week", Burst: 9, Over: true}, "limit rate over 5/week burst 9 packets", filter},
	{rs.Limit{Rate: 3 << 20, Unit: "hour", Bytes: true}, "limit rate 3 mbytes/hour", filter},
	{rs.Limit{Rate: 1025, Unit: "day", Burst: 2048, Bytes: true}, "limit rate 1025 bytes/day burst 2 kbytes", filter},
	{rs.Mangle{Left: meta(rs.MetaMark), Right: mark(7)}, "meta mark set 0x00000007", filter},
	{rs.Mangle{Left: ct(rs.CtMark), Right: mark(7)}, "ct mark set 0x00000007", filter},
	{rs.Notrack{}, "notrack", nowhere}, // only before conntrack
	{rs.NAT{Kind: rs.DNAT, Family: "ip", Addr: ip("192.0.2.1"), Port: rs.Port(80)}, "dnat ip to 192.0.2.1:80", nowhere},
	{rs.NAT{Kind: rs.DNAT, Family: "ip6", Addr: ip("2001:db8::1")}, "dnat ip6 to 2001:db8::1", nat},
	{rs.NAT{Kind: rs.DNAT, Addr: ip("2001:db8::1"), Port: rs.Port(80)}, "dnat to [2001:db8::1]:80", nowhere},
	{rs.NAT{Kind: rs.DNAT, Family: "ip", Port: rs.Port(80)}, "dnat ip to :80", nowhere}, // needs a port to translate
	{rs.NAT{Kind: rs.DNAT, Family: "ip", Key: rs.ConcatOf(meta(rs.MetaL4Proto), rs.THDport), Map: "publish"},
		"dnat ip to meta l4proto . th dport map @publish", nat},
	{rs.NAT{Kind: rs.SNAT, Family: "ip", Addr: ip("192.0.2.1"), Flags: []string{"random", "persistent"}},
		"snat ip to 192.0.2.1 random,persistent", nowhere}, // of another hook
	{rs.Masquerade{}, "masquerade", nowhere},
	{rs.Masquerade{Flags: []string{"fully-random"}}, "masquerade fully-random", nowhere},
	{rs.Redirect{}, "redirect", nat},
	{rs.Redirect{Port: rs.Port(80), Flags: []string{"random"}}, "redirect to :80 random", nowhere},
	{rs.Compat{Name: "comment", Revision: 0, Info: "x"}, `xt match comment`, nowhere},
	{rs.Compat{Target: true, Name: "MARK"}, `xt target MARK`, nowhere},
	{rs.Opaque{Name: "quota", Data: "\x01\xff"}, `unknown "quota" 0x01ff`, nowhere},
	// Values that do not fit their type are shown as bytes.
	{rs.Is(rs.IPSaddr, bytes(rs.TypeIPv4Addr, 1, 2)), "ip saddr 0x0102", nowhere},
	{rs.Is(rs.THDport, rs.Value{Type: rs.TypeInetService}), "th dport 0x", nowhere},
	{rs.Is(meta(rs.MetaIIFName), bytes(rs.TypeIfname, 'a', 0, 'b', 0)), "iifname 0x61006200", nowhere},
	{rs.Is(meta("colour"), bytes("colour", 7)), "meta colour 0x07", nowhere},
	{rs.Has(ct(rs.CtState), state(0x80000002)), "ct state established,0x80000000", nowhere},
	{rs.Is(ct(rs.CtHelper), bytes(rs.TypeString, 'a', '"', 'b', '\n')), `ct helper "a\"b\n"`, nowhere},
}

func TestPartsPrintInTheWordsOfNft(t *testing.T) {
	for _, row := range partRows {
		if got := row.part.String(); got != row.text {
			t.Errorf("%#v prints %q, want %q", row.part, got, row.text)
		}
	}
}

// TestTextOfPartsIsNfts asks nft itself for the texts of the table above.
func TestTextOfPartsIsNfts(t *testing.T) {
	ns := nstest.NewNS(t, "text")
	for _, where := range []string{filter, nat} {
		var want []string
		file := fmt.Sprintf(`table inet t {
			set ports { type inet_service; }
			set triples { type ipv4_addr . inet_proto . inet_service; }
			map verdicts { type ifname : verdict; }
			map publish { type inet_proto . inet_service : ipv4_addr . inet_service; }
			chain other { }
			chain c { type %s hook prerouting priority 0; policy accept; }
		}
		`, where)
		for _, row := range partRows {
			if row.where == where {
				want = append(want, row.text)
				file += "add rule inet t c " + row.text + "\n"
			}
		}
		path := filepath.Join(t.TempDir(), "rules.nft")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		ns.Exec(t, "nft", "-f", path)
		var got []string
		for line := range strings.Lines(ns.Exec(t, "nft", "list", "chain", "inet", "t", "c") + "\n") {
			if rule, ok := strings.CutPrefix(line, "\t\t"); ok && !strings.HasPrefix(rule, "type ") {
				got = append(got, strings.TrimSuffix(rule, "\n"))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
			t.Errorf("(-ours +nft's)\n%s", diff)
		}
		ns.Exec(t, "nft", "flush", "ruleset")
	}
}

func TestTableTextIsNfts(t *testing.T) {
	ns := nstest.NewNS(t, "table")
	long := rs.Set{Name: "long", Key: rs.TypeInetService}
	for i := range uint16(12) {
		long.Elements = append(long.Elements, rs.Element{Key: rs.Port(i + 1)})
	}
	table := rs.Table{Family: rs.FamilyInet, Name: "t", Flags: []string{"dormant"}, Sets: []rs.Set{
		long,
		{Name: "hosts", Key: rs.TypeIPv4Addr, Flags: []string{"interval"}, AutoMerge: true, Comment: "of the net", Elements: []rs.Element{
			{Key: ip("192.0.2.1"), End: ip("192.0.2.3")}, {Key: ip("192.0.2.7"), Comment: "one"}, {Key: ip("198.51.100.0"), End: ip("198.51.100.255")},
		}},
		{Name: "seen", Key: rs.TypeIPv4Addr, Size: 99, Flags: []string{"dynamic", "timeout"}, Policy: "memory", Timeout: 60_000,
			GCInterval: 5_000, Counter: true},
		{Name: "pairs", Key: rs.ConcatTypes(rs.TypeIfname, rs.TypeInetService), Data: rs.TypeVerdict, Elements: []rs.Element{
			{Key: rs.Concat(rs.Iface("a"), rs.Port(1)), Verdict: rs.JumpTo("leaf")}, {Key: rs.Concat(rs.Iface("b"), rs.Port(2)), Verdict: rs.Verdict{Kind: rs.Drop}},
		}},
		{Name: "marks", Key: rs.TypeMark, Data: rs.TypeMark, Elements: []rs.Element{{Key: mark(1), Data: mark(2)}, {CatchAll: true, Data: mark(3)}}},
		{Name: "__set0", Key: rs.TypeMark, Anonymous: true},
	}, Chains: []rs.Chain{
		{Name: "leaf"},
		{Name: "in", Base: &rs.Base{Type: "filter", Hook: rs.HookInput, Priority: rs.PriorityFilter + 5, Policy: rs.Drop}, Rules: []rs.Rule{
			rs.NewRule(rs.In(rs.THDport, "long"), rs.Verdict{Kind: rs.Accept}).Because("a comment, of ours"), rs.NewRule(rs.JumpTo("leaf")),
		}},
		{Name: "dev", Base: &rs.Base{Type: "filter", Hook: rs.HookIngress, Devices: []string{"lo"}, Policy: rs.Accept}},
	}}
	text := rs.Ruleset{Tables: []rs.Table{table}}.String()
	path := filepath.Join(t.TempDir(), "table.nft")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "-f", path)
	if diff := cmp.Diff(text, ns.Exec(t, "nft", "-s", "list", "ruleset")+"\n"); diff != "" {
		t.Errorf("(-ours +nft's)\n%s", diff)
	}
}

func TestPrioritiesPrintAsNftNamesThem(t *testing.T) {
	ns := nstest.NewNS(t, "priority")
	inet := []rs.Hook{rs.HookPrerouting, rs.HookInput, rs.HookForward, rs.HookOutput, rs.HookPostrouting}
	hooks := map[rs.Family][]rs.Hook{
		rs.FamilyInet: inet, rs.FamilyIP: inet, rs.FamilyBridge: inet, rs.FamilyARP: {rs.HookInput, rs.HookOutput}, rs.FamilyNetdev: {rs.HookIngress},
	}
	var want []string
	var file strings.Builder
	for _, family := range rs.Families {
		fmt.Fprintf(&file, "table %s t {\n", family)
		for _, hook := range hooks[family] {
			for _, near := range []int32{-300, -200, -150, -100, 0, 50, 100, 300} {
				for _, d := range []int32{-11, -10, -1, 0, 1, 10, 11} {
					b := rs.Base{Type: "filter", Hook: hook, Priority: near + d, Policy: rs.Accept, Family: family}
					if hook == rs.HookIngress {
						b.Devices = []string{"lo"}
					}
					want = append(want, b.String())
					number := strings.Replace(b.String(), "priority "+b.PriorityText(), fmt.Sprint("priority ", b.Priority), 1)
					fmt.Fprintf(&file, "chain c%d { %s }\n", len(want), number)
				}
			}
		}
		file.WriteString("}\n")
	}
	path := filepath.Join(t.TempDir(), "priority.nft")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "-f", path)
	var got []string
	for line := range strings.Lines(ns.Exec(t, "nft", "list", "ruleset")) {
		if text, ok := strings.CutPrefix(line, "\t\ttype"); ok {
			got = append(got, "type"+strings.TrimSuffix(text, "\n"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-ours +nft's)\n%s", diff)
	}
	// A number without a name near it, and the table's family left out.
	for _, b := range []rs.Base{{Type: "nat", Hook: rs.HookOutput, Priority: rs.PriorityDstNAT, Policy: rs.Accept},
		{Type: "filter", Hook: rs.HookInput, Priority: -2147483648, Policy: rs.Accept}} {
		if want := fmt.Sprintf("type %s hook %s priority %d; policy accept;", b.Type, b.Hook, b.Priority); b.String() != want {
			t.Errorf("prints %s, want %s", b, want)
		}
	}
}

func TestHandlesPrintBehindTheirObjects(t *testing.T) {
	table := rs.Table{Family: rs.FamilyIP, Name: "t", Handle: 1, Sets: []rs.Set{{Name: "s", Key: rs.TypeMark, Handle: 2}},
		Chains: []rs.Chain{{Name: "c", Handle: 3, Rules: []rs.Rule{{Parts: []rs.Part{rs.Counter{Packets: 1, Bytes: 2}}, Handle: 4}}}}}
	want := "table ip t { # handle 1\n\tset s { # handle 2\n\t\ttype mark\n\t}\n\n" +
		"\tchain c { # handle 3\n\t\tcounter packets 1 bytes 2 # handle 4\n\t}\n}\n"
	if diff := cmp.Diff(want, table.Text(rs.Format{Handles: true})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestChangesPrintAsCommandsOfNft(t *testing.T) {
	chain := rs.Chain{Name: "c", Base: &rs.Base{Type: "filter", Hook: rs.HookInput, Policy: rs.Accept}}
	set := rs.Set{Name: "s", Key: rs.TypeInetService, Counter: true, Comment: "ports"}
	verdicts := rs.Set{Name: "v", Key: rs.TypeInetService, Data: rs.TypeVerdict}
	rule := rs.NewRule(rs.In(rs.THDport, "s"), rs.Counter{Packets: 9}, rs.Verdict{Kind: rs.Drop}).Because("why")
	to := func(c rs.Change) rs.Change {
		c.Family, c.Table = rs.FamilyInet, "t"
		return c
	}
	rows := []struct {
		change rs.Change
		text   string
	}{
		{to(rs.Change{Verb: rs.Add, Flags: []string{"dormant"}}), "add table inet t { flags dormant; }"},
		{to(rs.Change{Verb: rs.Add, Set: &set}), `add set inet t s { type inet_service; counter; comment "ports"; }`},
		{to(rs.Change{Verb: rs.Add, Set: &verdicts}), "add map inet t v { type inet_service : verdict; }"},
		{to(rs.Change{Verb: rs.Add, Chain: &chain}), "add chain inet t c { type filter hook input priority filter; policy accept; }"},
		{to(rs.Change{Verb: rs.Add, Chain: &rs.Chain{Name: "d"}}), "add chain inet t d"},
		{to(rs.Change{Verb: rs.Add, Chain: &chain, Rule: &rule}), `add rule inet t c th dport @s counter drop comment "why"`},
		{to(rs.Change{Verb: rs.Add, Set: &verdicts, Elements: []rs.Element{{Key: rs.Port(1), Verdict: rs.JumpTo("d")}, {Key: rs.Port(2), Verdict: rs.Verdict{Kind: rs.Drop}}}}),
			"add element inet t v { 1 : jump d, 2 : drop }"},
		{to(rs.Change{Verb: rs.Delete, Set: &verdicts, Elements: []rs.Element{{Key: rs.Port(1), Verdict: rs.JumpTo("d")}}}), "delete element inet t v { 1 : jump d }"},
		{to(rs.Change{Verb: rs.Flush, Chain: &chain}), "flush chain inet t c"},
		{to(rs.Change{Verb: rs.Delete, Chain: &chain}), "delete chain inet t c"},
		{to(rs.Change{Verb: rs.Delete, Set: &set}), "delete set inet t s"},
		{to(rs.Change{Verb: rs.Delete}), "delete table inet t"},
	}
	var batch rs.Batch
	for _, row := range rows {
		if got := row.change.String(); got != row.text {
			t.Errorf("prints %q, want %q", got, row.text)
		}
		batch = append(batch, row.change)
	}
	// A batch is a file for nft.
	ns := nstest.NewNS(t, "batch")
	path := filepath.Join(t.TempDir(), "batch.nft")
	if err := os.WriteFile(path, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "-f", path)
}

var knownTypes = []rs.Type{
	rs.TypeVerdict, rs.TypeNFProto, rs.TypeBitmask, rs.TypeInteger, rs.TypeString, rs.TypeLLAddr, rs.TypeIPv4Addr, rs.TypeIPv6Addr,
	rs.TypeEtherAddr, rs.TypeEtherType, rs.TypeARPOp, rs.TypeInetProto, rs.TypeInetService, rs.TypeICMPType, rs.TypeTCPFlag, rs.TypeTime,
	rs.TypeMark, rs.TypeIfIndex, rs.TypeIfType, rs.TypeRealm, rs.TypeClassID, rs.TypeUID, rs.TypeGID, rs.TypeCtState, rs.TypeCtDir,
	rs.TypeCtStatus, rs.TypeICMPv6Type, rs.TypeCtLabel, rs.TypePktType, rs.TypeICMPCode, rs.TypeICMPv6Code, rs.TypeICMPXCode,
	rs.TypeDevGroup, rs.TypeDSCP, rs.TypeECN, rs.TypeFibAddrType, rs.TypeBoolean, rs.TypeCtEvent, rs.TypeIfname, rs.TypeIGMPType,
}

func TestTypesComeBackFromTheirNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := rs.ConcatTypes(rapid.SliceOfN(rapid.SampledFrom(knownTypes), 1, 5).Draw(t, "parts")...)
		if got := rs.TypeByID(typ.ID()); got != typ || !got.Known() {
			t.Fatalf("%s comes back as %s", typ, got)
		}
	})
	for _, id := range []uint32{63, 7<<6 | 63, 1 << 31} {
		if got := rs.TypeByID(id); got.Known() || !strings.Contains(string(got), fmt.Sprint(id)) {
			t.Errorf("the unknown number %d becomes %s", id, got)
		}
	}
}

func TestConcatenationsComeApartAgain(t *testing.T) {
	sized := slices.DeleteFunc(slices.Clone(knownTypes), func(t rs.Type) bool { return t.Size() == 0 })
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.Custom(func(t *rapid.T) rs.Value {
			typ := rapid.SampledFrom(sized).Draw(t, "type")
			return rs.Value{Type: typ, Data: string(rapid.SliceOfN(rapid.Byte(), typ.Size(), typ.Size()).Draw(t, "data"))}
		})
		parts := rapid.SliceOfN(part, 1, 4).Draw(t, "parts")
		v := rs.Concat(parts...)
		if diff := cmp.Diff(parts, v.Parts()); diff != "" && len(parts) > 1 {
			t.Fatalf("(-in +out)\n%s", diff)
		}
		if len(parts) > 1 && v.Type.Size() != len(v.Data) {
			t.Fatalf("%s: %d bytes, want %d", v.Type, len(v.Data), v.Type.Size())
		}
	})
	odd := rs.Value{Type: rs.ConcatTypes(rs.TypeIPv4Addr, rs.TypeInetService), Data: "abc"}
	if got := odd.String(); got != "0x616263" {
		t.Errorf("bytes that do not fit print as %s", got)
	}
	open := rs.Value{Type: rs.ConcatTypes(rs.TypeInetService, rs.TypeInteger), Data: "\x00\x50\x00\x00\x00\x00\x00\x07"}
	if got := open.String(); got != "80 . 7" {
		t.Errorf("a part without a length of its own prints as %s", got)
	}
}

// TestValuesNeverPanic prints bytes of any length as any type: a foreign program
// may put anything into the kernel.
func TestValuesNeverPanic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := rs.ConcatTypes(rapid.SliceOfN(rapid.SampledFrom(append(knownTypes, rs.TypeHostInteger, "colour")), 1, 3).Draw(t, "type")...)
		a := rs.Value{Type: typ, Data: string(rapid.SliceOf(rapid.Byte()).Draw(t, "a"))}
		b := rs.Value{Type: typ, Data: string(rapid.SliceOf(rapid.Byte()).Draw(t, "b"))}
		for _, text := range []string{
			a.String(), rs.Element{Key: a, End: b, Data: b, DataEnd: a}.String(), rs.Is(rs.THDport, a).String(),
			rs.InRange{Left: rs.THDport, From: a, To: b}.String(), rs.Has(rs.THDport, a).String(),
			rs.Is(rs.Masked{Expr: rs.THDport, Mask: a}, b).String(),
		} {
			if text == "" || strings.ContainsAny(text, "\n\x00\x1b") {
				t.Fatalf("prints %q", text)
			}
		}
	})
}
