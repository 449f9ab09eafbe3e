package kernel

import (
	"encoding/binary"

	rs "nftnet/internal/ruleset"
)

// Kinds of user data that nft stores beside an object
// (libnftnl's include/libnftnl/udata.h).
const (
	udataRuleComment     = 0
	udataElementComment  = 0
	udataSetKeyByteOrder = 0
	udataSetComment      = 7
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

// setUserdata tells nft the byte order of a set's keys, which it needs to print
// plain integers, and carries the comment.
func setUserdata(s *rs.Set) []byte {
	var b []byte
	if !s.Key.IsConcat() {
		order := uint32(networkOrder)
		if s.Key.HostOrder() {
			order = hostOrder
		}
		b = binary.NativeEndian.AppendUint32(append(b, udataSetKeyByteOrder, 4), order)
	}
	if s.Comment != "" {
		b = append(b, userComment(udataSetComment, s.Comment)...)
	}
	return b
}
