// Package desiredtest holds the states that the tests of several packages turn
// into rules: one row for each thing that changes what the rules look like.
package desiredtest

import (
	"fmt"
	"net/netip"
	"strings"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
)

// Row is a state and the name of what is special about it.
type Row struct {
	Name  string
	State desired.State
}

const (
	tcp  = 6
	udp  = 17
	sctp = 132
)

// Rows lists the states.
func Rows() []Row {
	return []Row{
		{"empty", desired.New()},
		{"published", state([]desired.Network{network(1)}, endpoint(1, 2, nil,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), port(tcp, "[::]:8080", "[fd00:1::2]:80"),
			port(udp, "0.0.0.0:5353", "10.0.1.2:53"), port(udp, "[::]:5353", "[fd00:1::2]:53"),
			port(tcp, "127.0.0.1:8090", "10.0.1.2:80")))},
		// The kernel cannot translate from IPv6 to IPv4: no element for [::].
		{"ipv6-host-ipv4-container", state([]desired.Network{network(1)}, endpoint(1, 2, ipv4Only,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), port(tcp, "[::]:8080", "10.0.1.2:80")))},
		{"two-networks", state([]desired.Network{network(1), network(2)},
			endpoint(1, 2, nil, port(tcp, "0.0.0.0:8081", "10.0.1.2:80")),
			endpoint(2, 2, nil, port(tcp, "0.0.0.0:8082", "10.0.2.2:80")))},
		{"internal", state([]desired.Network{network(1, internal)}, endpoint(1, 2, nil))},
		{"icc-off", state([]desired.Network{network(1, iccOff)},
			endpoint(1, 2, nil, port(tcp, "0.0.0.0:8080", "10.0.1.2:80")), endpoint(1, 3, nil))},
		{"masquerade-off", state([]desired.Network{network(1, masqueradeOff)},
			endpoint(1, 2, nil, port(tcp, "0.0.0.0:8080", "10.0.1.2:80")))},
		{"ipv6-only", state([]desired.Network{network(1, noIPv4)}, endpoint(1, 2, ipv6Only,
			port(tcp, "[::]:8080", "[fd00:1::2]:80"), port(tcp, "[2001:db8::1]:8443", "[fd00:1::2]:443"),
			// The reply to a translated ::1 would be dropped by routing.
			port(tcp, "[::1]:8090", "[fd00:1::2]:80")))},
		// One container port is allowed once, however often it is published.
		{"one-port-published-often", state([]desired.Network{network(1)}, endpoint(1, 2, nil,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), port(tcp, "0.0.0.0:8081", "10.0.1.2:80"),
			port(tcp, "192.0.2.1:80", "10.0.1.2:80"), port(tcp, "192.0.2.2:80", "10.0.1.2:80")))},
		{"routed", state([]desired.Network{network(1, mode(desired.ModeRouted))}, endpoint(1, 2, nil,
			direct(tcp, "10.0.1.2:80"), direct(tcp, "[fd00:1::2]:80")))},
		{"routed-ipv6", state([]desired.Network{network(1, routed6)}, endpoint(1, 2, nil,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), direct(tcp, "[fd00:1::2]:80")))},
		{"unprotected", state([]desired.Network{network(1, mode(desired.ModeUnprotected))}, endpoint(1, 2, nil,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80")))},
		{"isolated", state([]desired.Network{network(1, internal, mode(desired.ModeIsolated))}, endpoint(1, 2, nil))},
		{"trusted", state([]desired.Network{network(1, trusted)}, endpoint(1, 2, nil, port(tcp, "0.0.0.0:8080", "10.0.1.2:80")))},
		{"snat", state([]desired.Network{network(1, snat)}, endpoint(1, 2, nil))},
		{"clamp-mss", state([]desired.Network{network(1, clamp)}, endpoint(1, 2, nil))},
		{"reject", state([]desired.Network{network(1, reject)}, endpoint(1, 2, nil))},
		// 443 is the one port that somebody named reaches, 80 nobody.
		{"allow", state([]desired.Network{network(1)}, endpoint(1, 2, allow,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), port(tcp, "0.0.0.0:8443", "10.0.1.2:443"), port(tcp, "[::]:8443", "[fd00:1::2]:443")))},
		{"icc-off-addresses", state([]desired.Network{network(1, iccOff)}, endpoint(1, 2, nil,
			port(tcp, "0.0.0.0:8080", "10.0.1.2:80"), port(tcp, "[::]:8080", "[fd00:1::2]:80"),
			port(udp, "192.0.2.1:53", "10.0.1.2:53"), port(tcp, "[2001:db8::1]:80", "[fd00:1::2]:80"),
			// The socket could not carry it.
			port(sctp, "0.0.0.0:9000", "10.0.1.2:9000")))},
		{"antispoof", state([]desired.Network{network(1)}, endpoint(1, 2, guarded(desired.SpoofNeighbours)),
			endpoint(1, 3, guarded(desired.SpoofNothing)))},
		{"antispoof-ipv4", state([]desired.Network{network(1, noIPv6)}, endpoint(1, 2, guarded(desired.SpoofNeighbours)))},
		{"ethertypes", state([]desired.Network{network(1)}, endpoint(1, 2, speaksMore(0x8100, 0x88a8, 0x88cc)),
			endpoint(1, 3, speaksMore(desired.EtherLLC)))},
		{"redirects", withRedirects(state([]desired.Network{network(1)}, endpoint(1, 2, nil, port(tcp, "0.0.0.0:8080", "10.0.1.2:80"))),
			desired.Redirect{Name: "80-tcp", Proto: tcp, Port: 80, To: 3000}, desired.Redirect{Name: "dns", Proto: udp, Port: 53, To: 5353},
			desired.Redirect{Name: "at4", Proto: tcp, Port: 443, To: 3443, Address: netip.MustParseAddr("192.0.2.1")},
			desired.Redirect{Name: "at6", Proto: tcp, Port: 443, To: 3443, Address: netip.MustParseAddr("2001:db8::1")})},
		{"user-named-bridge", state([]desired.Network{network(1, userBridge)}, endpoint(1, 2, nil))},
	}
}

