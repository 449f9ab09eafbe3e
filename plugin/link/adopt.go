package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// CheckAdopted says why the network cannot have a bridge that is there already:
// its IPv4 addresses, if it has any, must be in the network's subnet, and one of
// them its gateway.
func CheckAdopted(n desired.Network) error {
	l, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(l, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	if len(addrs) == 0 || n.InhibitIPv4 || !n.IPv4.Gateway.IsValid() {
		return nil
	}
	want := netip.PrefixFrom(n.IPv4.Gateway, n.IPv4.Prefix.Bits())
	var have []string
	for _, a := range addrs {
		if a.IPNet.String() == want.String() {
			return nil
		}
		have = append(have, a.IPNet.String())
	}
	return fmt.Errorf("it has address %s: allowed is %s, or a bridge without an IPv4 address (--subnet and --gateway choose the address)",
		strings.Join(have, ", "), want)
}

// leaveBridge takes from an adopted bridge what the network gave it. Addresses
// that it had before are its user's: those that the network asked for go.
func leaveBridge(n desired.Network) error {
	l, err := netlink.LinkByName(n.Bridge)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	var errs []error
	for _, s := range n.Subnets() {
		p := gatewayAddr(n, s)
		if !p.IsValid() || s.Kept {
			continue
		}
		if err := netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("bridge %s: delete address %s: %w", n.Bridge, p, err))
		}
	}
	if n.IPv4.IsValid() {
		errs = append(errs, setSysctl("ipv4/conf/"+n.Bridge+"/route_localnet", "0"))
	}
	return errors.Join(errs...)
}

// HasAddress says whether an interface has an address already.
func HasAddress(name string, a netip.Addr) (bool, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return false, fmt.Errorf("look for interface %s: %w", name, err)
	}
	list, err := netlink.AddrList(l, unix.AF_UNSPEC)
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, x := range list {
		if have, ok := netip.AddrFromSlice(x.IP); ok && have.Unmap() == a {
			return true, nil
		}
	}
	return false, nil
}

// OtherBridges are the bridges of the host that are not among ours, in the order
// of their names.
func OtherBridges(ours []string) ([]string, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, l := range list {
		if l.Type() == KindBridge && !slices.Contains(ours, l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names, nil
}
