package ruleset

import (
	"fmt"
	"strings"
)

// Expr is what a match or a statement reads from a packet: the left side of a
// comparison, the key of a lookup.
type Expr interface {
	// Type is the data type of what is read.
	Type() Type
	// String writes the expression in nft's words.
	String() string
	expr()
}

// Meta reads what the kernel knows about a packet beside its bytes.
type Meta struct{ Key MetaKey }

// MetaKey names what [Meta] reads, in nft's words.
type MetaKey string

// The keys of meta, named as nft names them.
const (
	MetaLength   MetaKey = "length"
	MetaProtocol MetaKey = "protocol"
	MetaPriority MetaKey = "priority"
	MetaMark     MetaKey = "mark"
	MetaIIF      MetaKey = "iif"
	MetaOIF      MetaKey = "oif"
	MetaIIFName  MetaKey = "iifname"
	MetaOIFName  MetaKey = "oifname"
	MetaIIFType  MetaKey = "iiftype"
	MetaOIFType  MetaKey = "oiftype"
	MetaSKUID    MetaKey = "skuid"
	MetaSKGID    MetaKey = "skgid"
	MetaNFTrace  MetaKey = "nftrace"
	MetaRTClass  MetaKey = "rtclassid"
	MetaNFProto  MetaKey = "nfproto"
	MetaL4Proto  MetaKey = "l4proto"
	MetaPktType  MetaKey = "pkttype"
	MetaCPU      MetaKey = "cpu"
	MetaIIFGroup MetaKey = "iifgroup"
	MetaOIFGroup MetaKey = "oifgroup"
	MetaCGroup   MetaKey = "cgroup"
)

// metaInfo gives a key's data type and whether nft writes it without the word
// meta in front.
type metaInfo struct {
	typ   Type
	plain bool
}

var metaKeys = map[MetaKey]metaInfo{
	MetaLength:   {TypeHostInteger, false},
	MetaProtocol: {TypeEtherType, false},
	MetaPriority: {TypeClassID, false},
	MetaMark:     {TypeMark, false},
	MetaIIF:      {TypeIfIndex, true},
	MetaOIF:      {TypeIfIndex, true},
	MetaIIFName:  {TypeIfname, true},
	MetaOIFName:  {TypeIfname, true},
	MetaIIFType:  {TypeIfType, false},
	MetaOIFType:  {TypeIfType, false},
	MetaSKUID:    {TypeUID, false},
	MetaSKGID:    {TypeGID, false},
	MetaNFTrace:  {TypeHostInteger, false},
	MetaRTClass:  {TypeRealm, false},
	MetaNFProto:  {TypeNFProto, false},
	MetaL4Proto:  {TypeInetProto, false},
	MetaPktType:  {TypePktType, false},
	MetaCPU:      {TypeHostInteger, false},
	MetaIIFGroup: {TypeDevGroup, true},
	MetaOIFGroup: {TypeDevGroup, true},
	MetaCGroup:   {TypeHostInteger, false},
}

// Type implements [Expr].
func (m Meta) Type() Type {
	if info, ok := metaKeys[m.Key]; ok {
		return info.typ
	}
	return TypeInteger
}

func (m Meta) String() string {
	if metaKeys[m.Key].plain {
		return string(m.Key)
	}
	return "meta " + string(m.Key)
}

// Header is the packet header that a payload expression counts from.
type Header string

// The headers, named as nft names them in raw payload expressions.
const (
	LinkHeader      Header = "ll"
	NetworkHeader   Header = "nh"
	TransportHeader Header = "th"
)

// Payload reads bytes of the packet. Offset and Length are in bytes. Proto and
// Field name what stands there; both are empty for a place that has no name.
type Payload struct {
	Proto  string
	Field  string
	Base   Header
	Offset int
	Length int
	Typ    Type
}

