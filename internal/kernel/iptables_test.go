package kernel_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// iptablesRows are rules for iptables by command, table and chain. We must read
// them as iptables-save writes them.
var iptablesRows = []struct {
	command, table, chain string
	rules                 []string
}{
	{"iptables-nft", "filter", "INPUT", []string{
		`-s 198.51.100.0/24 -d 203.0.113.7 -i up0 -p udp --dport 53 -j ACCEPT`, `! -s 198.51.100.7 -j DROP`, `-i wan+ -j RETURN`,
		`-p tcp -m multiport --sports 22,1000:1999 -j ACCEPT`, `-p udp -m multiport ! --ports 53,123 -j DROP`,
		`-m conntrack --ctstate NEW,INVALID,UNTRACKED -j DROP`, `-m conntrack ! --ctstate ESTABLISHED --ctproto tcp`,
		`-m conntrack --ctorigdst 203.0.113.0/25 --ctreplsrc 198.51.100.1 --ctstatus SEEN_REPLY,ASSURED`,
		`-p udp -m conntrack --ctreplsrcport 1000:2000 --ctexpire 10:20 --ctdir REPLY`, `-m state --state RELATED -j ACCEPT`,
		`-m addrtype --src-type LOCAL,BROADCAST ! --dst-type MULTICAST -j DROP`, `-m mark --mark 0x10/0xf0`, `-m mark ! --mark 7`,
		`-m connmark --mark 0x3`, `-m limit --limit 6/hour --limit-burst 9 -j ACCEPT`, `-m limit --limit 30/sec`, `-m length --length 40:80`, `-m length ! --length 1500`,
		`-m mac ! --mac-source 02:00:5e:10:00:01`, `-m iprange --src-range 198.51.100.1-198.51.100.9 ! --dst-range 203.0.113.1-203.0.113.2`,
		`-m statistic --mode nth --every 5 --packet 2`, `-m statistic --mode random --probability 0.25`, `-m ttl --ttl-lt 5`, `-m ttl ! --ttl-eq 64`,
		`-m tos --tos 0x10/0x3f`, `-m dscp ! --dscp 0x0a`, `-m cpu ! --cpu 1`, `-m pkttype --pkt-type multicast`,
		`-m string --string "bad words" --algo bm --from 20 --to 90 --icase -j DROP`, `-m recent --name seen --rcheck --seconds 60 --hitcount 4 --rsource -j DROP`,
		`-m recent --name other --set --rdest`, `-m comment --comment "why \"not\""`, `-m helper --helper "sip"`, `-m quota --quota 4096 -j ACCEPT`,
		`-m time --timestart 09:00 --timestop 17:30 --weekdays Mon,Fri`, `-m time --monthdays 1,15 --kerneltz`, `-m physdev --physdev-in port+ ! --physdev-is-bridged`,
		`-m connlimit --connlimit-upto 9 --connlimit-mask 24`, `-p icmp -m icmp --icmp-type 3/4`, `-p tcp ! --tcp-flags ALL NONE`, `-p tcp --tcp-option 8`,
		`-p sctp --sport 9 --dport 10:20`, `-m u32 --u32 "6&0xFF=0x1,0x6:0x11&&4&0x1FFF=0"`, `-m bpf --bytecode "1,6 0 0 65535"`, `-m socket --transparent --nowildcard`,
		`-j REJECT --reject-with icmp-host-prohibited`, `-j LOG --log-prefix "in: " --log-level 7 --log-ip-options --log-uid`,
		`-j NFLOG --nflog-group 5 --nflog-prefix x`, `-j NFQUEUE --queue-balance 3:5 --queue-bypass`, `-p udp -j REJECT`,
	}},
	{"iptables-nft", "filter", "OUTPUT", []string{
		`-m owner --uid-owner 1000-1999 ! --gid-owner 5`, `-m owner ! --socket-exists`, `-m cgroup --cgroup 7`,
	}},
	{"iptables-nft", "nat", "POSTROUTING", []string{
		`-j MASQUERADE --random`, `-p tcp -j MASQUERADE --to-ports 1024-2047 --random-fully`, `-j SNAT --to-source 198.51.100.1-198.51.100.5 --persistent`,
		`-p udp -j SNAT --to-source 198.51.100.1:1000-1999`, `-s 10.0.0.0/24 -j NETMAP --to 198.51.100.0/24`,
	}},
	{"iptables-nft", "nat", "PREROUTING", []string{
		`-p tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080`, `-p tcp -m tcp --dport 443 -j REDIRECT --to-ports 8443`,
	}},
	{"iptables-nft", "mangle", "PREROUTING", []string{
		`-j MARK --set-mark 5`, `-j MARK --or-mark 5`, `-j CONNMARK --set-xmark 0x1/0xff`, `-j CONNMARK --save-mark --mask 0xf`, `-j TTL --ttl-inc 1`,
		`-j TOS --set-tos 0x10/0x3f`, `-j DSCP --set-dscp 10`, `-p tcp -j TPROXY --on-port 50080 --tproxy-mark 0x1/0x1`,
	}},
	{"iptables-nft", "mangle", "POSTROUTING", []string{`-j CLASSIFY --set-class 1:2`, `-p udp -j CHECKSUM --checksum-fill`, `-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400`}},
	{"iptables-nft", "raw", "PREROUTING", []string{`-j CT --notrack`, `-j CT --zone-orig 7`, `-p tcp -j CT --helper ftp`}},
	{"ip6tables-nft", "filter", "FORWARD", []string{
		`-s 2001:db8::/32 -p tcp -m multiport --dports 80,443 -j ACCEPT`, `-p ipv6-icmp -m icmp6 --icmpv6-type 1/4 -j DROP`, `-m hl --hl-gt 200`,
		`-m conntrack ! --ctorigsrc 2001:db8::/48`, `-m iprange --dst-range 2001:db8::1-2001:db8::9`, `-j REJECT --reject-with icmp6-adm-prohibited`,
	}},
	{"ip6tables-nft", "nat", "PREROUTING", []string{`-p tcp --dport 80 -j DNAT --to-destination [2001:db8::2]:8080`, `-d 2001:db8::7 -j DNAT --to-destination 2001:db8::2-2001:db8::3`}},
}

