package link

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

// TestReusedAddress: a container has the address of one that left, and another
// MAC address. The host, another container and a host behind the bridge reach it
// at once; nobody's answer comes from a port that is not the container's.
func TestReusedAddress(t *testing.T) {
	n := network()
	n.Adopted = true
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", n.Bridge, "address", "02:00:00:00:00:77", "type", "bridge")
	defer run(t, "ip", "link", "del", n.Bridge)
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	// A host behind the bridge: it has an address of the network, and its port is
	// one of the bridge's.
	lan := nstest.NewNS(t, "lan")
	run(t, "ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", lan.Name())
	defer run(t, "ip", "link", "del", "uplink")
	run(t, "ip", "link", "set", "uplink", "master", n.Bridge, "up")
	lan.Exec(t, "ip", "addr", "add", "10.1.0.99/24", "dev", "eth0")
	lan.Exec(t, "ip", "addr", "add", "fd00:1::63/64", "dev", "eth0", "nodad")
	lan.Exec(t, "ip", "link", "set", "eth0", "up")
	other := startContainer(t, n, numbered(n, 9))
	first := startContainer(t, n, numbered(n, 2))
	clients := []*nstest.NS{nil, other.NS, lan}

	askAll := func(c container) {
		t.Helper()
		c.fromHost(t)
		other.ask(t, c)
		for _, a := range c.Addrs() {
			if _, err := lan.UDP(netip.AddrPortFrom(a, 5353).String(), answerTimeout); err != nil {
				t.Errorf("a host behind the bridge asks %s: %v", a, err)
			}
		}
	}
	askAll(first)
	knows := func(c container, why string) {
		t.Helper()
		for _, client := range clients {
			for _, a := range c.Addrs() {
				if got := neighbourMAC(t, client, a); got != c.MAC {
					t.Errorf("%s: a client has %q for %s, want %s", why, got, a, c.MAC)
				}
			}
		}
	}
	knows(first, "before")

	// The first one leaves without a word: everybody keeps what they know.
	if err := Detach(first.Endpoint); err != nil {
		t.Fatal(err)
	}
	e := numbered(n, 3)
	e.IPv4, e.IPv6 = first.IPv4, first.IPv6
	knows(first, "after the first one left")
	second := startContainer(t, n, e)
	// As the rules against spoofing do: the MAC address comes from its port alone.
	run(t, "nft", fmt.Sprintf(`table bridge spoof {
		chain PREROUTING {
			type filter hook prerouting priority -300
			ether saddr %s iifname != %q drop
		}
	}`, e.MAC, e.HostLink))
	defer run(t, "nft", "delete", "table", "bridge", "spoof")
	if err := Announce(n, e); err != nil {
		t.Fatal(err)
	}
	for _, client := range clients {
		for _, a := range e.Addrs() {
			eventually(t, "a client has the new address of "+a.String(), func() bool { return neighbourMAC(t, client, a) == e.MAC })
		}
	}
	askAll(second)

	fdb := run(t, "bridge", "fdb", "show", "br", n.Bridge)
	for line := range strings.Lines(fdb) {
		if strings.HasPrefix(line, e.MAC) && !strings.Contains(line, "dev "+e.HostLink+" ") {
			t.Errorf("the bridge has the container's MAC address at another port: %s", line)
		}
	}
	if !strings.Contains(fdb, e.MAC+" dev "+e.HostLink) {
		t.Errorf("the bridge has not learnt the container's MAC address:\n%s", fdb)
	}
}

// TestAnnounceBeforeTheContainerIsThere: at Join the container's end is still
// down. Nothing is learnt from frames that the host itself sends.
func TestAnnounceBeforeTheContainerIsThere(t *testing.T) {
	n := network()
	makeBridge(t, n)
	e := numbered(n, 2)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	if err := Announce(n, e); err != nil {
		t.Fatal(err)
	}
	if fdb := run(t, "bridge", "fdb", "show", "br", n.Bridge); strings.Contains(fdb, e.MAC) {
		t.Errorf("the bridge has learnt from the announcement:\n%s", fdb)
	}
	for _, a := range e.Addrs() {
		if got := neighbourMAC(t, nil, a); got != "" {
			t.Errorf("the host has %s for %s, which it never asked for", got, a)
		}
	}
}

// TestAnnounceSparesTheContainer: an advertisement of its own address would end
// the container's duplicate address detection in failure.
func TestAnnounceSparesTheContainer(t *testing.T) {
	n := network()
	makeBridge(t, n)
	e := numbered(n, 2)
	c := startContainer(t, n, e)
	c.Exec(t, "ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global")
	c.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.dad_transmits=100")
	c.Exec(t, "ip", "addr", "add", e.IPv6.String()+"/64", "dev", "eth0")
	if show := c.Exec(t, "ip", "-6", "addr", "show", "dev", "eth0"); !strings.Contains(show, "tentative") {
		t.Fatalf("the address is not being probed:\n%s", show)
	}
	if err := Announce(n, e); err != nil {
		t.Fatal(err)
	}
	// What was sent has arrived when something sent later is answered.
	c.ping4(t, n)
	if show := c.Exec(t, "ip", "-6", "addr", "show", "dev", "eth0"); strings.Contains(show, "dadfailed") || !strings.Contains(show, e.IPv6.String()) {
		t.Errorf("the container has lost its address:\n%s", show)
	}
}

func (c container) ping4(t *testing.T, n desired.Network) {
	t.Helper()
	if out, err := c.Try("busybox", "ping", "-c1", "-W5", n.IPv4.Gateway.String()); err != nil {
		t.Errorf("the container pings its gateway: %v %s", err, out)
	}
}

// TestForgetNeighbours deletes the host's entries of the endpoint, and no
// others: neither of another container, nor one that an administrator made.
func TestForgetNeighbours(t *testing.T) {
	n := network()
	makeBridge(t, n)
	gone, stays := startContainer(t, n, numbered(n, 2)), startContainer(t, n, numbered(n, 3))
	gone.fromHost(t)
	stays.fromHost(t)
	gone.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.200")}
	run(t, "ip", "neigh", "add", "10.1.0.200", "lladdr", "02:00:00:00:00:01", "dev", n.Bridge, "nud", "permanent")
	for range 2 { // the second time there is nothing to delete
		if err := ForgetNeighbours(n, gone.Endpoint); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range gone.Addrs() {
		if got := neighbourMAC(t, nil, a); got != "" {
			t.Errorf("%s of the endpoint is still known as %s", a, got)
		}
	}
	for _, a := range stays.Addrs() {
		if got := neighbourMAC(t, nil, a); got != stays.MAC {
			t.Errorf("%s of another endpoint is known as %q, want %s", a, got, stays.MAC)
		}
	}
	if got := neighbourMAC(t, nil, gone.Addresses[0]); got != "02:00:00:00:00:01" {
		t.Errorf("the administrator's entry is %q now", got)
	}
	n.Bridge = "nft-none"
	if err := ForgetNeighbours(n, gone.Endpoint); err != nil {
		t.Errorf("of a bridge that is gone: %v", err)
	}
}

// TestAnnounceOnMissingBridge names the bridge.
func TestAnnounceOnMissingBridge(t *testing.T) {
	nstest.RequireInside(t)
	n := network()
	if err := Announce(n, numbered(n, 2)); err == nil || !strings.Contains(err.Error(), n.Bridge) {
		t.Error(err)
	}
}
