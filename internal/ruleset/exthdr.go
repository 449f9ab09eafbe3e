package ruleset

import (
	"fmt"
	"slices"
)

// Exthdr reads an optional header or option of a packet: an extension header of
// IPv6, an option of TCP or IPv4, a chunk of SCTP.
type Exthdr struct {
	Kind ExthdrKind
	// Name names the header or option ("frag", "maxseg"), Field what of it is
	// read. Exists asks only whether it is there.
	Name, Field string
	Exists      bool
	Typ         Type
	// Number is the header's or option's own; Offset and Length are those of
	// the bytes read, Shift and Bits those of the bits of them that count, 0 for
	// all.
	Number                      uint8
	Offset, Length, Shift, Bits int
}

// ExthdrKind is what an [Exthdr] is an option of.
type ExthdrKind string

// The kinds of options, by the words before their names in nft.
const (
	ExthdrIP6  ExthdrKind = ""
	ExthdrTCP  ExthdrKind = "tcp option"
	ExthdrIP   ExthdrKind = "ip option"
	ExthdrSCTP ExthdrKind = "sctp chunk"
	ExthdrDCCP ExthdrKind = "dccp option"
)

// Type implements [Expr].
func (x Exthdr) Type() Type {
	if x.Exists {
		return TypeBoolean
	}
	return x.Typ
}

func (x Exthdr) String() string {
	kind, field := string(x.Kind), x.Field
	if x.Exists {
		field = ""
		if x.Kind == ExthdrIP6 {
			kind = "exthdr"
		}
	}
	return joined(kind, x.Name, field)
}

// Unnamed says whether nft has no name for the option.
func (x Exthdr) Unnamed() bool {
	return !slices.ContainsFunc(options[x.Kind], func(o option) bool { return o.name == x.Name })
}

func (Exthdr) expr() {}

// optionField is a field of an option, in bits from its beginning.
type optionField struct {
	name         string
	offset, bits int
	typ          Type
}

// option is an option with its fields; fields of several options of the same
// number, as of routing headers, are told apart by their place.
type option struct {
	number uint8
	name   string
	fields []optionField
}

func plain(fields ...optionField) []optionField {
	for i := range fields {
		if fields[i].typ == "" {
			fields[i].typ = TypeInteger
		}
	}
	return fields
}

// nextHeader are the first fields of every extension header of IPv6.
func nextHeader(more ...optionField) []optionField {
	return plain(append([]optionField{{"nexthdr", 0, 8, TypeInetProto}, {"hdrlength", 8, 8, ""}}, more...)...)
}

// tcpFields are the first fields of every option of TCP and IPv4.
func optionFields(first string, more ...optionField) []optionField {
	return plain(append([]optionField{{first, 0, 8, ""}, {"length", 8, 8, ""}}, more...)...)
}

// chunk are the first fields of every chunk of SCTP (RFC 4960, 3.2).
func chunk(more ...optionField) []optionField {
	return plain(append([]optionField{{"type", 0, 8, ""}, {"flags", 8, 8, ""}, {"length", 16, 16, ""}}, more...)...)
}

// options lists the options that nft has names for, by their kind. The layouts
// are those of linux/ipv6.h, linux/tcp.h, linux/ip.h, linux/sctp.h and the RFCs
// named there.
var options = map[ExthdrKind][]option{
	ExthdrIP6: {
		{0, "hbh", nextHeader()},
		{43, "rt", nextHeader(optionField{"type", 16, 8, ""}, optionField{"seg-left", 24, 8, ""})},
		{43, "srh", plain(optionField{"last-entry", 32, 8, ""}, optionField{"flags", 40, 8, ""}, optionField{"tag", 48, 16, ""},
			optionField{"sid[1]", 64, 128, TypeIPv6Addr}, optionField{"sid[2]", 192, 128, TypeIPv6Addr})},
		{43, "rt0", plain(optionField{"reserved", 32, 32, ""}, optionField{"addr[1]", 64, 128, TypeIPv6Addr},
			optionField{"addr[2]", 192, 128, TypeIPv6Addr})},
		{44, "frag", plain(optionField{"nexthdr", 0, 8, TypeInetProto}, optionField{"reserved", 8, 8, ""},
			optionField{"frag-off", 16, 13, ""}, optionField{"reserved2", 29, 2, ""}, optionField{"more-fragments", 31, 1, ""},
			optionField{"id", 32, 32, ""})},
		{60, "dst", nextHeader()},
		{135, "mh", nextHeader(optionField{"type", 16, 8, TypeMHType}, optionField{"reserved", 24, 8, ""}, optionField{"checksum", 32, 16, ""})},
	},
	ExthdrTCP: {
		{0, "eol", plain(optionField{"kind", 0, 8, ""})},
		{1, "nop", plain(optionField{"kind", 0, 8, ""})},
		{2, "maxseg", optionFields("kind", optionField{"size", 16, 16, ""})},
		{3, "window", optionFields("kind", optionField{"count", 16, 8, ""})},
		{4, "sack-perm", optionFields("kind")},
		{5, "sack", optionFields("kind", optionField{"left", 16, 32, ""}, optionField{"right", 48, 32, ""})},
		{5, "sack1", plain(optionField{"left", 80, 32, ""}, optionField{"right", 112, 32, ""})},
		{5, "sack2", plain(optionField{"left", 144, 32, ""}, optionField{"right", 176, 32, ""})},
		{5, "sack3", plain(optionField{"left", 208, 32, ""}, optionField{"right", 240, 32, ""})},
		{8, "timestamp", optionFields("kind", optionField{"tsval", 16, 32, ""}, optionField{"tsecr", 48, 32, ""})},
		{19, "md5sig", optionFields("kind")},
		{30, "mptcp", optionFields("kind", optionField{"subtype", 16, 4, ""})},
		{34, "fastopen", optionFields("kind")},
	},
	ExthdrIP: {
		{7, "rr", optionFields("type", optionField{"ptr", 16, 8, ""}, optionField{"addr", 24, 32, TypeIPv4Addr})},
		{131, "lsrr", optionFields("type", optionField{"ptr", 16, 8, ""}, optionField{"addr", 24, 32, TypeIPv4Addr})},
		{137, "ssrr", optionFields("type", optionField{"ptr", 16, 8, ""}, optionField{"addr", 24, 32, TypeIPv4Addr})},
		{148, "ra", optionFields("type", optionField{"value", 16, 16, ""})},
	},
	ExthdrSCTP: {
		{0, "data", chunk(optionField{"tsn", 32, 32, ""}, optionField{"stream", 64, 16, ""}, optionField{"ssn", 80, 16, ""}, optionField{"ppid", 96, 32, ""})},
		{1, "init", chunk(sctpInit...)},
		{2, "init-ack", chunk(sctpInit...)},
		{3, "sack", chunk(optionField{"cum-tsn-ack", 32, 32, ""}, optionField{"a-rwnd", 64, 32, ""},
			optionField{"num-gap-ack-blocks", 96, 16, ""}, optionField{"num-dup-tsns", 112, 16, ""})},
		{4, "heartbeat", chunk()}, {5, "heartbeat-ack", chunk()}, {6, "abort", chunk()},
		{7, "shutdown", chunk(optionField{"cum-tsn-ack", 32, 32, ""})},
		{8, "shutdown-ack", chunk()}, {9, "error", chunk()}, {10, "cookie-echo", chunk()}, {11, "cookie-ack", chunk()},
		{12, "ecne", chunk(optionField{"lowest-tsn", 32, 32, ""})}, {13, "cwr", chunk(optionField{"lowest-tsn", 32, 32, ""})},
		{14, "shutdown-complete", chunk()},
		{128, "asconf-ack", chunk(optionField{"seqno", 32, 32, ""})},
		{192, "forward-tsn", chunk(optionField{"new-cum-tsn", 32, 32, ""})},
		{193, "asconf", chunk(optionField{"seqno", 32, 32, ""})},
	},
}

