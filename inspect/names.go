package inspect

import (
	"net/netip"
	"nftnet/inspect/message"
	"slices"
	"strings"
)

// Names gives Docker's names to what a ruleset knows by ids, interfaces and
// addresses. The zero value knows no names: ids and addresses stand alone.
type Names struct {
	Networks  []Network
	Endpoints []Endpoint
	// Listening is who waits for clients on the host of the ruleset; nil where that
	// is not known.
	Listening *Listening
	// Language is that of the sentences; English where it is nil.
	Language *message.Catalogue
}

func (n Names) language() message.Catalogue {
	if n.Language == nil {
		return message.English
	}
	return *n.Language
}

// Network is a network as Docker knows it.
type Network struct {
	ID, Name, Driver string
	// Bridge is the name of the network's bridge interface, empty where the
	// network has none.
	Bridge  string
	Subnets []Subnet
}

// Subnet is an address range of a network. Gateway is the host's own address
// in it, zero where there is none.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Endpoint is a container's attachment to a network.
type Endpoint struct {
	ID, NetworkID string
	Container     string
	Addrs         []netip.Addr
}

// nameIndex finds names. What two things could be called by has no name: a
// wrong name is worse than none.
type nameIndex struct {
	networks  []Network
	endpoints []Endpoint
	listening *Listening
	byBridge  map[string]int
	byAddr    map[netip.Addr]addrName
	byPrefix  map[netip.Prefix]int
}

// addrName is whose an address is: an endpoint's or, as gateway, a network's.
type addrName struct {
	endpoint, gateway int
	ambiguous         bool
}

const none = -1

func newNameIndex(n Names) *nameIndex {
	x := &nameIndex{
		networks: slices.Clone(n.Networks), endpoints: slices.Clone(n.Endpoints), listening: n.Listening,
		byBridge: map[string]int{}, byAddr: map[netip.Addr]addrName{}, byPrefix: map[netip.Prefix]int{},
	}
	slices.SortFunc(x.networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(x.endpoints, func(a, b Endpoint) int { return strings.Compare(a.ID, b.ID) })
	for i, net := range x.networks {
		if net.Bridge != "" {
			add(x.byBridge, net.Bridge, i)
		}
		for _, s := range net.Subnets {
			add(x.byPrefix, s.Prefix, i)
			x.addAddr(s.Gateway, addrName{endpoint: none, gateway: i})
		}
	}
	for i, e := range x.endpoints {
		for _, a := range e.Addrs {
			x.addAddr(a, addrName{endpoint: i, gateway: none})
		}
	}
	return x
}

// add enters i under key, or nothing where key is taken already.
func add[K comparable](m map[K]int, key K, i int) {
	if _, taken := m[key]; taken {
		i = none
	}
	m[key] = i
}

func (x *nameIndex) addAddr(a netip.Addr, n addrName) {
	if _, taken := x.byAddr[a.Unmap()]; taken {
		n.ambiguous = true
	}
	if a.IsValid() {
		x.byAddr[a.Unmap()] = n
	}
}

// network finds the network whose id begins with prefix.
func (x *nameIndex) network(prefix string) (Network, bool) {
	return byPrefix(x.networks, prefix, func(n Network) string { return n.ID })
}

// endpoint finds the endpoint whose id begins with prefix.
func (x *nameIndex) endpoint(prefix string) (Endpoint, bool) {
	return byPrefix(x.endpoints, prefix, func(e Endpoint) string { return e.ID })
}

// byPrefix finds the only thing in list, which is sorted by id, whose id begins
// with prefix.
func byPrefix[T any](list []T, prefix string, id func(T) string) (T, bool) {
	var zero T
	if prefix == "" {
		return zero, false
	}
	i, _ := slices.BinarySearchFunc(list, prefix, func(t T, p string) int { return strings.Compare(id(t), p) })
	if i == len(list) || !strings.HasPrefix(id(list[i]), prefix) {
		return zero, false
	}
	if i+1 < len(list) && strings.HasPrefix(id(list[i+1]), prefix) {
		return zero, false
	}
	return list[i], true
}

// bridge finds the network of a bridge.
func (x *nameIndex) bridge(name string) (Network, bool) {
	i, ok := x.byBridge[name]
	if !ok || i == none {
		return Network{}, false
	}
	return x.networks[i], true
}

// subnet finds the network that has exactly the subnet p.
func (x *nameIndex) subnet(p netip.Prefix) (Network, bool) {
	i, ok := x.byPrefix[p]
	if !ok || i == none {
		return Network{}, false
	}
	return x.networks[i], true
}

// holder finds the endpoint that has the address a.
func (x *nameIndex) holder(a netip.Addr) (Endpoint, bool) {
	n, ok := x.byAddr[a]
	if !ok || n.ambiguous || n.endpoint == none {
		return Endpoint{}, false
	}
	return x.endpoints[n.endpoint], true
}

// gateway finds the network in which a is the host's own address.
func (x *nameIndex) gateway(a netip.Addr) (Network, bool) {
	n, ok := x.byAddr[a]
	if !ok || n.ambiguous || n.gateway == none {
		return Network{}, false
	}
	return x.networks[n.gateway], true
}
