// Package isolation turns desired state into filtering: the DOCKER-USER hook,
// the isolation of networks from each other, internal networks, containers
// that may not reach their neighbours, unpublished ports, direct access, and
// spoofed addresses.
//
// It is pure: no netlink, clock, log or context. As in package nat, a port, a
// container and a network are elements of sets and maps.
package isolation

import (
	"net/netip"
	"slices"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// Chains of the table; the isolation stages are named as Docker named them.
const (
	chainForward    = "FORWARD"
	chainStage1     = "DOCKER-ISOLATION-STAGE-1"
	chainInRouted   = "in-routed"
	chainInInternal = "in-internal"
	chainRefuse     = "refuse"
	chainRaw        = "RAW-PREROUTING"
	chainMangle     = "MANGLE-FORWARD"
	chainInput      = "INPUT"
	chainStray      = "stray"
)

// Sets and maps of the table.
const (
	setDirect   = "open_to"
	setTrusted  = "trusted"
	setReject   = "rejecting"
	setClamp    = "clamping"
	mapForward  = "fwd_in"
	setAllowed4 = "allowed4"
	setAllowed6 = "allowed6"
	setSource4  = "allowed4_from"
	setSource6  = "allowed6_from"
)

var (
	l4proto   = rs.Meta{Key: rs.MetaL4Proto}
	nfproto   = rs.Meta{Key: rs.MetaNFProto}
	iifname   = rs.Meta{Key: rs.MetaIIFName}
	oifname   = rs.Meta{Key: rs.MetaOIFName}
	tcpFlags  = mustField("tcp", "flags")
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	// maxSegment is option 2 of TCP, its number 2 bytes behind the option's
	// beginning (RFC 9293, 3.2).
	maxSegment = mustOption(rs.OptionField(rs.ExthdrTCP, 2, 16, 16))
)

func mustOption(x rs.Exthdr, ok bool) rs.Exthdr {
	if !ok {
		panic("isolation: the vocabulary lacks an option of TCP")
	}
	return x
}

// Ruleset is the filtering of s: a part of the table that it shares with
// package nat, and the table of family bridge.
func Ruleset(s desired.State) rs.Ruleset {
	t := rs.Table{Family: rs.FamilyInet, Name: layout.Table, Sets: sets(), Chains: chains()}
	for _, n := range s.SortedNetworks() {
		addNetwork(&t, n)
	}
	for _, e := range s.SortedEndpoints() {
		addEndpoint(&t, e)
	}
	return rs.Ruleset{Tables: []rs.Table{t, bridgeTable(s)}}
}

func filter(h rs.Hook, priority int32) *rs.Base {
	return &rs.Base{Type: "filter", Hook: h, Priority: priority, Policy: rs.Accept}
}

var (
	accept = rs.NewRule(rs.Counter{}, rs.Verdict{Kind: rs.Accept})
	drop   = rs.NewRule(rs.Counter{}, rs.Verdict{Kind: rs.Drop})
	// refuse is the end of what may not enter a network.
	refuse = []rs.Rule{rs.NewRule(rs.In(oifname, setReject), rs.GotoChain(chainRefuse)), drop}
)

func chains() []rs.Chain {
	return append(lateChains(), []rs.Chain{
		{Name: chainForward, Base: filter(rs.HookForward, rs.PriorityFilter), Rules: forwardRules()},
		{Name: layout.UserChain, UserOwned: true},
		{Name: chainStage1, Rules: stage1Rules()},
		{Name: layout.ChainStage2, Rules: append([]rs.Rule{
			// A container reaches another network's published port by the host.
			rs.NewRule(translated(), rs.Verdict{Kind: rs.Return}),
			// Networks that are not behind NAT decide for themselves.
			rs.NewRule(rs.In(rs.ConcatOf(nfproto, oifname), setDirect), rs.Verdict{Kind: rs.Return}),
			rs.NewRule(rs.In(rs.ConcatOf(iifname, oifname), setTrusted), rs.Verdict{Kind: rs.Return}),
		}, refuse...)},
		{Name: layout.ChainInNAT, Rules: append([]rs.Rule{
			rs.NewRule(translated(), rs.GotoChain(layout.ChainInPublished)),
			rs.NewRule(rs.In(rs.ConcatOf(iifname, oifname), setTrusted), rs.GotoChain(layout.ChainInPublished)),
		}, refuse...)},
		{Name: chainInRouted, Rules: []rs.Rule{
			rs.NewRule(append([]rs.Part{rs.Is(l4proto, rs.Proto(rs.ProtoICMP))}, accept.Parts...)...),
			rs.NewRule(append([]rs.Part{rs.Is(l4proto, rs.Proto(rs.ProtoICMPv6))}, accept.Parts...)...),
			rs.NewRule(rs.GotoChain(layout.ChainInPublished)),
		}},
		{Name: chainInInternal, Rules: refuse},
		{Name: layout.ChainInPublished, Rules: append([]rs.Rule{
			allowedRule(setAllowed4, rs.IPDaddr), allowedRule(setAllowed6, rs.IP6Daddr),
			allowedRule(setSource4, rs.IPDaddr, rs.IPSaddr), allowedRule(setSource6, rs.IP6Daddr, rs.IP6Saddr),
		}, refuse...)},
		{Name: chainRefuse, Rules: []rs.Rule{
			rs.NewRule(rs.Is(l4proto, rs.Proto(rs.ProtoTCP)), rs.Counter{}, rs.Reject{With: "tcp reset"}),
			rs.NewRule(rs.Counter{}, rs.Reject{}),
		}},
		// Before FORWARD, which accepts the answer to a SYN as established.
		{Name: chainMangle, Base: filter(rs.HookForward, rs.PriorityMangle), Rules: []rs.Rule{clampRule(iifname), clampRule(oifname)}},
		// Our bridges have route_localnet on, for replies to 127.0.0.1: nobody but
		// lo may aim at 127.0.0.0/8, or come from there. Before conntrack, so that it
		// costs little.
		{Name: chainRaw, Base: filter(rs.HookPrerouting, rs.PriorityRaw), Rules: []rs.Rule{
			loopbackRule(rs.IPDaddr), loopbackRule(rs.IPSaddr),
			// A bridge hands frames to the addresses that it keeps for itself
			// (01:80:c2:00:00:0x) to the host as its port's, past the table that
			// checks frames (br_handle_frame in net/bridge/br_input.c). Nobody
			// sends IP so.
			rs.NewRule(rs.Is(iifname, rs.Value{Type: rs.TypeIfname, Data: layout.HostLinkPrefix}), rs.Counter{}, rs.Verdict{Kind: rs.Drop}),
		}},
	}...)
}

// lateChains keep from the host's TCP what is none of its own. A segment that
// connection tracking finds outside the window of a translated connection is
// invalid, and comes untranslated to the host, whose reset would end the
// connection. Connection tracking knows a connection for every invalid segment
// that acknowledges something: one without a connection it takes for a new one
// (tcp_new in nf_conntrack_proto_tcp.c), unless it has a FIN. The host's own
// have a socket.
func lateChains() []rs.Chain {
	const fin, syn, rst, ack = 1, 2, 4, 16
	socket := func(transparent string) rs.Rule {
		x := rs.Socket{Key: "transparent"}
		return rs.NewRule(rs.Is(x, rs.Value{Type: x.Type(), Data: transparent}), rs.Verdict{Kind: rs.Return})
	}
	return []rs.Chain{
		// Last, so that others see and count what they did before.
		{Name: chainInput, Base: filter(rs.HookInput, rs.PrioritySecurity), Rules: []rs.Rule{
			rs.NewRule(rs.Has(rs.Ct{Key: rs.CtState}, rs.HostUint32(rs.TypeCtState, rs.StateInvalid)),
				rs.Is(rs.Masked{Expr: tcpFlags, Mask: tcpFlag(fin | syn | rst | ack)}, tcpFlag(ack)), rs.JumpTo(chainStray)),
		}},
		// Whether the socket is transparent does not matter; a match that finds none
		// does not hold, whatever it asks.
		{Name: chainStray, Rules: []rs.Rule{socket("\x00"), socket("\x01"), drop}},
	}
}

// WithoutSockets is the ruleset for a kernel whose rules cannot ask for sockets
// (CONFIG_NFT_SOCKET).
func WithoutSockets(r rs.Ruleset) rs.Ruleset {
	out := rs.Ruleset{Tables: slices.Clone(r.Tables)}
	for i := range out.Tables {
		t := &out.Tables[i]
		t.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c rs.Chain) bool { return c.Name == chainInput || c.Name == chainStray })
	}
	return out
}