var sctpInit = []optionField{
	{"init-tag", 32, 32, ""}, {"a-rwnd", 64, 32, ""}, {"num-outbound-streams", 96, 16, ""},
	{"num-inbound-streams", 112, 16, ""}, {"initial-tsn", 128, 32, ""},
}

// OptionExists asks whether a header or option is there; false for one that
// nft cannot name.
func OptionExists(kind ExthdrKind, number uint8) (Exthdr, bool) {
	x := Exthdr{Kind: kind, Number: number, Length: 1, Exists: true, Typ: TypeBoolean}
	for _, o := range options[kind] {
		if o.number == number {
			x.Name = o.name
			return x, true
		}
	}
	x.Name = fmt.Sprint(number)
	return x, kind == ExthdrTCP || kind == ExthdrDCCP
}

// OptionField finds the field that lies bits long at an offset, both in bits,
// where the read of length bytes at offset begins; false where there is none.
func OptionField(kind ExthdrKind, number uint8, offset, bits int) (Exthdr, bool) {
	for _, o := range options[kind] {
		for _, f := range o.fields {
			if o.number == number && f.offset == offset && f.bits == bits {
				return Exthdr{Kind: kind, Name: o.name, Field: f.name, Typ: f.typ, Number: number, Offset: offset / 8, Length: (bits + 7) / 8}, true
			}
		}
	}
	return Exthdr{}, false
}

// OptionNumber is the field that nft numbers so of an option, which is found by
// its name where that is given, or its number.
func OptionNumber(kind ExthdrKind, name string, number uint8, field int) (Exthdr, bool) {
	if kind == ExthdrIP {
		field = ipFieldNumber(number, field)
	}
	for _, o := range options[kind] {
		if (name != "" && o.name != name) || (name == "" && o.number != number) || field < 0 || field >= len(o.fields) {
			continue
		}
		f := o.fields[field]
		first, last := f.offset/8, (f.offset+f.bits-1)/8
		x := Exthdr{
			Kind: kind, Name: o.name, Field: f.name, Typ: f.typ, Number: o.number, Offset: first, Length: last - first + 1,
		}
		if f.bits%8 != 0 {
			x.Bits, x.Shift, x.Length = f.bits, (last+1)*8-f.offset-f.bits, (f.bits+7)/8
		}
		return x, true
	}
	return Exthdr{}, false
}

// ipFields are the fields of options of IPv4 by nft's number (enum ipopt_fields
// in its include/ipopt.h).
var ipFields = []string{"", "type", "length", "value", "ptr", "addr"}

// ipFieldNumber is the place of a field among those of an option of IPv4; -1
// where the option has none such.
func ipFieldNumber(number uint8, field int) int {
	if field < 0 || field >= len(ipFields) {
		return -1
	}
	for _, o := range options[ExthdrIP] {
		if o.number == number {
			return slices.IndexFunc(o.fields, func(f optionField) bool { return f.name == ipFields[field] })
		}
	}
	return -1
}

// RawOption reads bytes of an option that have no name in nft, which it can
// write for options of TCP only.
func RawOption(number uint8, offset, length int) Exthdr {
	return Exthdr{
		Kind: ExthdrTCP, Name: fmt.Sprintf("@%d,%d,%d", number, offset*8, length*8), Typ: TypeInteger,
		Number: number, Offset: offset, Length: length,
	}
}
