package link

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
	"nftnet/internal/nstest/wire"
)

// answerTimeout bounds the wait for a peer's answer, well below the time that a
// stale neighbour entry lasts.
const answerTimeout = 5 * time.Second

// container is a network namespace that is connected to a network as Docker
// would connect it. It answers datagrams on port 5353 of all its addresses.
type container struct {
	*nstest.NS
	desired.Endpoint
}

// numbered returns the endpoint of a network that has a number: it is part of
// its id, addresses and MAC address.
func numbered(n desired.Network, number byte) desired.Endpoint {
	id := fmt.Sprintf("%012d", number)
	e := desired.Endpoint{ID: id, NetworkID: n.ID, MAC: fmt.Sprintf("02:42:0a:01:00:%02x", number), HostLink: HostName(id)}
	if n.IPv4.IsValid() {
		e.IPv4 = nth(n.IPv4.Prefix, number)
	}
	if n.IPv6.IsValid() {
		e.IPv6 = nth(n.IPv6.Prefix, number)
	}
	return e
}

func nth(p netip.Prefix, number byte) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = number
	a, _ := netip.AddrFromSlice(b)
	return a
}

func startContainer(t *testing.T, n desired.Network, e desired.Endpoint) container {
	t.Helper()
	c := container{nstest.NewNS(t, "c"), e}
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Detach(e); err != nil {
			t.Error(err)
		}
	})
	c.moveIn(t, n)
	nstest.Serve(t, c.NS, "", ":5353")
	return c
}

// moveIn does what the engine does after Join.
func (c container) moveIn(t *testing.T, n desired.Network) {
	t.Helper()
	run(t, "ip", "link", "set", ContainerName(c.ID), "netns", c.Name(), "name", "eth0")
	for _, a := range c.Addrs() {
		args := []string{"ip", "addr", "add", netip.PrefixFrom(a, n.Subnet(a).Prefix.Bits()).String(), "dev", "eth0"}
		if a.Is6() {
			args = append(args, "nodad")
		}
		c.Exec(t, args...)
	}
	c.Exec(t, "ip", "link", "set", "eth0", "up")
	for _, s := range n.Subnets() {
		family := "-6"
		if s.Prefix.Addr().Is4() {
			family = "-4"
		}
		c.Exec(t, "ip", family, "route", "add", "default", "via", s.Gateway.String())
	}
}

// fromHost asks the container from the host, by each of its addresses.
func (c container) fromHost(t *testing.T) {
	t.Helper()
	for _, a := range c.Addrs() {
		ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
		conn, err := net.Dial("udp", netip.AddrPortFrom(a, 5353).String())
		if err == nil {
			_, err = wire.AskUDP(ctx, conn)
			_ = conn.Close()
		}
		cancel()
		if err != nil {
			t.Errorf("the host asks %s: %v", a, err)
		}
	}
}

// ask asks another container by each of its addresses.
func (c container) ask(t *testing.T, other container) {
	t.Helper()
	for _, a := range other.Addrs() {
		if _, err := c.UDP(netip.AddrPortFrom(a, 5353).String(), answerTimeout); err != nil {
			t.Errorf("container %s asks %s: %v", c.ID, a, err)
		}
	}
}

// neighbourMAC returns the MAC address that a namespace has for an address; nil is
// the namespace of the process.
func neighbourMAC(t *testing.T, ns *nstest.NS, a netip.Addr) string {
	t.Helper()
	args := []string{"ip", "-j", "neigh", "show", a.String()}
	var out string
	if ns == nil {
		out = run(t, args...)
	} else {
		out = ns.Exec(t, args...)
	}
	var entries []struct{ Lladdr string }
	if out != "" {
		if err := json.Unmarshal([]byte(out), &entries); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	if len(entries) == 0 {
		return ""
	}
	return entries[0].Lladdr
}

// eventually waits until a condition holds, and fails the test where it does not.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(answerTimeout); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", answerTimeout, what)
		}
	}
}
