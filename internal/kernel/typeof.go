package kernel

import (
	"strings"

	rs "nftnet/internal/ruleset"
)

// Kinds of expressions in user data (enum expr_types in nft's
// include/expression.h).
const (
	exprPayload = 7
	exprExthdr  = 8
	exprMeta    = 9
	exprSocket  = 10
	exprOSF     = 11
	exprCt      = 12
	exprConcat  = 13
	exprNumgen  = 23
	exprRoute   = 25
	exprFib     = 26
	exprIPsec   = 27
)

// What user data say of each expression: its kind, its own data.
const (
	udataExprType = 0
	udataExprData = 1
)

// typeof reads the expression that a set was declared by, which nft keeps in
// the set's user data; nil where there is none, or none that reads as many
// bytes as the set holds.
func typeof(b []byte, size int) rs.Expr {
	x := typeofExpr(readUserdata(b))
	if x == nil || typeofSize(x) != size {
		return nil
	}
	return x
}

func typeofExpr(u map[byte][]byte) rs.Expr {
	data := readUserdata(u[udataExprData])
	if userNumber(u[udataExprType]) != exprConcat {
		return typeofOne(userNumber(u[udataExprType]), data)
	}
	var parts []rs.Expr
	for i := range len(data) {
		x := typeofExpr(readUserdata(data[byte(i)]))
		if x == nil {
			return nil
		}
		parts = append(parts, x)
	}
	if len(parts) < 2 {
		return nil
	}
	return rs.ConcatOf(parts...)
}

// typeofOne reads one expression: its attributes are numbers in the host's byte
// order (the build_udata functions of nft's expressions).
func typeofOne(kind uint32, u map[byte][]byte) rs.Expr {
	n := func(at byte) uint32 { return userNumber(u[at]) }
	switch kind {
	case exprPayload:
		return typeofField(n(0), n(1), n(2), n(3), n(4))
	case exprExthdr:
		return typeofOption(n(0), int(n(1)), n(2))
	case exprMeta:
		if key, ok := metaByNumber[n(0)]; ok {
			return rs.Meta{Key: key}
		}
	case exprCt:
		if key, ok := ctByNumber[n(0)]; ok {
			c := rs.Ct{Key: key}
			if dir, ok := u[1]; ok && userNumber(dir) < 2 {
				c.Dir = []rs.Direction{rs.Original, rs.Reply}[userNumber(dir)]
			}
			return c
		}
	case exprSocket:
		if int(n(0)) < len(socketKeys) {
			return rs.Socket{Key: socketKeys[n(0)], Level: n(1)}
		}
	case exprOSF:
		return rs.OSF{}
	case exprNumgen:
		return rs.Numgen{Random: n(0) == 1, Mod: n(1), Offset: n(2)}
	case exprRoute:
		if int(n(0)) < len(routeKeys) {
			return routeKeys[n(0)]
		}
	case exprFib:
		if x, ok := decodeFib(n(0), n(1)); ok {
			return x
		}
	case exprIPsec:
		if int(n(0)) < len(ipsecKeys) && n(0) > 0 && n(2) < 2 {
			return rs.IPsec{Key: ipsecKeys[n(0)], Policy: n(1), Dir: []string{"in", "out"}[n(2)]}
		}
	}
	return nil
}

// typeofProtos are the protocols by nft's number (enum proto_desc_id in its
// include/proto.h).
var typeofProtos = []string{
	"", "ah", "esp", "comp", "icmp", "igmp", "udp", "udplite", "tcp", "dccp", "sctp", "th", "ip", "ip6", "icmpv6", "arp", "vlan", "ether",
}

var typeofBases = map[uint32]rs.Header{
	linkLayer: rs.LinkHeader, networkLayer: rs.NetworkHeader, transportLayer: rs.TransportHeader, innerLayer: rs.InnerHeader,
}

func typeofField(proto, field, base, offset, length uint32) rs.Expr {
	if proto == 0 {
		b, ok := typeofBases[base]
		if !ok || offset%8 != 0 || length%8 != 0 || length == 0 || offset > maxOffset || length > registerFile*8 {
			return nil
		}
		p := rs.RawPayload(b, int(offset/8), int(length/8))
		return p
	}
	if int(proto) >= len(typeofProtos) || field > maxOffset {
		return nil
	}
	if f, ok := rs.FieldNumber(typeofProtos[proto], int(field)); ok {
		return f
	}
	return nil
}

// typeofHeaders are the extension headers by nft's number (enum exthdr_desc_id).
var typeofHeaders = []string{"", "hbh", "rt", "rt0", "rt2", "srh", "frag", "dst", "mh"}

func typeofOption(which uint32, field int, op uint32) rs.Expr {
	if int(op) >= len(exthdrKinds) || which > 255 {
		return nil
	}
	kind, name := exthdrKinds[op], ""
	if kind == rs.ExthdrIP6 {
		if int(which) >= len(typeofHeaders) {
			return nil
		}
		name, field = typeofHeaders[which], field-1
	}
	if x, ok := rs.OptionNumber(kind, name, uint8(which), field); ok {
		return x
	}
	return nil
}

// typeofSize is how many bytes of a set's key or data an expression gives; the
// parts of a concatenation are padded.
func typeofSize(x rs.Expr) int {
	switch x := x.(type) {
	case rs.ConcatExpr:
		n := 0
		for _, p := range x.Parts {
			n += align4(typeofSize(p))
		}
		return n
	case rs.Payload:
		return (x.BitLength() + 7) / 8
	case rs.Exthdr:
		return max((x.Bits+7)/8, x.Length)
	case rs.Route:
		return routeSize(x)
	case rs.OSF:
		return osfNameSize
	case rs.Socket:
		return socketSize(x)
	}
	return loadSize(x)
}

// sizedType is the type of an expression, with lengths for the parts of a
// concatenation that have none, and bytes without a name apart from numbers.
func sizedType(x rs.Expr) rs.Type {
	one := func(x rs.Expr) rs.Type {
		t := x.Type()
		if p, ok := x.(rs.Payload); ok && p.Field == "" {
			t = rs.TypeRaw
		}
		return t
	}
	c, ok := x.(rs.ConcatExpr)
	if !ok {
		return one(x)
	}
	types := make([]rs.Type, len(c.Parts))
	for i, p := range c.Parts {
		types[i] = one(p).Sized(typeofSize(p))
	}
	return rs.ConcatTypes(types...)
}

// setType is the type with a number. It says integer of all that has no type of
// its own; which byte order such an integer has the user data tell.
func setType(id uint32, order, typeof []byte) rs.Type {
	t := rs.TypeByID(id)
	if t == rs.TypeInteger && userNumber(order) == hostOrder {
		return rs.TypeHostInteger
	}
	x := typeofExpr(readUserdata(typeof))
	c, ok := x.(rs.ConcatExpr)
	parts := t.Parts()
	if !ok || len(c.Parts) != len(parts) || !strings.Contains(string(t), string(rs.TypeInteger)) {
		return t
	}
	for i := range parts {
		if parts[i] == rs.TypeInteger && c.Parts[i].Type() == rs.TypeHostInteger {
			parts[i] = rs.TypeHostInteger
		}
	}
	return rs.ConcatTypes(parts...)
}
