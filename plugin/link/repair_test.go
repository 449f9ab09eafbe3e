package link

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

// rightSurvey is a host as a network asks for, with endpoints 2 and 3.
func rightSurvey(n desired.Network) (Survey, desired.State) {
	st := desired.New()
	st.Networks[n.ID] = n
	s := Survey{
		host: map[string]int{pathForward4: 1, pathForward6: 1},
		links: []seenLink{
			{index: 1, name: "lo", up: true},
			{index: 2, name: n.Bridge, kind: KindBridge, up: true, mtu: n.MTU, mac: BridgeMAC(n.ID), ipv4: conf(bridgeSettings(n), false), ipv6: conf(bridgeSettings(n), true)},
		},
		addrs: map[int][]seenAddr{1: {{prefix: netip.MustParsePrefix("127.0.0.1/8")}}},
	}
	for _, p := range bridgeAddrs(n) {
		s.addrs[2] = append(s.addrs[2], seenAddr{prefix: p})
	}
	for i := range byte(2) {
		e := numbered(n, i+2)
		st.Endpoints[e.ID] = e
		s.links = append(s.links, seenLink{
			index: 10 + int(i), name: e.HostLink, kind: kindVeth, up: true, mtu: n.MTU, mac: vethMAC(e.ID), master: 2, hairpin: true, isolated: !n.ICC,
		})
	}
	return s, st
}

// conf makes the kernel's table of the parameters of a link.
func conf(settings []setting, ipv6 bool) []byte {
	table := make([]byte, 4*64)
	for _, s := range settings {
		if s.conf.ipv6 == ipv6 && !s.notify {
			binary.NativeEndian.PutUint32(table[4*s.conf.index:], uint32(s.want))
		}
	}
	return table
}

func kinds(found []Fault) []string {
	var out []string
	for _, f := range found {
		out = append(out, string(f.Kind))
	}
	return out
}

