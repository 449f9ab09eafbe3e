package kernel

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// dataValue is the constant inside an attribute of the kind nft_data.
func dataValue(a attr) []byte {
	v, _ := a.nested().get(unix.NFTA_DATA_VALUE)
	return v.data
}

func (d *ruleDecoder) bitwise(as attrs, raw rs.Opaque) bool {
	l, ok := d.register(as, unix.NFTA_BITWISE_SREG)
	if !ok || l.expr == nil || int(as.u32(unix.NFTA_BITWISE_LEN)) != l.size {
		return false
	}
	maskAttr, _ := as.get(unix.NFTA_BITWISE_MASK)
	xorAttr, _ := as.get(unix.NFTA_BITWISE_XOR)
	dataAttr, shifts := as.get(nftaBitwiseData)
	mask, xor := dataValue(maskAttr), dataValue(xorAttr)
	switch op := as.u32(nftaBitwiseOp); {
	case op == 0 && len(mask) == l.size && len(xor) == l.size && !shifts:
		if l.mask != nil {
			l.expr = d.whole(l)
		}
		l.mask, l.xor = mask, xor
	case (op == 1 || op == 2) && len(dataValue(dataAttr)) == 4 && mask == nil && xor == nil:
		// NFT_BITWISE_LSHIFT, NFT_BITWISE_RSHIFT. The kernel shifts numbers in its own
		// order.
		n := binary.NativeEndian.Uint32(dataValue(dataAttr))
		word := []string{"<<", ">>"}[op-1]
		l.expr = rs.Binary{Left: d.whole(l), Op: word, Right: rs.HostUint32(rs.TypeHostInteger, n)}
		l.mask, l.xor = nil, nil
	default:
		return false
	}
	d.load(as.u32(unix.NFTA_BITWISE_DREG), l, raw)
	return true
}

// whole is what a register holds as one expression. The kernel knows one
// operation of bits, a mask and an exclusive or; nft takes that apart into its
// own three (netlink_parse_bitwise_bool).
func (d *ruleDecoder) whole(l loaded) rs.Expr {
	if l.mask == nil {
		return l.expr
	}
	and, xor, or := make([]byte, len(l.mask)), make([]byte, len(l.mask)), make([]byte, len(l.mask))
	for i, m := range l.mask {
		or[i] = m&l.xor[i] ^ l.xor[i]
		xor[i] = l.xor[i] & m
		and[i] = m | or[i]
	}
	x := l.expr
	if slices.ContainsFunc(and, func(b byte) bool { return b != 0xff }) {
		x = d.masked(x, and, l.swapped)
	}
	if !zero(xor) {
		x = rs.Binary{Left: x, Op: "^", Right: l.constant(xor)}
	}
	if !zero(or) {
		x = rs.Binary{Left: x, Op: "|", Right: l.constant(or)}
	}
	return x
}

// constant is a value of the register's type that stands beside it.
func (l loaded) constant(b []byte) rs.Value {
	if l.swapped {
		b = turned(b)
	}
	return rs.Value{Type: l.expr.Type(), Data: string(b)}
}

// masked is some bits of an expression: a field with a name, or the operation.
func (d *ruleDecoder) masked(x rs.Expr, mask []byte, swapped bool) rs.Expr {
	if f, _, _, ok := d.named(loaded{expr: x, mask: mask, size: len(mask)}); ok {
		return f
	}
	return rs.Masked{Expr: x, Mask: loaded{expr: x, swapped: swapped}.constant(mask)}
}

// named finds the field that a register's bits are, where it has a name, and how
// far its values stand from the right.
func (d *ruleDecoder) named(l loaded) (x rs.Expr, shift, bits int, ok bool) {
	if l.mask == nil || !zero(l.xor) {
		return nil, 0, 0, false
	}
	switch x := l.expr.(type) {
	case rs.Payload:
		f, shift, ok := d.bits(x, l.mask)
		return f, shift, f.BitLength(), ok
	case rs.Exthdr:
		from, to, ok := span(l.mask)
		if !ok || x.Exists {
			return nil, 0, 0, false
		}
		f, ok := rs.OptionField(x.Kind, x.Number, x.Offset*8+from, to-from)
		f.Shift, f.Bits, f.Offset, f.Length = l.size*8-to, to-from, x.Offset, x.Length
		return f, f.Shift, f.Bits, ok
	}
	return nil, 0, 0, false
}

// shifted is a number of some bits that was shifted to its place, in network
// byte order; false where other bits are set too.
func shifted(b []byte, shift, bits int) (string, bool) {
	out := slices.Clone(b)
	for range shift {
		if out[len(out)-1]&1 != 0 {
			return "", false
		}
		for i := len(out) - 1; i >= 0; i-- {
			out[i] >>= 1
			if i > 0 {
				out[i] |= out[i-1] << 7
			}
		}
	}
	cut := max(len(out)-(bits+7)/8, 0)
	return string(out[cut:]), zero(out[:cut])
}

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// byteorder is understood where it turns a number of the host's byte order into
// one of the network's: nft writes nothing for it, as types and operators ask for
// it.
func (d *ruleDecoder) byteorder(as attrs, raw rs.Opaque) bool {
	l, ok := d.register(as, unix.NFTA_BYTEORDER_SREG)
	size := int(as.u32(unix.NFTA_BYTEORDER_SIZE))
	if ok && l.expr != nil && l.size == 1 && size > 1 {
		// nothing to turn: the kernel counts in whole numbers of that size
		d.load(as.u32(unix.NFTA_BYTEORDER_DREG), l, raw)
		return true
	}
	if !ok || l.expr == nil || l.swapped || !turns(l.expr.Type(), l.size) || size != l.size ||
		as.u32(unix.NFTA_BYTEORDER_OP) != unix.NFT_BYTEORDER_HTON || int(as.u32(unix.NFTA_BYTEORDER_LEN)) != l.size {
		return false
	}
	l.expr = d.whole(l)
	l.mask, l.xor, l.swapped = nil, nil, true
	d.load(as.u32(unix.NFTA_BYTEORDER_DREG), l, raw)
	return true
}

// turns says whether values of a type differ between host and network byte
// order: numbers that the kernel keeps in its own.
func turns(t rs.Type, size int) bool {
	return t.HostOrder() && size > 1 && t != rs.TypeIfname && t != rs.TypeString
}

// turned is b in the other byte order.
func turned(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}
