package nat_test

import (
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/nat"
)

// TestUplinks: the chains of two uplinks, and none where there are none.
func TestUplinks(t *testing.T) {
	none := nat.Uplinks(nil)
	if len(none.Tables) != 1 || len(none.Tables[0].Chains)+len(none.Tables[0].Sets) != 0 {
		t.Errorf("without uplinks: %s", none)
	}
	got := nat.Uplinks([]nat.Uplink{
		{Mark: 0x1000, Mask: 0x3000, Ways: []nat.Way{
			{Iface: "eth1", Addr: netip.MustParseAddr("198.51.100.1")}, {Iface: "eth1", Addr: netip.MustParseAddr("2001:db8:2::1")},
		}, OnLink: []nat.Neighbours{{Iface: "eth1", Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Iface: "eth1", Prefix: netip.MustParsePrefix("fe80::/64")}}},
		{Mark: 0x3000, Mask: 0x3000, Ways: []nat.Way{{Iface: "eth2", Addr: netip.MustParseAddr("203.0.113.1")}}},
	})
	table := got.Table(rs.FamilyInet, layout.Table)
	for name, want := range map[string][]string{
		"UPLINK-MARK": {
			`iifname "eth1" ip saddr 198.51.100.0/24 return`,
			`iifname "eth1" ip6 saddr fe80::/64 return`,
			`iifname "eth1" ip daddr 198.51.100.1 ct mark set ct mark & 0xffffdfff | 0x00001000`,
			`iifname "eth1" ip6 daddr 2001:db8:2::1 ct mark set ct mark & 0xffffdfff | 0x00001000`,
			`iifname "eth2" ip daddr 203.0.113.1 ct mark set ct mark | 0x00003000`,
		},
		"UPLINK-RETURN": {
			`iifname @bridges ct mark & 0x00003000 == 0x00001000 ct direction reply meta mark set meta mark & 0xffffdfff | 0x00001000`,
			`iifname @bridges ct mark & 0x00003000 == 0x00003000 ct direction reply meta mark set meta mark | 0x00003000`,
		},
		"UPLINK-OUTPUT": {
			`ct mark & 0x00003000 == 0x00001000 ct direction reply meta mark set meta mark & 0xffffdfff | 0x00001000`,
			`ct mark & 0x00003000 == 0x00003000 ct direction reply meta mark set meta mark | 0x00003000`,
		},
	} {
		chain := table.Chain(name)
		if chain == nil {
			t.Errorf("no chain %s", name)
			continue
		}
		var lines []string
		for _, r := range chain.Rules {
			lines = append(lines, r.String())
		}
		if text := strings.Join(lines, "\n"); text != strings.Join(want, "\n") {
			t.Errorf("%s is\n%s\nwant\n%s", name, text, strings.Join(want, "\n"))
		}
	}
}