// TestFaultsOfSurvey finds in a survey what no command of ip makes, or what is
// the user's own affair.
func TestFaultsOfSurvey(t *testing.T) {
	adopted := network()
	adopted.Adopted = true
	kept := adopted
	kept.IPv4.Kept, kept.IPv6.Kept = true, true
	internal := network()
	internal.Internal = true
	isolated := network()
	isolated.IPv6.Mode, isolated.IPv6.Gateway = desired.ModeIsolated, netip.Addr{}
	only4 := network()
	only4.IPv6 = desired.Subnet{}
	set := func(c confIndex, v uint32) func(*Survey, desired.State) {
		return func(s *Survey, _ desired.State) {
			table := s.links[1].ipv4
			if c.ipv6 {
				table = s.links[1].ipv6
			}
			binary.NativeEndian.PutUint32(table[4*c.index:], v)
		}
	}
	drop := func(i int) func(*Survey, desired.State) {
		return func(s *Survey, _ desired.State) { s.links = slices.Delete(slices.Clone(s.links), i, i+1) }
	}
	for _, row := range []struct {
		name  string
		n     desired.Network
		spoil func(*Survey, desired.State)
		want  []string
		// repairable and says are of the first fault.
		repairable bool
		says       string
	}{
		{name: "right", n: network()},
		{name: "right, internal", n: internal},
		{name: "right, isolated from the host", n: isolated},
		{name: "internal networks need no forwarding", n: internal, spoil: func(s *Survey, _ desired.State) { s.host[pathForward4], s.host[pathForward6] = 0, 0 }},
		{name: "IPv4 alone", n: only4, spoil: func(s *Survey, _ desired.State) { s.host[pathForward6] = 0; s.links[1].ipv6 = nil }},
		{name: "IPv6 on where the mode is isolated", n: isolated, spoil: set(confDisableIPv6, 0), want: []string{"bridge-parameter"}, repairable: true},
		{name: "no IPv6 in the kernel", n: network(), spoil: func(s *Survey, _ desired.State) {
			delete(s.host, pathForward6)
			s.links[1].ipv6 = nil
		}, want: []string{"host-parameter", "bridge-parameter", "bridge-parameter", "bridge-parameter"}, repairable: true, says: "net.ipv6.conf.all.forwarding was missing instead of 1"},
		{name: "bridge without its name, of an older version", n: network(), spoil: func(s *Survey, _ desired.State) {
			s.links[1].name, s.links[1].mac = "foo0", testMAC
		}, want: []string{"bridge-renamed"}, repairable: true},
		{name: "another bridge with the gateway's address", n: network(), spoil: func(s *Survey, _ desired.State) {
			s.links[1].name, s.links[1].mac = "foo0", testMAC
			s.links[2].master, s.links[3].master = 0, 0
		}, want: []string{"bridge-missing"}, repairable: true},
		{name: "name of the bridge taken by another kind", n: network(), spoil: func(s *Survey, _ desired.State) {
			s.links[1].kind = "dummy"
		}, want: []string{"bridge-name-taken"}, says: "the name of bridge nft-test belongs to another interface, a dummy"},
		{name: "name of the bridge taken by another bridge", n: network(), spoil: func(s *Survey, _ desired.State) {
			s.links[1].name = "foo0"
			s.links = append(s.links, seenLink{index: 99, name: "nft-test", kind: KindBridge, mac: testMAC})
		}, want: []string{"bridge-name-taken"}},
		{name: "veth gone", n: network(), spoil: drop(2), want: []string{"veth-missing"}, says: "veth nfv000000000002 is missing: its container is cut off from the network"},
		{name: "bridge and veth gone", n: network(), spoil: func(s *Survey, st desired.State) {
			drop(2)(s, st)
			drop(1)(s, st)
		}, want: []string{"bridge-missing", "veth-missing"}, repairable: true},
		{name: "endpoint that has not joined", n: network(), spoil: func(s *Survey, st desired.State) {
			e := numbered(network(), 2)
			e.HostLink = ""
			st.Endpoints[e.ID] = e
			drop(2)(s, st)
		}},
		{name: "name of the veth taken", n: network(), spoil: func(s *Survey, _ desired.State) {
			s.links[2].name = "foo0"
			s.links = append(s.links, seenLink{index: 99, name: "nfv000000000002", kind: "dummy"})
		}, want: []string{"veth-name-taken"}},
		{name: "veth with an unknown master", n: network(), spoil: func(s *Survey, _ desired.State) { s.links[2].master = 77 }, want: []string{"veth-unplugged"}, repairable: true, says: "veth nfv000000000002 was on interface 77 instead of bridge nft-test"},
		{name: "address that somebody else has", n: network(), spoil: func(s *Survey, _ desired.State) { s.addrs[2][1].failed = true }, want: []string{"address-failed"}, repairable: true, says: "address fd00:1::1/64 of bridge nft-test was unusable: duplicate address detection failed"},

		{name: "adopted bridge of its user's making", n: adopted, spoil: func(s *Survey, st desired.State) {
			s.links[1].mac, s.links[1].mtu = testMAC, 9000
			set(confAcceptRA, 2)(s, st)
			set(confAcceptDAD, 1)(s, st)
			set(confForwarding, 0)(s, st)
		}},
		{name: "adopted bridge gone", n: adopted, spoil: drop(1), want: []string{"bridge-missing"}, says: "bridge nft-test was missing"},
		{name: "adopted bridge down", n: adopted, spoil: func(s *Survey, _ desired.State) { s.links[1].up = false }, want: []string{"bridge-down"}},
		{name: "adopted bridge without what the network gave it", n: adopted, spoil: func(s *Survey, st desired.State) {
			s.addrs[2] = nil
			set(confRouteLocalnet, 0)(s, st)
		}, want: []string{"bridge-parameter", "address-missing", "address-missing"}, repairable: true},
		{name: "adopted bridge without its user's addresses", n: kept, spoil: func(s *Survey, _ desired.State) { s.addrs[2] = nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, st := rightSurvey(row.n)
			if row.spoil != nil {
				row.spoil(&s, st)
			}
			found := s.Faults(st)
			if got := kinds(found); !slices.Equal(got, row.want) {
				t.Fatalf("found %q, want %q", got, row.want)
			}
			if len(found) == 0 {
				return
			}
			f := found[0]
			if f.Repairable() != row.repairable || (f.Fix() == "") != row.repairable || strings.ContainsAny(f.Fix()+f.String(), "{}%") {
				t.Errorf("%s: repairable %t, fix %q", f, f.Repairable(), f.Fix())
			}
			if row.says != "" && f.String() != row.says {
				t.Errorf("%q, want %q", f, row.says)
			}
			if f.Repairable() {
				return
			}
			if err := Repair(f, st); err == nil || !strings.Contains(err.Error(), f.String()) {
				t.Errorf("repair of what cannot be repaired: %v", err)
			}
		})
	}
}