// The fields that the vocabulary names.
var (
	IPSaddr    = Payload{"ip", "saddr", NetworkHeader, 12, 4, TypeIPv4Addr}
	IPDaddr    = Payload{"ip", "daddr", NetworkHeader, 16, 4, TypeIPv4Addr}
	IPProtocol = Payload{"ip", "protocol", NetworkHeader, 9, 1, TypeInetProto}
	IPLength   = Payload{"ip", "length", NetworkHeader, 2, 2, TypeInteger}
	IPTTL      = Payload{"ip", "ttl", NetworkHeader, 8, 1, TypeInteger}

	IP6Saddr    = Payload{"ip6", "saddr", NetworkHeader, 8, 16, TypeIPv6Addr}
	IP6Daddr    = Payload{"ip6", "daddr", NetworkHeader, 24, 16, TypeIPv6Addr}
	IP6NextHdr  = Payload{"ip6", "nexthdr", NetworkHeader, 6, 1, TypeInetProto}
	IP6HopLimit = Payload{"ip6", "hoplimit", NetworkHeader, 7, 1, TypeInteger}

	THSport = Payload{"th", "sport", TransportHeader, 0, 2, TypeInetService}
	THDport = Payload{"th", "dport", TransportHeader, 2, 2, TypeInetService}

	EtherSaddr = Payload{"ether", "saddr", LinkHeader, 6, 6, TypeEtherAddr}
	EtherDaddr = Payload{"ether", "daddr", LinkHeader, 0, 6, TypeEtherAddr}
	EtherType  = Payload{"ether", "type", LinkHeader, 12, 2, TypeEtherType}
)

// fields lists the named places of each header, by the protocol whose header
// it is.
var fields = map[string][]Payload{
	"ether": {EtherSaddr, EtherDaddr, EtherType},
	"ip": {
		IPSaddr, IPDaddr, IPProtocol, IPLength, IPTTL,
		network("ip", "id", 4, 2, TypeInteger), network("ip", "frag-off", 6, 2, TypeInteger),
		network("ip", "checksum", 10, 2, TypeInteger),
	},
	"ip6": {IP6Saddr, IP6Daddr, IP6NextHdr, IP6HopLimit, network("ip6", "length", 4, 2, TypeInteger)},
	"arp": {
		network("arp", "htype", 0, 2, TypeInteger), network("arp", "ptype", 2, 2, TypeEtherType),
		network("arp", "hlen", 4, 1, TypeInteger), network("arp", "plen", 5, 1, TypeInteger),
		network("arp", "operation", 6, 2, TypeARPOp),
		network("arp", "saddr ether", 8, 6, TypeEtherAddr), network("arp", "saddr ip", 14, 4, TypeIPv4Addr),
		network("arp", "daddr ether", 18, 6, TypeEtherAddr), network("arp", "daddr ip", 24, 4, TypeIPv4Addr),
	},
	"th": {THSport, THDport},
	"tcp": {
		port("tcp", "sport", 0), port("tcp", "dport", 2),
		transport("tcp", "sequence", 4, 4, TypeInteger), transport("tcp", "ackseq", 8, 4, TypeInteger),
		transport("tcp", "flags", 13, 1, TypeTCPFlag), transport("tcp", "window", 14, 2, TypeInteger),
		transport("tcp", "checksum", 16, 2, TypeInteger), transport("tcp", "urgptr", 18, 2, TypeInteger),
	},
	"udp": {
		port("udp", "sport", 0), port("udp", "dport", 2),
		transport("udp", "length", 4, 2, TypeInteger), transport("udp", "checksum", 6, 2, TypeInteger),
	},
	"udplite": {
		port("udplite", "sport", 0), port("udplite", "dport", 2),
		transport("udplite", "csumcov", 4, 2, TypeInteger), transport("udplite", "checksum", 6, 2, TypeInteger),
	},
	"sctp": {
		port("sctp", "sport", 0), port("sctp", "dport", 2),
		transport("sctp", "vtag", 4, 4, TypeInteger), transport("sctp", "checksum", 8, 4, TypeInteger),
	},
	"dccp": {port("dccp", "sport", 0), port("dccp", "dport", 2)},
	"icmp": {
		transport("icmp", "type", 0, 1, TypeICMPType), transport("icmp", "code", 1, 1, TypeICMPCode),
		transport("icmp", "checksum", 2, 2, TypeInteger),
	},
	"icmpv6": {
		transport("icmpv6", "type", 0, 1, TypeICMPv6Type), transport("icmpv6", "code", 1, 1, TypeICMPv6Code),
		transport("icmpv6", "checksum", 2, 2, TypeInteger),
	},
	"igmp": {
		transport("igmp", "type", 0, 1, TypeIGMPType), transport("igmp", "mrt", 1, 1, TypeInteger),
		transport("igmp", "checksum", 2, 2, TypeInteger), transport("igmp", "group", 4, 4, TypeInteger),
	},
	"ah": {
		transport("ah", "nexthdr", 0, 1, TypeInetProto), transport("ah", "hdrlength", 1, 1, TypeInteger),
		transport("ah", "reserved", 2, 2, TypeInteger), transport("ah", "spi", 4, 4, TypeInteger),
		transport("ah", "sequence", 8, 4, TypeInteger),
	},
	"esp": {
		transport("esp", "spi", 0, 4, TypeInteger), transport("esp", "sequence", 4, 4, TypeInteger),
	},
	"comp": {
		transport("comp", "nexthdr", 0, 1, TypeInetProto), transport("comp", "cpi", 2, 2, TypeInteger),
	},
}