func loopbackRule(addr rs.Payload) rs.Rule {
	return rs.NewRule(rs.IsNot(iifname, rs.Iface("lo")), rs.InPrefix{Left: addr, Prefix: loopback4}, rs.Counter{}, rs.Verdict{Kind: rs.Drop})
}

func forwardRules() []rs.Rule {
	return []rs.Rule{
		rs.NewRule(rs.JumpTo(layout.UserChain)),
		rs.NewRule(rs.Has(rs.Ct{Key: rs.CtState}, rs.HostUint32(rs.TypeCtState, rs.StateEstablished|rs.StateRelated)),
			rs.Counter{}, rs.Verdict{Kind: rs.Accept}),
		rs.NewRule(rs.In(iifname, layout.SetBridges), rs.JumpTo(chainStage1)),
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(nfproto, oifname), Map: mapForward}),
		rs.NewRule(rs.In(iifname, layout.SetBridges), rs.Counter{}, rs.Verdict{Kind: rs.Accept}),
	}
}

func stage1Rules() []rs.Rule {
	return []rs.Rule{
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(iifname, oifname), Map: layout.MapSame}),
		rs.NewRule(rs.In(iifname, layout.SetInternal), rs.Counter{}, rs.Verdict{Kind: rs.Drop}),
		rs.NewRule(rs.In(oifname, layout.SetBridges), rs.JumpTo(layout.ChainStage2)),
	}
}

