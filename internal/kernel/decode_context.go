package kernel

import (
	"slices"

	rs "nftnet/internal/ruleset"
)

// The layers of headers, by which nft keeps what it has seen checked
// (enum proto_bases in its include/proto.h).
const (
	linkLayer = iota + 1
	networkLayer
	transportLayer
	innerLayer
	layers
)

var layerOf = map[rs.Header]int{
	rs.LinkHeader: linkLayer, rs.NetworkHeader: networkLayer, rs.TransportHeader: transportLayer, rs.InnerHeader: innerLayer,
}

// context is what a rule has checked for up to a point: by it the places in a
// packet have names.
type context struct {
	link, network, transport string
	// vlans is how many VLAN headers lie behind that of the frame.
	vlans int
	// icmp is the type of ICMP message, 0 where it is not known: nft takes it so.
	icmp uint8
	// checks are the matches that only made a later one possible: nft puts them
	// in by itself. They are kept by the layer that they open up.
	checks [layers]*check
	// checkedICMP is the type of ICMP message that the last check was for.
	checkedICMP uint8
}

// check is a match for a protocol and where it stands among the parts.
type check struct {
	part int
	by   rs.Expr
	n    uint64
}

func newContext(f rs.Family) context {
	c := context{network: networkOfFamily[f]}
	if f == rs.FamilyBridge {
		c.link = "ether"
	}
	return c
}

func (c *context) keepChecks() { c.checks, c.checkedICMP = [layers]*check{}, 0 }

