package link

import (
	"fmt"
	"net/netip"
	"slices"

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

// isAdvertised reports whether the host has routes from router advertisements by
// an interface.
func isAdvertised(name string) (bool, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return false, err
	}
	routes, err := netlink.RouteList(l, unix.AF_INET6)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	return slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Protocol == unix.RTPROT_RA && isDefault(r) }), nil
}

// RouteInto is a route of the host, in words, that leads to addresses of p by
// another interface than the bridge, with its table and the rule that asks that;
// empty where there is none. Every table that a rule asks counts, also for some
// packets only, and those of VRFs.
//
// Default routes do not count, nor the two halves of one that VPNs set, unless
// they keep all packets to p away from table main, where the bridge's own route
// is.
func RouteInto(p netip.Prefix, bridge string) (string, error) {
	family := unix.AF_INET6
	if p.Addr().Is4() {
		family = unix.AF_INET
	}
	rules, err := listRules(family)
	if err != nil {
		return "", err
	}
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	tables := routingTables{routes: map[uint32][]hostRoute{}}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if vrf, ok := l.(*netlink.Vrf); ok {
			tables.vrfs = append(tables.vrfs, vrf.Table)
		}
	}
	for _, r := range list {
		tables.routes[uint32(r.Table)] = append(tables.routes[uint32(r.Table)], newHostRoute(r, family, names))
	}
	return tables.into(p, bridge, rules), nil
}

// routingTables are the host's routes, of one family.
type routingTables struct {
	// routes are those of each table.
	routes map[uint32][]hostRoute
	// vrfs are the tables that belong to VRFs.
	vrfs []uint32
}

// hostRoute is a route of the host.
type hostRoute struct {
	to  netip.Prefix
	typ int
	// dev is the interface, empty for a route that leads nowhere.
	dev string
	via string
}

func newHostRoute(r netlink.Route, family int, names map[int]string) hostRoute {
	out := hostRoute{to: netip.PrefixFrom(netip.IPv6Unspecified(), 0), typ: r.Type}
	if family == unix.AF_INET {
		out.to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if r.Dst != nil {
		if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			bits, _ := r.Dst.Mask.Size()
			if family == unix.AF_INET {
				a = a.Unmap()
			}
			out.to = netip.PrefixFrom(a, bits)
		}
	}
	index, gateway := r.LinkIndex, r.Gw
	if index == 0 && len(r.MultiPath) > 0 {
		index, gateway = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
	}
	out.dev = names[index]
	if gateway != nil {
		out.via = gateway.String()
	}
	return out
}

func (r hostRoute) String() string {
	text := r.to.String()
	if r.isDefault() {
		text = "default"
	}
	if word := map[int]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_LOCAL: "local"}[r.typ]; word != "" {
		text = word + " " + text
	}
	if r.via != "" {
		text += " via " + r.via
	}
	if r.dev != "" {
		text += " dev " + r.dev
	}
	return text
}

func (r hostRoute) isDefault() bool { return r.to.Bits() == 0 }

// isWide reports whether the route is a default one, or half of one.
func (r hostRoute) isWide() bool { return r.to.Bits() <= 1 }

// counts reports whether the route takes packets: it is none that sends the
// kernel on to the next rule, nor an address or broadcast address of the host.
func (r hostRoute) counts() bool {
	switch r.typ {
	case unix.RTN_THROW, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return false
	case unix.RTN_LOCAL:
		return !r.to.IsSingleIP()
	}
	return true
}

// into is the first route into p by what the rules ask, in words.
func (t routingTables) into(p netip.Prefix, bridge string, rules []policyRule) string {
	// reached says that packets to p have found the bridge's own route by then.
	reached := false
	for _, r := range rules {
		if !r.l3mdev && r.action != actionTable || !r.leadsTo(p) {
			continue
		}
		asked := []uint32{r.table}
		if r.l3mdev {
			asked = t.vrfs
		}
		for _, table := range asked {
			if route, ok := t.clash(p, bridge, r, table, reached); ok {
				return describeClash(route, r, table)
			}
		}
		if r.table == tableMain && !r.selective() && r.suppress < p.Bits() {
			reached = true
		}
	}
	return ""
}

// clash is a route into p of a table that a rule asks.
func (t routingTables) clash(p netip.Prefix, bridge string, r policyRule, table uint32, reached bool) (hostRoute, bool) {
	for _, route := range t.routes[table] {
		if !route.counts() || !route.to.Overlaps(p) || route.dev == bridge || route.to.Bits() <= r.suppress {
			continue
		}
		if r.to.IsValid() && !r.invert && !route.to.Overlaps(r.to) {
			continue
		}
		if !route.isWide() {
			return route, true
		}
		if table != tableMain && !reached && !r.selective() && !t.spared(p, bridge, table) {
			return route, true
		}
	}
	return hostRoute{}, false
}

// spared reports whether a table has a route that keeps its default route from
// packets to p: one that sends the kernel on, or the bridge's own.
func (t routingTables) spared(p netip.Prefix, bridge string, table uint32) bool {
	return slices.ContainsFunc(t.routes[table], func(r hostRoute) bool {
		return !r.isWide() && r.to.Bits() <= p.Bits() && r.to.Overlaps(p) && (r.typ == unix.RTN_THROW || r.dev == bridge)
	})
}

func describeClash(route hostRoute, r policyRule, table uint32) string {
	text := fmt.Sprintf("%s in table %s, which rule %d (%s) asks", route, tableName(table), r.priority, r)
	switch {
	case route.isWide():
		return text + " before table main"
	case r.selective():
		return text + " for some packets"
	}
	return text
}
