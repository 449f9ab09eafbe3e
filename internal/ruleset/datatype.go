package ruleset

import (
	"fmt"
	"strconv"
	"strings"
)

// Type is an nft data type as nft writes it ("ipv4_addr"), or a concatenation
// of such types ("ipv4_addr . inet_service").
type Type string

// The data types that this vocabulary knows. The names are nft's.
const (
	TypeVerdict     Type = "verdict"
	TypeNFProto     Type = "nf_proto"
	TypeBitmask     Type = "bitmask"
	TypeInteger     Type = "integer"
	TypeString      Type = "string"
	TypeLLAddr      Type = "ll_addr"
	TypeIPv4Addr    Type = "ipv4_addr"
	TypeIPv6Addr    Type = "ipv6_addr"
	TypeEtherAddr   Type = "ether_addr"
	TypeEtherType   Type = "ether_type"
	TypeARPOp       Type = "arp_op"
	TypeInetProto   Type = "inet_proto"
	TypeInetService Type = "inet_service"
	TypeICMPType    Type = "icmp_type"
	TypeTCPFlag     Type = "tcp_flag"
	TypeTime        Type = "time"
	TypeMark        Type = "mark"
	TypeIfIndex     Type = "iface_index"
	TypeIfType      Type = "iface_type"
	TypeRealm       Type = "realm"
	TypeClassID     Type = "classid"
	TypeUID         Type = "uid"
	TypeGID         Type = "gid"
	TypeCtState     Type = "ct_state"
	TypeCtDir       Type = "ct_dir"
	TypeCtStatus    Type = "ct_status"
	TypeICMPv6Type  Type = "icmpv6_type"
	TypeCtLabel     Type = "ct_label"
	TypePktType     Type = "pkt_type"
	TypeICMPCode    Type = "icmp_code"
	TypeICMPv6Code  Type = "icmpv6_code"
	TypeICMPXCode   Type = "icmpx_code"
	TypeDevGroup    Type = "devgroup"
	TypeDSCP        Type = "dscp"
	TypeECN         Type = "ecn"
	TypeFibAddrType Type = "fib_addrtype"
	TypeBoolean     Type = "boolean"
	TypeCtEvent     Type = "ct_event"
	TypeIfname      Type = "ifname"
	TypeIGMPType    Type = "igmp_type"
	TypeDCCPType    Type = "dccp_pkttype"
	TypeMHType      Type = "mh_type"
	TypeHour        Type = "hour"
	TypeDay         Type = "day"
	TypeCGroupV2    Type = "cgroupsv2"

	// TypeRaw is an integer that nft writes in hexadecimal: bytes of a packet
	// that have no name, in a concatenation.
	TypeRaw Type = "raw_integer"

	// TypeDate is a point in time, in nanoseconds since 1970. nft has the name
	// time for it as for [TypeTime], an amount of time.
	TypeDate Type = "date"

	// TypeHostInteger is an integer in host byte order. nft has no name of its
	// own for it; the set's user data tell it from TypeInteger.
	TypeHostInteger Type = "host_integer"
)

// typeInfo is what nft fixes about a data type: the number by which it is
// stored in NFTA_SET_KEY_TYPE (enum datatypes in nft's include/datatype.h),
// the length of a value in bytes (0: given by the expression), whether the
// kernel keeps it in host byte order, and whether a value is a set of flags.
type typeInfo struct {
	id    uint32
	size  int
	host  bool
	flags bool
}

var types = map[Type]typeInfo{
	TypeVerdict:     {id: 1, host: true},
	TypeNFProto:     {id: 2, size: 1, host: true},
	TypeBitmask:     {id: 3, host: true, flags: true},
	TypeInteger:     {id: 4},
	TypeString:      {id: 5, host: true},
	TypeLLAddr:      {id: 6},
	TypeIPv4Addr:    {id: 7, size: 4},
	TypeIPv6Addr:    {id: 8, size: 16},
	TypeEtherAddr:   {id: 9, size: 6},
	TypeEtherType:   {id: 10, size: 2},
	TypeARPOp:       {id: 11, size: 2},
	TypeInetProto:   {id: 12, size: 1},
	TypeInetService: {id: 13, size: 2},
	TypeICMPType:    {id: 14, size: 1},
	TypeTCPFlag:     {id: 15, size: 1, flags: true},
	TypeTime:        {id: 18, size: 4, host: true},
	TypeMark:        {id: 19, size: 4, host: true},
	TypeIfIndex:     {id: 20, size: 4, host: true},
	TypeIfType:      {id: 21, size: 2, host: true},
	TypeRealm:       {id: 22, size: 4, host: true},
	TypeClassID:     {id: 23, size: 4, host: true},
	TypeUID:         {id: 24, size: 4, host: true},
	TypeGID:         {id: 25, size: 4, host: true},
	TypeCtState:     {id: 26, size: 4, host: true, flags: true},
	TypeCtDir:       {id: 27, size: 1},
	TypeCtStatus:    {id: 28, size: 4, host: true, flags: true},
	TypeICMPv6Type:  {id: 29, size: 1},
	TypeCtLabel:     {id: 30, size: 16, host: true, flags: true},
	TypePktType:     {id: 31, size: 1, host: true},
	TypeICMPCode:    {id: 32, size: 1},
	TypeICMPv6Code:  {id: 33, size: 1},
	TypeICMPXCode:   {id: 34, size: 1},
	TypeDevGroup:    {id: 35, size: 4, host: true},
	TypeDSCP:        {id: 36, size: 1},
	TypeECN:         {id: 37, size: 1},
	TypeFibAddrType: {id: 38, size: 4, host: true},
	TypeBoolean:     {id: 39, size: 1, host: true},
	TypeCtEvent:     {id: 40, size: 4, host: true, flags: true},
	TypeIfname:      {id: 41, size: 16, host: true},
	TypeIGMPType:    {id: 42, size: 1},
	TypeDCCPType:    {id: 16, size: 1},
	TypeMHType:      {id: 17, size: 1},
	TypeDate:        {id: 43, size: 8, host: true},
	TypeHour:        {id: 44, size: 4, host: true},
	TypeDay:         {id: 45, size: 1},
	TypeCGroupV2:    {id: 46, size: 8, host: true},
	TypeHostInteger: {id: 4, host: true},
	TypeRaw:         {id: 4},
}

