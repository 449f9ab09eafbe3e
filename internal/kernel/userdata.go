package kernel

import (
	"encoding/binary"

	rs "nftnet/internal/ruleset"
)

// Kinds of user data that nft stores beside an object
// (libnftnl's include/libnftnl/udata.h).
const (
	udataTableComment     = 0
	udataChainComment     = 0
	udataObjectComment    = 0
	udataRuleComment      = 0
	udataElementComment   = 0
	udataElementFlags     = 1
	udataSetKeyByteOrder  = 0
	udataSetDataByteOrder = 1
	udataSetAutoMerge     = 2
	udataSetKeyTypeof     = 3
	udataSetDataTypeof    = 4
	udataSetDataInterval  = 6
	udataSetComment       = 7
)

// maxComment is the longest comment that nft takes, in bytes.
const maxComment = 128

// userComment is a comment as nft stores it: type, length, text, zero.
func userComment(typ byte, text string) []byte {
	if len(text) > maxComment {
		text = text[:maxComment]
	}
	return append(append([]byte{typ, byte(len(text) + 1)}, text...), 0)
}

// readUserdata splits user data into its parts. Foreign programs write what
// they like there: what does not parse is left out.
func readUserdata(b []byte) map[byte][]byte {
	out := map[byte][]byte{}
	for len(b) >= 2 {
		n := int(b[1])
		if 2+n > len(b) {
			break
		}
		out[b[0]] = b[2 : 2+n]
		b = b[2+n:]
	}
	return out
}

// readComment reads a comment of the given kind.
func readComment(b []byte, typ byte) string { return attr{data: readUserdata(b)[typ]}.str() }

// setUserdata is what nft wants to know about a set to print it: the byte order
// of plain integers, that a concatenation is one, and the comment.
func setUserdata(s *rs.Set) []byte {
	b := userUint32(nil, udataSetKeyByteOrder, byteOrder(s.Key))
	if s.Data != "" {
		b = userUint32(b, udataSetDataByteOrder, byteOrder(s.Data))
	}
	if s.AutoMerge {
		b = userUint32(b, udataSetAutoMerge, 1)
	}
	if s.Key.IsConcat() {
		b = append(b, userConcat(udataSetKeyTypeof)...)
	}
	if s.Data.IsConcat() {
		b = append(b, userConcat(udataSetDataTypeof)...)
	}
	if s.Data != "" {
		b = userUint32(b, udataSetDataInterval, 0)
	}
	if s.Comment != "" {
		b = append(b, userComment(udataSetComment, s.Comment)...)
	}
	return b
}

func userUint32(b []byte, typ byte, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, typ, 4), v)
}

// Byte orders (enum byteorder in nft's include/datatype.h). nft gives none to
// concatenations, verdicts and some types of one byte.
const (
	noOrder = iota
	hostOrder
	networkOrder
)

func byteOrder(t rs.Type) uint32 {
	switch t {
	case rs.TypeVerdict, rs.TypeBoolean, rs.TypeCtDir, rs.TypeInetProto, rs.TypeNFProto:
		return noOrder
	}
	switch {
	case t.IsConcat():
		return noOrder
	case t.HostOrder():
		return hostOrder
	}
	return networkOrder
}

func userNumber(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// userConcat says that a set's key or data is a concatenation, and nothing
// about its parts: those are in the set's type.
func userConcat(typ byte) []byte {
	inner := append(userUint32(nil, udataExprType, exprConcat), udataExprData, 0)
	return append([]byte{typ, byte(len(inner))}, inner...)
}
