// Package portmap works out what ports of the host lead to which endpoint of a
// container: which endpoint serves which family, which host ports a user's port
// asks for, and which numbers may be tried. It is pure but for two parameters of
// the kernel that it reads.
package portmap

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"nftnet/internal/desired"
)

// Request is a port that the user publishes, with the host addresses
// that it is to be published on: they all get the same host port.
type Request struct {
	Proto uint8
	// Port is the container's.
	Port uint16
	// Hosts are the addresses of the host, IPv4 first.
	Hosts []netip.Addr
	// First and Last bound the host port; 0 stands for any.
	First, Last uint16
}

// Exact reports whether the user named the host port.
func (r Request) Exact() bool { return r.First == r.Last && r.First != 0 }

// Parse reads a port map; hosts gives the addresses of the host for each port. A
// port that has none is left out. The order of Docker's list is random: what
// comes out is sorted, exact ports first, so that a range does not take a port
// that another entry names.
func Parse(list []desired.Binding, hosts func(desired.Binding) ([]netip.Addr, error)) ([]Request, error) {
	out := make([]Request, 0, len(list))
	for _, b := range list {
		r := Request{Proto: b.Proto, Port: b.Port, First: b.HostPort, Last: b.HostPortEnd}
		if r.Last < r.First {
			r.Last = r.First
		}
		switch {
		case !desired.HasPorts(b.Proto):
			return nil, fmt.Errorf("publish %s: %s is not allowed: tcp, udp and sctp are", bindingText(b), desired.ProtoName(b.Proto))
		case b.Port == 0:
			return nil, fmt.Errorf("publish %s: container port 0 is not a port: allowed is 1 to 65535", bindingText(b))
		}
		var err error
		if r.Hosts, err = hosts(b); err != nil {
			return nil, err
		}
		if len(r.Hosts) > 0 {
			out = append(out, r)
		}
	}
	out = together(out)
	slices.SortFunc(out, func(a, b Request) int {
		if a.Exact() != b.Exact() {
			if a.Exact() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto),
			cmp.Compare(a.First, b.First), slices.CompareFunc(a.Hosts, b.Hosts, netip.Addr.Compare))
	})
	return out, nil
}

// together unites requests that differ in their host address only: they get the
// same host port, as Docker gives them.
func together(list []Request) []Request {
	type key struct {
		proto                      uint8
		containerPort, first, last uint16
	}
	at := map[key]int{}
	var out []Request
	for _, r := range list {
		k := key{r.Proto, r.Port, r.First, r.Last}
		i, seen := at[k]
		// The same address twice asks for two ports.
		if !seen || !r.Exact() && slices.ContainsFunc(r.Hosts, func(h netip.Addr) bool { return slices.Contains(out[i].Hosts, h) }) {
			at[k] = len(out)
			out = append(out, r)
			continue
		}
		for _, h := range r.Hosts {
			if !slices.Contains(out[i].Hosts, h) {
				out[i].Hosts = append(out[i].Hosts, h)
			}
		}
	}
	for i := range out {
		slices.SortFunc(out[i].Hosts, netip.Addr.Compare)
	}
	return out
}

// bindingText writes a request as its user did.
func bindingText(b desired.Binding) string {
	return fmt.Sprintf("%s:%d->%d/%s", b.HostIP, b.HostPort, b.Port, desired.ProtoName(b.Proto))
}

// HostAddrs lists the addresses that a port is published on: the one that the
// user named, else the network's own default, else every address of the host.
func HostAddrs(b desired.Binding, n desired.Network, hasIPv6 bool) ([]netip.Addr, error) {
	if b.HostIP != "" {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil || a.Zone() != "" || a.IsMulticast() {
			return nil, fmt.Errorf("publish %s: host address %q is not allowed: an IPv4 or IPv6 unicast address is", bindingText(b), b.HostIP)
		}
		return []netip.Addr{a.Unmap()}, nil
	}
	if n.HostBinding.IsValid() {
		return []netip.Addr{n.HostBinding}, nil
	}
	if !hasIPv6 {
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
}
