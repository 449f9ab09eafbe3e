package link

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// linkMAC returns the MAC address of an interface.
func linkMAC(t *testing.T, name string) string {
	t.Helper()
	var out []struct{ Address string }
	if err := json.Unmarshal([]byte(run(t, "ip", "-j", "link", "show", name)), &out); err != nil || len(out) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	return out[0].Address
}

// TestBridgeKeepsItsMAC: containers with lower MAC addresses than the bridge's
// come and go, the gateway's stays.
func TestBridgeKeepsItsMAC(t *testing.T) {
	n := network()
	makeBridge(t, n)
	want := BridgeMAC(n.ID).String()
	for i := range byte(4) {
		e := numbered(n, i+2)
		if err := Attach(n, e); err != nil {
			t.Fatal(err)
		}
		run(t, "ip", "link", "set", e.HostLink, "address", "02:00:00:00:00:01")
		if got := linkMAC(t, n.Bridge); got != want {
			t.Errorf("with %d containers: %s, want %s", i+1, got, want)
		}
		if err := EnsureBridge(n); err != nil {
			t.Fatal(err)
		}
	}
	for i := range byte(4) {
		if err := Detach(numbered(n, i+2)); err != nil {
			t.Fatal(err)
		}
		if got := linkMAC(t, n.Bridge); got != want {
			t.Errorf("after a container went: %s, want %s", got, want)
		}
	}
}

// TestBridgeOfOlderVersion: a bridge that has the address of one of its ports
// gets its own, and its containers have the gateway's new address in the same
// moment.
func TestBridgeOfOlderVersion(t *testing.T) {
	n := network()
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", n.Bridge, "type", "bridge")
	t.Cleanup(func() {
		if err := DeleteBridge(n); err != nil {
			t.Error(err)
		}
	})
	run(t, "ip", "addr", "add", "10.1.0.1/24", "dev", n.Bridge)
	run(t, "ip", "addr", "add", "fd00:1::1/64", "dev", n.Bridge, "nodad")
	run(t, "ip", "link", "set", n.Bridge, "up")
	c := startContainer(t, n, numbered(n, 2))
	old := linkMAC(t, n.Bridge)
	eventually(t, "the container reaches its gateway", func() bool {
		_, err4 := c.Try("busybox", "ping", "-c1", "-W1", "10.1.0.1")
		_, err6 := c.Try("busybox", "ping", "-c1", "-W1", "fd00:1::1")
		return err4 == nil && err6 == nil
	})
	gateways := []netip.Addr{n.IPv4.Gateway, n.IPv6.Gateway}
	for _, a := range gateways {
		if got := neighbourMAC(t, c.NS, a); got != old {
			t.Fatalf("before, the container has %s for %s, want %s", got, a, old)
		}
	}

	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	want := BridgeMAC(n.ID).String()
	if got := linkMAC(t, n.Bridge); got != want || got == old {
		t.Fatalf("the bridge has %s, want %s and not %s", got, want, old)
	}
	for _, a := range gateways {
		eventually(t, "the container has the new address of "+a.String(), func() bool { return neighbourMAC(t, c.NS, a) == want })
	}
	c.fromHost(t)
	if _, err := c.Try("busybox", "ping", "-c1", "-W2", "10.1.0.1"); err != nil {
		t.Error(err)
	}
	if show := run(t, "ip", "-6", "addr", "show", "dev", n.Bridge); !strings.Contains(show, linkLocal(BridgeMAC(n.ID)).String()) {
		t.Errorf("the bridge lacks the link-local address of its MAC address:\n%s", show)
	}
}

// TestAdoptedBridgeKeepsItsMAC: the bridge is its user's.
func TestAdoptedBridgeKeepsItsMAC(t *testing.T) {
	n := network()
	n.Adopted = true
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", n.Bridge, "address", "02:00:00:00:00:77", "type", "bridge")
	defer run(t, "ip", "link", "del", n.Bridge)
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	if got := linkMAC(t, n.Bridge); got != "02:00:00:00:00:77" {
		t.Errorf("the bridge has %s now", got)
	}
}

// TestFirstPacketByIPv6: the host asks for neighbours from the first moment that
// a network has a container, also where the host probes addresses everywhere.
func TestFirstPacketByIPv6(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=1")
	defer run(t, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0")
	n := network()
	makeBridge(t, n)
	show := run(t, "ip", "-6", "addr", "show", "dev", n.Bridge, "scope", "link")
	if !strings.Contains(show, linkLocal(BridgeMAC(n.ID)).String()+"/64") || strings.Contains(show, "tentative") {
		t.Errorf("link-local address before the first container:\n%s", show)
	}
	lan := nstest.NewNS(t, "lan")
	run(t, "ip", "link", "add", "wan", "type", "veth", "peer", "name", "eth0", "netns", lan.Name())
	defer run(t, "ip", "link", "del", "wan")
	run(t, "ip", "addr", "add", "2001:db8:1::1/64", "dev", "wan", "nodad")
	run(t, "ip", "link", "set", "wan", "up")
	lan.Exec(t, "ip", "addr", "add", "2001:db8:1::2/64", "dev", "eth0", "nodad")
	lan.Exec(t, "ip", "link", "set", "eth0", "up")
	lan.Exec(t, "ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
	eventually(t, "the LAN reaches the host", func() bool {
		_, err := lan.Try("busybox", "ping", "-c1", "-W1", "2001:db8:1::1")
		return err == nil
	})
	c := startContainer(t, n, numbered(n, 2))
	// One packet each: a second one would come after the address was probed.
	if out, err := lan.Try("busybox", "ping", "-c1", "-W1", c.IPv6.String()); err != nil {
		t.Errorf("the first packet from the LAN: %v %s", err, out)
	}
	for line := range strings.Lines(run(t, "ip", "-6", "addr", "show", "dev", n.Bridge)) {
		if strings.Contains(line, "tentative") {
			t.Errorf("still probed: %s", line)
		}
	}
}

func TestDerivedMAC(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"", "0", "0123456789abcdef", "0123456789abcdee", "fedcba9876543210"} {
		for what, mac := range map[string]net.HardwareAddr{"bridge ": BridgeMAC(id), "veth ": vethMAC(id)} {
			if len(mac) != 6 || mac[0]&1 != 0 || mac[0]&2 == 0 {
				t.Errorf("%s%q: %s is not a locally administered unicast address", what, id, mac)
			}
			if other, twice := seen[mac.String()]; twice {
				t.Errorf("%s%q and %s have the same address", what, id, other)
			}
			seen[mac.String()] = what + id
		}
	}
	// A later version that derived another address would cut connections.
	if got := BridgeMAC("0123456789abcdef").String(); got != "56:80:28:bf:e0:11" {
		t.Errorf("bridge of network 0123456789abcdef: %s", got)
	}
	if got := vethMAC("fedcba9876543210").String(); got != "2e:b9:6e:99:cd:eb" {
		t.Errorf("veth of endpoint fedcba9876543210: %s", got)
	}
}

func TestLinkLocal(t *testing.T) {
	mac := net.HardwareAddr{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}
	if got, want := linkLocal(mac), netip.MustParseAddr("fe80::3656:78ff:fe9a:bcde"); got != want {
		t.Errorf("%s: %s, want %s", mac, got, want)
	}
}