func network(proto, field string, offset, length int, t Type) Payload {
	return Payload{proto, field, NetworkHeader, offset, length, t}
}

func transport(proto, field string, offset, length int, t Type) Payload {
	return Payload{proto, field, TransportHeader, offset, length, t}
}

func port(proto, field string, offset int) Payload {
	return transport(proto, field, offset, 2, TypeInetService)
}

// FieldAt finds the named field of protocol proto at a place of its header.
func FieldAt(proto string, base Header, offset, length int) (Payload, bool) {
	for _, f := range fields[proto] {
		if f.Base == base && f.Offset == offset && f.Length == length {
			return f, true
		}
	}
	return Payload{}, false
}

// Field finds a field by its names in nft ("tcp", "dport").
func Field(proto, name string) (Payload, bool) {
	for _, f := range fields[proto] {
		if f.Field == name {
			return f, true
		}
	}
	return Payload{}, false
}

// RawPayload reads length bytes at a place that has no name.
func RawPayload(base Header, offset, length int) Payload {
	return Payload{Base: base, Offset: offset, Length: length, Typ: TypeInteger}
}

// Type implements [Expr].
func (p Payload) Type() Type { return p.Typ }

func (p Payload) String() string {
	if p.Field == "" {
		return fmt.Sprintf("@%s,%d,%d", p.Base, p.Offset*8, p.Length*8)
	}
	return p.Proto + " " + p.Field
}

// Direction is the direction of a tracked connection that a ct expression
// reads; empty where the key has none.
type Direction string

// The directions of a connection.
const (
	Original Direction = "original"
	Reply    Direction = "reply"
)

// Ct reads the connection tracking entry of a packet.
type Ct struct {
	Key CtKey
	Dir Direction
}

// CtKey names what [Ct] reads, in nft's words.
type CtKey string

// The keys of ct, named as nft names them.
const (
	CtState      CtKey = "state"
	CtDirection  CtKey = "direction"
	CtStatus     CtKey = "status"
	CtMark       CtKey = "mark"
	CtExpiration CtKey = "expiration"
	CtHelper     CtKey = "helper"
	CtL3Proto    CtKey = "l3proto"
	CtProtocol   CtKey = "protocol"
	CtProtoSrc   CtKey = "proto-src"
	CtProtoDst   CtKey = "proto-dst"
	CtLabel      CtKey = "label"
	CtPackets    CtKey = "packets"
	CtBytes      CtKey = "bytes"
	CtZone       CtKey = "zone"
	CtIPSaddr    CtKey = "ip saddr"
	CtIPDaddr    CtKey = "ip daddr"
	CtIP6Saddr   CtKey = "ip6 saddr"
	CtIP6Daddr   CtKey = "ip6 daddr"
	CtID         CtKey = "id"
)

