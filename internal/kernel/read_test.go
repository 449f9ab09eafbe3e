package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
)

// ruleRow is a rule for nft. We must print it as nft does.
type ruleRow struct {
	rule string
	// optional marks a rule that not every kernel takes.
	optional bool
	// twoWays marks a rule that nft lists in words from which it would make
	// other expressions: we do as well.
	twoWays bool
}

// chainRows are rules of one kind of chain.
type chainRows struct {
	family ruleset.Family
	chain  string
	rules  []ruleRow
}

var rulesToRead = []chainRows{
	{ruleset.FamilyInet, "type filter hook input priority filter", []ruleRow{
		// meta
		{rule: `meta length 1200`}, {rule: `meta length > 1200`}, {rule: `meta protocol ip`}, {rule: `meta priority 1:2a`},
		{rule: `meta mark 7`}, {rule: `meta mark != 7`}, {rule: `meta mark < 9`}, {rule: `meta mark >= 9`},
		{rule: `meta mark 16-31`}, {rule: `meta mark != 16-31`}, {rule: `meta mark and 0xf0 == 0x10`}, {rule: `meta mark and 0xf0 > 0x10`},
		{rule: `meta skuid 1000`}, {rule: `meta skgid 1000`}, {rule: `meta rtclassid 12`}, {rule: `meta nfproto ipv6`},
		{rule: `meta l4proto udp`}, {rule: `meta l4proto 253`}, {rule: `meta pkttype multicast`}, {rule: `meta cpu 1`},
		{rule: `meta iifgroup 0`}, {rule: `meta oifgroup 3`}, {rule: `meta cgroup 65537`}, {rule: `meta iiftype ether`},
		{rule: `iif 7`}, {rule: `oif != 7`}, {rule: `iifname "uplink0"`}, {rule: `oifname != "uplink0"`},
		{rule: `iifname "up*"`}, {rule: `iifname "up\*"`}, {rule: `iifname "a,b"`},
		// payload
		{rule: `ip saddr 203.0.113.7`}, {rule: `ip daddr != 203.0.113.7`}, {rule: `ip saddr 203.0.113.0/24`},
		{rule: `ip saddr 10.0.0.0/8`}, {rule: `ip saddr 198.51.100.128/25`}, {rule: `ip saddr != 198.51.100.160/27`},
		{rule: `ip saddr 203.0.113.7-203.0.113.99`}, {rule: `ip daddr != 203.0.113.7-203.0.113.99`}, {rule: `ip saddr > 203.0.113.7`},
		{rule: `ip saddr and 0.0.255.255 == 0.0.4.3`}, {rule: `ip protocol tcp`}, {rule: `ip ttl 64`}, {rule: `ip length 100-200`},
		{rule: `ip id 77`}, {rule: `ip frag-off 0`},
		{rule: `ip6 saddr 2001:db8::7`}, {rule: `ip6 daddr 2001:db8:7::/48`}, {rule: `ip6 saddr 2001:db8::/33`},
		{rule: `ip6 saddr fe80::/10`}, {rule: `ip6 saddr ::/0`}, {rule: `ip6 daddr != 2001:db8::1-2001:db8::9`}, {rule: `ip6 nexthdr 17`},
		{rule: `ip6 hoplimit 1`},
		{rule: `tcp dport 8443`}, {rule: `tcp sport != 1024-65535`}, {rule: `tcp dport 1-1023`}, {rule: `tcp dport >= 1024`},
		{rule: `udp dport 4789`}, {rule: `udp length 28`}, {rule: `th dport 5353`}, {rule: `sctp dport 2905`}, {rule: `tcp window 0`},
		{rule: `icmp type echo-request`}, {rule: `icmp code 3`}, {rule: `icmpv6 type nd-router-advert`}, {rule: `icmp type { echo-reply, echo-request }`},
		{rule: `ether saddr 02:00:5e:10:00:01`}, {rule: `ether type arp`},
		{rule: `ip saddr 203.0.113.7 ip daddr 203.0.113.8`}, {rule: `udp sport 68 udp dport 67`, twoWays: true},
		{rule: `ip saddr 203.0.113.7 tcp dport 22 ct state new`}, {rule: `tcp dport 22 meta mark 4 tcp sport 70-80`},
		{rule: `meta l4proto tcp counter tcp dport 22`}, {rule: `meta nfproto ipv4 counter ip saddr 203.0.113.7`},
		{rule: `@th,64,32 0xcafe`}, {rule: `@nh,48,16 and 0x1fff != 0`},
		// flags
		{rule: `tcp flags syn`}, {rule: `tcp flags ! fin,rst`}, {rule: `tcp flags == ack`}, {rule: `tcp flags != ack`},
		{rule: `tcp flags and (fin|syn|rst|ack) == syn`}, {rule: `tcp flags and syn != syn`},
		{rule: `ct state established,related`}, {rule: `ct state ! invalid`}, {rule: `ct state == new`}, {rule: `ct state != new`},
		{rule: `ct status dnat`}, {rule: `ct status ! snat,assured`},
		// ct
		{rule: `ct direction reply`}, {rule: `ct mark 0x77`}, {rule: `ct mark > 0x77`}, {rule: `ct zone 9`}, {rule: `ct id 5`},
		{rule: `ct helper "ftp"`}, {rule: `ct expiration 90s`}, {rule: `ct l3proto ipv4`}, {rule: `ct bytes > 100000`},
		{rule: `ct original packets 7`}, {rule: `ct original ip daddr 203.0.113.7`}, {rule: `ct reply ip6 saddr 2001:db8::7`},
		{rule: `ct original ip saddr 203.0.113.0/24`}, {rule: `ct original ip saddr 198.51.100.128/25`}, {rule: `ct label 9`},
		{rule: `meta l4proto tcp ct original proto-dst 8080`}, {rule: `ct original zone 9`},
		// fib
		{rule: `fib daddr type local`}, {rule: `fib daddr . iif type != local`}, {rule: `fib saddr . mark . iif oif missing`},
		{rule: `fib saddr . iif oif exists`}, {rule: `fib daddr oifname "uplink0"`}, {rule: `fib daddr oif 7`}, {rule: `fib daddr type { local, broadcast }`},
		// sets
		{rule: `tcp dport @ports`}, {rule: `tcp dport != @ports`}, {rule: `ip saddr @nets`}, {rule: `ip saddr . tcp dport @pairs`},
		{rule: `tcp dport { 22, 80, 443 }`}, {rule: `tcp dport != { 22, 80 }`}, {rule: `tcp dport { 22, 1024-2047 }`},
		{rule: `ip saddr { 203.0.113.0/24, 198.51.100.7 }`}, {rule: `ip saddr . tcp dport { 203.0.113.7 . 22, 203.0.113.8 . 80 }`},
		{rule: `ip saddr . tcp dport { 198.51.100.0/24 . 22, 203.0.113.1-203.0.113.9 . 8000-8999 }`},
		{rule: `meta mark { 3, 9-12 }`}, {rule: `iifname { "a0", "b*" }`}, {rule: `ct state { new, established }`},
		{rule: `meta l4proto { tcp, udp } th dport 53`}, {rule: `meta length . ct mark { 1000 . 5 }`},
		{rule: `tcp dport vmap @verdicts`}, {rule: `tcp dport vmap { 22 : accept, 23 : drop, 1000-1999 : jump other }`},
		{rule: `ip saddr . tcp dport vmap { 203.0.113.7 . 22 : accept, * : drop }`}, {rule: `ct state vmap { established : accept, new : continue }`},
		// statements
		{rule: `counter`}, {rule: `accept`}, {rule: `drop`}, {rule: `return`}, {rule: `continue`}, {rule: `jump other`}, {rule: `goto other`},
		{rule: `reject`}, {rule: `reject with tcp reset`}, {rule: `tcp dport 22 reject with tcp reset`}, {rule: `reject with icmpx host-unreachable`},
		{rule: `reject with icmp admin-prohibited`}, {rule: `reject with icmpv6 no-route`}, {rule: `ip saddr 203.0.113.7 reject with icmp port-unreachable`},
		{rule: `log`}, {rule: `log prefix "in: "`}, {rule: `log level debug`}, {rule: `log prefix "in: " group 5`}, {rule: `log prefix "back\slash"`},
		{rule: `limit rate 9/minute`}, {rule: `limit rate over 9/hour burst 77 packets`}, {rule: `limit rate 3 mbytes/second`},
		{rule: `limit rate over 1025 bytes/day burst 2 kbytes`},
		{rule: `meta mark set 0x99`}, {rule: `ct mark set 0x99`}, {rule: `meta priority set 2:1`}, {rule: `meta nftrace set 1`},
		{rule: `accept comment "why, \ and where"`}, {rule: `ip saddr 203.0.113.7 counter log prefix "x" drop`},
		// expressions
		{rule: `log flags all`}, {rule: `log group 5 snaplen 64`}, {rule: `meta mark set ct mark`},
		{rule: `ct mark set meta mark or 1`}, {rule: `tcp option maxseg size 1400`},
		{rule: `meta mark set meta mark & 0xffffc7ff | 0x00000400`}, {rule: `ct mark set ct mark & 0xfffffff1 | 0x00000001`},
		{rule: `meta mark set meta mark | 0x00003000`},
		{rule: `tcp option maxseg size set 1400`}, {rule: `ip ttl set 9`},
		{rule: `ip6 dscp { cs1, cs2 }`}, {rule: `numgen inc mod 4 1`}, {rule: `quota over 5 mbytes`},
		{rule: `rt classid 4`}, {rule: `socket transparent 1`}, {rule: `meta hour "10:00"-"11:00"`},
		{rule: `counter name "named"`}, {rule: `add @ports { tcp dport }`}, {rule: `ct count 5`},
		{rule: `meta mark set tcp dport map { 22 : 1, 80 : 2 }`}, {rule: `jhash ip saddr mod 4 1`},
		{rule: `reset tcp option sack-perm`}, {rule: `tcp option sack-perm exists`},
		{rule: `ct helper set "ftp-standard"`}, {rule: `queue num 3`, optional: true},
	}},
	{ruleset.FamilyIP, "type nat hook prerouting priority dstnat", []ruleRow{
		{rule: `dnat to 203.0.113.7`}, {rule: `dnat to 203.0.113.7 random`}, {rule: `tcp dport 80 dnat to 203.0.113.7:8080`},
		{rule: `tcp dport 80 dnat to :8080`}, {rule: `tcp dport 80 dnat to 203.0.113.7:8080 persistent`}, {rule: `redirect`},
		{rule: `tcp dport 80 redirect to :8080`}, {rule: `tcp dport 80 redirect to :8080 random,persistent`},
		{rule: `dnat to ip saddr map @to`}, {rule: `dnat ip to tcp dport map @to_port`}, {rule: `ip protocol tcp tcp dport 80 accept`, twoWays: true},
		{rule: `tcp dport 80 dnat to 203.0.113.7-203.0.113.9`}, {rule: `tcp dport 80 redirect to :8080-8090`},
		{rule: `dnat to ip saddr map { 203.0.113.7 : 203.0.113.8 }`}, {rule: `dnat ip prefix to ip daddr map { 10.1.0.0/24 : 10.2.0.0/24 }`},
	}},
	{ruleset.FamilyIP6, "type nat hook postrouting priority srcnat", []ruleRow{
		{rule: `snat to 2001:db8::7`}, {rule: `tcp dport 80 snat to [2001:db8::7]:1024`}, {rule: `masquerade`},
		{rule: `masquerade random`}, {rule: `masquerade fully-random,persistent`}, {rule: `icmpv6 type echo-request masquerade`},
		{rule: `tcp dport 80 masquerade to :1024-2048`},
	}},
	{ruleset.FamilyInet, "type nat hook output priority -100", []ruleRow{
		{rule: `dnat ip to 203.0.113.7`}, {rule: `tcp dport 80 dnat ip6 to [2001:db8::7]:8080`}, {rule: `dnat ip to ip daddr . tcp dport map @to_both`},
		{rule: `dnat ip6 to ip6 daddr map @to6`}, {rule: `ip daddr 203.0.113.7 tcp dport 80 redirect to :8080`},
	}},
	{ruleset.FamilyIP, "type filter hook output priority raw", []ruleRow{{rule: `notrack`}, {rule: `udp dport 53 notrack`}, {rule: `ct zone set 9`}}},
	{ruleset.FamilyIP6, "type filter hook input priority filter", []ruleRow{
		{rule: `reject`}, {rule: `reject with icmpv6 admin-prohibited`}, {rule: `ip6 nexthdr udp udp dport 53`, twoWays: true}, {rule: `icmpv6 code 4`},
		{rule: `meta l4proto tcp reject with tcp reset`},
	}},
	{ruleset.FamilyBridge, "type filter hook forward priority 0", []ruleRow{
		{rule: `ip saddr 203.0.113.7`}, {rule: `ip6 saddr 2001:db8::7 tcp dport 22`}, {rule: `ether saddr 02:00:5e:10:00:01`},
		{rule: `ether type ip6`}, {rule: `ether type ip ip saddr 203.0.113.7`, twoWays: true}, {rule: `icmp type echo-request`},
		{rule: `arp operation request`}, {rule: `arp saddr ip 203.0.113.7`}, {rule: `iifname "port0" ether daddr != 02:00:5e:10:00:01 drop`},
	}},
	{ruleset.FamilyARP, "type filter hook input priority 0", []ruleRow{
		{rule: `arp operation request`}, {rule: `arp saddr ip 203.0.113.7`}, {rule: `arp htype 1`}, {rule: `iifname "port0" drop`},
	}},
	{ruleset.FamilyNetdev, "type filter hook ingress device lo priority 0", []ruleRow{
		{rule: `ip saddr 203.0.113.7`}, {rule: `icmpv6 type echo-reply`}, {rule: `ether saddr 02:00:5e:10:00:01`}, {rule: `tcp dport 22 drop`},
		{rule: `fwd to "lo"`}, {rule: `dup to "lo"`},
	}},
}