// TestFaultWords: every kind has words, and a way to put it right.
func TestFaultWords(t *testing.T) {
	for kind, r := range remedies {
		f := Fault{Kind: kind, Object: "nft-test", Was: "OLD", Want: "NEW", Adopted: true}
		if !strings.Contains(f.String(), "nft-test") {
			t.Errorf("%s: %q", kind, f)
		}
		if r.repair == nil && r.fix == "" {
			t.Errorf("%s: nobody is told how to put it right", kind)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	f := Fault{Kind: AddressMissing, Network: "0123", Object: "nft-test", Want: "10.1.0.1/24"}
	text, err := json.Marshal(f)
	if want := `{"kind":"address-missing","network":"0123","object":"nft-test","want":"10.1.0.1/24"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
}

// TestRepairOfGoneNetwork: what a fault is of may go while it waits for its
// repair.
func TestRepairOfGoneNetwork(t *testing.T) {
	nstest.RequireInside(t)
	for kind, r := range remedies {
		if r.repair == nil || kind == HostParameter {
			continue
		}
		if err := Repair(Fault{Kind: kind, Network: "0123", Endpoint: "4567", Object: "nft-test"}, desired.New()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if links, err := dumpLinks(linkFilter{kind: KindBridge}); err != nil || len(links) != 0 {
			t.Errorf("%s made %v, %v", kind, links, err)
		}
	}
}

// TestRepairAfterTheNameIsFree: a bridge whose name somebody took is repaired
// once the name is free.
func TestRepairAfterTheNameIsFree(t *testing.T) {
	s := newSite(t, network())
	t.Cleanup(removeFoo)
	for _, line := range []string{"link set nft-test down", "link set nft-test name foo0", "link add nft-test type veth peer name foo1"} {
		command(t, line)
	}
	found, names := s.faults(t)
	if !slices.Equal(names, []string{"bridge-name-taken nft-test"}) {
		t.Fatalf("found %q", names)
	}
	if err := Repair(found[0], s.State); err == nil {
		t.Error("somebody else's interface was in the way, and is not")
	}
	if kind, _ := Kind("nft-test"); kind != "veth" {
		t.Errorf("somebody else's interface is a %q now", kind)
	}
	command(t, "link del nft-test")
	found, names = s.faults(t)
	if !slices.Equal(names, []string{"bridge-renamed nft-test"}) {
		t.Fatalf("found %q", names)
	}
	s.repair(t, found)
	if found, _ := s.faults(t); len(found) != 0 {
		t.Errorf("after the repair: %v", found)
	}
	s.packets(t)
}

// TestRenamedWhileNobodyLooked: a driver that starts finds its bridge under
// another name, and makes no second one.
func TestRenamedWhileNobodyLooked(t *testing.T) {
	s := newSite(t, network())
	t.Cleanup(removeFoo)
	command(t, "link set nft-test down")
	command(t, "link set nft-test name foo0")
	if err := EnsureBridge(s.n); err != nil {
		t.Fatal(err)
	}
	if kind, _ := Kind("foo0"); kind != "" {
		t.Errorf("foo0 is a %s still", kind)
	}
	if found, _ := s.faults(t); len(found) != 0 {
		t.Error(found)
	}
	s.packets(t)
}

// TestAddressInUse: a container has taken the gateway's address, so that the
// bridge could not have it back. When it has given it up, the bridge gets it.
func TestAddressInUse(t *testing.T) {
	s := newSite(t, network())
	s.a.Exec(t, "ip", "addr", "add", "fd00:1::1/64", "dev", "eth0", "nodad")
	command(t, "sysctl net.ipv6.conf.nft-test.accept_dad=1")
	command(t, "addr del fd00:1::1/64 dev nft-test")
	command(t, "addr add fd00:1::1/64 dev nft-test")
	eventually(t, "the address is found to be in use", func() bool {
		return strings.Contains(run(t, "ip", "-6", "addr", "show", "dev", "nft-test"), "dadfailed")
	})
	s.a.Exec(t, "ip", "addr", "del", "fd00:1::1/64", "dev", "eth0")
	found, names := s.faults(t)
	if !slices.Equal(names, []string{"bridge-parameter net.ipv6.conf.nft-test.accept_dad", "address-failed nft-test fd00:1::1/64"}) {
		t.Fatalf("found %q", names)
	}
	s.repair(t, found)
	if found, _ := s.faults(t); len(found) != 0 {
		t.Errorf("after the repair: %v", found)
	}
	s.packets(t)
}

// TestAdoptedBridge: what the network gave its user's bridge comes back, and
// nothing else is touched.
func TestAdoptedBridge(t *testing.T) {
	n := network()
	n.Adopted = true
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", n.Bridge, "address", "02:00:00:00:00:77", "type", "bridge")
	t.Cleanup(func() { run(t, "ip", "link", "del", n.Bridge) })
	s := newSite(t, n)
	for _, line := range []string{
		"addr flush dev nft-test scope global", "addr add 192.0.2.7/24 dev nft-test", "link set nft-test mtu 1380",
		"sysctl net.ipv4.conf.nft-test.route_localnet=0", "sysctl net.ipv6.conf.nft-test.accept_ra=2",
	} {
		command(t, line)
	}
	found, names := s.faults(t)
	if want := []string{"bridge-parameter net.ipv4.conf.nft-test.route_localnet", "address-missing nft-test 10.1.0.1/24", testGateway}; !slices.Equal(names, want) {
		t.Fatalf("found %q, want %q", names, want)
	}
	s.repair(t, found)
	if found, _ := s.faults(t); len(found) != 0 {
		t.Errorf("after the repair: %v", found)
	}
	s.packets(t)
	show := run(t, "ip", "addr", "show", "dev", n.Bridge)
	for _, want := range []string{"192.0.2.7/24", "mtu 1380", "02:00:00:00:00:77"} {
		if !strings.Contains(show, want) {
			t.Errorf("the user's bridge has lost %s:\n%s", want, show)
		}
	}
	if got := strings.TrimSpace(run(t, "sysctl", "-n", "net.ipv6.conf.nft-test.accept_ra")); got != "2" {
		t.Errorf("accept_ra of the user's bridge is %s now", got)
	}
}

// FuzzParse: no message makes the parsers fail in another way than by an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 16))
	f.Add(append(make([]byte, 16), 4, 0, 3, 0, 5, 0, 26, 0, 1, 0, 0, 0))
	f.Add(append(make([]byte, 8), 8, 0, 1, 0, 10, 1, 0, 1, 20, 0, 1, 0))
	f.Fuzz(func(_ *testing.T, m []byte) {
		if l, err := parseLink(m); err == nil {
			l.parameter(confAcceptDAD)
			l.parameter(confRouteLocalnet)
		}
		_, _, _ = parseAddr(m)
		namespaceOf(m)
	})
}
