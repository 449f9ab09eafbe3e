package plugin

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"nftnet/internal/desired"
	"nftnet/plugin/port"
)

// bindingRequest is a port that the user publishes, with the host addresses
// that it is to be published on: they all get the same host port.
type bindingRequest struct {
	proto         uint8
	containerPort uint16
	hosts         []netip.Addr
	first, last   uint16
}

// exact says whether the user named the host port.
func (r bindingRequest) exact() bool { return r.first == r.last && r.first != 0 }

// parseBindings reads the port map of a request. The order of Docker's list is
// random: what comes out is sorted, exact ports first, so that a range does not
// take a port that another entry names.
func parseBindings(list []portBinding, n desired.Network, hasIPv6 bool) ([]bindingRequest, error) {
	out := make([]bindingRequest, 0, len(list))
	for _, b := range list {
		r := bindingRequest{proto: b.Proto, containerPort: b.Port, first: b.HostPort, last: b.HostPortEnd}
		if r.last < r.first {
			r.last = r.first
		}
		switch {
		case !desired.HasPorts(b.Proto):
			return nil, fmt.Errorf("publish %s: %s is not allowed: tcp, udp and sctp are", b.text(), desired.ProtoName(b.Proto))
		case b.Port == 0:
			return nil, fmt.Errorf("publish %s: container port 0 is not a port: allowed is 1 to 65535", b.text())
		}
		var err error
		if r.hosts, err = hostAddrs(b, n, hasIPv6); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	out = together(out)
	slices.SortFunc(out, func(a, b bindingRequest) int {
		if a.exact() != b.exact() {
			if a.exact() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.containerPort, b.containerPort), cmp.Compare(a.proto, b.proto),
			cmp.Compare(a.first, b.first), slices.CompareFunc(a.hosts, b.hosts, netip.Addr.Compare))
	})
	return out, nil
}

// together unites requests that differ in their host address only: they get the
// same host port, as Docker gives them.
func together(list []bindingRequest) []bindingRequest {
	type key struct {
		proto                      uint8
		containerPort, first, last uint16
	}
	at := map[key]int{}
	var out []bindingRequest
	for _, r := range list {
		k := key{r.proto, r.containerPort, r.first, r.last}
		i, seen := at[k]
		// The same address twice asks for two ports.
		if !seen || !r.exact() && slices.ContainsFunc(r.hosts, func(h netip.Addr) bool { return slices.Contains(out[i].hosts, h) }) {
			at[k] = len(out)
			out = append(out, r)
			continue
		}
		for _, h := range r.hosts {
			if !slices.Contains(out[i].hosts, h) {
				out[i].hosts = append(out[i].hosts, h)
			}
		}
	}
	for i := range out {
		slices.SortFunc(out[i].hosts, netip.Addr.Compare)
	}
	return out
}

func (b portBinding) text() string {
	return fmt.Sprintf("%s:%d->%d/%s", b.HostIP, b.HostPort, b.Port, desired.ProtoName(b.Proto))
}

