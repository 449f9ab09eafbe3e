package ruleset

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is a constant of a data type. Data holds the bytes as they stand in a
// kernel register: network byte order except for types that the kernel keeps
// in host order; the parts of a concatenation each padded to 4 bytes. Values
// are comparable.
type Value struct {
	Type Type
	Data string
	// Label is the name that the host has for a number, where that is no
	// constant: that of an interface.
	Label string
}

// Addr is the value of an IPv4 or IPv6 address.
func Addr(a netip.Addr) Value {
	a = a.Unmap()
	if a.Is4() {
		return Value{Type: TypeIPv4Addr, Data: string(a.AsSlice())}
	}
	return Value{Type: TypeIPv6Addr, Data: string(a.AsSlice())}
}

// Port is the value of a port number of a transport protocol.
func Port(p uint16) Value {
	return Value{Type: TypeInetService, Data: string(binary.BigEndian.AppendUint16(nil, p))}
}

// Proto is the value of a transport protocol number.
func Proto(p uint8) Value { return Value{Type: TypeInetProto, Data: string([]byte{p})} }

// NFProto is the value of a protocol family of the packet.
func NFProto(p uint8) Value { return Value{Type: TypeNFProto, Data: string([]byte{p})} }

// Iface is the exact name of an interface. It is padded to 16 bytes: a shorter
// comparison would match every name that begins so.
func Iface(name string) Value {
	var b [16]byte
	copy(b[:15], name)
	return Value{Type: TypeIfname, Data: string(b[:])}
}

// HostUint32 is a 32 bit value of type t in host byte order: marks, states,
// address types.
func HostUint32(t Type, v uint32) Value {
	return Value{Type: t, Data: string(binary.NativeEndian.AppendUint32(nil, v))}
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
	return Value{Type: ConcatTypes(ts...), Data: b.String()}
}

// Parts splits the value of a concatenation; a plain value is its only part.
// One part may be of a type without a length of its own: it takes the bytes
// that the others leave. Where the bytes do not fit the type, the last part
// holds them all.
func (v Value) Parts() []Value {
	ts := v.Type.Parts()
	if len(ts) == 1 {
		return []Value{v}
	}
	labels := strings.Split(v.Label, labelSeparator)
	sizes, ok := v.partSizes(ts)
	parts := make([]Value, 0, len(ts))
	rest := v.Data
	for i, t := range ts {
		if !ok {
			sizes[i] = 0
			if i == len(ts)-1 {
				sizes[i] = len(rest)
			}
		}
		part := Value{Type: t, Data: rest[:sizes[i]]}
		if len(labels) == len(ts) {
			part.Label = labels[i]
		}
		parts = append(parts, part)
		rest = rest[min(padded(sizes[i]), len(rest)):]
	}
	return parts
}

