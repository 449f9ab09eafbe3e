package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// minIPv6 is the least MTU that IPv6 works with, in bytes (RFC 8200).
const minIPv6 = 1280

// RouteMTU is the MTU of the way out of the host, in bytes: that of its default
// route, or of the interface that the route goes by. It is 0 where there is no
// such route, or where the way has Ethernet's usual 1500.
func RouteMTU(ipv6 bool) (int, error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return 0, fmt.Errorf("list routes: %w", err)
		}
		best := -1
		for i, r := range routes {
			if isDefault(r) && (best < 0 || r.Priority < routes[best].Priority) {
				best = i
			}
		}
		if best < 0 {
			continue
		}
		mtu, err := mtuOf(routes[best])
		if err != nil {
			return 0, err
		}
		if ipv6 {
			mtu = max(mtu, minIPv6)
		}
		if mtu == usualMTU {
			return 0, nil
		}
		return mtu, nil
	}
	return 0, nil
}

// usualMTU is that of an Ethernet device, which a bridge has by itself.
const usualMTU = 1500

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return r.Type == unix.RTN_UNICAST
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Type == unix.RTN_UNICAST
}

func mtuOf(r netlink.Route) (int, error) {
	if r.MTU != 0 {
		return r.MTU, nil
	}
	index := r.LinkIndex
	if index == 0 && len(r.MultiPath) > 0 {
		index = r.MultiPath[0].LinkIndex
	}
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("look for the interface of the default route: %w", err)
	}
	return l.Attrs().MTU, nil
}

// RouteInto is a route of the host, in words, that leads to addresses of p by
// another interface than the bridge; empty where there is none. Default routes
// do not count, nor the two halves of one that VPNs set.
func RouteInto(p netip.Prefix, bridge string) (string, error) {
	family := unix.AF_INET6
	if p.Addr().Is4() {
		family = unix.AF_INET
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if !ok || bits <= 1 || !netip.PrefixFrom(a.Unmap(), bits).Overlaps(p) {
			continue
		}
		name := ""
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			name = l.Attrs().Name
		}
		if name == bridge {
			continue
		}
		text := r.Dst.String()
		if r.Gw != nil {
			text += " via " + r.Gw.String()
		}
		if name != "" {
			text += " dev " + name
		}
		return text, nil
	}
	return "", nil
}
