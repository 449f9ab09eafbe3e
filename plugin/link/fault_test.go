package link

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
	"nftnet/internal/nstest/wire"
)

// site is a network with two containers, on a host with a neighbour. The
// published port 8080 of the host leads to the first container's 5353.
type site struct {
	desired.State
	n    desired.Network
	a, b container
	lan  *nstest.NS
}

func newSite(t *testing.T, n desired.Network) *site {
	t.Helper()
	makeBridge(t, n)
	s := &site{State: desired.New(), n: n, lan: nstest.NewNS(t, "lan")}
	s.Networks[n.ID] = n
	s.a, s.b = startContainer(t, n, numbered(n, 2)), startContainer(t, n, numbered(n, 3))
	s.Endpoints[s.a.ID], s.Endpoints[s.b.ID] = s.a.Endpoint, s.b.Endpoint

	run(t, "ip", "link", "add", "wan", "type", "veth", "peer", "name", "eth0", "netns", s.lan.Name())
	t.Cleanup(func() { run(t, "ip", "link", "del", "wan") })
	run(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "wan")
	run(t, "ip", "addr", "add", "2001:db8:1::1/64", "dev", "wan", "nodad")
	run(t, "sysctl", "-qw", "net.ipv6.conf.wan.accept_dad=0")
	s.lan.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
	run(t, "ip", "link", "set", "wan", "up")
	s.lan.Exec(t, "ip", "addr", "add", "198.51.100.2/24", "dev", "eth0")
	s.lan.Exec(t, "ip", "addr", "add", "2001:db8:1::2/64", "dev", "eth0", "nodad")
	s.lan.Exec(t, "ip", "link", "set", "eth0", "up")
	s.lan.Exec(t, "ip", "route", "add", "default", "via", "198.51.100.1")
	s.lan.Exec(t, "ip", "route", "add", "default", "via", "2001:db8:1::1")
	nstest.Serve(t, s.lan, "", ":5353")

	rules := fmt.Sprintf(`table ip site {
		chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local udp dport 8080 dnat to %[1]s:5353; }
		chain OUTPUT { type nat hook output priority -100; fib daddr type local udp dport 8080 dnat to %[1]s:5353; }
		chain POSTROUTING { type nat hook postrouting priority 100; ip saddr { 127.0.0.0/8, %[1]s } ip daddr %[1]s masquerade; }
	}`, s.a.IPv4)
	run(t, "nft", rules)
	t.Cleanup(func() { run(t, "nft", "delete", "table", "ip", "site") })
	return s
}

// packets checks that what a network is for works: its containers reach each
// other where they may, and the host, and hosts beyond, in both directions; the
// published port is reached from the host by 127.0.0.1 and by its container.
func (s *site) packets(t *testing.T) {
	t.Helper()
	s.a.fromHost(t)
	s.b.fromHost(t)
	for _, row := range []struct {
		from *nstest.NS
		to   string
	}{
		{s.a.NS, "198.51.100.2:5353"}, {s.a.NS, "[2001:db8:1::2]:5353"},
		{s.lan, s.b.IPv4.String() + ":5353"}, {s.lan, "[" + s.b.IPv6.String() + "]:5353"},
		{s.lan, "198.51.100.1:8080"}, {s.a.NS, "198.51.100.1:8080"},
	} {
		if row.from == s.a.NS && row.to == "198.51.100.1:8080" && !s.n.ICC {
			// Where br_netfilter translates on the bridge, the packet comes back as one
			// between isolated ports.
			continue
		}
		if _, err := row.from.UDP(row.to, answerTimeout); err != nil {
			t.Errorf("from %s to %s: %v", row.from.Name(), row.to, err)
		}
	}
	if err := hostAsks(t, "127.0.0.1:8080"); err != nil {
		t.Errorf("the host asks 127.0.0.1:8080: %v", err)
	}
	if s.n.ICC {
		s.a.ask(t, s.b)
		return
	}
	if _, err := s.a.UDP(s.b.IPv4.String()+":5353", 300*time.Millisecond); err == nil {
		t.Error("containers that must not reach each other do")
	}
}

func hostAsks(t *testing.T, addr string) error {
	ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
	defer cancel()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = wire.AskUDP(ctx, conn)
	return err
}

func look(t *testing.T) Survey {
	t.Helper()
	s, err := Look()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// faults lists what a survey finds now, each as "kind object".
func (s *site) faults(t *testing.T) ([]Fault, []string) {
	t.Helper()
	found := look(t).Faults(s.State)
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = string(f.Kind) + " " + f.Object
		if f.Kind == AddressMissing || f.Kind == AddressFailed {
			names[i] += " " + f.Want
		}
	}
	return found, names
}

const (
	testVeth    = "nfv000000000002"
	testGateway = "address-missing nft-test fd00:1::1/64"
	testLocal   = "address-missing nft-test fe80::5480:28ff:febf:e011/64"
)

