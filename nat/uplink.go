package nat

import (
	"net/netip"

	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// Chains of hosts with several uplinks.
const (
	// chainUplinkMark marks connections that come in. As type nat it sees the first
	// packet of each alone.
	chainUplinkMark   = "UPLINK-MARK"
	chainUplinkReturn = "UPLINK-RETURN"
	chainUplinkOutput = "UPLINK-OUTPUT"
)

// Uplink is a way out of the host that has a routing table of its own, which the
// host's rules choose by the source address of a packet.
type Uplink struct {
	// Mark are the bits, within Mask, of the connections that came in by it.
	Mark, Mask uint32
	// Ways are the addresses whose answers the table is for, and the interfaces
	// that they are asked by.
	Ways []Way
	// OnLink are the neighbours' prefixes, whom the host answers directly.
	OnLink []Neighbours
}

// Way is an address of the host and an interface by which packets to it come.
type Way struct {
	Iface string
	Addr  netip.Addr
}

// Neighbours are the addresses on the link of an interface.
type Neighbours struct {
	Iface  string
	Prefix netip.Prefix
}

// Uplinks has answers leave by the uplink that their connection came in by. A
// container's answer has the container's address when it is routed, which no
// rule by source knows: the connection is marked when it comes in, and its
// answers with it, for a routing rule of the mark. Where there are no uplinks
// there are no chains.
func Uplinks(list []Uplink) rs.Ruleset {
	t := rs.Table{Family: rs.FamilyInet, Name: layout.Table}
	if len(list) == 0 {
		return rs.Ruleset{Tables: []rs.Table{t}}
	}
	var enter, back, output []rs.Rule
	// What comes in by an adopted bridge may be a question as well.
	answer := rs.Is(rs.Ct{Key: rs.CtDirection}, rs.Value{Type: rs.TypeCtDir, Data: "\x01"})
	for _, u := range list {
		for _, n := range u.OnLink {
			source, _ := ends(n.Prefix.Addr())
			enter = append(enter, rs.NewRule(rs.Is(iifname, rs.Iface(n.Iface)), rs.InPrefix{Left: source, Prefix: n.Prefix.Masked()}, rs.Verdict{Kind: rs.Return}))
		}
	}
	for _, u := range list {
		for _, w := range u.Ways {
			_, destination := ends(w.Addr)
			enter = append(enter, rs.NewRule(rs.Is(iifname, rs.Iface(w.Iface)), rs.Is(destination, rs.Addr(w.Addr)), u.set(rs.Ct{Key: rs.CtMark})))
		}
		back = append(back, rs.NewRule(rs.In(iifname, layout.SetBridges), u.marked(), answer, u.set(rs.Meta{Key: rs.MetaMark})))
		output = append(output, rs.NewRule(u.marked(), answer, u.set(rs.Meta{Key: rs.MetaMark})))
	}
	t.Chains = []rs.Chain{
		{Name: chainUplinkMark, Base: natBase(rs.HookPrerouting, rs.PriorityDstNAT-1), Rules: enter},
		{Name: chainUplinkReturn, Base: &rs.Base{Type: "filter", Hook: rs.HookPrerouting, Priority: rs.PriorityMangle, Policy: rs.Accept}, Rules: back},
		// A redirect answers from the address of the interface, not from the one that
		// was asked.
		{Name: chainUplinkOutput, Base: &rs.Base{Type: "route", Hook: rs.HookOutput, Priority: rs.PriorityMangle, Policy: rs.Accept}, Rules: output},
	}
	return rs.Ruleset{Tables: []rs.Table{t}}
}

// ends are the source and the destination of packets of an address's family.
func ends(a netip.Addr) (source, destination rs.Expr) {
	if a.Is4() {
		return rs.IPSaddr, rs.IPDaddr
	}
	return rs.IP6Saddr, rs.IP6Daddr
}

func (u Uplink) marked() rs.Match {
	return rs.Is(rs.Masked{Expr: rs.Ct{Key: rs.CtMark}, Mask: rs.HostUint32(rs.TypeMark, u.Mask)}, rs.HostUint32(rs.TypeMark, u.Mark))
}

// set sets the bits of the mask, and leaves the others, which are somebody
// else's. Its words are those that nft lists.
func (u Uplink) set(mark rs.Expr) rs.Statement {
	kept := mark
	if u.Mark != u.Mask {
		kept = rs.Masked{Expr: mark, Mask: rs.HostUint32(rs.TypeMark, ^u.Mask|u.Mark)}
	}
	return rs.Mangle{Left: mark, From: rs.Binary{Left: kept, Op: "|", Right: rs.HostUint32(rs.TypeMark, u.Mark)}}
}
