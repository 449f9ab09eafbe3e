// Package link makes and removes what a network consists of beside its rules:
// bridges, veth pairs, addresses and kernel parameters.
package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
)

// MaxName is the longest name of an interface, in bytes (IFNAMSIZ less the
// terminating zero).
const MaxName = 15

// How veth ends are named, before the first digits of the endpoint's id.
const (
	hostPrefix      = layout.HostLinkPrefix
	containerPrefix = layout.ContainerLinkPrefix
	idDigits        = MaxName - len(hostPrefix)
)

// kindVeth is the kind of an endpoint's links.
const kindVeth = "veth"

// HostName is the name of the host's end of an endpoint's veth pair.
func HostName(endpointID string) string {
	return hostPrefix + endpointID[:min(len(endpointID), idDigits)]
}

// ContainerName is the name of the container's end until Docker renames it.
func ContainerName(endpointID string) string {
	return containerPrefix + endpointID[:min(len(endpointID), idDigits)]
}

// KindBridge is the kind of interface that a network can have.
const KindBridge = "bridge"

// Kind is what an interface of the host is, as ip link calls it; empty where
// the host has none of this name.
func Kind(name string) (string, error) {
	l, err := netlink.LinkByName(name)
	if isMissing(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for interface %s: %w", name, err)
	}
	return l.Type(), nil
}

