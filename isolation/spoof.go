package isolation

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// The table of family bridge sees frames as they come from a container, with
// the link addresses that the tables of the IP families do not see of bridged
// frames: it drops those of a kind that the container may not send, and those
// with an address that is not the container's. Each container has a chain of its
// own, which the map finds by the interface.
const (
	chainBridge = "PREROUTING"
	mapGuarded  = "guarded"
)

// spoofPrefix begins the names of the chains that check a container's frames.
const spoofPrefix = "spoof-"

func spoofName(e desired.Endpoint) string { return spoofPrefix + e.ID[:min(len(e.ID), 12)] }

// OwnsChain says whether a chain's name is one that this package gives to
// networks: such a chain of an unknown network is left over.
func OwnsChain(name string) bool { return strings.HasPrefix(name, spoofPrefix) }

// priorityBridgeDstNAT is before everything else that is usual at this hook,
// br_netfilter at 0 included (linux/netfilter_bridge.h, enum nf_br_hook_priorities).
const priorityBridgeDstNAT = -300

var (
	linkLocal6 = netip.MustParsePrefix("fe80::/10")

	arpSaddrEther = mustField("arp", "saddr ether")
	arpSaddrIP    = mustField("arp", "saddr ip")
	icmpv6Type    = mustField("icmpv6", "type")
	vlanID        = behindEther(mustField("vlan", "id"))
	// advertised is the address that a neighbour advertisement speaks of (RFC 4861,
	// 4.4).
	advertised = rs.RawPayload(rs.TransportHeader, 8, 16)
)

// Types of frames. Whatever the kernel has taken off the frame for its own use,
// "ether type" reads the outermost (nft_payload_copy_vlan), where "meta protocol"
// reads what is behind the first tag.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
	// The tags of IEEE 802.1Q, and of its provider bridges.
	typeVLAN         = 0x8100
	typeProviderVLAN = 0x88a8
	// Below it stands a length (IEEE 802.3, 3.2.6).
	leastType = 0x0600
)

// Types of ICMPv6 (RFC 4861).
const (
	routerAdvertisement    = 134
	neighbourAdvertisement = 136
	redirect               = 137
)

func mustField(proto, name string) rs.Payload {
	f, ok := rs.Field(proto, name)
	if !ok {
		panic("isolation: no field " + proto + " " + name)
	}
	return f
}

// behindEther is a field of the tag that stands behind the frame's addresses.
func behindEther(f rs.Payload) rs.Payload {
	f.Offset += rs.EtherType.Offset + rs.EtherType.Length
	return f
}

func bridgeTable(s desired.State) rs.Table {
	base := filter(rs.HookPrerouting, priorityBridgeDstNAT)
	base.Family = rs.FamilyBridge
	t := rs.Table{
		Family: rs.FamilyBridge, Name: layout.Table,
		Sets: []rs.Set{{Name: mapGuarded, Key: rs.TypeIfname, Data: rs.TypeVerdict}},
		Chains: []rs.Chain{{Name: chainBridge, Base: base, Rules: []rs.Rule{
			rs.NewRule(rs.VMap{Key: iifname, Map: mapGuarded}),
		}}},
	}
	for _, e := range s.SortedEndpoints() {
		mac, err := net.ParseMAC(e.MAC)
		if e.AntiSpoof == desired.SpoofUnchecked || e.HostLink == "" || err != nil {
			continue
		}
		t.AddElement(mapGuarded, rs.Element{
			Key: rs.Iface(e.HostLink), Verdict: rs.GotoChain(spoofName(e)), Comment: layout.NewOwner(e.NetworkID, e.ID).Comment(),
		})
		t.Chains = append(t.Chains, spoofChain(s.Networks[e.NetworkID], e, mac))
	}
	return t
}

// spoofChain drops the frames of a container that carry an address which is
// not its own.
func spoofChain(n desired.Network, e desired.Endpoint, mac net.HardwareAddr) rs.Chain {
	c := rs.Chain{Name: spoofName(e)}
	comment := layout.NewOwner(n.ID, e.ID).Comment()
	drop := func(matches ...rs.Part) {
		c.Rules = append(c.Rules, rs.NewRule(append(matches, rs.Counter{}, rs.Verdict{Kind: rs.Drop})...).Because(comment))
	}
	macs := ownMACs(e, mac)
	own4, own6 := ownAddrs(e, macs)
	drop(otherTypes(e.EtherTypes)...)
	// A receiver takes a tag with number 0 as none (IEEE 802.1Q, 9.6): behind it
	// anything would pass that is checked here.
	for _, tag := range []uint16{typeVLAN, typeProviderVLAN} {
		if slices.Contains(e.EtherTypes, tag) {
			drop(priorityTag(tag)...)
		}
	}
	drop(noneOf(rs.EtherSaddr, macs)...)
	drop(noneOf(arpSaddrEther, macs)...)
	for _, p := range protected(n, e.AntiSpoof) {
		own := own6
		if p.ipv4 {
			own = own4
		}
		drop(append([]rs.Part{p.match}, noneOf(p.field, wire(own))...)...)
	}
	// A container speaks for itself, and is no router.
	drop(append([]rs.Part{rs.Is(icmpv6Type, icmpv6(neighbourAdvertisement))}, noneOf(advertised, wire(own6))...)...)
	drop(rs.Is(icmpv6Type, icmpv6(routerAdvertisement)))
	drop(rs.Is(icmpv6Type, icmpv6(redirect)))
	return c
}

