package kernel

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// attr is one netlink attribute. Numbers inside are big endian, as nftables
// has them.
type attr struct {
	typ  uint16
	data []byte
}

var errTruncated = errors.New("truncated netlink attribute")

const attrHeader = 4

// parseAttrs splits b into attributes. On a truncated one it returns those
// before it with the error.
func parseAttrs(b []byte) ([]attr, error) {
	out := make([]attr, 0, countAttrs(b))
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			return out, errTruncated
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		out = append(out, attr{typ, b[attrHeader:n:n]})
		b = b[min(align4(n), len(b)):]
	}
	if len(b) > 0 {
		return out, errTruncated
	}
	return out, nil
}

// countAttrs is how many attributes b holds before a truncated one.
func countAttrs(b []byte) int {
	count := 0
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			break
		}
		count++
		b = b[min(align4(n), len(b)):]
	}
	return count
}

func align4(n int) int { return (n + 3) &^ 3 }

func (a attr) u8() uint8 {
	if len(a.data) < 1 {
		return 0
	}
	return a.data[0]
}

func (a attr) u16() uint16 {
	if len(a.data) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(a.data)
}

func (a attr) u32() uint32 {
	if len(a.data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

func (a attr) u64() uint64 {
	if len(a.data) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a.data)
}

// str is the text before the terminating zero.
func (a attr) str() string {
	for i, c := range a.data {
		if c == 0 {
			return string(a.data[:i])
		}
	}
	return string(a.data)
}

// nested are the attributes inside a. A truncated rest is left out: the caller
// that must not lose anything keeps the raw bytes.
func (a attr) nested() attrs {
	out, _ := parseAttrs(a.data)
	return out
}

type attrs []attr

// get is the first attribute of a type.
func (as attrs) get(typ uint16) (attr, bool) {
	for _, a := range as {
		if a.typ == typ {
			return a, true
		}
	}
	return attr{}, false
}

func (as attrs) u32(typ uint16) uint32 {
	a, _ := as.get(typ)
	return a.u32()
}

func (as attrs) u64(typ uint16) uint64 {
	a, _ := as.get(typ)
	return a.u64()
}

func (as attrs) str(typ uint16) string {
	a, _ := as.get(typ)
	return a.str()
}

func (as attrs) bytes(typ uint16) []byte {
	a, _ := as.get(typ)
	return a.data
}

func (as attrs) has(typ uint16) bool {
	_, ok := as.get(typ)
	return ok
}

// message builds the attributes of a message.
type message struct{ b []byte }

func (m *message) raw(typ uint16, data []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(attrHeader+len(data)))
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
	m.b = append(m.b, data...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) str(typ uint16, s string) { m.raw(typ, append([]byte(s), 0)) }

func (m *message) u32(typ uint16, v uint32) { m.raw(typ, binary.BigEndian.AppendUint32(nil, v)) }

// nest adds an attribute whose content fill writes.
func (m *message) nest(typ uint16, fill func(*message)) {
	start := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	fill(m)
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
	binary.NativeEndian.PutUint16(m.b[start+2:], typ|unix.NLA_F_NESTED)
}
