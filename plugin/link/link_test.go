package link

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func network() desired.Network {
	return desired.Network{
		ID: "0123456789abcdef", Bridge: "nft-test", ICC: true, Masquerade: true, MTU: 1400,
		IPv4: desired.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
		IPv6: desired.Subnet{Prefix: netip.MustParsePrefix("fd00:1::/64"), Gateway: netip.MustParseAddr("fd00:1::1")},
	}
}

func endpoint() desired.Endpoint {
	return desired.Endpoint{ID: "fedcba9876543210", NetworkID: "0123456789abcdef", MAC: "02:42:0a:01:00:02"}
}

func makeBridge(t *testing.T, n desired.Network) {
	t.Helper()
	nstest.RequireInside(t)
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := DeleteBridge(n); err != nil {
			t.Error(err)
		}
	})
}

func TestBridge(t *testing.T) {
	n := network()
	makeBridge(t, n)
	if err := EnsureBridge(n); err != nil {
		t.Errorf("a second time: %v", err)
	}
	show := run(t, "ip", "addr", "show", n.Bridge)
	for _, want := range []string{"mtu 1400", "inet 10.1.0.1/24", "inet6 fd00:1::1/64", "UP"} {
		if !strings.Contains(show, want) {
			t.Errorf("the bridge lacks %q:\n%s", want, show)
		}
	}
	for line := range strings.Lines(show) {
		if strings.Contains(line, "fd00:1::1/64") && strings.Contains(line, "tentative") {
			t.Errorf("the gateway cannot be used yet: %s", line)
		}
	}
	for name, want := range map[string]string{
		"net.ipv4.conf.nft-test.route_localnet": "1", "net.ipv6.conf.nft-test.accept_ra": "0",
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1",
	} {
		if got := strings.TrimSpace(run(t, "sysctl", "-n", name)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := strings.TrimSpace(run(t, "sysctl", "-n", "net.ipv4.conf.all.route_localnet")); got != "0" {
		t.Errorf("route_localnet is %s for every interface", got)
	}
}

func TestBridgeNameOfAnotherInterface(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "nft-test", "type", "veth", "peer", "name", "other")
	defer run(t, "ip", "link", "del", "nft-test")
	if err := EnsureBridge(network()); err == nil || !strings.Contains(err.Error(), "is a veth, not a bridge") {
		t.Error(err)
	}
	if err := DeleteBridge(network()); err != nil {
		t.Error(err)
	}
	if kind, err := Kind("nft-test"); kind != "veth" || err != nil {
		t.Errorf("somebody else's interface is a %q now, %v", kind, err)
	}
}

func TestAttach(t *testing.T) {
	n, e := network(), endpoint()
	makeBridge(t, n)
	for range 2 { // the second time replaces what the first left
		if err := Attach(n, e); err != nil {
			t.Fatal(err)
		}
	}
	host := run(t, "ip", "-d", "link", "show", HostName(e.ID))
	for _, want := range []string{"master nft-test", "mtu 1400", "hairpin on", "isolated off"} {
		if !strings.Contains(host, want) {
			t.Errorf("the host's end lacks %q:\n%s", want, host)
		}
	}
	inside := run(t, "ip", "link", "show", ContainerName(e.ID))
	for _, want := range []string{"mtu 1400", "02:42:0a:01:00:02"} {
		if !strings.Contains(inside, want) {
			t.Errorf("the container's end lacks %q:\n%s", want, inside)
		}
	}
	for range 2 {
		if err := Detach(e); err != nil {
			t.Fatal(err)
		}
	}
	if kind, err := Kind(HostName(e.ID)); kind != "" || err != nil {
		t.Errorf("after Detach: %q, %v", kind, err)
	}
}

func TestAttachIsolated(t *testing.T) {
	n, e := network(), endpoint()
	n.ICC = false
	makeBridge(t, n)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	if show := run(t, "ip", "-d", "link", "show", HostName(e.ID)); !strings.Contains(show, "isolated on") {
		t.Errorf("the port is not isolated:\n%s", show)
	}
}

// TestAttachWithoutBridge: a bridge that somebody removed is made again.
func TestAttachWithoutBridge(t *testing.T) {
	n, e := network(), endpoint()
	makeBridge(t, n)
	run(t, "ip", "link", "del", n.Bridge)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	if show := run(t, "ip", "link", "show", HostName(e.ID)); !strings.Contains(show, "master nft-test") {
		t.Errorf("the host's end is not on the bridge:\n%s", show)
	}
	if err := Detach(e); err != nil {
		t.Error(err)
	}
}

func TestAttachToAnotherKindOfInterface(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "nft-test", "type", "veth", "peer", "name", "other")
	defer run(t, "ip", "link", "del", "nft-test")
	if err := Attach(network(), endpoint()); err == nil || !strings.Contains(err.Error(), "nft-test") {
		t.Error(err)
	}
	if kind, _ := Kind(HostName(endpoint().ID)); kind != "" {
		t.Error("a link is left")
	}
}