// breakage is a way in which somebody breaks a network, and the faults that
// follow from it.
type breakage struct {
	name string
	// isolated says that the containers of the network must not reach each other.
	isolated bool
	// do are commands of ip, or others where the first word says so.
	do   []string
	want []string
	said string
}

var breakages = []breakage{
	{
		name: "bridge down", do: []string{"link set nft-test down"},
		want: []string{"bridge-down nft-test", testGateway, testLocal}, said: "bridge nft-test was down",
	},
	{
		name: "bridge deleted", do: []string{"link del nft-test"},
		want: []string{"bridge-missing nft-test"}, said: "bridge nft-test was missing",
	},
	{
		name: "bridge deleted where containers are isolated", isolated: true, do: []string{"link del nft-test"},
		want: []string{"bridge-missing nft-test"},
	},
	{
		name: "bridge deleted and a veth down", do: []string{"link del nft-test", "link set " + testVeth + " down"},
		want: []string{"bridge-missing nft-test"},
	},
	{
		name: "bridge renamed", do: []string{"link set nft-test down", "link set nft-test name foo0", "link set foo0 up"},
		want: []string{"bridge-renamed nft-test"}, said: "bridge nft-test was renamed to foo0",
	},
	{
		name: "bridge renamed and down", do: []string{"link set nft-test down", "link set nft-test name foo0"},
		want: []string{"bridge-renamed nft-test"},
	},
	{
		name: "MAC address changed", do: []string{"link set nft-test address 02:00:00:00:00:42"},
		want: []string{"bridge-mac nft-test"}, said: "bridge nft-test had MAC address 02:00:00:00:00:42 instead of 56:80:28:bf:e0:11",
	},
	{
		name: "bridge renamed by somebody who changed its MAC address too",
		do:   []string{"link set nft-test down", "link set nft-test address 02:00:00:00:00:42 name foo0", "link set foo0 up"},
		want: []string{"bridge-renamed nft-test"},
	},
	{
		name: "MTU changed", do: []string{"link set nft-test mtu 1300"},
		want: []string{"bridge-mtu nft-test"}, said: "bridge nft-test had MTU 1300 instead of 1400",
	},
	{
		name: "MTU too small for IPv6", do: []string{"link set nft-test mtu 1000"},
		want: []string{
			"bridge-mtu nft-test", "bridge-parameter net.ipv6.conf.nft-test.disable_ipv6", "bridge-parameter net.ipv6.conf.nft-test.accept_ra",
			"bridge-parameter net.ipv6.conf.nft-test.accept_dad", testGateway, testLocal,
		},
	},
	{
		name: "IPv4 address flushed", do: []string{"-4 addr flush dev nft-test"},
		want: []string{"address-missing nft-test 10.1.0.1/24"}, said: "bridge nft-test lacked its address 10.1.0.1/24",
	},
	{
		name: "all addresses flushed", do: []string{"addr flush dev nft-test"},
		want: []string{"address-missing nft-test 10.1.0.1/24", testGateway, testLocal},
	},
	{
		name: "address with another prefix", do: []string{"addr del 10.1.0.1/24 dev nft-test", "addr add 10.1.0.1/32 dev nft-test"},
		want: []string{"address-missing nft-test 10.1.0.1/24"},
	},
	{
		name: "IPv6 off", do: []string{"sysctl net.ipv6.conf.nft-test.disable_ipv6=1"},
		want: []string{"bridge-parameter net.ipv6.conf.nft-test.disable_ipv6", testGateway, testLocal},
		said: "net.ipv6.conf.nft-test.disable_ipv6 was 1 instead of 0",
	},
	{
		name: "IPv6 off and on", do: []string{"sysctl net.ipv6.conf.nft-test.disable_ipv6=1", "sysctl net.ipv6.conf.nft-test.disable_ipv6=0"},
		want: []string{testGateway},
	},
	{
		name: "route_localnet", do: []string{"sysctl net.ipv4.conf.nft-test.route_localnet=0"},
		want: []string{"bridge-parameter net.ipv4.conf.nft-test.route_localnet"},
	},
	{
		name: "router advertisements", do: []string{"sysctl net.ipv6.conf.nft-test.accept_ra=2"},
		want: []string{"bridge-parameter net.ipv6.conf.nft-test.accept_ra"},
	},
	{
		name: "duplicate address detection", do: []string{"sysctl net.ipv6.conf.nft-test.accept_dad=1"},
		want: []string{"bridge-parameter net.ipv6.conf.nft-test.accept_dad"},
	},
	{
		name: "forwarding of the bridge", do: []string{"sysctl net.ipv4.conf.nft-test.forwarding=0"},
		want: []string{"bridge-parameter net.ipv4.conf.nft-test.forwarding"},
	},
	{
		name: "forwarding", do: []string{"sysctl net.ipv4.ip_forward=0"},
		want: []string{"host-parameter net.ipv4.ip_forward"}, said: "net.ipv4.ip_forward was 0 instead of 1",
	},
	{
		name: "IPv6 forwarding", do: []string{"sysctl net.ipv6.conf.all.forwarding=0"},
		want: []string{"host-parameter net.ipv6.conf.all.forwarding"},
	},
	{
		name: "veth down", do: []string{"link set " + testVeth + " down"},
		want: []string{"veth-down " + testVeth}, said: "veth " + testVeth + " was down",
	},
	{
		name: "veth unplugged", do: []string{"link set " + testVeth + " nomaster"},
		want: []string{"veth-unplugged " + testVeth}, said: "veth " + testVeth + " was on no bridge instead of bridge nft-test",
	},
	{
		name: "veth unplugged where containers are isolated", isolated: true, do: []string{"link set " + testVeth + " nomaster"},
		want: []string{"veth-unplugged " + testVeth},
	},
	{
		name: "veth on another bridge", do: []string{"link add foo0 type bridge", "link set " + testVeth + " master foo0"},
		want: []string{"veth-unplugged " + testVeth}, said: "veth " + testVeth + " was on bridge foo0 instead of bridge nft-test",
	},
	{
		name: "veth renamed", do: []string{"link set " + testVeth + " down", "link set " + testVeth + " name foo0", "link set foo0 up"},
		want: []string{"veth-renamed " + testVeth}, said: "veth " + testVeth + " was renamed to foo0",
	},
	{
		name: "hairpin mode off", do: []string{"bridge link set dev " + testVeth + " hairpin off"},
		want: []string{"veth-hairpin " + testVeth}, said: "hairpin mode of veth " + testVeth + " was off",
	},
	{
		name: "port isolated", do: []string{"bridge link set dev " + testVeth + " isolated on"},
		want: []string{"veth-isolation " + testVeth}, said: "port isolation of veth " + testVeth + " was on",
	},
	{
		name: "port no longer isolated", isolated: true, do: []string{"bridge link set dev " + testVeth + " isolated off"},
		want: []string{"veth-isolation " + testVeth}, said: "port isolation of veth " + testVeth + " was off",
	},
	{
		name: "MTU of a veth", do: []string{"link set " + testVeth + " mtu 1300"},
		want: []string{"veth-mtu " + testVeth}, said: "veth " + testVeth + " had MTU 1300 instead of 1400",
	},
}