// hostAddrs lists the addresses that a port is published on: the one that the
// user named, else the network's own default, else every address of the host.
func hostAddrs(b portBinding, n desired.Network, hasIPv6 bool) ([]netip.Addr, error) {
	if b.HostIP != "" {
		a, err := netip.ParseAddr(b.HostIP)
		if err != nil || a.Zone() != "" || a.IsMulticast() {
			return nil, fmt.Errorf("publish %s: host address %q is not allowed: an IPv4 or IPv6 unicast address is", b.text(), b.HostIP)
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

// containerAddr is the container's address that a host address leads to: of
// the same family where it has one.
func containerAddr(host netip.Addr, e desired.Endpoint) (netip.Addr, bool) {
	if host.Is4() {
		if e.IPv4.IsValid() {
			return e.IPv4, true
		}
		return e.IPv6, e.IPv6.IsValid()
	}
	if e.IPv6.IsValid() {
		return e.IPv6, true
	}
	return e.IPv4, e.IPv4.IsValid()
}

// allocate holds a host port for every request and returns what was published.
// On an error nothing is held.
func (d *Driver) allocate(requests []bindingRequest, n desired.Network, e desired.Endpoint, own bool) ([]desired.Port, error) {
	var out []desired.Port
	for _, r := range requests {
		direct := routed(&r, n, e)
		out = append(out, direct...)
		if len(r.hosts) == 0 {
			continue
		}
		ports, err := d.allocateOne(r, e, own, out)
		if err != nil {
			d.release(out, e.ID)
			return nil, err
		}
		out = append(out, ports...)
	}
	return out, nil
}

// routed takes out of a request the families that the network routes: there the
// container's own address is the published one, and a host port means nothing.
func routed(r *bindingRequest, n desired.Network, e desired.Endpoint) []desired.Port {
	var out []desired.Port
	r.hosts = slices.DeleteFunc(slices.Clone(r.hosts), func(host netip.Addr) bool {
		to, ok := containerAddr(host, e)
		if !ok || to.Is4() != host.Is4() || n.Subnet(host).NAT() {
			return false
		}
		p := desired.Port{Proto: r.proto, Container: netip.AddrPortFrom(to, r.containerPort)}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
		return true
	})
	return out
}

// allocateOne tries the ports of a request in turn, until one is free on all of
// its addresses.
func (d *Driver) allocateOne(r bindingRequest, e desired.Endpoint, own bool, taken []desired.Port) ([]desired.Port, error) {
	var firstErr error
	for _, number := range candidates(r) {
		ports, err := d.holdAll(r, number, e, own, taken)
		if err == nil {
			return ports, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if r.exact() || !port.IsTaken(err) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("cannot publish container port %d/%s: no host port from %d to %d is free: %w",
		r.containerPort, desired.ProtoName(r.proto), r.first, r.last, firstErr)
}

// holdAll holds one port number on all addresses of a request. own limits it to
// the families that the container has itself; taken are the ports that the
// endpoint has got for earlier requests.
func (d *Driver) holdAll(r bindingRequest, number uint16, e desired.Endpoint, own bool, taken []desired.Port) ([]desired.Port, error) {
	var held []desired.Port
	for _, host := range r.hosts {
		to, ok := containerAddr(host, e)
		if !ok || (own && to.Is4() != host.Is4()) {
			continue
		}
		p := desired.Port{
			Proto: r.proto, Host: netip.AddrPortFrom(host, number), Container: netip.AddrPortFrom(to, r.containerPort),
			FreeBind: e.FreeBind,
		}
		if p.Across() && d.siblingHas(e, p) {
			continue
		}
		if err := d.hold(p, e, taken); err != nil {
			d.release(held, e.ID)
			return nil, err
		}
		held = append(held, p)
	}
	return held, nil
}

// siblingHas says whether another endpoint of the same container publishes a
// port in the family that e would have to cross over from.
func (d *Driver) siblingHas(e desired.Endpoint, p desired.Port) bool {
	return slices.ContainsFunc(d.siblings(e), func(o desired.Endpoint) bool {
		return slices.ContainsFunc(o.Published, func(q desired.Port) bool { return !q.Across() && q.Overlaps(p) })
	})
}

// publishedError says that another endpoint of ours has a host port.
type publishedError struct {
	port  desired.Port
	owner desired.Endpoint
}

func (e *publishedError) Error() string {
	return fmt.Sprintf("cannot publish host port %s: endpoint %.12s of network %.12s, at %s, publishes it already",
		e.port.Key(), e.owner.ID, e.owner.NetworkID, e.port.Container.Addr())
}

// Unwrap makes the port one that is taken.
func (e *publishedError) Unwrap() error { return syscall.EADDRINUSE }

// hold takes a host port, and names the endpoint that has it where it is one
// of ours.
func (d *Driver) hold(p desired.Port, e desired.Endpoint, taken []desired.Port) error {
	if err := d.redirected(p); err != nil {
		return err
	}
	for _, other := range taken {
		if p.Overlaps(other) {
			return &publishedError{port: desired.Port{Proto: p.Proto, Host: p.Host, Container: other.Container}, owner: e}
		}
	}
	err := d.ports.Hold(p, e.ID)
	if !port.IsTaken(err) {
		return err
	}
	for _, e := range d.state.Endpoints {
		for _, other := range e.Published {
			if p.Overlaps(other) {
				return &publishedError{port: desired.Port{Proto: p.Proto, Host: p.Host, Container: other.Container}, owner: e}
			}
		}
	}
	return err
}

func (d *Driver) release(ports []desired.Port, owner string) {
	for _, p := range ports {
		if !p.Direct() {
			d.ports.Release(p, owner)
		}
	}
}

// candidates lists the port numbers to try: those of the range that the user
// gave, or all that the kernel itself would give to a program that names none,
// from a random one on.
func candidates(r bindingRequest) []uint16 {
	if r.first != 0 {
		out := make([]uint16, 0, int(r.last-r.first)+1)
		for n := int(r.first); n <= int(r.last); n++ {
			out = append(out, uint16(n))
		}
		return out
	}
	first, last := localPortRange()
	reserved := reservedPorts()
	n := int(last-first) + 1
	start := rand.IntN(n)
	out := make([]uint16, 0, n)
	for i := range n {
		p := first + uint16((start+i)%n)
		if !reserved.contains(p) {
			out = append(out, p)
		}
	}
	return out
}

// localPortRange is net.ipv4.ip_local_port_range, or the kernel's default.
func localPortRange() (first, last uint16) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768, 60999
	}
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil || first == 0 || last < first {
		return 32768, 60999
	}
	return first, last
}

// portRanges is a list of ranges of port numbers.
type portRanges [][2]uint16

func (r portRanges) contains(p uint16) bool {
	for _, x := range r {
		if x[0] <= p && p <= x[1] {
			return true
		}
	}
	return false
}

// reservedPorts is net.ipv4.ip_local_reserved_ports: ports that the
// administrator keeps for programs that name them.
func reservedPorts() portRanges {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return nil
	}
	return parseRanges(strings.TrimSpace(string(text)))
}

// parseRanges reads "8080,9000-9010".
func parseRanges(text string) portRanges {
	var out portRanges
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			out = append(out, [2]uint16{uint16(a), uint16(b)})
		}
	}
	return out
}
