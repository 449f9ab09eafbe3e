package portmap

import (
	"net/netip"
	"slices"
	"strings"

	"nftnet/internal/desired"
)

// Container is the endpoints of one container, with their networks by id. It is
// what owns host ports: they lead to whichever endpoint is its gateway.
type Container struct {
	Endpoints []desired.Endpoint
	Networks  map[string]desired.Network
	// Off lists the endpoints whose container has IPv6 switched off: their IPv6
	// address is there for Docker alone.
	Off map[string]bool
	// HasIPv6 says that the host can have IPv6 sockets.
	HasIPv6 bool
}

// Of returns the container of a state's part, its endpoints in the order of
// their ids.
func Of(part desired.State) Container {
	return Container{Endpoints: part.SortedEndpoints(), Networks: part.Networks}
}

// has reports whether an endpoint can be reached in the family of an address.
func (c Container) has(e desired.Endpoint, family netip.Addr) bool {
	if family.Is6() && c.Off[e.ID] {
		return false
	}
	n, ok := c.Networks[e.NetworkID]
	return ok && !n.Internal && e.Has(family)
}

var families = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}

func other(family netip.Addr) netip.Addr {
	if family.Is4() {
		return families[1]
	}
	return families[0]
}

// gateway is the endpoint that Docker made the container's gateway last, of
// those that have the family.
func (c Container) gateway(family netip.Addr) (desired.Endpoint, bool) {
	var best desired.Endpoint
	for _, e := range c.Endpoints {
		if e.Gateway > best.Gateway && c.has(e, family) {
			best = e
		}
	}
	return best, best.Gateway > 0
}

// Serving returns the endpoint to which host ports of a family lead, and the
// container's address there: of the gateway of that family, or where it has none,
// of the other's, which the port's socket reaches.
func (c Container) Serving(family netip.Addr) (e desired.Endpoint, to netip.Addr, ok bool) {
	if e, ok = c.gateway(family); ok {
		return e, address(e, family), true
	}
	e, ok = c.gateway(other(family))
	if !ok || family.Is6() && e.NoRelay {
		return e, netip.Addr{}, false
	}
	return e, address(e, other(family)), true
}

func address(e desired.Endpoint, family netip.Addr) netip.Addr {
	if family.Is4() {
		return e.IPv4
	}
	return e.IPv6
}

// Explains reports whether an endpoint of ours is why another one must not serve
// IPv6 clients: then that holds for as long as it is there.
func (c Container) Explains(endpointID string) bool {
	return slices.ContainsFunc(c.Endpoints, func(e desired.Endpoint) bool {
		return e.ID != endpointID && c.has(e, families[1])
	})
}

// Heirs are the endpoints that become gateways when one leaves and Docker names
// no other: for each family that nobody serves by itself any more, the first that
// is attached, was not revoked, and whose user publishes ports.
func (c Container) Heirs(leaving desired.Endpoint) []string {
	if leaving.Gateway == 0 {
		return nil
	}
	rest := c
	rest.Endpoints = slices.DeleteFunc(slices.Clone(c.Endpoints), func(e desired.Endpoint) bool { return e.ID == leaving.ID })
	var out []string
	for _, f := range families {
		if _, ok := rest.gateway(f); ok {
			continue
		}
		i := slices.IndexFunc(rest.Endpoints, func(e desired.Endpoint) bool {
			return e.HostLink != "" && !e.Revoked && len(e.Asked) > 0 && rest.has(e, f)
		})
		if i >= 0 && !slices.Contains(out, rest.Endpoints[i].ID) {
			out = append(out, rest.Endpoints[i].ID)
		}
	}
	return out
}

// Wish is a request with the endpoint that each of its host addresses leads to.
type Wish struct {
	Request
	Targets []Target
}

// Target is where a host address leads.
type Target struct {
	Endpoint string
	Host, To netip.Addr
	FreeBind bool
}

