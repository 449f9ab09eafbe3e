// Package link makes and removes what a network consists of beside its rules:
// bridges, veth pairs, addresses and kernel parameters.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// MaxName is the longest name of an interface, in bytes (IFNAMSIZ less the
// terminating zero).
const MaxName = 15

// How veth ends are named, before the first digits of the endpoint's id.
const (
	hostPrefix      = "nfv"
	containerPrefix = "nfc"
	idDigits        = MaxName - len(hostPrefix)
)

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
// state that the network asks for.
func EnsureBridge(n desired.Network) error {
	br, err := bridge(n)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	for _, step := range []func() error{
		func() error { return bridgeParameters(n) },
		func() error { return addresses(br, n) },
		func() error { return netlink.LinkSetUp(br) },
		func() error { return forwarding(n) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("bridge %s: %w", n.Bridge, err)
		}
	}
	return nil
}

func bridge(n desired.Network) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.Bridge
	attrs.MTU = n.MTU
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	l, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return nil, err
	}
	if l.Type() != KindBridge {
		return nil, fmt.Errorf("an interface of this name exists and is a %s, not a bridge", l.Type())
	}
	if n.MTU != 0 && l.Attrs().MTU != n.MTU {
		return l, netlink.LinkSetMTU(l, n.MTU)
	}
	return l, nil
}

// bridgeParameters lets replies to 127.0.0.1 come back over the bridge, which
// the rule in RAW-PREROUTING keeps anybody else from using, and keeps the
// bridge from taking routes from containers.
func bridgeParameters(n desired.Network) error {
	if n.IPv4.IsValid() {
		if err := setSysctl("ipv4/conf/"+n.Bridge+"/route_localnet", "1"); err != nil {
			return err
		}
	}
	if !n.IPv6.IsValid() {
		return nil
	}
	disabled := "0"
	if n.IPv6.Mode == desired.ModeIsolated {
		// The kernel would give the bridge a link-local address.
		disabled = "1"
	}
	if err := setSysctl("ipv6/conf/"+n.Bridge+"/disable_ipv6", disabled); err != nil {
		return err
	}
	return setSysctl("ipv6/conf/"+n.Bridge+"/accept_ra", "0")
}

// forwarding switches on what a network's containers need to reach anything
// but their host.
func forwarding(n desired.Network) error {
	if n.Internal {
		return nil
	}
	if n.IPv4.IsValid() {
		if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	if n.IPv6.IsValid() {
		return setSysctl("ipv6/conf/all/forwarding", "1")
	}
	return nil
}

// setSysctl writes a parameter of the network namespace, where it differs.
func setSysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	have, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set net/%s to %s: %w", name, value, err)
	}
	return nil
}

func addresses(br netlink.Link, n desired.Network) error {
	for _, s := range n.Subnets() {
		a, ok := bridgeAddr(n, s)
		if !ok {
			continue
		}
		if err := netlink.AddrAdd(br, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", a.IPNet, err)
		}
	}
	return nil
}

// bridgeAddr is the bridge's own address in a subnet, where it has one.
func bridgeAddr(n desired.Network, s desired.Subnet) (*netlink.Addr, bool) {
	if !s.Gateway.IsValid() || s.Gateway.Is4() && n.InhibitIPv4 {
		return nil, false
	}
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))}
	if s.Gateway.Is6() {
		// A container must be able to use its gateway at once.
		a.Flags = unix.IFA_F_NODAD
	}
	return a, true
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
	// A container that asks for its own published port must get its packet back
	// through the port by which it came.
	if err := netlink.LinkSetHairpin(host, true); err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", attrs.Name, err)
	}
	if !n.ICC {
		if err := netlink.LinkSetIsolated(host, true); err != nil {
			return fmt.Errorf("isolate port %s: %w", attrs.Name, err)
		}
	}
	return netlink.LinkSetUp(host)
}

// Detach removes the veth pair of an endpoint; a missing one is no error.
func Detach(e desired.Endpoint) error { return deleteLink(HostName(e.ID), "veth") }
