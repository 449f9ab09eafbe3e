package link

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Uplink is a way out of the host that has a routing table of its own, which
// rules choose by the source address of a packet: "from ADDRESS lookup TABLE".
type Uplink struct {
	Table uint32
	// Mark are the bits, within the mask, of connections that came in by it.
	Mark uint32
	// Ways are the addresses of the host whose answers the table is for, with the
	// interfaces that they are asked by.
	Ways []UplinkWay
	// OnLink are the prefixes of the neighbours on those interfaces.
	OnLink []OnLink
	// priorities are those of the rules in each family, by its number.
	priorities map[int]uint32
}

// UplinkWay is an address of the host and an interface by which packets to it
// come in.
type UplinkWay struct {
	Iface string
	Addr  netip.Addr
}

// OnLink is a prefix of an interface's own link.
type OnLink struct {
	Iface  string
	Prefix netip.Prefix
}

// ruleProtocol marks the driver's routing rules (FRA_PROTOCOL). No other program
// of iproute2's list has the number.
const ruleProtocol = 78

// Uplinks lists the uplinks of the host that have tables of their own, with a
// mark for each, within mask. It lists none where rules choose no table by the
// source address, or one that leads out as table main does. The error names what
// there are too few bits for.
func Uplinks(mask uint32, st desired.State) ([]Uplink, error) {
	found := map[uint32]*Uplink{}
	used := map[uint32]uint32{}
	var hosts *hostWays
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := listRules(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if r.ours() && r.mask == mask {
				used[r.table] = r.mark
			}
		}
		rules = slices.DeleteFunc(rules, func(r policyRule) bool { return !r.bySource() })
		if len(rules) == 0 {
			continue
		}
		if hosts == nil {
			if hosts, err = seeHost(st); err != nil {
				return nil, err
			}
		}
		routes, err := defaultRoutes(family)
		if err != nil {
			return nil, err
		}
		hosts.addUplinks(found, family, rules, routes)
	}
	return giveMarks(found, used, mask)
}

// ours reports whether the driver made the rule.
func (r policyRule) ours() bool { return r.protocol == ruleProtocol && r.mask != 0 }

// bySource reports whether the rule selects by the source address alone.
func (r policyRule) bySource() bool {
	source := r
	source.from = netip.Prefix{}
	return r.from.IsValid() && !source.selective() && !r.to.IsValid() && r.action == actionTable
}

// hostWays are the interfaces of the host that are not the driver's.
type hostWays struct {
	names map[int]string
	addrs map[int][]seenAddr
}

func seeHost(st desired.State) (*hostWays, error) {
	links, err := dumpLinks(linkFilter{})
	if err != nil {
		return nil, err
	}
	h := &hostWays{names: map[int]string{}}
	own := owned(st)
	for _, l := range links {
		if !own(l.name) {
			h.names[l.index] = l.name
		}
	}
	if h.addrs, err = dumpAddrs(); err != nil {
		return nil, err
	}
	return h, nil
}

// gateway is where a default route leads.
type gateway struct {
	index int
	via   netip.Addr
}