// Port is the published port of a target, with a number of the host.
func (t Target) Port(proto uint8, number, containerPort uint16) desired.Port {
	return desired.Port{
		Proto: proto, Host: netip.AddrPortFrom(t.Host, number), Container: netip.AddrPortFrom(t.To, containerPort),
		FreeBind: t.FreeBind,
	}
}

// Wishes are the host ports that the container asks for. Families that a network
// routes have none: there the container's own address is the published one.
func (c Container) Wishes() ([]Wish, error) {
	requests, err := Parse(c.asked(), c.hosts)
	if err != nil {
		return nil, err
	}
	out := make([]Wish, 0, len(requests))
	for _, r := range requests {
		w := Wish{Request: r}
		for _, host := range r.Hosts {
			e, to, _ := c.Serving(familyOf(host))
			w.Targets = append(w.Targets, Target{Endpoint: e.ID, Host: host, To: to, FreeBind: e.FreeBind})
		}
		out = append(out, w)
	}
	return out, nil
}

// asked is what the user publishes: the same for all endpoints of a container,
// as the latest gateway was told it.
func (c Container) asked() []desired.Binding {
	var latest desired.Endpoint
	for _, e := range c.Endpoints {
		if e.Gateway > latest.Gateway {
			latest = e
		}
	}
	return latest.Asked
}

// hosts are the addresses of the host that lead to the container for a port.
func (c Container) hosts(b desired.Binding) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, f := range families {
		e, to, ok := c.Serving(f)
		// What the user wrote wrong is an error though nobody serves the family.
		list, err := HostAddrs(b, c.Networks[e.NetworkID], c.HasIPv6)
		if err != nil {
			return nil, err
		}
		if !ok || to.Is4() == f.Is4() && !c.Networks[e.NetworkID].Subnet(f).NAT() {
			continue
		}
		for _, a := range list {
			if a.Is4() == f.Is4() {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

func familyOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

// Direct are the ports that an endpoint publishes by its own address, in the
// families that its network routes. They need no gateway: who has a route to the
// network reaches them.
func (c Container) Direct(e desired.Endpoint) ([]desired.Port, error) {
	n, ok := c.Networks[e.NetworkID]
	if !ok || n.Internal || e.HostLink == "" && e.Gateway == 0 {
		return nil, nil
	}
	requests, err := Parse(e.Asked, func(b desired.Binding) ([]netip.Addr, error) { return HostAddrs(b, n, true) })
	if err != nil {
		return nil, err
	}
	var out []desired.Port
	for _, r := range requests {
		for _, f := range families {
			asks := slices.ContainsFunc(r.Hosts, func(h netip.Addr) bool { return h.Is4() == f.Is4() })
			if !asks || !c.has(e, f) || n.Subnet(f).NAT() {
				continue
			}
			p := desired.Port{Proto: r.Proto, Container: netip.AddrPortFrom(address(e, f), r.Port)}
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// Numbers are host ports by what they lead to.
type Numbers map[containerPort][]uint16

type containerPort struct {
	proto uint8
	port  uint16
}

// Had lists the host ports that lead to each port of the container now: it keeps
// what its clients know.
func (c Container) Had() Numbers {
	out := Numbers{}
	for _, e := range c.Endpoints {
		for _, p := range e.Published {
			k := containerPort{p.Proto, p.Container.Port()}
			if n := p.Host.Port(); p.Kind() != desired.Direct && !slices.Contains(out[k], n) {
				out[k] = append(out[k], n)
			}
		}
	}
	return out
}

// For lists those that a request allows.
func (n Numbers) For(r Request) []uint16 {
	return slices.DeleteFunc(slices.Clone(n[containerPort{r.Proto, r.Port}]), func(p uint16) bool {
		return r.First != 0 && (p < r.First || p > r.Last)
	})
}

// String names the container's endpoints, for the log.
func (c Container) String() string {
	var ids []string
	for _, e := range c.Endpoints {
		ids = append(ids, e.ID[:min(len(e.ID), 12)])
	}
	return strings.Join(ids, ",")
}