func isMissing(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

// EnsureBridge makes the bridge of a network, or brings an existing one to the
// state that the network asks for. A bridge of the driver's own has the MAC
// address that [BridgeMAC] returns; one that has another gets it, and its
// containers learn of it at once.
func EnsureBridge(n desired.Network) error {
	br, err := bridge(n)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	for _, step := range []func() error{
		func() error { return bridgeParameters(n) },
		func() error { return ownMAC(br, n) },
		func() error { return addresses(br, n) },
		func() error { return setUp(br) },
		func() error { return forwarding(n) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("bridge %s: %w", n.Bridge, err)
		}
	}
	return nil
}

// bridge returns the bridge of a network: the one that has its name, or its
// MAC address under another name, or a new one.
func bridge(n desired.Network) (netlink.Link, error) {
	l, err := netlink.LinkByName(n.Bridge)
	if isMissing(err) {
		l, err = missingBridge(n)
	}
	if err != nil {
		return nil, err
	}
	if l.Type() != KindBridge {
		return nil, fmt.Errorf("an interface of this name exists and is a %s, not a bridge", l.Type())
	}
	if n.MTU != 0 && l.Attrs().MTU != n.MTU {
		// Of a bridge that was made with it, the kernel would take it for its own
		// choice and follow the least MTU of the ports (br_mtu_auto_adjust).
		return l, netlink.LinkSetMTU(l, n.MTU)
	}
	return l, nil
}

// missingBridge renames the bridge of a network back, or makes a new one.
func missingBridge(n desired.Network) (netlink.Link, error) {
	bridges, err := dumpLinks(linkFilter{kind: KindBridge})
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(bridges, func(l seenLink) bool { return l.isBridgeOf(n) }); i >= 0 {
		if err := rename(bridges[i].index, n.Bridge); err != nil {
			return nil, err
		}
		return netlink.LinkByName(n.Bridge)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	attrs.HardwareAddr = BridgeMAC(n.ID)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return netlink.LinkByName(n.Bridge)
}

// ownMAC gives a bridge that is not its user's the MAC address of its network.
// The kernel then announces the addresses of the bridge, so that no container
// keeps the old one: see arp_notify and ndisc_notify in bridgeSettings.
func ownMAC(br netlink.Link, n desired.Network) error {
	mac := BridgeMAC(n.ID)
	if n.Adopted || bytes.Equal(br.Attrs().HardwareAddr, mac) {
		return nil
	}
	if err := netlink.LinkSetHardwareAddr(br, mac); err != nil {
		return fmt.Errorf("set MAC address %s: %w", mac, err)
	}
	return nil
}

func setUp(l netlink.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return netlink.LinkSetUp(l)
}

func bridgeParameters(n desired.Network) error {
	settings := bridgeSettings(n)
	if n.Adopted && n.IPv6.IsValid() {
		advertised, err := isAdvertised(n.Bridge)
		if err != nil {
			return err
		}
		if advertised {
			// The bridge is the host's own uplink, which would lose its route.
			settings = slices.DeleteFunc(settings, func(s setting) bool { return s.conf == confAcceptRA })
		}
	}
	return setAll(settings)
}

// forwarding switches on what a network's containers need to reach anything
// but their host.
func forwarding(n desired.Network) error { return setAll(hostSettings(n)) }

func setAll(settings []setting) error {
	for _, s := range settings {
		if err := s.set(); err != nil {
			return err
		}
	}
	return nil
}

func addresses(br netlink.Link, n desired.Network) error {
	for _, p := range bridgeAddrs(n) {
		if err := addAddr(br, p); err != nil {
			return err
		}
	}
	return nil
}

// addAddr gives an interface an address; one that it has already is no error.
func addAddr(l netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		// A container must be able to use its gateway at once.
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}

// bridgeAddrs lists the addresses of a network's bridge. Of IPv6, a bridge of
// the driver's own has a link-local one before it has a carrier: the kernel asks
// for neighbours from that address alone (ndisc_send_ns), and would make and
// probe it only once the first container is there.
func bridgeAddrs(n desired.Network) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range n.Subnets() {
		if p := gatewayAddr(n, s); p.IsValid() {
			out = append(out, p)
		}
	}
	if n.IPv6.IsValid() && n.IPv6.Mode != desired.ModeIsolated && !n.Adopted {
		out = append(out, netip.PrefixFrom(linkLocal(BridgeMAC(n.ID)), 64))
	}
	return out
}

// gatewayAddr is the bridge's own address in a subnet, the zero Prefix where it
// has none.
func gatewayAddr(n desired.Network, s desired.Subnet) netip.Prefix {
	if !s.Gateway.IsValid() || s.Gateway.Is4() && n.InhibitIPv4 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(s.Gateway, s.Prefix.Bits())
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// DeleteBridge removes the bridge of a network; a missing one is no error. An
// adopted bridge stays, without what the network gave it.
func DeleteBridge(n desired.Network) error {
	if n.Adopted {
		return leaveBridge(n)
	}
	return deleteLink(n.Bridge, KindBridge)
}

// deleteLink removes an interface of a kind: what has the name and is of
// another kind is not ours.
func deleteLink(name, kind string) error {
	l, err := netlink.LinkByName(name)
	if isMissing(err) || (err == nil && l.Type() != kind) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !isMissing(err) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// Attach makes the veth pair of an endpoint, with the host's end on the
// network's bridge and up. Docker moves the other end into the container. A
// pair that is left over from an earlier try is replaced.
func Attach(n desired.Network, e desired.Endpoint) error {
	if err := attach(n, e); err != nil {
		return errors.Join(fmt.Errorf("connect to bridge %s: %w", n.Bridge, err), Detach(e))
	}
	return nil
}

func attach(n desired.Network, e desired.Endpoint) error {
	br, err := netlink.LinkByName(n.Bridge)
	if isMissing(err) {
		// Somebody removed it, or its user makes it later than the driver starts.
		if err = EnsureBridge(n); err == nil {
			br, err = netlink.LinkByName(n.Bridge)
		}
	}
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	if err := Detach(e); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = HostName(e.ID)
	attrs.MTU = n.MTU
	attrs.MasterIndex = br.Attrs().Index
	attrs.HardwareAddr = vethMAC(e.ID)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: ContainerName(e.ID), PeerHardwareAddr: mac}
	if n.MTU != 0 {
		pair.PeerMTU = uint32(n.MTU)
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add veth pair %s: %w", attrs.Name, err)
	}
	host, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	if err := portFlags(host, seenLink{name: attrs.Name}, n); err != nil {
		return err
	}
	return netlink.LinkSetUp(host)
}

// portFlags sets those flags of a bridge's port that a network needs and the
// port lacks.
func portFlags(l netlink.Link, port seenLink, n desired.Network) error {
	// A container that asks for its own published port must get its packet back
	// through the port by which it came.
	if !port.hairpin {
		if err := netlink.LinkSetHairpin(l, true); err != nil {
			return fmt.Errorf("set hairpin mode of %s: %w", port.name, err)
		}
	}
	if port.isolated == n.ICC {
		if err := netlink.LinkSetIsolated(l, !n.ICC); err != nil {
			return fmt.Errorf("set isolation of port %s: %w", port.name, err)
		}
	}
	return nil
}

// Detach removes the veth pair of an endpoint; a missing one is no error.
func Detach(e desired.Endpoint) error { return deleteLink(HostName(e.ID), kindVeth) }
