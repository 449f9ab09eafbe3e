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
	MetaIBrName  MetaKey = "ibrname"
	MetaOBrName  MetaKey = "obrname"
	MetaSecMark  MetaKey = "secmark"
	MetaRandom   MetaKey = "random"
	MetaIPsec    MetaKey = "ipsec"
	MetaIIFKind  MetaKey = "iifkind"
	MetaOIFKind  MetaKey = "oifkind"
	MetaIBrPVID  MetaKey = "ibrpvid"
	MetaIBrProto MetaKey = "ibrvproto"
	MetaTime     MetaKey = "time"
	MetaDay      MetaKey = "day"
	MetaHour     MetaKey = "hour"
	MetaSDIF     MetaKey = "sdif"
	MetaSDIFName MetaKey = "sdifname"
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
	MetaIBrName:  {TypeIfname, false},
	MetaOBrName:  {TypeIfname, false},
	MetaSecMark:  {TypeHostInteger, false},
	MetaRandom:   {TypeInteger, false},
	MetaIPsec:    {TypeBoolean, false},
	MetaIIFKind:  {TypeIfname, false},
	MetaOIFKind:  {TypeIfname, false},
	MetaIBrPVID:  {TypeHostInteger, false},
	MetaIBrProto: {TypeEtherType, false},
	MetaTime:     {TypeDate, false},
	MetaDay:      {TypeDay, false},
	MetaHour:     {TypeHour, false},
	MetaSDIF:     {TypeIfIndex, false},
	MetaSDIFName: {TypeIfname, false},
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
	InnerHeader     Header = "ih"
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
	// Shift and Bits are those of the bits that count of the bytes read, where
	// these are not all.
	Shift, Bits int
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
	CtAvgPkt     CtKey = "avgpkt"
	CtSecMark    CtKey = "secmark"
	CtEvent      CtKey = "event"
	// CtSrc and CtDst are addresses of the protocol that the rule is about, as
	// nft wrote them once.
	CtSrc CtKey = "saddr"
	CtDst CtKey = "daddr"
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
	CtAvgPkt:     TypeHostInteger,
	CtSecMark:    TypeHostInteger,
	CtEvent:      TypeCtEvent,
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
		return operandText(m.Expr, "&") + " & (" + flags + ")"
	}
	return operandText(m.Expr, "&") + " & " + operand(m.Expr, m.Mask)
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
