// Package desired holds what Docker, and for host redirects the administrator,
// has asked for and not taken back: the only thing that nftnet stores. Everything in the kernel (bridges, links, rules,
// port sockets) is made from it and can be made again.
//
// The package imports the standard library only.
package desired

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// State is all that was asked for and not taken back.
type State struct {
	// Networks and Endpoints are keyed by their Docker ids.
	Networks  map[string]Network
	Endpoints map[string]Endpoint
	// Redirects are the host redirects by name: what the administrator asked for.
	Redirects map[string]Redirect
}

// Network is a Docker network: one bridge.
type Network struct {
	ID string `json:"id"`
	// Bridge is the name of the bridge interface.
	Bridge string `json:"bridge"`
	// IPv4 and IPv6 are the subnets; zero where the network lacks the family.
	IPv4 Subnet `json:"ipv4"`
	IPv6 Subnet `json:"ipv6"`
	// Internal networks have no way out and none in.
	Internal bool `json:"internal,omitempty"`
	// Adopted says that the bridge is the user's: it was there before the network
	// and stays when the network goes.
	Adopted bool `json:"adopted,omitempty"`
	// InhibitIPv4 leaves the bridge without an IPv4 address; containers are told
	// of the gateway all the same.
	InhibitIPv4 bool `json:"inhibit_ipv4,omitempty"`
	// ICC lets the containers of the network reach each other.
	ICC bool `json:"icc"`
	// Masquerade translates the source of what leaves the network.
	Masquerade bool `json:"masquerade"`
	// MTU of the bridge and its links in bytes; 0 leaves the kernel's default.
	MTU int `json:"mtu,omitempty"`
	// HostBinding is where ports are published that name no host address; the
	// zero Addr stands for every address of both families.
	HostBinding netip.Addr `json:"host_binding,omitzero"`
	// IfacePrefix is how interface names begin inside containers.
	IfacePrefix string `json:"iface_prefix"`
	// Trusted are the host's interfaces whose neighbours may reach published
	// container ports by the containers' own addresses.
	Trusted []string `json:"trusted,omitempty"`
	// Allow bounds who reaches the published ports; an endpoint may have its own.
	Allow Allow `json:"allow,omitempty"`
	// AntiSpoof keeps containers from using addresses that are not theirs.
	AntiSpoof AntiSpoof `json:"antispoof,omitempty"`
	// EtherTypes are the kinds of frames that containers may send beside ARP, IPv4
	// and IPv6, in ascending order; [EtherLLC] stands for those without a type.
	EtherTypes []uint16 `json:"ethertypes,omitempty"`
	// Reject answers what may not enter the network, instead of silence.
	Reject bool `json:"reject,omitempty"`
	// ClampMSS makes TCP connections through the network fit the path's MTU.
	ClampMSS bool `json:"clamp_mss,omitempty"`
	// FreeBind publishes ports on addresses that the host does not have yet.
	FreeBind bool `json:"free_bind,omitempty"`
}

// Subnet is an address range of a network and the bridge's own address in it.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix,omitzero"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	// Router is where the containers' default route goes, if not to Gateway.
	Router netip.Addr  `json:"router,omitzero"`
	Mode   GatewayMode `json:"mode,omitempty"`
	// Kept says that an adopted bridge had the gateway's address before, and
	// keeps it.
	Kept bool `json:"kept,omitempty"`
	// SNAT is the source address of what leaves the network; zero for that of the
	// interface it leaves by.
	SNAT netip.Addr `json:"snat,omitzero"`
}

// IsValid says whether the network has this family.
func (s Subnet) IsValid() bool { return s.Prefix.IsValid() }

// DefaultRoute is where the containers' default route goes; zero for none.
func (s Subnet) DefaultRoute() netip.Addr {
	if s.Router.IsValid() {
		return s.Router
	}
	return s.Gateway
}

// NAT says whether addresses of the subnet are hidden behind the host's.
func (s Subnet) NAT() bool { return s.Mode == ModeNAT || s.Mode == ModeUnprotected }

// GatewayMode is how the containers of a network and the world reach each
// other in one family. The words are Docker's.
type GatewayMode string

// The gateway modes.
const (
	// ModeNAT publishes ports on the host's addresses and hides the containers'.
	ModeNAT GatewayMode = ""
	// ModeUnprotected does the same, and lets everybody who has a route to a
	// container reach all of its ports.
	ModeUnprotected GatewayMode = "nat-unprotected"
	// ModeRouted translates nothing: who has a route reaches published ports.
	ModeRouted GatewayMode = "routed"
	// ModeIsolated leaves the bridge without an address.
	ModeIsolated GatewayMode = "isolated"
)

// EtherLLC stands for frames that carry a length in place of a type: IEEE 802.2
// LLC, and SNAP in it.
const EtherLLC uint16 = 0

// AntiSpoof is how much of a container's frames is checked.
type AntiSpoof string

