package link

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// TestRouteIntoOtherTables: a subnet clashes with the routes of every table that
// a rule asks, in both families, and with no others.
func TestRouteIntoOtherTables(t *testing.T) {
	for _, row := range []struct {
		name string
		// setup are lines of ip.
		setup  []string
		subnet string
		want   string
	}{
		{"a VPN's table before main", []string{"route add 172.16.0.0/12 dev vpn table 52", "rule add pref 5270 lookup 52"},
			"172.20.0.0/16", "172.16.0.0/12 dev vpn in table 52, which rule 5270 (from all lookup 52) asks"},
		{"the same in IPv6", []string{"-6 route add fd00:99::/32 dev vpn table 52", "-6 rule add pref 5270 lookup 52"},
			"fd00:99:7::/64", "fd00:99::/32 dev vpn in table 52, which rule 5270 (from all lookup 52) asks"},
		{"other addresses", []string{"route add 172.16.0.0/12 dev vpn table 52", "rule add pref 5270 lookup 52"}, "10.99.0.0/16", ""},
		{"a table that no rule asks", []string{"route add 172.16.0.0/12 dev vpn table 52"}, "172.20.0.0/16", ""},
		{"a route into the subnet", []string{"route add 172.20.9.9 dev vpn table 52", "rule add pref 5270 lookup 52"},
			"172.20.0.0/16", "172.20.9.9/32 dev vpn in table 52, which rule 5270 (from all lookup 52) asks"},
		{"a table after main", []string{"route add 172.16.0.0/12 dev vpn table default"},
			"172.20.0.0/16", "172.16.0.0/12 dev vpn in table default, which rule 32767 (from all lookup default) asks"},
		{"the rule of a source", []string{"route add 172.16.0.0/12 via 192.0.2.9 table 1000", "rule add pref 100 from 192.0.2.1 lookup 1000"},
			"172.20.0.0/16", "172.16.0.0/12 via 192.0.2.9 dev wan in table 1000, which rule 100 (from 192.0.2.1 lookup 1000) asks for some packets"},
		{"the rule of an interface", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 iif wan lookup 7"},
			"172.20.0.0/16", "172.16.0.0/12 dev vpn in table 7, which rule 100 (from all iif wan lookup 7) asks for some packets"},
		{"the rule of a mark", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 fwmark 0x10/0xf0 lookup 7"},
			"172.20.0.0/16", "172.16.0.0/12 dev vpn in table 7, which rule 100 (from all fwmark 0x10/0xf0 lookup 7) asks for some packets"},
		{"the rule of a user", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 uidrange 7-9 ipproto 6 dport 80 lookup 7"},
			"172.20.0.0/16", "172.16.0.0/12 dev vpn in table 7, which rule 100 (from all uidrange 7-9 dport 80 ipproto 6 lookup 7) asks for some packets"},
		{"the rule of a destination", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 to 172.20.0.0/16 lookup 7"},
			"172.20.3.0/24", "172.16.0.0/12 dev vpn in table 7, which rule 100 (from all to 172.20.0.0/16 lookup 7) asks"},
		{"the rule of another destination", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 to 172.21.0.0/16 lookup 7"}, "172.20.3.0/24", ""},
		{"the rule of all but the destination", []string{"route add 172.16.0.0/12 dev vpn table 7", "rule add pref 100 not to 172.20.0.0/16 lookup 7"}, "172.20.3.0/24", ""},
		{"unreachable", []string{"route add unreachable 172.16.0.0/12 table 7", "rule add pref 100 lookup 7"},
			"172.20.0.0/16", "unreachable 172.16.0.0/12 in table 7, which rule 100 (from all lookup 7) asks"},
		{"sent on to the next rule", []string{"route add throw 172.16.0.0/12 table 7", "rule add pref 100 lookup 7"}, "172.20.0.0/16", ""},
		{"addresses of this host", []string{"addr add 172.20.0.7/32 dev wan"}, "172.21.0.0/16", ""},
		{"a subnet that is this host", []string{"route add local 172.16.0.0/12 dev lo"},
			"172.20.0.0/16", "local 172.16.0.0/12 dev lo in table local, which rule 0 (from all lookup local) asks"},
		{"the bridge's own routes", []string{"link add nft-test up type bridge", "route add 172.20.0.0/16 dev nft-test table 7", "rule add pref 100 lookup 7"},
			"172.20.0.0/16", ""},

		// Default routes of other tables.
		{"a VPN that takes all before main", []string{"route add default dev vpn table 52", "rule add pref 5270 lookup 52"},
			"172.20.0.0/16", "default dev vpn in table 52, which rule 5270 (from all lookup 52) asks before table main"},
		{"halves of all before main", []string{"route add 128.0.0.0/1 dev vpn table 52", "rule add pref 5270 lookup 52"},
			"172.20.0.0/16", "128.0.0.0/1 dev vpn in table 52, which rule 5270 (from all lookup 52) asks before table main"},
		{"a VPN that leaves local subnets alone", []string{"route add default dev vpn table 52", "route add throw 172.16.0.0/12 table 52", "rule add pref 5270 lookup 52"},
			"172.20.0.0/16", ""},
		{"wg-quick", []string{"route add default dev vpn table 51820", "rule add pref 32765 not fwmark 51820 lookup 51820", "rule add pref 32764 lookup main suppress_prefixlength 0"},
			"172.20.0.0/16", ""},
		{"a default route behind main's own", []string{"route add default dev vpn table 7", "rule add pref 100 lookup main suppress_prefixlength 0", "rule add pref 101 lookup 7"},
			"172.20.0.0/16", ""},
		{"a second uplink", []string{"route add default via 192.0.2.9 table 100", "rule add from 192.0.2.1 lookup 100"}, "172.20.0.0/16", ""},
		{"a default route that is suppressed", []string{"route add default dev vpn table 7", "rule add pref 100 lookup 7 suppress_prefixlength 0"}, "172.20.0.0/16", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			nstest.RequireInside(t)
			for _, name := range []string{"wan", "vpn"} {
				run(t, "ip", "link", "add", name, "up", "type", "veth", "peer", "name", "to-"+name)
				run(t, "ip", "link", "set", "to-"+name, "up")
				defer run(t, "ip", "link", "del", name)
			}
			run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "wan")
			run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
			defer func() {
				_ = exec.Command("ip", "link", "del", "nft-test").Run()
				for _, family := range []string{"-4", "-6"} {
					for _, table := range []string{"7", "52", "100", "1000", "51820", "default"} {
						_ = exec.Command("ip", family, "route", "flush", "table", table).Run()
					}
					restoreRules(t, family)
				}
				_ = exec.Command("ip", "route", "del", "local", "172.16.0.0/12", "dev", "lo").Run()
			}()
			for _, line := range row.setup {
				run(t, append([]string{"ip"}, strings.Fields(line)...)...)
			}
			if got, err := RouteInto(netip.MustParsePrefix(row.subnet), "nft-test"); err != nil || got != row.want {
				t.Errorf("%s:\n%q, %v; want\n%q", row.subnet, got, err, row.want)
			}
		})
	}
}