// otherTypes holds for frames of a kind that a container may not send: neither
// IP, nor ARP, nor what the user named.
func otherTypes(named []uint16) []rs.Part {
	var out []rs.Part
	for _, t := range append([]uint16{typeIPv4, typeIPv6, typeARP}, named...) {
		m := rs.IsNot(rs.EtherType, etherType(t))
		if t == desired.EtherLLC {
			m = rs.Compare{Left: rs.EtherType, Op: rs.GreaterOrEqual, Right: etherType(leastType)}
		}
		out = append(out, m)
	}
	return out
}

// priorityTag holds for frames that a tag gives a priority, and no VLAN.
func priorityTag(tag uint16) []rs.Part {
	id0 := rs.Is(vlanID, rs.Value{Type: vlanID.Typ, Data: "\x00\x00"})
	if tag == typeVLAN {
		return []rs.Part{id0} // the field implies the type
	}
	return []rs.Part{rs.Is(rs.EtherType, etherType(tag)), id0}
}

func etherType(n uint16) rs.Value {
	return rs.Value{Type: rs.TypeEtherType, Data: string([]byte{byte(n >> 8), byte(n)})}
}

func icmpv6(t byte) rs.Value { return rs.Value{Type: rs.TypeICMPv6Type, Data: string([]byte{t})} }

// noneOf holds where a field is none of some addresses.
func noneOf(field rs.Payload, addrs [][]byte) []rs.Part {
	out := make([]rs.Part, len(addrs))
	for i, a := range addrs {
		out[i] = rs.IsNot(field, rs.Value{Type: field.Typ, Data: string(a)})
	}
	return out
}

// wire lists addresses as they stand in a packet.
func wire(list []netip.Addr) [][]byte {
	out := make([][]byte, len(list))
	for i, a := range list {
		out[i] = a.AsSlice()
	}
	return out
}

// protection is a source address that a container may use only if it has it.
type protection struct {
	match rs.Part
	field rs.Payload
	ipv4  bool
}

func protected(n desired.Network, level desired.AntiSpoof) []protection {
	var out []protection
	if level == desired.SpoofNothing {
		// The unspecified address is what a host has while it asks for its own
		// (RFC 5227 for ARP, RFC 4862 for IPv6).
		for _, f := range []rs.Payload{arpSaddrIP, rs.IPSaddr} {
			out = append(out, protection{rs.IsNot(f, rs.Addr(netip.IPv4Unspecified())), f, true})
		}
		return append(out, protection{rs.IsNot(rs.IP6Saddr, rs.Addr(netip.IPv6Unspecified())), rs.IP6Saddr, false})
	}
	if n.IPv4.IsValid() {
		for _, f := range []rs.Payload{arpSaddrIP, rs.IPSaddr} {
			out = append(out, protection{rs.InPrefix{Left: f, Prefix: n.IPv4.Prefix}, f, true})
		}
	}
	out = append(out, protection{rs.InPrefix{Left: rs.IP6Saddr, Prefix: linkLocal6}, rs.IP6Saddr, false})
	if n.IPv6.IsValid() {
		out = append(out, protection{rs.InPrefix{Left: rs.IP6Saddr, Prefix: n.IPv6.Prefix}, rs.IP6Saddr, false})
	}
	return out
}

// ownMACs are the link addresses that a container may use.
func ownMACs(e desired.Endpoint, mac net.HardwareAddr) [][]byte {
	out := [][]byte{mac}
	for _, text := range e.LinkAddresses {
		if m, err := net.ParseMAC(text); err == nil && len(m) == len(mac) {
			out = append(out, m)
		}
	}
	return out
}

// ownAddrs are the addresses that a container may use.
func ownAddrs(e desired.Endpoint, macs [][]byte) (own4, own6 []netip.Addr) {
	for _, mac := range macs {
		own6 = append(own6, linkLocalOf(mac))
	}
	for _, a := range append(e.Addrs(), e.Addresses...) {
		own := &own6
		if a.Is4() {
			own = &own4
		}
		if !slices.Contains(*own, a) {
			*own = append(*own, a)
		}
	}
	return own4, own6
}

// linkLocalOf is the link-local address that the kernel gives an interface
// (RFC 4291, appendix A).
func linkLocalOf(mac []byte) netip.Addr {
	b := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.AddrFrom16(b)
}
