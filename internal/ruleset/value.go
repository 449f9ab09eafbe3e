package ruleset

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Value is a constant of a data type. Data holds the bytes as they stand in a
// kernel register: network byte order except for types that the kernel keeps
// in host order; the parts of a concatenation each padded to 4 bytes. Values
// are comparable.
type Value struct {
	Type Type
	Data string
}

// Addr is the value of an IPv4 or IPv6 address.
func Addr(a netip.Addr) Value {
	a = a.Unmap()
	if a.Is4() {
		return Value{TypeIPv4Addr, string(a.AsSlice())}
	}
	return Value{TypeIPv6Addr, string(a.AsSlice())}
}

// Port is the value of a port number of a transport protocol.
func Port(p uint16) Value {
	return Value{TypeInetService, string(binary.BigEndian.AppendUint16(nil, p))}
}

// Proto is the value of a transport protocol number.
func Proto(p uint8) Value { return Value{TypeInetProto, string([]byte{p})} }

// NFProto is the value of a protocol family of the packet.
func NFProto(p uint8) Value { return Value{TypeNFProto, string([]byte{p})} }

// Iface is the exact name of an interface. It is padded to 16 bytes: a shorter
// comparison would match every name that begins so.
func Iface(name string) Value {
	var b [16]byte
	copy(b[:15], name)
	return Value{TypeIfname, string(b[:])}
}

// HostUint32 is a 32 bit value of type t in host byte order: marks, states,
// address types.
func HostUint32(t Type, v uint32) Value {
	return Value{t, string(binary.NativeEndian.AppendUint32(nil, v))}
}

// Concat joins values to the value of a concatenation.
func Concat(parts ...Value) Value {
	ts := make([]Type, len(parts))
	var b strings.Builder
	for i, p := range parts {
		ts[i] = p.Type
		b.WriteString(p.Data)
		for n := len(p.Data); n < padded(len(p.Data)); n++ {
			b.WriteByte(0)
		}
	}
	return Value{ConcatTypes(ts...), b.String()}
}

// Parts splits the value of a concatenation; a plain value is its only part.
// Bytes that the type does not account for stay in the last part.
func (v Value) Parts() []Value {
	ts := v.Type.Parts()
	if len(ts) == 1 {
		return []Value{v}
	}
	parts := make([]Value, 0, len(ts))
	rest := v.Data
	for i, t := range ts {
		size := types[t].size
		if i == len(ts)-1 || size == 0 || padded(size) > len(rest) {
			if size == 0 || size > len(rest) || len(rest) > padded(size) {
				size = len(rest)
			}
			parts = append(parts, Value{t, rest[:size]})
			rest = ""
			continue
		}
		parts = append(parts, Value{t, rest[:size]})
		rest = rest[padded(size):]
	}
	return parts
}

// Addr is the address that v holds; false where v is no address.
func (v Value) Addr() (netip.Addr, bool) {
	if v.Type != TypeIPv4Addr && v.Type != TypeIPv6Addr {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice([]byte(v.Data))
}

// Uint is v's number, in the byte order of its type; false where v has no
// bytes or more than 8.
func (v Value) Uint() (uint64, bool) {
	b := []byte(v.Data)
	if len(b) == 0 || len(b) > 8 {
		return 0, false
	}
	var n uint64
	for i := range b {
		c := b[i]
		if v.Type.HostOrder() && littleEndian {
			c = b[len(b)-1-i]
		}
		n = n<<8 | uint64(c)
	}
	return n, true
}

// littleEndian says how this machine stores numbers.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Name is v as text without quotes: an interface's name without its padding.
func (v Value) Name() string {
	s, _, _ := strings.Cut(v.Data, "\x00")
	return s
}

// String writes v as nft does.
func (v Value) String() string {
	if v.Type.IsConcat() {
		parts := v.Parts()
		texts := make([]string, len(parts))
		for i, p := range parts {
			texts[i] = p.String()
		}
		return strings.Join(texts, concatSeparator)
	}
	if info, ok := types[v.Type]; !ok || len(v.Data) == 0 || (info.size != 0 && info.size != len(v.Data)) {
		return v.unknown()
	}
	switch v.Type {
	case TypeIPv4Addr, TypeIPv6Addr:
		a, _ := v.Addr()
		return a.String()
	case TypeEtherAddr:
		return colonHex(v.Data)
	case TypeIfname, TypeString:
		return strconv.Quote(v.Name())
	case TypeMark:
		n, _ := v.Uint()
		return fmt.Sprintf("0x%08x", n)
	}
	n, ok := v.Uint()
	if !ok {
		return v.unknown()
	}
	if v.Type.IsFlags() {
		return flagText(v.Type, n)
	}
	if s, ok := symbol(v.Type, n); ok {
		return s
	}
	return strconv.FormatUint(n, 10)
}

// unknown shows bytes that are no value of v's type.
func (v Value) unknown() string { return "0x" + hex.EncodeToString([]byte(v.Data)) }

func colonHex(s string) string {
	parts := make([]string, len(s))
	for i := range len(s) {
		parts[i] = hex.EncodeToString([]byte{s[i]})
	}
	return strings.Join(parts, ":")
}

// flagText lists the flags that are set in n, bits without a name as one
// number at the end.
func flagText(t Type, n uint64) string {
	var names []string
	for bit := range 64 {
		f := uint64(1) << bit
		if n&f == 0 {
			continue
		}
		if s, ok := symbol(t, f); ok {
			names = append(names, s)
			n &^= f
		}
	}
	if n != 0 || len(names) == 0 {
		names = append(names, "0x"+strconv.FormatUint(n, 16))
	}
	return strings.Join(names, ",")
}