func TestRulesOfIPTablesReadAsItSavesThem(t *testing.T) {
	if _, err := exec.LookPath("iptables-nft"); err != nil {
		t.Skipf("iptables-nft is needed: %v", err)
	}
	loaded, rules := 0, 0
	for _, rows := range iptablesRows {
		ns := nstest.NewNS(t, "iptables")
		conn := open(t, ns)
		family := ruleset.FamilyIP
		if rows.command == "ip6tables-nft" {
			family = ruleset.FamilyIP6
		}
		for _, rule := range rows.rules {
			rules++
			if _, err := ns.Try("sh", "-c", rows.command+" -t "+rows.table+" -A "+rows.chain+" "+rule); err != nil {
				t.Logf("not loaded: %s: %v", rule, err)
				continue
			}
			loaded++
			saved := strings.Split(strings.TrimSpace(ns.Exec(t, rows.command, "-t", rows.table, "-S", rows.chain)), "\n")
			want := strings.TrimPrefix(saved[len(saved)-1], "-A "+rows.chain+" ")
			rs, err := conn.Read(kernel.Filter{Family: family, Table: rows.table})
			if err != nil {
				t.Fatal(err)
			}
			got, ok := rs.Table(family, rows.table).Chain(rows.chain).Rules[0].IPTables()
			if !ok || plainWords(got) != plainWords(want) {
				t.Errorf("%s: %v\nsaved as %s\nwe say   %s", rule, ok, want, got)
			}
			ns.Exec(t, rows.command, "-t", rows.table, "-F", rows.chain)
		}
	}
	if loaded*10 < rules*9 {
		t.Errorf("%d of %d rules are loaded", loaded, rules)
	}
}

