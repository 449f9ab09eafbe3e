package link

import (
	"testing"

	"nftnet/internal/desired"
)

// TestSysctlsDrifted notices each parameter that a network depends on, when it
// changes and when it is right again.
func TestSysctlsDrifted(t *testing.T) {
	n := network()
	makeBridge(t, n)
	st := desired.New()
	st.Networks[n.ID] = n
	s := NewSysctls(st)
	t.Cleanup(s.Close)
	drifted := func(want bool, why string) {
		t.Helper()
		if got, err := s.Drifted(); got != want || err != nil {
			t.Errorf("%s: %t, %v; want %t", why, got, err, want)
		}
	}
	drifted(false, "at first")
	for _, row := range []struct{ name, wrong, right string }{
		{"net.ipv4.conf.nft-test.route_localnet", "0", "1"}, {"net.ipv4.conf.nft-test.forwarding", "0", "1"},
		{"net.ipv6.conf.nft-test.accept_ra", "1", "0"}, {"net.ipv6.conf.nft-test.accept_dad", "1", "0"},
		{"net.ipv6.conf.nft-test.disable_ipv6", "1", "0"},
		{"net.ipv4.ip_forward", "0", "1"}, {"net.ipv6.conf.all.forwarding", "0", "1"},
	} {
		run(t, "sysctl", "-qw", row.name+"="+row.wrong)
		drifted(true, row.name+"="+row.wrong)
		run(t, "sysctl", "-qw", row.name+"="+row.right)
		drifted(false, row.name+"="+row.right)
	}

	// The files of a bridge that is gone, and made anew, are others.
	run(t, "ip", "link", "del", n.Bridge)
	drifted(false, "without the bridge, which is a fault of its own")
	run(t, "ip", "link", "add", n.Bridge, "type", "bridge")
	drifted(true, "with a bridge as the kernel makes it")
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	drifted(false, "with the bridge as it should be")
	run(t, "ip", "link", "set", n.Bridge, "down", "name", "foo0")
	t.Cleanup(removeFoo)
	drifted(false, "with the bridge renamed")
	run(t, "ip", "link", "set", "foo0", "name", n.Bridge, "up")
	run(t, "sysctl", "-qw", "net.ipv4.conf.nft-test.route_localnet=0")
	drifted(true, "with the bridge renamed back")

	// Another state needs other parameters.
	s.Follow(desired.New())
	drifted(false, "without networks")
	if len(s.files) != 0 {
		t.Errorf("%d files are open", len(s.files))
	}
	s.Follow(st)
	drifted(true, "with the network again")
}