var typeByID = func() map[uint32]Type {
	m := make(map[uint32]Type, len(types))
	for t, info := range types {
		if t != TypeHostInteger && t != TypeRaw {
			m[info.id] = t
		}
	}
	return m
}()

// concatSeparator stands between the parts of a concatenation.
const concatSeparator = " . "

// sizeSeparator stands before the length in bytes of a type that has none of its
// own.
const sizeSeparator = ":"

// Sized is the type with a length in bytes, for a type that has none: a part of
// a concatenation needs one.
func (t Type) Sized(n int) Type {
	if t.info().size != 0 {
		return t
	}
	return Type(fmt.Sprintf("%s%s%d", t.Base(), sizeSeparator, n))
}

// Base is the type without the length that [Type.Sized] gave it.
func (t Type) Base() Type {
	base, _, _ := strings.Cut(string(t), sizeSeparator)
	return Type(base)
}

// info is what nft fixes about the type.
func (t Type) info() typeInfo {
	info, ok := types[t]
	if ok {
		return info
	}
	base, size, sized := strings.Cut(string(t), sizeSeparator)
	if info, ok = types[Type(base)]; ok && sized {
		info.size, _ = strconv.Atoi(size)
	}
	return info
}

// typeBits is how many bits of a set's type number one part of a
// concatenation takes (TYPE_BITS in nft's include/datatype.h).
const typeBits = 6

// ConcatTypes is the type of a concatenation of values of the given types.
func ConcatTypes(parts ...Type) Type {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = string(p)
	}
	return Type(strings.Join(names, concatSeparator))
}

// Parts lists the types that t concatenates; a plain type is its only part.
func (t Type) Parts() []Type {
	names := strings.Split(string(t), concatSeparator)
	parts := make([]Type, len(names))
	for i, n := range names {
		parts[i] = Type(n)
	}
	return parts
}

// IsConcat says whether t concatenates several types.
func (t Type) IsConcat() bool { return strings.Contains(string(t), concatSeparator) }

// Known says whether every part of t is in the vocabulary.
func (t Type) Known() bool {
	for _, p := range t.Parts() {
		if _, ok := types[p.Base()]; !ok {
			return false
		}
	}
	return true
}

// Size is the length in bytes of a value of type t as the kernel stores it in
// a set: each part of a concatenation is padded to 4 bytes. 0 where the type
// alone does not say.
func (t Type) Size() int {
	if !t.IsConcat() {
		return t.info().size
	}
	total := 0
	for _, p := range t.Parts() {
		total += padded(p.info().size)
	}
	return total
}

// HostOrder says whether the kernel keeps values of type t in host byte order.
func (t Type) HostOrder() bool { return t.info().host }

// IsFlags says whether a value of type t is a set of flags, of which a match
// without an operator asks for any.
func (t Type) IsFlags() bool { return t.info().flags }

// ID is the number of t in NFTA_SET_KEY_TYPE and NFTA_SET_DATA_TYPE.
func (t Type) ID() uint32 {
	var id uint32
	for _, p := range t.Parts() {
		id = id<<typeBits | p.info().id
	}
	return id
}

// TypeByID is the type with the number id, as [Type.ID] writes it. An unknown
// number becomes a type named after it, so that nothing is lost.
func TypeByID(id uint32) Type {
	if t, ok := typeByID[id]; ok {
		return t
	}
	var parts []Type
	for rest := id; rest != 0; rest >>= typeBits {
		t, ok := typeByID[rest&(1<<typeBits-1)]
		if !ok {
			return Type(fmt.Sprintf("unknown_type_%d", id))
		}
		parts = append([]Type{t}, parts...)
	}
	if len(parts) == 0 {
		return TypeInteger
	}
	return ConcatTypes(parts...)
}

// padded rounds a length up to the 4 bytes that a kernel register counts by.
func padded(n int) int { return (n + 3) &^ 3 }