var ctKeys = map[CtKey]Type{
	CtState:      TypeCtState,
	CtDirection:  TypeCtDir,
	CtStatus:     TypeCtStatus,
	CtMark:       TypeMark,
	CtExpiration: TypeTime,
	CtHelper:     TypeString,
	CtL3Proto:    TypeNFProto,
	CtProtocol:   TypeInetProto,
	CtProtoSrc:   TypeInetService,
	CtProtoDst:   TypeInetService,
	CtLabel:      TypeCtLabel,
	CtPackets:    TypeHostInteger,
	CtBytes:      TypeHostInteger,
	CtZone:       TypeHostInteger,
	CtIPSaddr:    TypeIPv4Addr,
	CtIPDaddr:    TypeIPv4Addr,
	CtIP6Saddr:   TypeIPv6Addr,
	CtIP6Daddr:   TypeIPv6Addr,
	CtID:         TypeInteger,
}

// Type implements [Expr].
func (c Ct) Type() Type {
	if t, ok := ctKeys[c.Key]; ok {
		return t
	}
	return TypeInteger
}

func (c Ct) String() string {
	if c.Dir == "" {
		return "ct " + string(c.Key)
	}
	return "ct " + string(c.Dir) + " " + string(c.Key)
}

// Fib asks the routing table about a packet.
type Fib struct {
	// Flags lists what of the packet is asked about, joined by " . " as nft
	// writes it: saddr or daddr, mark, iif, oif.
	Flags string
	// Result is what is asked: "type", "oif", "oifname"; "check" asks whether
	// there is a route at all.
	Result string
}

// FibDaddrType is the kind of address that a packet's destination is to the
// host: local, unicast, broadcast.
var FibDaddrType = Fib{Flags: "daddr", Result: "type"}

// Type implements [Expr].
func (f Fib) Type() Type {
	switch f.Result {
	case "type":
		return TypeFibAddrType
	case "oifname":
		return TypeIfname
	case "check":
		return TypeBoolean
	}
	return TypeIfIndex
}

func (f Fib) String() string {
	result := f.Result
	if result == "check" {
		// nft tells this from the interface by what it is compared with.
		result = "oif"
	}
	return "fib " + f.Flags + " " + result
}

// Masked is an expression of which only the bits of Mask count.
type Masked struct {
	Expr Expr
	Mask Value
}

// Type implements [Expr].
func (m Masked) Type() Type { return m.Expr.Type() }

func (m Masked) String() string {
	if flags := alternatives(m.Mask); m.Mask.Type.IsFlags() && strings.Contains(flags, "|") {
		return m.Expr.String() + " & (" + flags + ")"
	}
	return m.Expr.String() + " & " + operand(m.Expr, m.Mask)
}

// ConcatExpr reads several expressions as one key.
type ConcatExpr struct{ Parts []Expr }

// ConcatOf joins expressions to a key.
func ConcatOf(parts ...Expr) ConcatExpr { return ConcatExpr{parts} }

// Type implements [Expr].
func (c ConcatExpr) Type() Type {
	ts := make([]Type, len(c.Parts))
	for i, p := range c.Parts {
		ts[i] = p.Type()
	}
	return ConcatTypes(ts...)
}

func (c ConcatExpr) String() string {
	texts := make([]string, len(c.Parts))
	for i, p := range c.Parts {
		texts[i] = p.String()
	}
	return strings.Join(texts, concatSeparator)
}

func (Meta) expr()       {}
func (Payload) expr()    {}
func (Ct) expr()         {}
func (Fib) expr()        {}
func (Masked) expr()     {}
func (ConcatExpr) expr() {}