// The levels of checking.
const (
	SpoofUnchecked AntiSpoof = ""
	// SpoofNeighbours protects the addresses of the network's own subnets.
	SpoofNeighbours AntiSpoof = "on"
	// SpoofNothing lets a container use its own addresses alone.
	SpoofNothing AntiSpoof = "strict"
)

// Subnet is the network's part in the family of an address.
func (n Network) Subnet(a netip.Addr) Subnet {
	if a.Is4() {
		return n.IPv4
	}
	return n.IPv6
}

// Subnets lists the families that the network has, IPv4 first.
func (n Network) Subnets() []Subnet {
	var out []Subnet
	for _, s := range []Subnet{n.IPv4, n.IPv6} {
		if s.IsValid() {
			out = append(out, s)
		}
	}
	return out
}

// Endpoint is a container's attachment to a network.
type Endpoint struct {
	ID        string `json:"id"`
	NetworkID string `json:"network_id"`
	// IPv4 and IPv6 are the container's addresses, zero where it has none.
	IPv4 netip.Addr `json:"ipv4,omitzero"`
	IPv6 netip.Addr `json:"ipv6,omitzero"`
	// MAC is the container's link address, as net.HardwareAddr prints it.
	MAC string `json:"mac"`
	// HostLink is the host's end of the veth pair, empty before Join.
	HostLink string `json:"host_link,omitempty"`
	// Sandbox is the container's network namespace as Docker names it: endpoints
	// with the same one are one container's.
	Sandbox string `json:"sandbox,omitempty"`
	// Asked are the ports that the container's user publishes, as Docker sent them
	// with Join.
	Asked []Binding `json:"asked,omitempty"`
	// Gateway is the turn in which Docker made the endpoint its container's
	// gateway, the later the higher; 0 where it is none.
	Gateway uint64 `json:"gateway,omitempty"`
	// Revoked says that Docker took the ports back and gave them to nobody yet.
	Revoked bool `json:"revoked,omitempty"`
	// NoRelay says that another driver's endpoint is the container's IPv6 gateway.
	NoRelay bool `json:"no_relay,omitempty"`
	// Published are the host ports that lead to the container, as allocated.
	Published []Port `json:"published,omitempty"`
	// Allow bounds who reaches the published ports.
	Allow Allow `json:"allow,omitempty"`
	// AntiSpoof is the network's, or what the user chose for this endpoint.
	AntiSpoof AntiSpoof `json:"antispoof,omitempty"`
	// Addresses are further ones that the container may use.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// LinkAddresses are further link addresses that the container may use, as
	// net.HardwareAddr prints them.
	LinkAddresses []string `json:"link_addresses,omitempty"`
	// EtherTypes are the network's, or what the user chose for this endpoint.
	EtherTypes []uint16 `json:"ethertypes,omitempty"`
	// FreeBind publishes ports on addresses that the host does not have yet.
	FreeBind bool `json:"free_bind,omitempty"`
}

// Binding is a port that a user publishes. HostPort and HostPortEnd are the same
// for one port, a range to choose from, or 0 for any.
type Binding struct {
	Proto       uint8  `json:"proto"`
	Port        uint16 `json:"port"`
	HostIP      string `json:"host_ip,omitempty"`
	HostPort    uint16 `json:"host_port,omitempty"`
	HostPortEnd uint16 `json:"host_port_end,omitempty"`
}

// Owner names whose ports the endpoint's are: its container's, which may have
// others.
func (e Endpoint) Owner() string {
	if e.Sandbox != "" {
		return e.Sandbox
	}
	return e.ID
}

// Addrs lists the endpoint's addresses, IPv4 first.
func (e Endpoint) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// Has says whether the endpoint has an address of a's family.
func (e Endpoint) Has(a netip.Addr) bool {
	if a.Is4() {
		return e.IPv4.IsValid()
	}
	return e.IPv6.IsValid()
}

// Port is a published port: what arrives at Host goes to Container.
type Port struct {
	// Proto is the transport protocol's number.
	Proto uint8 `json:"proto"`
	// Host is the address and port on the host; the unspecified address stands
	// for every address of its family. It is zero where the container's own
	// address is the published one.
	Host netip.AddrPort `json:"host,omitzero"`
	// Container is the container's address and port. Its family may differ from
	// Host's: the kernel cannot translate between families, the port socket
	// serves such a port.
	Container netip.AddrPort `json:"container"`
	// FreeBind publishes the port though the host may not have the address.
	FreeBind bool `json:"free_bind,omitempty"`
}

// PortKind is how a port of the host, or of a container, is published.
type PortKind string

// The kinds of ports. A port's kind follows from its two addresses.
const (
	// Translated ports are the kernel's: it gives their packets the container's
	// address.
	Translated PortKind = "translated"
	// Served ports are served by their own socket: the kernel cannot translate
	// from one family to the other, nor send off the host what comes to ::1.
	Served PortKind = "served"
	// Direct ports are published by the container's own address, without a port
	// of the host: Host is zero.
	Direct PortKind = "direct"
	// Redirected ports lead to the host itself: Container is an unspecified
	// address.
	Redirected PortKind = "redirected"
)

