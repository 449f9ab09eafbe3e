package inspect_test

import (
	"slices"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/nstest"
)

// TestMendLines runs each printed line as it stands, in a shell, over a ruleset
// of the kernel: nothing may be in the way after it.
func TestMendLines(t *testing.T) {
	nft := func(rules string) string { return "nft -f - <<'end'\n" + rules + "\nend\n" }
	rows := []struct {
		name, script string
		// lines are parts of the lines that must be printed, in their order.
		lines []string
	}{
		{"policy", nft(`table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }`),
			[]string{"nft add rule inet filter forward ct status dnat accept", "nft 'add rule inet filter forward iifname"}},
		{"only IPv6", nft(`table ip6 filter { chain forward { type filter hook forward priority 0; policy drop; }; }`),
			[]string{"nft add rule ip6 filter forward ct status dnat accept", "nft 'add rule ip6 filter forward"}},
		{"a last rule that rejects", nft(`table inet mine { chain f { type filter hook forward priority 10; ct state vmap { established : accept, related : accept, invalid : drop }; jump rest; };
			chain rest { iifname "lan0" accept; counter reject with icmpx admin-prohibited; }; }`),
			[]string{"nft insert rule inet mine rest handle 7 ct status dnat accept", `nft 'insert rule inet mine rest handle 7 iifname "nft-*" accept'`}},
		{"what the user drops first stays", nft(`table inet filter { set bad { type ipv4_addr; elements = { 198.51.100.7 }; };
			chain forward { type filter hook forward priority 0; policy drop; ip saddr @bad drop; ct state established,related accept; }; }`),
			[]string{"nft add rule inet filter forward ct status dnat accept", "nft 'add rule inet filter forward iifname"}},
		{"postrouting", nft(`table inet filter { chain post { type filter hook postrouting priority 0; policy drop; oifname "lo" accept; }; }`),
			[]string{"nft add rule inet filter post ct status dnat accept", "nft 'add rule inet filter post iifname"}},
		{"prerouting", nft(`table inet filter { chain pre { type filter hook prerouting priority mangle; policy drop; ct state established accept; }; }`),
			[]string{`nft 'add rule inet filter pre meta l4proto . th dport { tcp . 8080 } accept'`, `nft 'add rule inet filter pre iifname "nft-*" accept'`}},
		{"iptables, policy", "iptables-nft -P FORWARD DROP",
			[]string{"iptables -A FORWARD -o nft-+ -j ACCEPT && iptables -A FORWARD -i nft-+ ! -o docker0 -j ACCEPT"}},
		{"ip6tables, policy", "ip6tables-nft -P FORWARD DROP",
			[]string{"ip6tables -A FORWARD -o nft-+ -j ACCEPT && ip6tables -A FORWARD -i nft-+ ! -o docker0 -j ACCEPT"}},
		{"iptables, a last rule", "iptables-nft -A FORWARD -p icmp -j ACCEPT && iptables-nft -A FORWARD -j REJECT",
			[]string{"iptables -I FORWARD 2 -i nft-+ ! -o docker0 -j ACCEPT && iptables -I FORWARD 2 -o nft-+ -j ACCEPT"}},
		{"two chains", nft(`table inet a { chain f { type filter hook forward priority 0; policy drop; ct state established accept; oifname "nft-*" accept; }; };
			table inet b { chain f { type filter hook forward priority 1; ct state new drop; }; }`),
			[]string{`nft 'add rule inet a f iifname "nft-*" accept'`, "nft insert rule inet b f handle 2 ct status dnat accept", `nft 'insert rule inet b f handle 2 iifname "nft-*" accept'`}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			ns := nstest.NewNS(t, "mend")
			conn := connect(t, ns)
			ns.Exec(t, "sh", "-ec", r.script)
			var lines []string
			for _, f := range obstaclesOf(live(t, conn)) {
				lines = append(lines, f.Mend)
			}
			if !slices.EqualFunc(lines, r.lines, strings.HasPrefix) {
				t.Fatalf("lines:\n%s\nwant those that begin so:\n%s", strings.Join(lines, "\n"), strings.Join(r.lines, "\n"))
			}
			for _, l := range lines {
				ns.Exec(t, "sh", "-ec", l)
			}
			for _, f := range obstaclesOf(live(t, conn)) {
				t.Errorf("after the lines: %s: %s", f.Level, f.Sentence)
			}
		})
	}
}

// obstaclesOf leaves out what is found of the driver, which is not here.
func obstaclesOf(m *inspect.Model) []inspect.Finding {
	return slices.DeleteFunc(m.Findings(theHost()), func(f inspect.Finding) bool { return f.Object.Kind == inspect.KindRuleset })
}