// TestRouteInto: a subnet that the host has a route to clashes, unless the
// route is everybody's or the bridge's own.
func TestRouteInto(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "wan", "type", "veth", "peer", "name", "isp")
	defer run(t, "ip", "link", "del", "wan")
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "wan")
	run(t, "ip", "addr", "add", "2001:db8::1/64", "dev", "wan", "nodad")
	run(t, "ip", "link", "set", "isp", "up")
	run(t, "ip", "link", "set", "wan", "up", "mtu", "1400")
	run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	run(t, "ip", "route", "add", "128.0.0.0/1", "via", "192.0.2.2")
	run(t, "ip", "route", "add", "10.8.0.0/16", "via", "192.0.2.9")
	for subnet, want := range map[string]string{
		"10.8.7.0/24": "10.8.0.0/16 via 192.0.2.9 dev wan", "10.0.0.0/8": "10.8.0.0/16 via 192.0.2.9 dev wan", "10.9.0.0/16": "",
		"192.0.2.64/26": "192.0.2.0/24 dev wan", "172.16.0.0/12": "", "2001:db8::/48": "2001:db8::/64 dev wan", "fd00::/64": "",
	} {
		if want != "" {
			want += " in table main, which rule 32766 (from all lookup main) asks"
		}
		got, err := RouteInto(netip.MustParsePrefix(subnet), "nft-test")
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", subnet, got, err, want)
		}
	}
	if got, err := RouteInto(netip.MustParsePrefix("192.0.2.0/24"), "wan"); err != nil || got != "" {
		t.Errorf("the bridge's own route: %q, %v", got, err)
	}
	for _, row := range []struct {
		route []string
		ipv6  bool
		want  int
	}{
		{nil, false, 1400},
		{[]string{"mtu", "1000"}, false, 1000},
		{[]string{"mtu", "1000"}, true, 1280},
		{[]string{"mtu", "1500"}, false, 0},
	} {
		run(t, append([]string{"ip", "route", "replace", "default", "via", "192.0.2.2"}, row.route...)...)
		if got, err := RouteMTU(row.ipv6); err != nil || got != row.want {
			t.Errorf("default route with %v: %d, %v; want %d", row.route, got, err, row.want)
		}
	}
}

// flows lists the conntrack entries of a protocol as "source-port destination-port".
func flows(t *testing.T, proto string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(run(t, "conntrack", "-L", "-p", proto)) {
		var sport, dport string
		for word := range strings.FieldsSeq(line) {
			if v, ok := strings.CutPrefix(word, "sport="); ok && sport == "" {
				sport = v
			}
			if v, ok := strings.CutPrefix(word, "dport="); ok && dport == "" {
				dport = v
			}
		}
		if sport != "" {
			out = append(out, sport+" "+dport)
		}
	}
	slices.Sort(out)
	return out
}

// TestForgetFlows deletes what knocked at the published port of this host, and
// no other flow: neither one to the same port of another host, nor one to
// another port, nor a connection that was answered.
func TestForgetFlows(t *testing.T) {
	nstest.RequireInside(t)
	// Conntrack works where a rule asks for it.
	run(t, "nft", "add table inet track; add chain inet track out { type filter hook output priority 0; }; add rule inet track out ct state new")
	defer run(t, "nft", "delete", "table", "inet", "track")
	run(t, "conntrack", "-F")
	run(t, "ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1")
	defer run(t, "ip", "link", "del", "out0")
	run(t, "ip", "addr", "add", "192.0.2.1/24", "dev", "out0")
	run(t, "ip", "link", "set", "out0", "up")
	run(t, "ip", "link", "set", "out1", "up")
	run(t, "ip", "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "out0")

	l, err := net.Listen("tcp4", "127.0.0.1:5353")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answered, err := net.Dial("tcp4", "127.0.0.1:5353")
	if err != nil {
		t.Fatal(err)
	}
	defer answered.Close()
	send := func(from int, to string) {
		c, err := net.DialUDP("udp4", &net.UDPAddr{Port: from}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("knock")); err != nil {
			t.Fatal(err)
		}
	}
	send(40001, "127.0.0.1:5353")
	send(40002, "192.0.2.1:5353")
	send(40003, "192.0.2.9:5353")
	send(40004, "127.0.0.1:53")
	if got := fmt.Sprint(flows(t, "udp")); got != "[40001 5353 40002 5353 40003 5353 40004 53]" {
		t.Fatalf("flows before: %s", got)
	}
	// A TCP client that waits: nobody answers at 192.0.2.9, nor is it this host.
	waiting := net.Dialer{Timeout: 200 * time.Millisecond, LocalAddr: &net.TCPAddr{Port: 40005}}
	_, _ = waiting.Dial("tcp4", "192.0.2.9:5353")

	any4 := netip.MustParseAddrPort("0.0.0.0:5353")
	to := netip.MustParseAddrPort("10.1.0.2:53")
	if err := ForgetFlows([]Lead{{Port: desired.Port{Proto: 17, Host: any4, Container: to}}, {Port: desired.Port{Proto: 6, Host: any4, Container: to}}}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(flows(t, "udp")); got != "[40003 5353 40004 53]" {
		t.Errorf("UDP flows after: %s", got)
	}
	if got := flows(t, "tcp"); len(got) != 2 {
		t.Errorf("TCP flows after: %v, want the answered one and the one to another host", got)
	}
}