// TestExtensionsSayWhatTheyDo: extensions that nftables has words of its own
// for become its parts; the others, and those that say more, stay.
func TestExtensionsSayWhatTheyDo(t *testing.T) {
	ns := nstest.NewNS(t, "native")
	conn := open(t, ns)
	for _, row := range []struct {
		v6                 bool
		table, chain, rule string
		want               string
	}{
		{false, "nat", "PREROUTING", "-m addrtype --dst-type LOCAL -j DOCKER", "fib daddr type local counter jump DOCKER"},
		{false, "nat", "PREROUTING", "-m addrtype ! --src-type BROADCAST -j DOCKER", "fib saddr type != broadcast counter jump DOCKER"},
		{false, "nat", "PREROUTING", "-m addrtype --dst-type LOCAL --limit-iface-in -j DOCKER", ""},
		{false, "nat", "PREROUTING", "-p tcp -j DNAT --to-destination 10.0.0.1:80", "meta l4proto tcp counter dnat ip to 10.0.0.1:80"},
		{true, "nat", "PREROUTING", "-p tcp -j DNAT --to-destination [fd00::1]:80", "meta l4proto tcp counter dnat ip6 to [fd00::1]:80"},
		{false, "nat", "PREROUTING", "-j DNAT --to-destination 10.0.0.1-10.0.0.9", ""},
		{false, "nat", "PREROUTING", "-p tcp -j REDIRECT --to-ports 3000", "meta l4proto tcp counter redirect to :3000"},
		{false, "nat", "POSTROUTING", "-j SNAT --to-source 10.0.0.1", "counter snat ip to 10.0.0.1"},
		{false, "nat", "POSTROUTING", "-j MASQUERADE", "counter masquerade"},
		{false, "nat", "POSTROUTING", "-j MASQUERADE --random", ""},
		{false, "filter", "FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "ct state established,related counter accept"},
		{false, "filter", "FORWARD", "-m conntrack --ctstate DNAT -j ACCEPT", "ct status dnat counter accept"},
		{false, "filter", "FORWARD", "-m conntrack ! --ctstate NEW -j ACCEPT", ""},
		{false, "filter", "FORWARD", "-m state --state NEW -j ACCEPT", "ct state new counter accept"},
		{false, "filter", "FORWARD", "-m mark --mark 1 -m comment --comment why -j ACCEPT", "meta mark 0x00000001 counter accept"},
		{false, "filter", "FORWARD", "-m mark ! --mark 1/3 -j ACCEPT", "meta mark & 0x00000003 != 0x00000001 counter accept"},
		{false, "filter", "FORWARD", "-j REJECT --reject-with icmp-host-prohibited", "counter reject with icmp host-prohibited"},
		{true, "filter", "FORWARD", "-j REJECT", "counter reject"},
	} {
		command, family := "iptables-nft", ruleset.FamilyIP
		if row.v6 {
			command, family = "ip6tables-nft", ruleset.FamilyIP6
		}
		_, _ = ns.Try(command, "-t", row.table, "-N", "DOCKER")
		ns.Exec(t, "sh", "-c", command+" -t "+row.table+" -A "+row.chain+" "+row.rule)
		rs, err := conn.Read(kernel.Filter{Family: family, Table: row.table})
		if err != nil {
			t.Fatal(err)
		}
		rule := rs.Table(family, row.table).Chain(row.chain).Rules[0]
		rule.Comment = ""
		got := rule.Native().Text(ruleset.Format{Stateless: true})
		stays := slices.ContainsFunc(rule.Native().Parts, func(p ruleset.Part) bool { _, ok := p.(ruleset.Compat); return ok })
		if row.want == "" && !stays || row.want != "" && got != row.want {
			t.Errorf("%s: %q, want %q", row.rule, got, row.want)
		}
		ns.Exec(t, command, "-t", row.table, "-F", row.chain)
	}
}