// clampRule makes the two ends of a TCP connection agree on segments that the
// route can carry, where nobody tells them that their packets were too big.
func clampRule(iface rs.Expr) rs.Rule {
	const syn, rst = 2, 4
	return rs.NewRule(rs.In(iface, setClamp), rs.Is(rs.Masked{Expr: tcpFlags, Mask: tcpFlag(syn | rst)}, tcpFlag(syn)),
		rs.Counter{}, rs.Mangle{Left: maxSegment, From: rs.Route{Key: "mtu"}})
}

func tcpFlag(bits byte) rs.Value { return rs.Value{Type: rs.TypeTCPFlag, Data: string([]byte{bits})} }

// translated holds for packets of connections whose destination was
// translated: who aims at a container's address directly has none.
func translated() rs.Match {
	return rs.Has(rs.Ct{Key: rs.CtStatus}, rs.HostUint32(rs.TypeCtStatus, rs.StatusDNAT))
}

// allowedRule accepts what leads to a published container port, from one of
// its sources where the set has them.
func allowedRule(set string, daddr rs.Expr, source ...rs.Expr) rs.Rule {
	key := rs.ConcatOf(append([]rs.Expr{daddr, l4proto, rs.THDport}, source...)...)
	return rs.NewRule(append([]rs.Part{rs.In(key, set)}, accept.Parts...)...)
}

func sets() []rs.Set {
	allowed := func(addr rs.Type, more ...rs.Type) rs.Type {
		return rs.ConcatTypes(append([]rs.Type{addr, rs.TypeInetProto, rs.TypeInetService}, more...)...)
	}
	pair := rs.ConcatTypes(rs.TypeIfname, rs.TypeIfname)
	into := rs.ConcatTypes(rs.TypeNFProto, rs.TypeIfname)
	return []rs.Set{
		{Name: layout.SetBridges, Key: rs.TypeIfname},
		{Name: layout.SetInternal, Key: rs.TypeIfname},
		{Name: setDirect, Key: into},
		{Name: setTrusted, Key: pair},
		{Name: setReject, Key: rs.TypeIfname},
		{Name: setClamp, Key: rs.TypeIfname},
		{Name: mapForward, Key: into, Data: rs.TypeVerdict},
		{Name: layout.MapSame, Key: pair, Data: rs.TypeVerdict},
		{Name: setAllowed4, Key: allowed(rs.TypeIPv4Addr)},
		{Name: setAllowed6, Key: allowed(rs.TypeIPv6Addr)},
		{Name: setSource4, Key: allowed(rs.TypeIPv4Addr, rs.TypeIPv4Addr), Flags: []string{"interval"}},
		{Name: setSource6, Key: allowed(rs.TypeIPv6Addr, rs.TypeIPv6Addr), Flags: []string{"interval"}},
	}
}

