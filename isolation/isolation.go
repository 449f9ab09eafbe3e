// Package isolation turns desired state into filtering: the DOCKER-USER hook,
// the isolation of networks from each other, internal networks, containers
// that may not reach their neighbours, unpublished ports and direct access.
//
// It is pure: no netlink, clock, log or context. As in package nat, a port, a
// container and a network are elements of sets and maps.
package isolation

import (
	"net/netip"

	"nftnet/internal/desired"
	rs "nftnet/internal/ruleset"
)

// UserChain is the chain that belongs to the user: its rules run before all of
// ours, survive our restarts, and are never changed by us.
const UserChain = "DOCKER-USER"

// Chains of the table; the isolation stages are named as Docker named them.
const (
	chainForward    = "FORWARD"
	chainStage1     = "DOCKER-ISOLATION-STAGE-1"
	chainStage2     = "DOCKER-ISOLATION-STAGE-2"
	chainInNAT      = "in-nat"
	chainInInternal = "in-internal"
	chainRaw        = "RAW-PREROUTING"
)

// Sets and maps of the table.
const (
	setBridges  = "bridges"
	setInternal = "internal"
	mapForward  = "fwd_in"
	mapSame     = "same_if"
	setAllowed4 = "allowed4"
	setAllowed6 = "allowed6"
)

var (
	l4proto   = rs.Meta{Key: rs.MetaL4Proto}
	iifname   = rs.Meta{Key: rs.MetaIIFName}
	oifname   = rs.Meta{Key: rs.MetaOIFName}
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
)

// Ruleset is the filtering of s, as a part of the table that it shares with
// package nat.
func Ruleset(s desired.State) rs.Ruleset {
	t := rs.Table{Family: rs.FamilyInet, Name: desired.Table, Sets: sets(), Chains: chains()}
	for _, n := range s.SortedNetworks() {
		addNetwork(&t, n)
	}
	for _, e := range s.SortedEndpoints() {
		addEndpoint(&t, e)
	}
	return rs.Ruleset{Tables: []rs.Table{t}}
}

func chains() []rs.Chain {
	filter := func(h rs.Hook, priority int32) *rs.Base {
		return &rs.Base{Type: "filter", Hook: h, Priority: priority, Policy: rs.Accept}
	}
	drop := rs.NewRule(rs.Counter{}, rs.Verdict{Kind: rs.Drop})
	return []rs.Chain{
		{Name: chainForward, Base: filter(rs.HookForward, rs.PriorityFilter), Rules: forwardRules()},
		{Name: UserChain, UserOwned: true},
		{Name: chainStage1, Rules: stage1Rules()},
		{Name: chainStage2, Rules: []rs.Rule{
			// A container reaches another network's published port by the host.
			rs.NewRule(translated(), rs.Verdict{Kind: rs.Return}),
			drop,
		}},
		{Name: chainInNAT, Rules: []rs.Rule{
			allowedRule(rs.IPDaddr, setAllowed4),
			allowedRule(rs.IP6Daddr, setAllowed6),
			drop,
		}},
		{Name: chainInInternal, Rules: []rs.Rule{drop}},
		// Our bridges have route_localnet on, for replies to 127.0.0.1: nobody but
		// lo may aim at 127.0.0.0/8. Before conntrack, so that it costs one compare.
		{Name: chainRaw, Base: filter(rs.HookPrerouting, rs.PriorityRaw), Rules: []rs.Rule{
			rs.NewRule(rs.IsNot(iifname, rs.Iface("lo")), rs.InPrefix{Left: rs.IPDaddr, Prefix: loopback4},
				rs.Counter{}, rs.Verdict{Kind: rs.Drop}),
		}},
	}
}

func forwardRules() []rs.Rule {
	return []rs.Rule{
		rs.NewRule(rs.JumpTo(UserChain)),
		rs.NewRule(rs.Has(rs.Ct{Key: rs.CtState}, rs.HostUint32(rs.TypeCtState, rs.StateEstablished|rs.StateRelated)),
			rs.Counter{}, rs.Verdict{Kind: rs.Accept}),
		rs.NewRule(rs.In(iifname, setBridges), rs.JumpTo(chainStage1)),
		rs.NewRule(rs.VMap{Key: oifname, Map: mapForward}),
		rs.NewRule(rs.In(iifname, setBridges), rs.Counter{}, rs.Verdict{Kind: rs.Accept}),
	}
}

func stage1Rules() []rs.Rule {
	return []rs.Rule{
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(iifname, oifname), Map: mapSame}),
		rs.NewRule(rs.In(iifname, setInternal), rs.Counter{}, rs.Verdict{Kind: rs.Drop}),
		rs.NewRule(rs.In(oifname, setBridges), rs.JumpTo(chainStage2)),
	}
}

// translated holds for packets of connections whose destination was
// translated: who aims at a container's address directly has none.
func translated() rs.Match {
	return rs.Has(rs.Ct{Key: rs.CtStatus}, rs.HostUint32(rs.TypeCtStatus, rs.StatusDNAT))
}

func allowedRule(daddr rs.Expr, set string) rs.Rule {
	return rs.NewRule(translated(), rs.In(rs.ConcatOf(daddr, l4proto, rs.THDport), set),
		rs.Counter{}, rs.Verdict{Kind: rs.Accept})
}

func sets() []rs.Set {
	allowed := func(addr rs.Type) rs.Type { return rs.ConcatTypes(addr, rs.TypeInetProto, rs.TypeInetService) }
	return []rs.Set{
		{Name: setBridges, Key: rs.TypeIfname},
		{Name: setInternal, Key: rs.TypeIfname},
		{Name: mapForward, Key: rs.TypeIfname, Data: rs.TypeVerdict},
		{Name: mapSame, Key: rs.ConcatTypes(rs.TypeIfname, rs.TypeIfname), Data: rs.TypeVerdict},
		{Name: setAllowed4, Key: allowed(rs.TypeIPv4Addr)},
		{Name: setAllowed6, Key: allowed(rs.TypeIPv6Addr)},
	}
}

func addNetwork(t *rs.Table, n desired.Network) {
	comment := rs.NewOwner(n.ID, "").Comment()
	br := rs.Iface(n.Bridge)
	t.AddElement(setBridges, rs.Element{Key: br, Comment: comment})
	into, same := rs.GotoChain(chainInNAT), rs.Verdict{Kind: rs.Accept}
	if n.Internal {
		t.AddElement(setInternal, rs.Element{Key: br, Comment: comment})
		into = rs.GotoChain(chainInInternal)
	}
	if !n.ICC {
		same = into
	}
	t.AddElement(mapForward, rs.Element{Key: br, Verdict: into, Comment: comment})
	t.AddElement(mapSame, rs.Element{Key: rs.Concat(br, br), Verdict: same, Comment: comment})
}

func addEndpoint(t *rs.Table, e desired.Endpoint) {
	comment := rs.NewOwner(e.NetworkID, e.ID).Comment()
	seen := map[desired.Port]bool{}
	for _, p := range e.Published {
		// One container port may be published many times: it is allowed once.
		once := desired.Port{Proto: p.Proto, Container: p.Container}
		if !p.Translated() || seen[once] {
			continue
		}
		seen[once] = true
		set := setAllowed4
		if p.Container.Addr().Is6() {
			set = setAllowed6
		}
		key := rs.Concat(rs.Addr(p.Container.Addr()), rs.Proto(p.Proto), rs.Port(p.Container.Port()))
		t.AddElement(set, rs.Element{Key: key, Comment: comment})
	}
}
