package link

import (
	"fmt"
	"net/netip"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
	"nftnet/internal/nstest"
)

// manyNetworks makes bridges of dual-stack networks, with two containers each.
func manyNetworks(b *testing.B, count int) desired.State {
	b.Helper()
	nstest.RequireInside(b)
	st := desired.New()
	for i := range count {
		n := desired.Network{
			ID: fmt.Sprintf("%011d", i), ICC: true,
			IPv4: desired.Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24), Gateway: netip.AddrFrom4([4]byte{10, 1, byte(i), 1})},
			IPv6: desired.Subnet{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd00:%x::/64", i+1)), Gateway: netip.MustParseAddr(fmt.Sprintf("fd00:%x::1", i+1))},
		}
		n.Bridge = layout.BridgeName(n.ID)
		st.Networks[n.ID] = n
		if err := EnsureBridge(n); err != nil {
			b.Fatal(err)
		}
		for j := range 2 {
			e := desired.Endpoint{ID: fmt.Sprintf("%06d%06d", i, j), NetworkID: n.ID, MAC: fmt.Sprintf("02:42:0a:01:%02x:%02x", i, j+2)}
			e.HostLink = HostName(e.ID)
			st.Endpoints[e.ID] = e
			if err := Attach(n, e); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Cleanup(func() {
		for _, e := range st.Endpoints {
			_ = Detach(e)
		}
		for _, n := range st.Networks {
			_ = DeleteBridge(n)
		}
	})
	return st
}

func BenchmarkSysctls(b *testing.B) {
	for _, count := range []int{1, 10, 200} {
		b.Run(fmt.Sprintf("networks=%d", count), func(b *testing.B) {
			st := manyNetworks(b, count)
			b.Run("kept", func(b *testing.B) {
				s := NewSysctls(st)
				defer s.Close()
				for b.Loop() {
					if drifted, err := s.Drifted(); drifted || err != nil {
						b.Fatal(drifted, err)
					}
				}
			})
			b.Run("opened", func(b *testing.B) {
				for b.Loop() {
					s := NewSysctls(st)
					if drifted, err := s.Drifted(); drifted || err != nil {
						b.Fatal(drifted, err)
					}
					s.Close()
				}
			})
			b.Run("bridgedump", func(b *testing.B) {
				for b.Loop() {
					if l, err := dumpLinks(linkFilter{kind: KindBridge}); len(l) != count || err != nil {
						b.Fatal(len(l), err)
					}
				}
			})
			b.Run("look", func(b *testing.B) {
				for b.Loop() {
					if _, err := Look(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("faults", func(b *testing.B) {
				s, err := Look()
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if f := s.Faults(st); len(f) != 0 {
						b.Fatal(f)
					}
				}
			})
		})
	}
}

// BenchmarkAnnounce sends what a network of a hundred containers is told when
// one of them gets an address.
func BenchmarkAnnounce(b *testing.B) {
	st := manyNetworks(b, 1)
	n := st.SortedNetworks()[0]
	for i := range byte(100) {
		if err := Attach(n, numbered(n, i+100)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = Detach(numbered(n, i+100)) })
	}
	e := st.SortedEndpoints()[0]
	e.IPv4, e.IPv6 = nth(n.IPv4.Prefix, 9), nth(n.IPv6.Prefix, 9)
	for b.Loop() {
		if err := Announce(n, e); err != nil {
			b.Fatal(err)
		}
	}
}