// entry is where a packet goes that is to enter a network by one family.
func entry(n desired.Network, mode desired.GatewayMode) rs.Verdict {
	switch {
	case n.Internal:
		return rs.GotoChain(chainInInternal)
	case mode == desired.ModeUnprotected:
		return rs.Verdict{Kind: rs.Accept}
	case mode == desired.ModeRouted:
		return rs.GotoChain(chainInRouted)
	}
	return rs.GotoChain(layout.ChainInNAT)
}

func addNetwork(t *rs.Table, n desired.Network) {
	comment := layout.NewOwner(n.ID, "").Comment()
	br := rs.Iface(n.Bridge)
	add := func(set string, e rs.Element) {
		e.Comment = comment
		t.AddElement(set, e)
	}
	add(layout.SetBridges, rs.Element{Key: br})
	if n.Internal {
		add(layout.SetInternal, rs.Element{Key: br})
	}
	if n.Reject {
		add(setReject, rs.Element{Key: br})
	}
	if n.ClampMSS {
		add(setClamp, rs.Element{Key: br})
	}
	for _, name := range n.Trusted {
		add(setTrusted, rs.Element{Key: rs.Concat(rs.Iface(name), br)})
	}
	// A family that the network lacks is closed.
	for _, f := range []struct {
		nfproto uint8
		mode    desired.GatewayMode
	}{{rs.NFProtoIPv4, n.IPv4.Mode}, {rs.NFProtoIPv6, n.IPv6.Mode}} {
		key := rs.Concat(rs.NFProto(f.nfproto), br)
		add(mapForward, rs.Element{Key: key, Verdict: entry(n, f.mode)})
		if !n.Internal && (f.mode == desired.ModeRouted || f.mode == desired.ModeUnprotected) {
			add(setDirect, rs.Element{Key: key})
		}
	}
	same := rs.Verdict{Kind: rs.Accept}
	if !n.ICC {
		// What was translated goes on to its port, the rest is refused.
		same = entry(n, desired.ModeNAT)
	}
	add(layout.MapSame, rs.Element{Key: rs.Concat(br, br), Verdict: same})
}

func addEndpoint(t *rs.Table, e desired.Endpoint) {
	comment := layout.NewOwner(e.NetworkID, e.ID).Comment()
	seen := map[desired.Port]bool{}
	for _, p := range e.Published {
		// One container port may be published many times: it is allowed once.
		once := desired.Port{Proto: p.Proto, Container: p.Container}
		if p.Kind() != desired.Translated && p.Kind() != desired.Direct || seen[once] {
			continue
		}
		seen[once] = true
		to := p.Container.Addr()
		key := []rs.Value{rs.Addr(to), rs.Proto(p.Proto), rs.Port(p.Container.Port())}
		sources := e.Allow.For(p.Proto, p.Container.Port())
		if !sources.Limited {
			t.AddElement(pick(to, setAllowed4, setAllowed6), rs.Element{Key: rs.Concat(key...), Comment: comment})
		}
		for _, prefix := range sources.Prefixes {
			if prefix.Addr().Is4() == to.Is4() {
				from, last := rs.Addr(prefix.Masked().Addr()), rs.Addr(lastOf(prefix))
				t.AddElement(pick(to, setSource4, setSource6), rs.Element{
					Key: rs.Concat(append(key, from)...), End: rs.Concat(append(key, last)...), Comment: comment,
				})
			}
		}
	}
}

// pick chooses by the family of an address.
func pick(a netip.Addr, v4, v6 string) string {
	if a.Is4() {
		return v4
	}
	return v6
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