// command runs one of a breakage's.
func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "sysctl":
		words = append([]string{"sysctl", "-qw"}, words[1:]...)
	case "bridge":
	default:
		words = append([]string{"ip"}, words...)
	}
	run(t, words...)
}

// TestFaults: somebody breaks a network; the survey names exactly that; repaired,
// nothing is found and packets pass. A second repair touches nothing. One site
// bears all of it, so that a repair which leaves something out shows.
func TestFaults(t *testing.T) {
	for _, icc := range []bool{true, false} {
		t.Run(fmt.Sprintf("icc=%t", icc), func(t *testing.T) {
			n := network()
			n.ICC = icc
			s := newSite(t, n)
			for _, row := range breakages {
				if row.isolated == icc {
					continue
				}
				if !t.Run(row.name, func(t *testing.T) { s.breakAndRepair(t, row) }) {
					return
				}
			}
		})
	}
}

func (s *site) breakAndRepair(t *testing.T, row breakage) {
	t.Cleanup(removeFoo)
	if found, _ := s.faults(t); len(found) != 0 {
		t.Fatalf("at first: %v", found)
	}
	for _, line := range row.do {
		command(t, line)
	}
	found, names := s.faults(t)
	if !slices.Equal(names, row.want) {
		t.Errorf("found %q, want %q", names, row.want)
	}
	if row.said != "" && (len(found) == 0 || found[0].String() != row.said) {
		t.Errorf("said %q, want %q first", found, row.said)
	}
	s.repair(t, found)
	if found, _ := s.faults(t); len(found) != 0 {
		t.Errorf("after the repair: %v", found)
	}
	s.packets(t)
	s.repairsNothing(t, found)
}

func removeFoo() {
	if kind, _ := Kind("foo0"); kind != "" {
		_ = deleteLink("foo0", kind)
	}
}

func (s *site) repair(t *testing.T, found []Fault) {
	t.Helper()
	for _, f := range found {
		if !f.Repairable() || f.Fix() != "" {
			t.Errorf("%s cannot be repaired: %q", f, f.Fix())
		}
		if err := Repair(f, s.State); err != nil {
			t.Error(err)
		}
	}
}

// repairsNothing checks that repairs of what is right make no news. The kernel
// may still have some of the first repair: one that makes none is enough, since
// one that touches something does so each time.
func (s *site) repairsNothing(t *testing.T, found []Fault) {
	t.Helper()
	eventually(t, "a second repair changes nothing", func() bool {
		news, err := openNews(false, watchedGroups...)
		if err != nil {
			t.Fatal(err)
		}
		defer news.close()
		s.repair(t, found)
		messages, err := news.read(false)
		return err == nil && len(messages) == 0
	})
}