// restoreRules deletes the rules that the kernel does not make itself.
func restoreRules(t *testing.T, family string) {
	t.Helper()
	for line := range strings.Lines(run(t, "ip", family, "rule", "show")) {
		pref, _, _ := strings.Cut(line, ":")
		if pref != "0" && pref != "32766" && pref != "32767" {
			run(t, "ip", family, "rule", "del", "pref", pref)
		}
	}
}

// TestRouteIntoVRF: the tables of VRFs count where a rule asks them. (A kernel
// without VRFs runs this, too.)
func TestRouteIntoVRF(t *testing.T) {
	tables := routingTables{vrfs: []uint32{10}, routes: map[uint32][]hostRoute{10: {
		{to: netip.MustParsePrefix("0.0.0.0/0"), typ: unix.RTN_UNREACHABLE},
		{to: netip.MustParsePrefix("172.16.0.0/12"), typ: unix.RTN_UNICAST, dev: "blue0"},
	}}}
	main := policyRule{priority: priorityMain, action: actionTable, table: tableMain, suppress: -1}
	vrf := policyRule{priority: 1000, action: actionTable, l3mdev: true, suppress: -1}
	for _, row := range []struct {
		rules []policyRule
		want  string
	}{
		{[]policyRule{main}, ""},
		{[]policyRule{vrf, main}, "172.16.0.0/12 dev blue0 in table 10, which rule 1000 (from all lookup [l3mdev-table]) asks for some packets"},
	} {
		if got := tables.into(netip.MustParsePrefix("172.20.0.0/16"), "nft-test", row.rules); got != row.want {
			t.Errorf("%v: %q, want %q", row.rules, got, row.want)
		}
	}
}