// defaultRoutes are the default routes of each table, the best one first.
func defaultRoutes(family int) (map[uint32][]gateway, error) {
	list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	slices.SortStableFunc(list, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	out := map[uint32][]gateway{}
	for _, r := range list {
		if !isDefault(r) {
			continue
		}
		if len(r.MultiPath) == 0 {
			r.MultiPath = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
		}
		for _, hop := range r.MultiPath {
			via, _ := netip.AddrFromSlice(hop.Gw)
			out[uint32(r.Table)] = append(out[uint32(r.Table)], gateway{hop.LinkIndex, via.Unmap()})
		}
	}
	return out, nil
}

// addUplinks adds the uplinks of a family: of each address of the host, the table
// that the first rule of its own chooses.
func (h *hostWays) addUplinks(found map[uint32]*Uplink, family int, rules []policyRule, routes map[uint32][]gateway) {
	for _, index := range slices.Sorted(maps.Keys(h.addrs)) {
		name, foreign := h.names[index]
		if !foreign {
			continue
		}
		for _, a := range h.addrs[index] {
			addr := a.prefix.Addr()
			if addr.Is4() != (family == unix.AF_INET) || !addr.IsGlobalUnicast() {
				continue
			}
			i := slices.IndexFunc(rules, func(r policyRule) bool { return r.from.Contains(addr) })
			if i < 0 || isUsualTable(rules[i].table) {
				continue
			}
			table := rules[i].table
			if have := routes[table]; len(have) > 0 && len(routes[tableMain]) > 0 && have[0] == routes[tableMain][0] {
				// Its answers leave by the same way as all others.
				continue
			}
			u := found[table]
			if u == nil {
				u = &Uplink{Table: table, priorities: map[int]uint32{}}
				found[table] = u
			}
			if p, ok := u.priorities[family]; !ok || rules[i].priority < p {
				u.priorities[family] = rules[i].priority
			}
			h.addWays(u, name, addr, routes[table])
		}
	}
}

func isUsualTable(table uint32) bool {
	return table == tableMain || table == tableLocal || table == tableDefault
}

// addWays adds an address: packets to it come by its own interface, and by those
// that the table leads out by, as where the address is one of lo.
func (h *hostWays) addWays(u *Uplink, name string, addr netip.Addr, routes []gateway) {
	ifaces := []string{name}
	for _, g := range routes {
		if out, foreign := h.names[g.index]; foreign {
			ifaces = append(ifaces, out)
		}
	}
	slices.Sort(ifaces)
	for _, iface := range slices.Compact(ifaces) {
		if iface == "lo" {
			continue
		}
		u.Ways = append(u.Ways, UplinkWay{iface, addr})
		u.addOnLink(h, iface, addr.Is4())
	}
}

func (u *Uplink) addOnLink(h *hostWays, iface string, v4 bool) {
	for index, name := range h.names {
		if name != iface {
			continue
		}
		for _, a := range h.addrs[index] {
			n := OnLink{iface, a.prefix.Masked()}
			if a.prefix.Addr().Is4() == v4 && !a.prefix.IsSingleIP() && !slices.Contains(u.OnLink, n) {
				u.OnLink = append(u.OnLink, n)
			}
		}
	}
}

// giveMarks gives each uplink a mark: the one that its connections have already,
// or a free one.
func giveMarks(found map[uint32]*Uplink, used map[uint32]uint32, mask uint32) ([]Uplink, error) {
	taken := map[uint32]bool{}
	for table, mark := range used {
		if found[table] != nil {
			taken[mark] = true
		}
	}
	var out []Uplink
	var errs []error
	next := uint32(1)
	for _, table := range slices.Sorted(maps.Keys(found)) {
		u := found[table]
		if u.Mark = used[table]; u.Mark == 0 || u.Mark&^mask != 0 {
			for next < 1<<bits.OnesCount32(mask) && taken[spread(next, mask)] {
				next++
			}
			if u.Mark = spread(next, mask); next >= 1<<bits.OnesCount32(mask) {
				errs = append(errs, fmt.Errorf("no mark is left for routing table %d: mask %#x has %d, give nftnet serve --mark-mask more bits",
					table, mask, 1<<bits.OnesCount32(mask)-1))
				continue
			}
			taken[u.Mark] = true
		}
		out = append(out, *u)
	}
	return out, errors.Join(errs...)
}

// spread puts the bits of a number where a mask has bits.
func spread(n, mask uint32) uint32 {
	var out uint32
	for ; mask != 0; mask &= mask - 1 {
		if n&1 != 0 {
			out |= mask & -mask
		}
		n >>= 1
	}
	return out
}

// RuleUplinks has the host's routing rules send packets with the marks of
// uplinks by their tables, each beside the rule of the uplink's own addresses,
// and deletes the driver's rules of others.
func RuleUplinks(list []Uplink, mask uint32) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		have, err := listRules(family)
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(r policyRule) bool { return !r.ours() })
		var want []policyRule
		for _, u := range list {
			if p, ok := u.priorities[family]; ok {
				want = append(want, policyRule{
					priority: p, action: actionTable, table: u.Table, mark: u.Mark, mask: mask, suppress: -1, protocol: ruleProtocol,
				})
			}
		}
		for _, r := range want {
			if !containsRule(have, r) {
				errs = append(errs, r.apply(family, netlink.RuleAdd, unix.EEXIST, "add"))
			}
		}
		for _, r := range have {
			if !containsRule(want, r) {
				errs = append(errs, r.apply(family, netlink.RuleDel, unix.ENOENT, "delete"))
			}
		}
	}
	return errors.Join(errs...)
}

func containsRule(list []policyRule, r policyRule) bool {
	return slices.ContainsFunc(list, func(x policyRule) bool {
		return x.priority == r.priority && x.table == r.table && x.mark == r.mark && x.mask == r.mask
	})
}

// apply adds or deletes one of the driver's rules; an error that says that it is
// so already is none.
func (r policyRule) apply(family int, do func(*netlink.Rule) error, already error, verb string) error {
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Table = family, int(r.priority), int(r.table)
	rule.Mark, rule.Mask, rule.Protocol = r.mark, &r.mask, r.protocol
	if err := do(rule); err != nil && !errors.Is(err, already) {
		return fmt.Errorf("%s routing rule %q: %w", verb, r, err)
	}
	return nil
}

// StrictUplinks are the interfaces of uplinks that drop what comes in from where
// they would not answer (rp_filter 1): the kernel asks that after it has given a
// packet the address of a container, whose answers go elsewhere.
func StrictUplinks(list []Uplink) []string {
	all, _, _ := readSysctl("ipv4/conf/all/rp_filter")
	var out []string
	for _, u := range list {
		for _, w := range u.Ways {
			own, _, _ := readSysctl("ipv4/conf/" + w.Iface + "/rp_filter")
			if w.Addr.Is4() && max(all, own) == 1 && !slices.Contains(out, w.Iface) {
				out = append(out, w.Iface)
			}
		}
	}
	return out
}
