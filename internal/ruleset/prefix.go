package ruleset

import (
	"net/netip"
	"strings"
)

// PrefixOf is the prefix whose first and last address are a and b; false where
// there is none.
func PrefixOf(a, b Value) (netip.Prefix, bool) {
	first, ok1 := a.Addr()
	last, ok2 := b.Addr()
	if !ok1 || !ok2 || first.BitLen() != last.BitLen() {
		return netip.Prefix{}, false
	}
	for bits := first.BitLen(); bits >= 0; bits-- {
		p, err := first.Prefix(bits)
		if err != nil || p.Addr() != first {
			return netip.Prefix{}, false
		}
		if LastAddr(p) == last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// WildcardOf is the beginning of interface names whose first and last are a and
// b, from "eth" to "eth\xff\xff..."; false where there is none.
func WildcardOf(a, b Value) (Value, bool) {
	begin := strings.TrimRight(a.Data, "\x00")
	ok := a.Type == TypeIfname && b.Data == begin+strings.Repeat("\xff", len(a.Data)-len(begin))
	return Value{Type: TypeIfname, Data: begin}, ok
}

// LastAddr is the last address of a prefix.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