var (
	// ARPHRD_ETHER (linux/if_arp.h).
	linkNames      = map[uint64]string{1: "ether"}
	nfprotoNames   = map[uint64]string{uint64(rs.NFProtoIPv4): "ip", uint64(rs.NFProtoIPv6): "ip6"}
	etherNames     = map[uint64]string{0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6"}
	transportNames = inverse(transportProtos)
)

const etherVLAN, etherVLANOuter = 0x8100, 0x88a8

// learn notes which protocol the match checks for that is added next.
func (d *ruleDecoder) learn(m rs.Match) {
	c, ok := m.(rs.Compare)
	if !ok || c.Op != rs.Equal {
		return
	}
	n, ok := c.Right.Uint()
	if !ok {
		return
	}
	now := &check{part: len(d.parts), by: c.Left, n: n}
	switch left := c.Left.(type) {
	case rs.Meta:
		d.learnMeta(left.Key, now)
	case rs.Payload:
		d.learnField(left, now)
	}
}

func (d *ruleDecoder) learnMeta(key rs.MetaKey, now *check) {
	switch key {
	case rs.MetaIIFType:
		d.link, d.checks[linkLayer] = linkNames[now.n], now
	case rs.MetaNFProto:
		d.network, d.checks[networkLayer] = nfprotoNames[now.n], now
	case rs.MetaProtocol:
		d.network, d.checks[networkLayer] = etherNames[now.n], now
	case rs.MetaL4Proto:
		d.transport, d.checks[transportLayer] = transportNames[uint8(now.n)], now
	}
}

// networkImplied says whether a message of ICMP implies the check for the network
// protocol before that for its own (meta_may_dependency_kill in nft, which
// forgets the first even where no message is read).
func (d *ruleDecoder) networkImplied(l4 uint64) bool {
	before := d.checks[networkLayer]
	if before == nil {
		return false
	}
	proto := nfprotoNames[before.n]
	if before.by != rs.Expr(rs.Meta{Key: rs.MetaNFProto}) {
		proto = etherNames[before.n]
	}
	return proto == "ip" && l4 == uint64(rs.ProtoICMP) || proto == "ip6" && l4 == uint64(rs.ProtoICMPv6)
}

func (d *ruleDecoder) learnField(f rs.Payload, now *check) {
	switch {
	case f == rs.EtherType || f.Proto == "vlan" && f.Field == "type":
		if now.n == etherVLAN || now.n == etherVLANOuter {
			// It opens up another header of the same layer.
			d.vlans++
			d.checks[linkLayer] = now
			return
		}
		d.network, d.checks[networkLayer] = etherNames[now.n], now
	case f == rs.IPProtocol, f == rs.IP6NextHdr:
		d.transport, d.checks[transportLayer] = transportNames[uint8(now.n)], now
	case f.Field == "type" && (f.Proto == "icmp" || f.Proto == "icmpv6"):
		d.icmp, d.checkedICMP = uint8(now.n), uint8(now.n)
		if !slices.Contains(icmpNeeds[f.Proto+" id"], d.icmp) {
			d.checks[innerLayer] = now
		}
	}
}

// icmpNeeds are the types of messages that have a field (icmp_dep_type_match in
// nft's payload.c).
var icmpNeeds = map[string][]uint8{
	"icmp id": {0, 8}, "icmp sequence": {0, 8}, "icmp gateway": {5}, "icmp mtu": {3},
	"icmpv6 id": {128, 129}, "icmpv6 sequence": {128, 129}, "icmpv6 mtu": {2}, "icmpv6 max-delay": {130},
	"icmpv6 parameter-problem": {4},
}

// needs removes the checks that only made it possible to read x: nft puts them
// in by itself.
func (d *ruleDecoder) needs(x rs.Expr) {
	switch x := x.(type) {
	case rs.ConcatExpr:
		for _, p := range x.Parts {
			d.needs(p)
		}
	case rs.Masked:
		d.needs(x.Expr)
	case rs.Binary:
		d.needs(x.Left)
	case rs.MapExpr:
		d.needs(x.Key)
	case rs.Hash:
		if x.Of != nil {
			d.needs(x.Of)
		}
	case rs.Exthdr:
		layer := transportLayer
		if x.Kind == rs.ExthdrIP6 || x.Kind == rs.ExthdrIP {
			layer = networkLayer
		}
		d.remove(layer)
	case rs.Payload:
		if x.Field == "" || x.Proto == "th" {
			// What has no name implies nothing.
			return
		}
		layer := layerOf[x.Base]
		if !d.implied(x, d.check(layer)) {
			return
		}
		before := d.checks[networkLayer]
		if by := d.checks[layer]; by != nil && before != nil && before.part < by.part && d.networkImplied(uint64(transportProtos[x.Proto])) {
			d.remove(networkLayer)
		}
		d.remove(layer)
	}
}

// check is the check that opened a layer up; for the transport layer that of an
// ICMP message's type counts too.
func (c *context) check(layer int) *check {
	if layer == transportLayer && c.checks[layer] == nil {
		return c.checks[innerLayer]
	}
	return c.checks[layer]
}

// implied says whether reading a field implies the check before it
// (payload_may_dependency_kill).
func (d *ruleDecoder) implied(x rs.Payload, by *check) bool {
	if by == nil {
		return false
	}
	field, isField := by.by.(rs.Payload)
	if !isField {
		// "icmp type" alone implies the network protocol too. nft lists it all the
		// same where the rule does not check for that.
		return d.network != "" || x.Proto != "icmp" && x.Proto != "icmpv6"
	}
	if d.family == rs.FamilyBridge || d.family == rs.FamilyNetdev || d.family == rs.FamilyInet {
		switch {
		case field.Base == rs.NetworkHeader && x.Base == rs.TransportHeader:
			// "ip protocol tcp" says more than "tcp dport" where there is IPv6 too.
			return false
		case field.Base == x.Base && isProtocol(x):
			return false
		case field.Base == rs.LinkHeader && x.Base == rs.LinkHeader:
			return field.Proto != "vlan" && by.n == etherVLAN
		}
	}
	if field.Base == rs.TransportHeader && x.Base == rs.TransportHeader && (field.Proto == "icmp" || field.Proto == "icmpv6") {
		return x.Proto == field.Proto && slices.Contains(icmpNeeds[x.Proto+" "+x.Field], d.checkedICMP)
	}
	return true
}

// isProtocol says whether a field tells the protocol of what follows.
func isProtocol(f rs.Payload) bool {
	return f.Typ == rs.TypeEtherType && f.Proto != "arp" || f == rs.IPProtocol || f == rs.IP6NextHdr
}

func (d *ruleDecoder) remove(layer int) {
	if layer == transportLayer && d.checks[layer] == nil {
		layer = innerLayer
	}
	if c := d.checks[layer]; c != nil {
		d.parts[c.part].removed = true
		d.checks[layer] = nil
	}
}

// Lengths of headers of the link layer, in bytes.
const etherLength, vlanLength = 14, 4

// header is the protocol whose header a place belongs to by what is known at
// this point of the rule, and where in the layer that header begins.
func (c *context) header(base rs.Header, offset int) (proto string, begin int) {
	switch {
	case base == rs.LinkHeader && offset >= etherLength && offset < etherLength+c.vlans*vlanLength:
		return "vlan", offset - (offset-etherLength)%vlanLength
	case base == rs.LinkHeader:
		return c.link, 0
	case base == rs.NetworkHeader:
		return c.network, 0
	case base == rs.TransportHeader && c.transport == "":
		return "th", 0
	case base == rs.TransportHeader:
		return c.transport, 0
	}
	return "", 0
}

// fieldsFrom lists the fields that begin at an offset in bits, as far as the
// type of ICMP message has them.
func (c *context) fieldsFrom(base rs.Header, offset int) []rs.Payload {
	proto, begin := c.header(base, offset/8)
	list := rs.FieldsFrom(proto, base, offset-begin*8)
	out := list[:0:0]
	for _, f := range list {
		needs := icmpNeeds[f.Proto+" "+f.Field]
		if needs == nil || c.icmp == 0 || slices.Contains(needs, c.icmp) {
			out = append(out, moved(f, begin))
		}
	}
	if len(out) == 0 && base == rs.TransportHeader && proto != "th" {
		return rs.FieldsFrom("th", base, offset)
	}
	return out
}

// moved is a field in a header that begins at a place of the layer: the frame's
// second header.
func moved(f rs.Payload, begin int) rs.Payload {
	f.Offset += begin
	return f
}

// field names the place that a payload expression reads. An address of which
// only the first bytes are read keeps the address's name.
func (c *context) field(base rs.Header, offset, length int) rs.Payload {
	list := c.fieldsFrom(base, offset*8)
	for _, f := range list {
		if f.BitLength() == length*8 {
			return f
		}
	}
	for _, f := range list {
		if isAddr(f) && length < f.Length {
			f.Length = length
			return f
		}
	}
	return rs.RawPayload(base, offset, length)
}

// bits names some bits of a place; false where they have no name.
func (c *context) bits(p rs.Payload, mask []byte) (f rs.Payload, shift int, ok bool) {
	from, to, ok := span(mask)
	if !ok || p.Bits != 0 {
		return rs.Payload{}, 0, false
	}
	for _, f := range c.fieldsFrom(p.Base, p.Offset*8+from) {
		if f.BitLength() == to-from && to-from < len(mask)*8 {
			return f, len(mask)*8 - to, true
		}
	}
	return rs.Payload{}, 0, false
}

// span is the first bit of a mask and the one behind the last; false where there
// are gaps.
func span(mask []byte) (from, to int, ok bool) {
	from = -1
	for i := range len(mask) * 8 {
		set := mask[i/8]&(1<<(7-i%8)) != 0
		switch {
		case set && from < 0:
			from = i
		case set && to < i:
			return 0, 0, false
		}
		if set {
			to = i + 1
		}
	}
	return from, to, from >= 0
}
