// Package nat turns desired state into address translation: DNAT of published
// ports, masquerade of what leaves a network, hairpin and loopback; and host redirects.
//
// It is pure: no netlink, clock, log or context. A port, a container and a
// network are elements of maps; no shared chain gets a rule for one of them,
// so that a packet's way costs the same for one port and for ten thousand.
package nat

import (
	"net/netip"
	"slices"
	"strings"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// Chains of the table, named as Docker named them in iptables.
const (
	chainPrerouting  = "PREROUTING"
	chainOutput      = "OUTPUT"
	chainDocker      = "DOCKER"
	chainPostrouting = "POSTROUTING"
	chainRelay       = "relay"
)

// Sets and maps of the table.
const (
	mapPublish4   = "publish4"
	mapPublish6   = "publish6"
	mapPublish4At = "publish4_at"
	mapPublish6At = "publish6_at"
	mapMasq       = "masq"
	setSameBridge = "same_br"
	setSelf4      = "self4"
	setSelf6      = "self6"
	setICCOff     = "icc_off"
	setRelay      = "relay"
	setRelay4At   = "relay4_at"
	setRelay6At   = "relay6_at"
)

var (
	typePublish4 = rs.ConcatTypes(rs.TypeInetProto, rs.TypeInetService)
	typeTarget4  = rs.ConcatTypes(rs.TypeIPv4Addr, rs.TypeInetService)
	typeTarget6  = rs.ConcatTypes(rs.TypeIPv6Addr, rs.TypeInetService)
	l4proto      = rs.Meta{Key: rs.MetaL4Proto}
	iifname      = rs.Meta{Key: rs.MetaIIFName}
	oifname      = rs.Meta{Key: rs.MetaOIFName}
	loopback4    = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal6   = netip.MustParsePrefix("fe80::/10")
)

// Ruleset is the translation of s, as a part of the table that it shares with
// package isolation.
func Ruleset(s desired.State) rs.Ruleset {
	t := rs.Table{Family: rs.FamilyInet, Name: layout.Table, Sets: append(sets(), redirectSets()...), Chains: sharedChains()}
	for _, n := range s.SortedNetworks() {
		addNetwork(&t, n)
		if c, ok := masqueradeChain(n); ok {
			t.Chains = append(t.Chains, c)
		}
	}
	for _, e := range s.SortedEndpoints() {
		addEndpoint(&t, s.Networks[e.NetworkID], e)
	}
	for _, r := range s.SortedRedirects() {
		addRedirect(&t, r)
	}
	return rs.Ruleset{Tables: []rs.Table{t}}
}

// sharedChains are the chains that stand whatever the state.
func sharedChains() []rs.Chain {
	local := func() []rs.Rule {
		return []rs.Rule{rs.NewRule(
			rs.Is(rs.FibDaddrType, rs.HostUint32(rs.TypeFibAddrType, rs.FibLocal)), rs.Counter{}, rs.JumpTo(chainDocker))}
	}
	return []rs.Chain{
		{Name: chainPrerouting, Base: natBase(rs.HookPrerouting, rs.PriorityDstNAT), Rules: local()},
		// Locally generated packets never meet PREROUTING: the host reaches its
		// own published ports, 127.0.0.1 included, by this chain.
		{Name: chainOutput, Base: natBase(rs.HookOutput, rs.PriorityDstNAT), Rules: local()},
		{Name: chainDocker, Rules: append(redirectRules(), dockerRules()...)},
		{Name: chainRelay, Rules: relayRules()},
		{Name: chainPostrouting, Base: natBase(rs.HookPostrouting, rs.PrioritySrcNAT), Rules: postroutingRules()},
	}
}

func natBase(h rs.Hook, priority int32) *rs.Base {
	return &rs.Base{Type: "nat", Hook: h, Priority: priority, Policy: rs.Accept}
}

func dockerRules() []rs.Rule {
	return []rs.Rule{
		// There is no route_localnet in IPv6: the reply to a translated ::1 would
		// be dropped by routing. The port socket answers there.
		rs.NewRule(rs.Is(rs.IP6Daddr, rs.Addr(netip.IPv6Loopback())), rs.Verdict{Kind: rs.Return}),
		// A container has no route back to a link-local client of another link.
		rs.NewRule(rs.InPrefix{Left: rs.IP6Saddr, Prefix: linkLocal6}, rs.Verdict{Kind: rs.Return}),
		rs.NewRule(rs.In(iifname, setICCOff), rs.JumpTo(chainRelay)),
		publishRule("ip", mapPublish4At, rs.IPDaddr),
		publishRule("ip", mapPublish4, nil),
		publishRule("ip6", mapPublish6At, rs.IP6Daddr),
		publishRule("ip6", mapPublish6, nil),
	}
}

// relayRules leave to the port's own socket what a container asks of a
// neighbour that it may not reach itself. Translated, with
// bridge-nf-call-iptables=1, its packet would go from port to port of the
// bridge, which keeps the ports of such a network apart.
func relayRules() []rs.Rule {
	to := func(key rs.Expr, set string) rs.Rule { return rs.NewRule(rs.In(key, set), rs.Verdict{Kind: rs.Accept}) }
	return []rs.Rule{
		to(rs.ConcatOf(iifname, rs.IPDaddr, l4proto, rs.THDport), setRelay4At),
		to(rs.ConcatOf(iifname, rs.IP6Daddr, l4proto, rs.THDport), setRelay6At),
		// A port on one address stands before the same port on all of them.
		publishRule("ip", mapPublish4At, rs.IPDaddr),
		publishRule("ip6", mapPublish6At, rs.IP6Daddr),
		to(rs.ConcatOf(iifname, l4proto, rs.THDport), setRelay),
	}
}

// publishRule translates to what a map of published ports holds; with daddr,
// a map of ports published on one address.
func publishRule(family, name string, daddr rs.Expr) rs.Rule {
	key := rs.ConcatOf(l4proto, rs.THDport)
	if daddr != nil {
		key = rs.ConcatOf(daddr, l4proto, rs.THDport)
	}
	return rs.NewRule(rs.NAT{Kind: rs.DNAT, Family: family, Key: key, Map: name})
}

func postroutingRules() []rs.Rule {
	return []rs.Rule{
		// From the host by 127.0.0.1: the container could not answer to that
		// address. Nothing wider, so that the host's other addresses stay visible.
		rs.NewRule(rs.In(oifname, layout.SetBridges), rs.InPrefix{Left: rs.IPSaddr, Prefix: loopback4}, rs.Masquerade{}),
		// Hairpin of a container to itself. Not by interface: with
		// bridge-nf-call-iptables=1 the packet comes here without an input one.
		rs.NewRule(rs.In(rs.ConcatOf(rs.IPSaddr, rs.IPDaddr), setSelf4), rs.Masquerade{}),
		rs.NewRule(rs.In(rs.ConcatOf(rs.IP6Saddr, rs.IP6Daddr), setSelf6), rs.Masquerade{}),
		// Hairpin to a neighbour on the same bridge: its answer must come back
		// through the host, or it would not be translated back.
		rs.NewRule(rs.Has(rs.Ct{Key: rs.CtStatus}, rs.HostUint32(rs.TypeCtStatus, rs.StatusDNAT)),
			rs.In(rs.ConcatOf(iifname, oifname), setSameBridge), rs.Masquerade{}),
		rs.NewRule(rs.VMap{Key: iifname, Map: mapMasq}),
	}
}

func sets() []rs.Set {
	at := func(addr rs.Type) rs.Type { return rs.ConcatTypes(addr, rs.TypeInetProto, rs.TypeInetService) }
	from := func(key rs.Type) rs.Type { return rs.ConcatTypes(rs.TypeIfname, key) }
	return []rs.Set{
		{Name: mapPublish4, Key: typePublish4, Data: typeTarget4, Counter: true},
		{Name: mapPublish6, Key: typePublish4, Data: typeTarget6, Counter: true},
		{Name: mapPublish4At, Key: at(rs.TypeIPv4Addr), Data: typeTarget4, Counter: true},
		{Name: mapPublish6At, Key: at(rs.TypeIPv6Addr), Data: typeTarget6, Counter: true},
		{Name: layout.SetBridges, Key: rs.TypeIfname},
		{Name: setSameBridge, Key: rs.ConcatTypes(rs.TypeIfname, rs.TypeIfname)},
		{Name: setSelf4, Key: rs.ConcatTypes(rs.TypeIPv4Addr, rs.TypeIPv4Addr)},
		{Name: setSelf6, Key: rs.ConcatTypes(rs.TypeIPv6Addr, rs.TypeIPv6Addr)},
		{Name: mapMasq, Key: rs.TypeIfname, Data: rs.TypeVerdict},
		{Name: setICCOff, Key: rs.TypeIfname},
		{Name: setRelay, Key: from(typePublish4)},
		{Name: setRelay4At, Key: from(at(rs.TypeIPv4Addr))},
		{Name: setRelay6At, Key: from(at(rs.TypeIPv6Addr))},
	}
}

func addNetwork(t *rs.Table, n desired.Network) {
	comment := layout.NewOwner(n.ID, "").Comment()
	br := rs.Iface(n.Bridge)
	t.AddElement(layout.SetBridges, rs.Element{Key: br, Comment: comment})
	t.AddElement(setSameBridge, rs.Element{Key: rs.Concat(br, br), Comment: comment})
	if !n.ICC {
		t.AddElement(setICCOff, rs.Element{Key: br, Comment: comment})
	}
	if len(masqueraded(n)) > 0 {
		t.AddElement(mapMasq, rs.Element{Key: br, Verdict: rs.JumpTo(masqueradeName(n)), Comment: comment})
	}
}

func addEndpoint(t *rs.Table, n desired.Network, e desired.Endpoint) {
	comment := layout.NewOwner(e.NetworkID, e.ID).Comment()
	for _, a := range e.Addrs() {
		t.AddElement(pick(a, setSelf4, setSelf6), rs.Element{Key: rs.Concat(rs.Addr(a), rs.Addr(a)), Comment: comment})
	}
	relayed := map[rs.Value]bool{}
	for _, p := range e.Published {
		if p.Kind() != desired.Translated {
			continue
		}
		set, key := hostKey(p)
		to := rs.Concat(rs.Addr(p.Container.Addr()), rs.Port(p.Container.Port()))
		t.AddElement(set, rs.Element{Key: key, Data: to, Comment: comment})
		// A port on every address of both families is one element.
		from := rs.Concat(append([]rs.Value{rs.Iface(n.Bridge)}, key.Parts()...)...)
		if Relayed(n, p) && !relayed[from] {
			relayed[from] = true
			t.AddElement(relaySet[set], rs.Element{Key: from, Comment: comment})
		}
	}
}

// Relayed says whether the port's socket serves the neighbours of its container.
func Relayed(n desired.Network, p desired.Port) bool {
	return !n.ICC && p.Kind() == desired.Translated && (p.Proto == rs.ProtoTCP || p.Proto == rs.ProtoUDP)
}

// relaySet is where a port of one of the maps is relayed.
var relaySet = map[string]string{
	mapPublish4: setRelay, mapPublish6: setRelay, mapPublish4At: setRelay4At, mapPublish6At: setRelay6At,
}

// hostKey is the map that a port stands in, and its key there.
func hostKey(p desired.Port) (set string, key rs.Value) {
	a, proto, port := p.Host.Addr(), rs.Proto(p.Proto), rs.Port(p.Host.Port())
	if p.Any() {
		return pick(a, mapPublish4, mapPublish6), rs.Concat(proto, port)
	}
	return pick(a, mapPublish4At, mapPublish6At), rs.Concat(rs.Addr(a), proto, port)
}

// pick chooses by the family of an address.
func pick(a netip.Addr, v4, v6 string) string {
	if a.Is4() {
		return v4
	}
	return v6
}

// masqueraded are the subnets whose addresses are hidden behind the host's.
func masqueraded(n desired.Network) []desired.Subnet {
	if !n.Masquerade || n.Internal {
		return nil
	}
	return slices.DeleteFunc(n.Subnets(), func(s desired.Subnet) bool { return !s.NAT() })
}

const masqueradePrefix = "masq-"

func masqueradeName(n desired.Network) string { return masqueradePrefix + layout.ShortID(n.ID) }

// OwnsChain says whether a chain's name is one that this package gives to
// networks and redirects: such a chain of an unknown one is left over.
func OwnsChain(name string) bool {
	return strings.HasPrefix(name, masqueradePrefix) || strings.HasPrefix(name, redirectPrefix)
}

// masqueradeChain gives what leaves a network, by another interface than its
// bridge, the address of that interface, or the one that the user chose.
func masqueradeChain(n desired.Network) (rs.Chain, bool) {
	c := rs.Chain{Name: masqueradeName(n)}
	comment := layout.NewOwner(n.ID, "").Comment()
	for _, s := range masqueraded(n) {
		saddr, family := rs.IPSaddr, "ip"
		if s.Prefix.Addr().Is6() {
			saddr, family = rs.IP6Saddr, "ip6"
		}
		var translation rs.Part = rs.Masquerade{}
		if s.SNAT.IsValid() {
			translation = rs.NAT{Kind: rs.SNAT, Family: family, Addr: rs.Addr(s.SNAT)}
		}
		c.Rules = append(c.Rules, rs.NewRule(rs.IsNot(oifname, rs.Iface(n.Bridge)),
			rs.InPrefix{Left: saddr, Prefix: s.Prefix.Masked()}, rs.Counter{}, translation).Because(comment))
	}
	return c, len(c.Rules) > 0
}

// Published reads back from a table which ports of the host lead where: what
// [Ruleset] made of translated ports.
func Published(t rs.Table) []desired.Port {
	var out []desired.Port
	for _, name := range []string{mapPublish4, mapPublish6, mapPublish4At, mapPublish6At} {
		set := t.Set(name)
		if set == nil {
			continue
		}
		for _, e := range set.Elements {
			if p, ok := publishedPort(name, e); ok {
				out = append(out, p)
			}
		}
	}
	return out
}

// publishedPort reads an element of one of the maps of published ports.
func publishedPort(name string, e rs.Element) (desired.Port, bool) {
	key, to := e.Key.Parts(), e.Data.Parts()
	host := netip.IPv4Unspecified()
	switch name {
	case mapPublish6:
		host = netip.IPv6Unspecified()
	case mapPublish4At, mapPublish6At:
		if len(key) != 3 {
			return desired.Port{}, false
		}
		a, ok := key[0].Addr()
		if !ok {
			return desired.Port{}, false
		}
		host, key = a, key[1:]
	}
	if len(key) != 2 || len(to) != 2 {
		return desired.Port{}, false
	}
	proto, ok1 := key[0].Uint()
	number, ok2 := key[1].Uint()
	container, ok3 := to[0].Addr()
	port, ok4 := to[1].Uint()
	return desired.Port{
		Proto: uint8(proto), Host: netip.AddrPortFrom(host, uint16(number)), Container: netip.AddrPortFrom(container, uint16(port)),
	}, ok1 && ok2 && ok3 && ok4
}