// partSizes is the length of each part of a concatenation; false where the
// types do not add up to the value's length.
func (v Value) partSizes(ts []Type) ([]int, bool) {
	sizes := make([]int, len(ts))
	left, open := len(v.Data), -1
	for i, t := range ts {
		sizes[i] = t.info().size
		left -= padded(sizes[i])
		if sizes[i] == 0 {
			if open >= 0 {
				return sizes, false
			}
			open = i
		}
	}
	if open >= 0 && left > 0 && left%4 == 0 {
		sizes[open], left = left, 0
	}
	return sizes, left == 0
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
func (v Value) String() string { return v.text(Type.symbol) }

// numeric writes v without names for numbers, as nft writes the ends of a
// range.
func (v Value) numeric() string {
	if n, ok := v.Uint(); ok && v.Type == TypeTime && len(v.Data) == types[TypeTime].size {
		return fmt.Sprintf("%ds", n/1000)
	}
	return v.text(func(Type, uint64) (string, bool) { return "", false })
}

// text writes v with the names that name gives to numbers.
func (v Value) text(name func(Type, uint64) (string, bool)) string {
	if v.Type.IsConcat() {
		parts := v.Parts()
		if parts[0].Data == "" {
			return v.unknown()
		}
		texts := make([]string, len(parts))
		for i, p := range parts {
			texts[i] = p.text(name)
		}
		return strings.Join(texts, concatSeparator)
	}
	if v.isWildcard() {
		return quote(v.Data + "*")
	}
	if size := v.Type.info().size; !v.Type.Known() || len(v.Data) == 0 || (size != 0 && size != len(v.Data)) && v.Type != TypeIfname {
		return v.unknown()
	}
	switch v.Type.Base() {
	case TypeIPv4Addr, TypeIPv6Addr:
		a, _ := v.Addr()
		return addrText(a)
	case TypeEtherAddr:
		return colonHex(v.Data)
	case TypeIfname, TypeString:
		return v.nameText()
	case TypeCtLabel:
		return v.bitText()
	}
	if v.Type.Base() == TypeRaw {
		return v.raw()
	}
	n, ok := v.Uint()
	if !ok {
		return v.unknown()
	}
	if v.Type.IsFlags() {
		return flagText(v.Type, n, len(v.Data))
	}
	if s, ok := name(v.Type, n); ok {
		return s
	}
	if v.Label != "" {
		return quote(v.Label)
	}
	switch v.Type.Base() {
	case TypeDSCP:
		return fmt.Sprintf("0x%02x", n)
	case TypeECN:
		return fmt.Sprintf("0x%x", n)
	case TypeDate:
		return quote(time.Unix(0, int64(n)).Format(time.DateTime))
	case TypeHour:
		return quote(hourText(n))
	case TypeMark:
		return fmt.Sprintf("0x%08x", n)
	case TypeEtherType:
		return fmt.Sprintf("0x%04x", n)
	case TypeClassID:
		return fmt.Sprintf("%x:%x", n>>16, n&0xffff)
	case TypeTime:
		return duration(n)
	}
	return strconv.FormatUint(n, 10)
}

// HasName says whether nft has a name for v's number.
func (v Value) HasName() bool {
	n, ok := v.Uint()
	if ok {
		_, ok = v.Type.symbol(n)
	}
	return ok
}

// isWildcard says whether v is the beginning of interface names: the kernel
// compares the bytes that are there, so that without its padding, or at least
// a zero, a name matches every name that begins so.
func (v Value) isWildcard() bool {
	return v.Type == TypeIfname && v.Data != "" && len(v.Data) < 16 && !strings.HasSuffix(v.Data, "\x00")
}

// nameText writes a name; a star that is part of it is no wildcard.
func (v Value) nameText() string {
	name := v.Name()
	if strings.TrimRight(v.Data[len(name):], "\x00") != "" {
		return v.unknown()
	}
	if v.Type == TypeIfname && strings.HasSuffix(name, "*") {
		name = strings.TrimSuffix(name, "*") + `\*`
	}
	return quote(name)
}

// quote puts text into quotes. nft knows no escapes; what would not print, or
// end the quotes too early, is escaped as Go does, so that it can be seen.
func quote(s string) string {
	for _, r := range s {
		if r == '"' || !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return `"` + s + `"`
}

// bitText lists the numbers of the bits that are set in a connection label.
func (v Value) bitText() string {
	var bits []string
	for i := range len(v.Data) * 8 {
		if v.Data[i/8]&(1<<(i%8)) != 0 {
			bits = append(bits, strconv.Itoa(i))
		}
	}
	if len(bits) == 0 {
		return v.unknown()
	}
	return strings.Join(bits, ",")
}

// raw writes v in hexadecimal, as nft writes what has no name.
func (v Value) raw() string {
	digits := strings.TrimLeft(hex.EncodeToString([]byte(v.Data)), "0")
	if digits == "" {
		digits = "0"
	}
	return "0x" + digits
}

// addrText writes an address as the C library does (inet_ntop), which writes
// the end of an IPv6 address as one of IPv4 where zeros alone stand before it.
func addrText(a netip.Addr) string {
	b := a.As16()
	if a.Is4() || a.Is4In6() || !slices.Equal(b[:12], make([]byte, 12)) || b[12] == 0 && b[13] == 0 {
		return a.String()
	}
	return fmt.Sprintf("::%d.%d.%d.%d", b[12], b[13], b[14], b[15])
}

// hourText writes seconds of a day; nft leaves out seconds that are none.
func hourText(n uint64) string {
	// The kernel has the hour of Greenwich.
	_, east := time.Now().Zone()
	const day = 24 * 60 * 60
	n = (n + uint64(east+day)) % day
	text := fmt.Sprintf("%02d:%02d", n/3600, n/60%60)
	if n%60 != 0 {
		text += fmt.Sprintf(":%02d", n%60)
	}
	return text
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
func flagText(t Type, n uint64, size int) string {
	if size < 8 && n == 1<<(8*size)-1 {
		// nft takes no value with every bit set apart (bitmask_expr_to_binops).
		return "0x" + strconv.FormatUint(n, 16)
	}
	var names []string
	for bit := range 64 {
		f := uint64(1) << bit
		if n&f == 0 {
			continue
		}
		if s, ok := t.symbol(f); ok {
			names = append(names, s)
			n &^= f
		}
	}
	if n != 0 || len(names) == 0 {
		names = append(names, "0x"+strconv.FormatUint(n, 16))
	}
	return strings.Join(names, ",")
}
