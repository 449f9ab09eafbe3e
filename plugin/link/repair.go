package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Repair makes right what a fault names, as the state asks for now, and touches
// nothing that is right already. A bridge that is made anew or gets its name
// back has all that belongs to it afterwards: addresses, parameters, and the
// links of its containers. A fault that is not Repairable is an error.
func Repair(f Fault, st desired.State) error {
	if !f.Repairable() {
		return fmt.Errorf("%s: %s", f, f.Fix())
	}
	r := repairer{state: st}
	if f.Network != "" {
		var ok bool
		if r.network, ok = st.Networks[f.Network]; !ok {
			// It went in the meantime, and its faults with it.
			return nil
		}
	}
	if err := remedies[f.Kind].repair(r, f); err != nil {
		return fmt.Errorf("repair: %s: %w", f, err)
	}
	return nil
}

// repairer repairs faults of one network.
type repairer struct {
	state   desired.State
	network desired.Network
}

func (r repairer) endpoints() []desired.Endpoint {
	return slices.DeleteFunc(r.state.EndpointsOf(r.network.ID), func(e desired.Endpoint) bool { return e.HostLink == "" })
}

// bridge brings the bridge of a network to what it should be.
func (r repairer) bridge(Fault) error {
	if err := EnsureBridge(r.network); err != nil {
		return err
	}
	return r.settle()
}

// bridgeAndPorts gives a bridge its name back, or makes it anew, and connects
// the network's containers to it.
func (r repairer) bridgeAndPorts(Fault) error {
	s, err := Look()
	if err != nil {
		return err
	}
	if elsewhere := s.view().renamed(r.network, r.endpoints()); elsewhere != nil {
		if err := rename(elsewhere.index, r.network.Bridge); err != nil {
			return err
		}
	}
	if err := EnsureBridge(r.network); err != nil {
		return err
	}
	var errs []error
	for _, e := range r.endpoints() {
		if err := plug(r.network, e); !isMissing(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.settle(r.endpoints()...))...)
}

func (r repairer) parameter(f Fault) error {
	settings := bridgeSettings(r.network)
	if f.Kind == HostParameter {
		settings = nil
		for _, n := range r.state.Networks {
			settings = append(settings, hostSettings(n)...)
		}
	}
	for _, s := range settings {
		if s.name() == f.Object {
			return s.set()
		}
	}
	return nil
}

func (r repairer) address(f Fault) error {
	want, err := netip.ParsePrefix(f.Want)
	if err != nil || !slices.Contains(bridgeAddrs(r.network), want) {
		return err
	}
	br, err := netlink.LinkByName(r.network.Bridge)
	if err != nil {
		return err
	}
	if f.Kind == AddressFailed {
		if err := netlink.AddrDel(br, &netlink.Addr{IPNet: ipNet(want)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %s: %w", want, err)
		}
	}
	if err := addAddr(br, want); err != nil {
		return err
	}
	return r.settle()
}

// veth gives the host's end of an endpoint's pair its name back and connects it.
func (r repairer) veth(f Fault) error {
	e, ok := r.state.Endpoints[f.Endpoint]
	if !ok || e.HostLink == "" {
		return nil
	}
	if f.Kind == VethRenamed {
		s, err := Look()
		if err != nil {
			return err
		}
		if l := s.view().renamedVeth(e); l != nil {
			if err := rename(l.index, e.HostLink); err != nil {
				return err
			}
		}
	}
	if err := plug(r.network, e); err != nil {
		return err
	}
	return r.settle(e)
}

// settleTime bounds the wait for addresses and ports to work, which takes a
// millisecond or two.
const settleTime = 100 * time.Millisecond

// settle waits until the repair of a bridge, and of some of its ports, has taken
// effect. The kernel adds the route to this host some time after an IPv6 address
// (addrconf_dad_work), and lets a port forward some time after it is up
// (linkwatch). What was asked of a neighbour in between would stay without an
// answer for a second: such questions are asked anew.
func (r repairer) settle(ports ...desired.Endpoint) error {
	end := time.Now().Add(settleTime)
	for _, p := range bridgeAddrs(r.network) {
		if p.Addr().Is6() {
			pollUntil(end, func() bool { return isLocal(r.network.Bridge, p.Addr()) })
		}
	}
	for _, e := range ports {
		pollUntil(end, func() bool {
			l, err := linkNamed(e.HostLink, kindVeth)
			return err != nil || l.forwarding
		})
	}
	br, err := linkNamed(r.network.Bridge, KindBridge)
	if err != nil {
		return err
	}
	list, err := netlink.NeighList(br.index, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, neighbour := range list {
		if neighbour.State != unix.NUD_INCOMPLETE {
			continue
		}
		if err := netlink.NeighDel(&neighbour); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete neighbour %s: %w", neighbour.IP, err)
		}
	}
	return nil
}

func pollUntil(end time.Time, done func() bool) {
	for !done() && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
}

// isLocal reports whether packets to an address of an interface are for this
// host.
func isLocal(name string, a netip.Addr) bool {
	routes, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{Oif: name})
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// plug puts the host's end of an endpoint's veth pair on the bridge of its
// network, as Attach made it.
func plug(n desired.Network, e desired.Endpoint) error {
	port, err := linkNamed(e.HostLink, kindVeth)
	if err != nil {
		return err
	}
	br, err := linkNamed(n.Bridge, KindBridge)
	if err != nil {
		return err
	}
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: port.index, Name: port.name}, LinkType: port.kind}
	if port.master != br.index {
		if err := netlink.LinkSetMasterByIndex(l, br.index); err != nil {
			return fmt.Errorf("connect %s to bridge %s: %w", e.HostLink, n.Bridge, err)
		}
		// A new port has none of them.
		port.hairpin, port.isolated = false, false
	}
	if n.MTU != 0 && port.mtu != n.MTU {
		if err := netlink.LinkSetMTU(l, n.MTU); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", n.MTU, e.HostLink, err)
		}
	}
	if err := portFlags(l, port, n); err != nil {
		return err
	}
	if port.up {
		return nil
	}
	return netlink.LinkSetUp(l)
}