// The options of a network.
func internal(n *desired.Network)      { n.Internal = true }
func iccOff(n *desired.Network)        { n.ICC = false }
func masqueradeOff(n *desired.Network) { n.Masquerade = false }
func noIPv4(n *desired.Network)        { n.IPv4 = desired.Subnet{} }

func noIPv6(n *desired.Network)  { n.IPv6 = desired.Subnet{} }
func clamp(n *desired.Network)   { n.ClampMSS = true }
func reject(n *desired.Network)  { n.Reject = true }
func routed6(n *desired.Network) { n.IPv6.Mode = desired.ModeRouted }
func trusted(n *desired.Network) { n.Trusted = []string{"lan0", "wg0"} }

func mode(m desired.GatewayMode) func(*desired.Network) {
	return func(n *desired.Network) { n.IPv4.Mode, n.IPv6.Mode = m, m }
}

func snat(n *desired.Network) {
	n.IPv4.SNAT, n.IPv6.SNAT = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
}

// userBridge is as long as a name of an interface can be.
func userBridge(n *desired.Network) { n.Bridge = "br-my_own.net15" }

// The families of an endpoint.
func ipv4Only(e *desired.Endpoint) { e.IPv6 = netip.Addr{} }
func ipv6Only(e *desired.Endpoint) { e.IPv4 = netip.Addr{} }

func allow(e *desired.Endpoint) {
	e.Allow = desired.Allow{
		desired.AllPorts: {Limited: true},
		"443/tcp": {Limited: true, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32"), netip.MustParsePrefix("2001:db8::/32"),
		}},
	}
}

// guarded has an address of its own beside those of its network.
func guarded(level desired.AntiSpoof) func(*desired.Endpoint) {
	return func(e *desired.Endpoint) {
		e.AntiSpoof, e.HostLink = level, layout.HostLinkPrefix+e.ID[:12]
		e.Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.200")}
	}
}

// speaksMore may send more kinds of frames, and use a link address beside its own.
func speaksMore(types ...uint16) func(*desired.Endpoint) {
	return func(e *desired.Endpoint) {
		guarded(desired.SpoofNeighbours)(e)
		e.EtherTypes, e.LinkAddresses = types, []string{"00:00:5e:00:01:33"}
	}
}

// network is the dual-stack network 10.0.x.0/24 and fd00:x::/64.
func network(x byte, options ...func(*desired.Network)) desired.Network {
	id := strings.Repeat(string('a'+rune(x)-1), 64)
	n := desired.Network{
		ID: id, Bridge: layout.BridgeName(id), ICC: true, Masquerade: true, IfacePrefix: "eth",
		IPv4: subnet(netip.AddrFrom4([4]byte{10, 0, x, 1}), 24),
		IPv6: subnet(netip.AddrFrom16([16]byte{0: 0xfd, 3: x, 15: 1}), 64),
	}
	for _, o := range options {
		o(&n)
	}
	return n
}

func subnet(gateway netip.Addr, bits int) desired.Subnet {
	return desired.Subnet{Prefix: netip.PrefixFrom(gateway, bits).Masked(), Gateway: gateway}
}

// endpoint is a container in network x; host is the last byte of its addresses.
func endpoint(x, host byte, option func(*desired.Endpoint), published ...desired.Port) desired.Endpoint {
	e := desired.Endpoint{
		ID: strings.Repeat(fmt.Sprintf("%02d%02d", x, host), 16), NetworkID: network(x).ID,
		MAC: fmt.Sprintf("02:42:0a:00:%02x:%02x", x, host), Published: published,
		IPv4: netip.AddrFrom4([4]byte{10, 0, x, host}), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 3: x, 15: host}),
	}
	if option != nil {
		option(&e)
	}
	return e
}

func port(proto uint8, host, container string) desired.Port {
	return desired.Port{Proto: proto, Host: netip.MustParseAddrPort(host), Container: netip.MustParseAddrPort(container)}
}

// direct is published by the container's own address.
func direct(proto uint8, container string) desired.Port {
	return desired.Port{Proto: proto, Container: netip.MustParseAddrPort(container)}
}

func state(networks []desired.Network, endpoints ...desired.Endpoint) desired.State {
	s := desired.New()
	for _, n := range networks {
		s.Networks[n.ID] = n
	}
	for _, e := range endpoints {
		s.Endpoints[e.ID] = e
	}
	return s
}

func withRedirects(s desired.State, redirects ...desired.Redirect) desired.State {
	for _, r := range redirects {
		s.Redirects[r.Name] = r
	}
	return s
}