// Kind returns how the port is published.
func (p Port) Kind() PortKind {
	h, c := p.Host.Addr(), p.Container.Addr()
	switch {
	case !h.IsValid():
		return Direct
	case c.IsUnspecified():
		return Redirected
	case h.Is4() != c.Is4() || h == netip.IPv6Loopback():
		return Served
	}
	return Translated
}

// Across reports whether the port leads from one family to the other.
func (p Port) Across() bool {
	return p.Kind() == Served && p.Host.Addr().Is4() != p.Container.Addr().Is4()
}

// Any says whether the port is published on every address of its family.
func (p Port) Any() bool { return p.Host.Addr().IsUnspecified() }

// protoNames are the protocols that ports are published for.
var protoNames = map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}

// HasPorts says whether ports of a protocol can be published.
func HasPorts(proto uint8) bool { return protoNames[proto] != "" }

// ProtoName is the protocol's name as Docker writes it.
func ProtoName(proto uint8) string {
	if n, ok := protoNames[proto]; ok {
		return n
	}
	return fmt.Sprintf("protocol %d", proto)
}

// String writes the port as docker ps does: host->container/protocol.
func (p Port) String() string {
	if p.Kind() == Direct {
		return fmt.Sprintf("%s/%s", p.Container, ProtoName(p.Proto))
	}
	return fmt.Sprintf("%s->%d/%s", p.Host, p.Container.Port(), ProtoName(p.Proto))
}

// Key names the host side of the port: address, port and protocol.
func (p Port) Key() string { return fmt.Sprintf("%s/%s", p.Host, ProtoName(p.Proto)) }

// New is a state without anything in it.
func New() State {
	return State{Networks: map[string]Network{}, Endpoints: map[string]Endpoint{}, Redirects: map[string]Redirect{}}
}

// Clone is a copy that can be changed without touching s.
func (s State) Clone() State {
	return State{Networks: maps.Clone(s.Networks), Endpoints: maps.Clone(s.Endpoints), Redirects: maps.Clone(s.Redirects)}
}

// SortedNetworks lists the networks in the order of their ids.
func (s State) SortedNetworks() []Network {
	return slices.SortedFunc(maps.Values(s.Networks), func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
}

// SortedEndpoints lists the endpoints in the order of their ids.
func (s State) SortedEndpoints() []Endpoint {
	return slices.SortedFunc(maps.Values(s.Endpoints), func(a, b Endpoint) int { return strings.Compare(a.ID, b.ID) })
}

// Part is the state of one network alone, or of one endpoint and its network.
// As every object of the table belongs to one network or endpoint, or to none,
// a change to the state can be applied as the change of the part.
func (s State) Part(networkID, endpointID string) State {
	out := New()
	if n, ok := s.Networks[networkID]; ok {
		out.Networks[networkID] = n
	}
	if e, ok := s.Endpoints[endpointID]; ok && e.NetworkID == networkID {
		out.Endpoints[endpointID] = e
	}
	return out
}

// ContainerPart is the state of all endpoints of a container, and of their
// networks.
func (s State) ContainerPart(owner string) State {
	out := New()
	for id, e := range s.Endpoints {
		if e.Owner() != owner {
			continue
		}
		out.Endpoints[id] = e
		if n, ok := s.Networks[e.NetworkID]; ok {
			out.Networks[n.ID] = n
		}
	}
	return out
}

// Replace replaces what before holds by what after holds, as far as they differ:
// the network of an endpoint that changes may have gone meanwhile.
func (s State) Replace(before, after State) {
	before, after = Differing(before, after)
	replace(s.Networks, before.Networks, after.Networks)
	replace(s.Endpoints, before.Endpoints, after.Endpoints)
	replace(s.Redirects, before.Redirects, after.Redirects)
}

func replace[T any](all, before, after map[string]T) {
	for id := range before {
		delete(all, id)
	}
	maps.Copy(all, after)
}

// Differing returns what differs between two states of a part.
func Differing(before, after State) (State, State) {
	b, a := before.Clone(), after.Clone()
	differing(b.Networks, a.Networks)
	differing(b.Endpoints, a.Endpoints)
	differing(b.Redirects, a.Redirects)
	return b, a
}

func differing[T any](before, after map[string]T) {
	for id, x := range before {
		if y, ok := after[id]; ok && reflect.DeepEqual(x, y) {
			delete(before, id)
			delete(after, id)
		}
	}
}

// EndpointsOf lists the endpoints of a network in the order of their ids.
func (s State) EndpointsOf(networkID string) []Endpoint {
	var out []Endpoint
	for _, e := range s.SortedEndpoints() {
		if e.NetworkID == networkID {
			out = append(out, e)
		}
	}
	return out
}