// objectsToRead are what the rules refer to.
var objectsToRead = map[ruleset.Family]string{
	ruleset.FamilyInet: `
		set ports { type inet_service; size 64; flags dynamic; }
		set nets { type ipv4_addr; flags interval; }
		set pairs { type ipv4_addr . inet_service; }
		map verdicts { type inet_service : verdict; }
		map to_both { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
		map to6 { type ipv6_addr : ipv6_addr; }
		counter named { }
		ct helper ftp-standard { type "ftp" protocol tcp; l3proto inet; }
		chain other { }`,
	ruleset.FamilyIP: `
		map to { type ipv4_addr : ipv4_addr; }
		map to_port { type inet_service : ipv4_addr . inet_service; }`,
}

func TestRulesReadAsNftListsThem(t *testing.T) {
	for _, rows := range rulesToRead {
		t.Run(string(rows.family)+" "+rows.chain, func(t *testing.T) {
			t.Parallel()
			ns := nstest.NewNS(t, "read")
			loaded := loadRows(t, ns, rows)
			rs, err := open(t, ns).Read(kernel.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			theirs := chainLines(ns.Exec(t, "nft", "-s", "list", "chain", string(rows.family), "t", "c"))
			ours := rs.Table(rows.family, "t").Chain("c").Rules
			if len(ours) != len(loaded) || len(theirs) != len(loaded) {
				t.Fatalf("%d rules loaded, nft lists %d, we read %d", len(loaded), len(theirs), len(ours))
			}
			for i, row := range loaded {
				checkRow(t, row, theirs[i], ours[i])
			}
		})
	}
}

// loadRows has nft load the rules, and returns those that this kernel takes.
func loadRows(t *testing.T, ns *nstest.NS, rows chainRows) []ruleRow {
	t.Helper()
	load(t, ns, fmt.Sprintf("table %s t {\n%s\nchain c { %s; }\n}\n", rows.family, objectsToRead[rows.family], rows.chain))
	var known strings.Builder
	var loaded []ruleRow
	for _, row := range rows.rules {
		if !row.optional {
			fmt.Fprintf(&known, "add rule %s t c %s\n", rows.family, row.rule)
			loaded = append(loaded, row)
		}
	}
	load(t, ns, known.String())
	for _, row := range rows.rules {
		if !row.optional {
			continue
		}
		if _, err := ns.Try("nft", "add rule "+string(rows.family)+" t c "+row.rule); err != nil {
			t.Logf("not in this kernel: %s", row.rule)
			continue
		}
		loaded = append(loaded, row)
	}
	return loaded
}

func checkRow(t *testing.T, row ruleRow, theirs string, ours ruleset.Rule) {
	t.Helper()
	text := ours.Text(ruleset.Format{Stateless: true})
	if text != theirs {
		t.Errorf("nft lists %s\nwe print  %s", theirs, text)
	}
}

// setsToRead are sets and maps of all kinds, as nft lists them. The comment
// says what is special.
const setsToRead = `table inet t {
	set intervals {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.0.2.1,
			     192.0.2.7-192.0.2.9 comment "a few", 255.255.255.255 }
	}
	set touching {
		type inet_service
		flags interval
		elements = { 1-9, 10-19, 65535 }
	}
	set merging {
		type inet_service
		flags interval
		auto-merge
		comment "of ports"
		elements = { 1-19 }
	}
	set everything {
		type ipv6_addr
		flags interval
		elements = { ::/0 }
	}
	set marks {
		type mark
		flags interval
		elements = { 0x00000005-0x00000100, 0x01000000 }
	}
	set names {
		type ifname
		flags interval
		elements = { "eth0", "veth*" }
	}
	set pairs {
		type ipv4_addr . inet_service
		flags interval
		elements = { 192.0.2.0/24 . 80, 192.0.2.5 . 22 comment "ssh", 198.51.100.1-198.51.100.9 . 1000-1999 }
	}
	set timed {
		type ipv4_addr
		size 1024
		flags dynamic,timeout
		counter
		timeout 1d2h3m4s
		gc-interval 10s
		elements = { 192.0.2.1 counter comment "seen", 192.0.2.2 counter timeout 5m }
	}
	set limited {
		type ipv4_addr
		limit rate 5/second
		elements = { 192.0.2.1 limit rate 5/second }
	}
	set saving {
		type inet_service
		policy memory
		elements = { 80 }
	}
	set fixed {
		type inet_proto
		flags constant
		elements = { tcp, udp }
	}
	set states {
		type ct_state
		elements = { established, new }
	}
	map ports {
		type inet_service : ipv4_addr . inet_service
		comment "where to"
		elements = { 80 comment "web" : 192.0.2.1 . 8080, 443 : 192.0.2.1 . 8443 }
	}
	map ranges {
		type ipv4_addr : interval ipv4_addr . inet_service
		flags interval
		elements = { 192.0.2.0/24 : 198.51.100.1-198.51.100.9 . 80-89 }
	}
	map verdicts {
		type ifname . ipv4_addr : verdict
		elements = { "eth0" . 192.0.2.1 : jump there, "eth0" . 192.0.2.2 : drop }
	}
	map other {
		type mark : mark
		elements = { 0x00000001 : 0x00000002, * : 0x00000003 }
	}
	map objects {
		type inet_service : counter
		elements = { 80 : "web" }
	}
	chain there {
	}
}
`

func TestSetsReadAsNftListsThem(t *testing.T) {
	ns := nstest.NewNS(t, "sets")
	load(t, ns, "table inet t {\ncounter web { }\n}\n")
	load(t, ns, setsToRead)
	rs, err := open(t, ns).Read(kernel.Filter{Family: ruleset.FamilyInet, Table: "t"})
	if err != nil {
		t.Fatal(err)
	}
	ours := rs.Text(ruleset.Format{Stateless: true})
	if diff := cmp.Diff(rulesettest.Canonical(list(t, ns)), rulesettest.Canonical(ours)); diff != "" {
		t.Errorf("(-nft +ours):\n%s", diff)
	}
	rs.Tables[0].Objects = nil
	ours = rs.Text(ruleset.Format{Stateless: true})
	if diff := cmp.Diff(rulesettest.Canonical(setsToRead), rulesettest.Canonical(ours)); diff != "" {
		t.Errorf("(-loaded +ours):\n%s", diff)
	}
}

// TestTablesReadAsNftListsThem is about what a table holds beside sets and
// rules: comments, flags, named objects.
func TestTablesReadAsNftListsThem(t *testing.T) {
	ns := nstest.NewNS(t, "tables")
	load(t, ns, `table inet t {
		comment "a table"
		flags dormant
		counter web { comment "hits" packets 7 bytes 700; }
		chain c { comment "a chain"; type filter hook input priority filter + 5; policy drop; }
		chain d { comment "another"; }
	}
	table netdev n {
		chain one { type filter hook ingress device lo priority 0; policy accept; }
	}
	table bridge b { chain c { type filter hook prerouting priority -200; policy accept; }; }
	table arp a { chain c { type filter hook output priority 5; policy accept; }; }
	table ip6 empty { }`)
	rs, err := open(t, ns).Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := ns.Exec(t, "nft", "list", "ruleset") + "\n"
	if diff := cmp.Diff(theirs, rs.Text(ruleset.Format{})); diff != "" {
		t.Errorf("(-nft +ours):\n%s", diff)
	}
}

// TestOddRulesetsReadAsNftListsThem is about named objects, sets declared by an
// expression, and chains inside of rules.
func TestOddRulesetsReadAsNftListsThem(t *testing.T) {
	ns := nstest.NewNS(t, "objects")
	load(t, ns, `table ip t {
		quota q { comment "much"; over 5 mbytes used 3 kbytes; }
		limit l { rate over 1025 kbytes/second burst 12 kbytes; }
		limit m { comment "few"; rate 12/minute burst 30 packets; }
		ct helper h { comment "files"; type "ftp" protocol tcp; }
		ct timeout o { protocol tcp; l3proto ip; policy = { established: 120, close: 4 }; }
		ct timeout u { comment "short"; protocol udp; policy = { replied: 7 }; }
		ct expectation e { protocol udp; dport 9; timeout 1m; size 12; l3proto ip; }
		synproxy s { comment "busy"; mss 1460; wscale 7; timestamp sack-perm; }
		synproxy r { mss 1460; wscale 7; timestamp; }
		synproxy p { mss 1460; wscale 7; }
		set tags { typeof vlan id . ip saddr; }
		set bits { typeof ip hdrlength; elements = { 5, 6 }; }
		set options { typeof tcp option maxseg size . frag frag-off; }
		set alerts { typeof ip option ra value; }
		set pointers { typeof ip option rr ptr; }
		set raw { typeof ip daddr . @ih,32,32; elements = { 192.0.2.1 . 0x14 }; }
		map turns { typeof numgen random mod 4 : ip daddr . tcp dport; elements = { 0 : 192.0.2.1 . 80 }; }
		set asked { typeof ct original proto-dst . meta length; }
		set secure { typeof ipsec out spnum 3 ip6 saddr; }
		set systems { typeof osf name; elements = { "Linux", "Windows" }; }
		set busy { type ipv4_addr; limit rate 1/second counter; elements = { 192.0.2.1 limit rate 1/second counter }; }
		set gone { type ipv4_addr; timeout 1h; }
		chain inner {
			tcp flags syn jump {
				tcp dport 22 counter accept
				tcp dport 23 drop
			}
			meter flood size 64 { ip saddr timeout 10m limit rate 3/second } counter
			counter name tcp dport map { 22 : "first" }
			update @gone { ip saddr timeout 5m counter }
		}
		counter first { packets 1 bytes 2; }
	}`)
	rs, err := open(t, ns).Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := ns.Exec(t, "nft", "list", "ruleset") + "\n"
	if diff := cmp.Diff(theirs, rs.Text(ruleset.Format{})); diff != "" {
		t.Errorf("(-nft +ours):\n%s", diff)
	}
}

// TestInterfacesHaveTheirNames: nft lists the names of interfaces, of which rules
// hold the numbers.
func TestInterfacesHaveTheirNames(t *testing.T) {
	ns := nstest.NewNS(t, "names")
	ns.Exec(t, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
	load(t, ns, `table ip t {
		set s { type iface_index; elements = { "lo", "up0" }; }
		set pairs { type iface_index . ipv4_addr; elements = { "up0" . 192.0.2.1 }; }
		chain c { iif "up0" accept; oif != "up0" drop; iif . oif { "up0" . "lo" } accept; iif vmap { "up0" : drop }; iif 77 drop; }
	}`)
	rs, err := open(t, ns).Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ns.Exec(t, "nft", "list", "ruleset")+"\n", rs.String()); diff != "" {
		t.Errorf("(-nft +ours):\n%s", diff)
	}
}

func TestCountersAndTimesToLiveAreRead(t *testing.T) {
	ns := nstest.NewNS(t, "state")
	load(t, ns, `table ip t {
		set s { type ipv4_addr; flags timeout; counter; elements = { 192.0.2.1 timeout 1h }; }
		chain c { counter packets 7 bytes 700; }
	}`)
	rs, err := open(t, ns).Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	table := rs.Table(ruleset.FamilyIP, "t")
	if got := table.Chain("c").Rules[0].Parts[0]; got != (ruleset.Counter{Packets: 7, Bytes: 700}) {
		t.Errorf("the rule counts %v", got)
	}
	e := table.Set("s").Elements[0]
	if e.Counter == nil || e.Timeout != 3600_000 || e.Expires == 0 || e.Expires > e.Timeout {
		t.Errorf("the element is %+v", e)
	}
}
