package kernel

import (
	"encoding/binary"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// fuzzSets are the sets that fuzzed rules may name.
func fuzzSets() map[string]knownSet {
	set := func(s rs.Set) knownSet { return knownSet{Set: &s, keyLen: s.Key.Size()} }
	return map[string]knownSet{
		"ports":    set(rs.Set{Name: "ports", Key: rs.TypeInetService}),
		"seen":     set(rs.Set{Name: "seen", Key: rs.TypeInetService}),
		"hosts":    set(rs.Set{Name: "hosts", Key: rs.TypeIPv4Addr}),
		"to":       set(rs.Set{Name: "to", Key: rs.TypeInetService, Data: rs.TypeIPv4Addr}),
		"marks":    set(rs.Set{Name: "marks", Key: rs.TypeMark, Flags: []string{"interval"}}),
		"verdicts": set(rs.Set{Name: "verdicts", Key: rs.TypeIfname, Data: rs.TypeVerdict}),
		"publish": set(rs.Set{
			Name: "publish", Key: rs.ConcatTypes(rs.TypeInetProto, rs.TypeInetService),
			Data: rs.ConcatTypes(rs.TypeIPv4Addr, rs.TypeInetService),
		}),
	}
}

const fuzzSeeds = `table inet t {
	set ports { type inet_service; flags interval; counter; elements = { 1, 5-9 comment "some", 65535 }; }
	set marks { type mark; flags interval,timeout; elements = { 1-9 timeout 1h, 20 }; }
	set seen { type inet_service; size 64; flags dynamic,timeout; }
	map verdicts { type ifname : verdict; elements = { "a0" : jump c, "b0" : drop, * : accept }; }
	map publish { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 80 comment "net=a" : 192.0.2.1 . 80 }; }
	set pairs { type ipv4_addr . mark; flags interval; elements = { 192.0.2.0/24 . 1-9 }; }
	chain c { }
	chain d {
		type nat hook prerouting priority 0; policy accept;
		iifname "eth*" ip saddr 192.0.2.0/24 ip daddr != 192.0.2.128/25 tcp dport 1-9 counter accept comment "why"
		meta mark 3-9 ct state established,related ct original ip saddr 192.0.2.1 fib daddr type local log prefix "x" drop
		tcp flags and (syn|ack) == syn meta mark and 0xff == 1 meta mark set 7 limit rate 5/second goto c
		dnat ip to meta l4proto . th dport map @publish
		iifname vmap @verdicts
		th dport @ports meta mark @marks udp dport 53 redirect to :5353 random
		ip6 saddr fe80::/10 icmpv6 type echo-request quota over 5 mbytes return
		tcp dport 8080 dnat ip6 to [2001:db8::1]:80
		ether saddr 02:00:5e:10:00:01 ct mark set meta mark numgen inc mod 2 1
	}
	chain e {
		tcp option maxseg size set rt mtu reset tcp option sack-perm frag more-fragments 1 exthdr hbh exists
		vlan id 7 ip hdrlength 5 ip dscp set cs1 meta mark set meta mark and 0xf or 0x10 xor 0x3
		meta mark set jhash ip saddr . tcp dport mod 4 seed 0x7 offset 2 symhash mod 3 1
		add @seen { tcp dport } update @seen { tcp dport timeout 5m limit rate 3/second }
		tcp dport 80 dnat ip to 192.0.2.1-192.0.2.9:80-90
		meta mark set ct mark >> 8 ct count over 3 log group 2 snaplen 9 log flags all socket transparent 1
		icmp type echo-request icmp id 5 meta hour "10:00"-"11:00" rt classid 4 ct original ip daddr 192.0.2.7
	}
}
`

// rawDumps has nft load rules and sets of many kinds, and returns the kernel's
// own encoding of each rule and each element.
func rawDumps(f *testing.F) (rules, elements [][]byte) {
	f.Helper()
	if os.Geteuid() != 0 {
		return nil, nil
	}
	ns := nstest.NewNS(f, "fuzz")
	cmd := exec.Command("ip", "netns", "exec", ns.Name(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fuzzSeeds)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.Fatalf("load the seeds: %v: %s", err, out)
	}
	conn, err := OpenAt(int(ns.Handle()))
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	err = conn.sock.dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, nil, func(_ uint8, as attrs, _ []byte) error {
		rules = append(rules, as.bytes(unix.NFTA_RULE_EXPRESSIONS))
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"ports", "marks", "verdicts", "publish", "pairs"} {
		var m message
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, "t")
		m.str(unix.NFTA_SET_ELEM_LIST_SET, name)
		err := conn.sock.dump(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET, m.b, func(_ uint8, as attrs, _ []byte) error {
			list, _ := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for _, e := range list.nested() {
				elements = append(elements, e.data)
			}
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if len(rules) < 9 || len(elements) < 9 {
		f.Fatalf("the kernel dumped %d rules and %d elements", len(rules), len(elements))
	}
	return rules, elements
}

// FuzzDecodeRule: whatever stands in a rule, reading it does not fail, leaves
// something to show, and what we could write back means what we read.
func FuzzDecodeRule(f *testing.F) {
	rules, _ := rawDumps(f)
	for _, r := range rules {
		f.Add(byte(unix.NFPROTO_INET), r)
		f.Add(byte(unix.NFPROTO_IPV4), r)
	}
	var m message
	m.nest(unix.NFTA_LIST_ELEM, func(m *message) { m.str(unix.NFTA_EXPR_NAME, "counter") })
	f.Add(byte(unix.NFPROTO_BRIDGE), m.b)
	f.Fuzz(func(t *testing.T, number byte, raw []byte) {
		family, ok := familyByNum[number]
		if !ok {
			family = rs.FamilyInet
		}
		list, _ := parseAttrs(raw)
		r := rs.Rule{Parts: decodeRule(family, fuzzSets(), list)}
		if text := r.String(); len(list) > 0 && text == "" && len(r.Parts) == 0 {
			t.Fatalf("nothing is left to show of % x", raw)
		}
		exprs, err := encodeRule(family, r)
		if err != nil {
			return
		}
		again := rs.Rule{Parts: decodeRule(family, fuzzSets(), marshal(t, family, exprs))}
		if again.String() != r.String() {
			t.Fatalf("read as %s\nwritten and read again as %s", r, again)
		}
	})
}

func marshalExpr(family rs.Family, x expr.Any) ([]byte, error) {
	return expr.Marshal(families[family], x)
}

func marshal(t *testing.T, family rs.Family, exprs []expr.Any) []attr {
	t.Helper()
	var m message
	for _, x := range exprs {
		b, err := marshalExpr(family, x)
		if err != nil {
			t.Fatal(err)
		}
		m.raw(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
	}
	list, err := parseAttrs(m.b)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// FuzzDecodeSetElement: whatever stands in the elements of a set, reading them
// does not fail, and each can be shown.
func FuzzDecodeSetElement(f *testing.F) {
	_, elements := rawDumps(f)
	for i, e := range elements {
		f.Add(uint32(0), uint32(rs.TypeInetService.ID()), "interval", uint8(i), e)
		f.Add(uint32(rs.TypeInetService.ID()), uint32(rs.TypeIfname.ID()), "", uint8(i), e)
	}
	f.Add(uint32(nftDataVerdict), uint32(rs.TypeIfname.ID()), "", uint8(0), []byte{8, 0, 3, 0, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, data, key uint32, flag string, copies uint8, raw []byte) {
		s := rs.Set{Name: "s", Key: rs.TypeByID(key), DataInterval: data%2 == 1}
		if data != 0 {
			s.Data = rs.TypeByID(data)
		}
		if flag != "" {
			s.Flags = []string{flag}
		}
		as, _ := parseAttrs(raw)
		var list []rawElement
		for i := range copies % 4 {
			e := decodeElement(&s, as)
			e.end = e.end != (i%2 == 1)
			list = append(list, e)
		}
		list = append(list, decodeElement(&s, as))
		s.Elements = joinIntervals(&s, list)
		rs.SortElements(s.Elements)
		if text := s.Text(rs.Format{}); len(s.Elements) > 0 && !strings.Contains(text, "elements = { ") {
			t.Fatalf("the elements are not shown:\n%s", text)
		}
		var m message
		for _, e := range s.Elements {
			_ = element(&m, &s, e, true)
		}
	})
}

// FuzzParseAttrs: the attributes lie one behind the other in what was parsed,
// and what does not parse is an error.
func FuzzParseAttrs(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0x80, 9, 0, 0, 0})
	f.Add([]byte{4, 0, 1, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0})
	f.Add([]byte{7, 0, 1, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseAttrs(b)
		size := 0
		for i, a := range list {
			if i > 0 && size != align4(size) {
				t.Fatalf("attribute %d does not begin at a multiple of 4", i)
			}
			if got := int(binary.NativeEndian.Uint16(b[size:])); got != attrHeader+len(a.data) {
				t.Fatalf("attribute %d has %d bytes, want %d", i, len(a.data), got-attrHeader)
			}
			size += attrHeader + len(a.data)
			if i < len(list)-1 || size < len(b) {
				size = min(align4(size), len(b))
			}
			_, _, _, _, _ = a.u8(), a.u16(), a.u32(), a.u64(), a.str()
		}
		if (err == nil) != (size == len(b)) {
			t.Fatalf("%d of %d bytes parsed, error %v", size, len(b), err)
		}
		// What was parsed is written again as the same attributes.
		var m message
		for _, a := range list {
			m.raw(a.typ, a.data)
		}
		again, err := parseAttrs(m.b)
		if err != nil || len(again) != len(list) {
			t.Fatalf("%d attributes become %d, %v", len(list), len(again), err)
		}
		for i := range again {
			if again[i].typ != list[i].typ || string(again[i].data) != string(list[i].data) {
				t.Fatalf("attribute %d becomes another", i)
			}
		}
	})
}

// FuzzDecodeObject: whatever stands in named objects, flow tables and extensions
// of iptables, reading them does not fail, and each can be shown.
func FuzzDecodeObject(f *testing.F) {
	for kind := range uint32(12) {
		f.Add(kind, "DNAT", []byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0})
	}
	for _, name := range []string{"conntrack", "u32", "bpf", "multiport", "sctp", "time", "string", "recent", "CT", "TPROXY"} {
		f.Add(uint32(1), name, make([]byte, 64))
	}
	f.Fuzz(func(t *testing.T, kind uint32, name string, raw []byte) {
		var m message
		m.u32(unix.NFTA_OBJ_TYPE, kind)
		m.raw(unix.NFTA_OBJ_DATA, raw)
		list, _ := parseAttrs(m.b)
		if o := decodeObject(list); !strings.Contains(o.Text(rs.Format{}), o.Kind) {
			t.Fatalf("the object is not shown:\n%s", o.Text(rs.Format{}))
		}
		list, _ = parseAttrs(raw)
		_ = decodeFlowtable(list).Text(rs.Format{})
		for _, target := range []bool{false, true} {
			for revision := range uint32(4) {
				c := rs.Compat{Target: target, Name: name, Revision: revision, Info: string(raw), Family: rs.FamilyIP6}
				words, ok := c.IPTables()
				if ok && !strings.Contains(words, "-") {
					t.Fatalf("%s becomes %q", name, words)
				}
				_ = c.String()
			}
		}
	})
}

// FuzzReadUserdata: user data that foreign programs wrote does not fail, and
// our own comes back.
func FuzzReadUserdata(f *testing.F) {
	f.Add([]byte{0, 4, 'a', 'b', 'c', 0}, "a comment")
	f.Add([]byte{0, 200, 'a'}, strings.Repeat("ü", 100))
	f.Add(setUserdata(&rs.Set{Key: rs.ConcatTypes(rs.TypeMark, rs.TypeIfname), Data: rs.TypeMark, Comment: "c"}), "")
	f.Fuzz(func(t *testing.T, b []byte, comment string) {
		user := readUserdata(b)
		_ = setType(rs.TypeByID(1<<6|4).ID(), user[udataSetKeyByteOrder], user[udataSetKeyTypeof])
		decodeSet(attrs{{typ: unix.NFTA_SET_USERDATA, data: b}})

		own := userComment(udataRuleComment, comment)
		if len(own) > 2+maxComment+1 {
			t.Fatalf("a comment of %d bytes takes %d", len(comment), len(own))
		}
		got := readComment(append(own, b...), udataRuleComment)
		want, _, _ := strings.Cut(comment, "\x00")
		if len(b) == 0 && got != want && !strings.HasPrefix(want, got) {
			t.Fatalf("%q comes back as %q", comment, got)
		}
	})
}
