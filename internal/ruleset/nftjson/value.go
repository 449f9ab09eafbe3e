package nftjson

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"nftnet/internal/ruleset"
)

// value is a constant (constant_expr_json).
func value(v ruleset.Value) any {
	if v.Type.IsConcat() {
		parts := v.Parts()
		out := make(array, len(parts))
		for i, part := range parts {
			out[i] = value(part)
		}
		return one("concat", out)
	}
	n, isNumber := v.Uint()
	switch base := v.Type.Base(); {
	case asText[base]:
		return unquoted(v.String())
	case base == ruleset.TypeBoolean && isNumber:
		return n != 0
	case base == ruleset.TypeTime && isNumber:
		return n / 1000
	case isNumber && v.HasName():
		return unquoted(v.String())
	case v.Type.IsFlags() && isNumber || base == ruleset.TypeCtLabel:
		return flags(v)
	case v.Label != "":
		return v.Label
	}
	return number(v)
}

// asText are the types of which nft has the text alone, for want of a function
// for JSON (datatype_json), and strings.
var asText = map[ruleset.Type]bool{
	ruleset.TypeIPv4Addr: true, ruleset.TypeIPv6Addr: true, ruleset.TypeEtherAddr: true, ruleset.TypeIfname: true,
	ruleset.TypeString: true, ruleset.TypeIfIndex: true, ruleset.TypeClassID: true, ruleset.TypeDate: true,
	ruleset.TypeHour: true, ruleset.TypeLLAddr: true, ruleset.TypeCGroupV2: true,
}

// numeric is a value at the end of a range.
func numeric(v ruleset.Value) any {
	if v.Type.Base() == ruleset.TypeInetProto {
		// range_expr_json asks for no names of protocols.
		return number(v)
	}
	return value(v)
}

// number is an integer; one of more than 64 bits is text in hexadecimal
// (integer_type_json).
func number(v ruleset.Value) any {
	if n, ok := v.Uint(); ok {
		return n
	}
	digits := strings.TrimLeft(hex.EncodeToString([]byte(v.Data)), "0")
	if len(digits) > 16 {
		return "0x" + digits
	}
	var n uint64
	for _, b := range []byte(v.Data) {
		n = n<<8 | uint64(b)
	}
	return n
}

// parse reads a number as nft writes them: in decimal or hexadecimal.
func parse(word string) (uint64, bool) {
	n, err := strconv.ParseUint(word, 0, 64)
	return n, err == nil
}

func unquoted(s string) string {
	if len(s) >= 2 && s[0] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// flagNames are the flags of a value.
func flagNames(v ruleset.Value) array {
	words := strings.Split(v.String(), ",")
	out := make(array, len(words))
	for i, w := range words {
		out[i] = w
		if n, ok := parse(w); ok {
			out[i] = n
		}
	}
	return out
}

// flags is a flag, or the list of several.
func flags(v ruleset.Value) any {
	names := flagNames(v)
	if len(names) == 1 {
		return names[0]
	}
	return names
}

// alternatives is a value, flags of it joined by |.
func alternatives(v ruleset.Value) any {
	if !v.Type.IsFlags() || v.Type.IsConcat() {
		return value(v)
	}
	names := flagNames(v)
	out := names[0]
	for _, name := range names[1:] {
		out = one("|", array{out, name})
	}
	return out
}

func prefixOf(p netip.Prefix) any {
	return one("prefix", object{{"addr", p.Addr().String()}, {"len", uint64(p.Bits())}})
}
