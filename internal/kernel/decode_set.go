package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// setWords are the flags of a set that have a word in nft, in nft's order.
var setWords = []struct {
	bit  uint32
	word string
}{
	{unix.NFT_SET_CONSTANT, "constant"}, {unix.NFT_SET_EVAL, "dynamic"}, {unix.NFT_SET_INTERVAL, "interval"},
	{unix.NFT_SET_TIMEOUT, "timeout"},
}

// setFlagsShown are the flags that other fields of a set show.
const setFlagsShown = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_MAP | unix.NFT_SET_OBJECT | nftSetConcat | nftSetExpr

// setAttrs are the attributes that decodeSet understands, and those that say
// nothing about what a set is.
var setAttrs = []uint16{
	unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
	unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_ID,
	unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_PAD,
	unix.NFTA_SET_OBJ_TYPE, nftaSetHandle, nftaSetExpr, nftaSetExpressions, nftaSetType, nftaSetCount,
}

// objectTypes are nft's words for the kinds of named objects
// (linux/netfilter/nf_tables.h, NFT_OBJECT_*).
var objectTypes = map[uint32]rs.Type{
	1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "ct count", 6: "tunnel", 7: "ct timeout", 8: "secmark",
	9: "ct expectation", 10: "synproxy",
}

// decodeSet reads a set without its elements. What it does not understand
// becomes an Opaque part.
func decodeSet(as attrs) knownSet {
	user := readUserdata(as.bytes(unix.NFTA_SET_USERDATA))
	s := rs.Set{
		Name: as.str(unix.NFTA_SET_NAME), Key: setType(as.u32(unix.NFTA_SET_KEY_TYPE), user[udataSetKeyByteOrder], user[udataSetKeyTypeof]),
		Handle: as.u64(nftaSetHandle), Timeout: as.u64(unix.NFTA_SET_TIMEOUT),
		GCInterval: uint64(as.u32(unix.NFTA_SET_GC_INTERVAL)),
		Comment:    attr{data: user[udataSetComment]}.str(),
		AutoMerge:  userNumber(user[udataSetAutoMerge]) != 0, DataInterval: userNumber(user[udataSetDataInterval]) != 0,
	}
	flags := as.u32(unix.NFTA_SET_FLAGS)
	s.Anonymous = flags&unix.NFT_SET_ANONYMOUS != 0
	for _, w := range setWords {
		if flags&w.bit != 0 {
			s.Flags = append(s.Flags, w.word)
			flags &^= w.bit
		}
	}
	if flags &^= setFlagsShown; flags != 0 {
		s.Flags = append(s.Flags, fmt.Sprintf("0x%x", flags))
	}
	switch dataType := as.u32(unix.NFTA_SET_DATA_TYPE); {
	case as.has(unix.NFTA_SET_OBJ_TYPE):
		s.Data = objectTypes[as.u32(unix.NFTA_SET_OBJ_TYPE)]
		if s.Data == "" {
			s.Data = rs.Type(fmt.Sprintf("object_type_%d", as.u32(unix.NFTA_SET_OBJ_TYPE)))
		}
	case as.has(unix.NFTA_SET_DATA_TYPE) && dataType == nftDataVerdict:
		s.Data = rs.TypeVerdict
	case as.has(unix.NFTA_SET_DATA_TYPE):
		s.Data = setType(dataType, user[udataSetDataByteOrder], user[udataSetDataTypeof])
	}
	switch policy := as.u32(unix.NFTA_SET_POLICY); policy {
	case unix.NFT_SET_POL_PERFORMANCE:
	case unix.NFT_SET_POL_MEMORY:
		s.Policy = "memory"
	default:
		s.Policy = strconv.Itoa(int(policy))
	}
	if desc, ok := as.get(unix.NFTA_SET_DESC); ok {
		s.Size = desc.nested().u32(unix.NFTA_SET_DESC_SIZE)
	}
	for _, x := range statefulExprs(as, nftaSetExpr, nftaSetExpressions) {
		addStateful(x, func(rs.Counter) bool {
			had := s.Counter
			s.Counter, s.CounterLast = true, len(s.Extra) > 0
			return !had
		}, &s.Extra)
	}
	for _, a := range as {
		if !slices.Contains(setAttrs, a.typ) {
			s.Extra = append(s.Extra, unknownAttr(a))
		}
	}
	s.KeyOf = typeof(user[udataSetKeyTypeof], int(as.u32(unix.NFTA_SET_KEY_LEN)))
	s.DataOf = typeof(user[udataSetDataTypeof], int(as.u32(unix.NFTA_SET_DATA_LEN)))
	if s.KeyOf != nil {
		s.Key = sizedType(s.KeyOf)
	}
	if s.DataOf != nil && s.Data != "" && s.Data != rs.TypeVerdict {
		s.Data = sizedType(s.DataOf)
	} else if s.Data == rs.TypeVerdict {
		s.DataOf = nil
	}
	return knownSet{Set: &s, keyLen: int(as.u32(unix.NFTA_SET_KEY_LEN)), dataLen: int(as.u32(unix.NFTA_SET_DATA_LEN))}
}

// unknownAttr shows an attribute that is not understood.
func unknownAttr(a attr) rs.Opaque {
	return rs.Opaque{Name: fmt.Sprintf("attribute %d", a.typ), Data: string(a.data)}
}

// statefulExprs lists the expressions of a set or an element: the kernel has
// one attribute for a single one and another for several.
func statefulExprs(as attrs, one, several uint16) []attr {
	var out []attr
	if x, ok := as.get(one); ok {
		out = append(out, x)
	}
	if list, ok := as.get(several); ok {
		out = append(out, list.nested()...)
	}
	return out
}

// addStateful hands a counter to take, and puts what take does not want, or is
// no counter, into rest.
func addStateful(x attr, take func(rs.Counter) bool, rest *[]rs.Part) {
	for _, p := range decodeRule(rs.FamilyInet, nil, []attr{x}) {
		if c, ok := p.(rs.Counter); !ok || !take(c) {
			*rest = append(*rest, p)
		}
	}
}

// rawElement is an element as the kernel lists it: the end of an interval is
// an element of its own.
type rawElement struct {
	rs.Element
	end bool
}

var elementAttrs = []uint16{
	unix.NFTA_SET_ELEM_KEY, unix.NFTA_SET_ELEM_DATA, unix.NFTA_SET_ELEM_FLAGS, unix.NFTA_SET_ELEM_TIMEOUT,
	unix.NFTA_SET_ELEM_EXPIRATION, unix.NFTA_SET_ELEM_USERDATA, unix.NFTA_SET_ELEM_EXPR, unix.NFTA_SET_ELEM_PAD,
	unix.NFTA_SET_ELEM_OBJREF, nftaSetElemKeyEnd, nftaSetElemExpressions,
}

// decodeElement reads an element. What it does not understand becomes an Opaque
// part.
func decodeElement(s *rs.Set, as attrs) rawElement {
	var e rawElement
	e.Key = elementValue(s.Key, as, unix.NFTA_SET_ELEM_KEY)
	e.End = elementValue(s.Key, as, nftaSetElemKeyEnd)
	if e.End == e.Key {
		// The kernel writes both into every element of a set of ranges.
		e.End = rs.Value{}
	}
	flags := as.u32(unix.NFTA_SET_ELEM_FLAGS)
	e.end, e.CatchAll = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, flags&nftSetElemCatchAll != 0
	if flags&^(unix.NFT_SET_ELEM_INTERVAL_END|nftSetElemCatchAll) != 0 {
		a, _ := as.get(unix.NFTA_SET_ELEM_FLAGS)
		e.Extra = append(e.Extra, unknownAttr(a))
	}
	if data, ok := as.get(unix.NFTA_SET_ELEM_DATA); ok {
		e.holds(s, data)
	}
	e.Object = as.str(unix.NFTA_SET_ELEM_OBJREF)
	e.Timeout, e.Expires = as.u64(unix.NFTA_SET_ELEM_TIMEOUT), as.u64(unix.NFTA_SET_ELEM_EXPIRATION)
	if e.Timeout == s.Timeout {
		// nft does not repeat the set's own.
		e.Timeout = 0
	}
	e.Comment = attr{data: readUserdata(as.bytes(unix.NFTA_SET_ELEM_USERDATA))[udataElementComment]}.str()
	for _, x := range statefulExprs(as, unix.NFTA_SET_ELEM_EXPR, nftaSetElemExpressions) {
		addStateful(x, func(c rs.Counter) bool {
			if e.Counter != nil {
				return false
			}
			e.Counter, e.CounterLast = &c, len(e.Extra) > 0
			return true
		}, &e.Extra)
	}
	for _, a := range as {
		if !slices.Contains(elementAttrs, a.typ) {
			e.Extra = append(e.Extra, unknownAttr(a))
		}
	}
	return e
}

// holds reads what a map holds for an element.
func (e *rawElement) holds(s *rs.Set, data attr) {
	if v, ok := data.nested().get(unix.NFTA_DATA_VERDICT); ok {
		if e.Verdict, ok = decodeVerdict(v); !ok {
			e.Verdict = rs.Verdict{}
			e.Extra = append(e.Extra, rs.Opaque{Name: "verdict", Data: string(v.data)})
		}
		return
	}
	b := dataValue(data)
	e.Data = rs.Value{Type: s.Data, Data: string(b)}
	if s.DataInterval && len(b)%2 == 0 {
		half := len(b) / 2
		e.Data, e.DataEnd = rs.Value{Type: s.Data, Data: string(b[:half])}, rs.Value{Type: s.Data, Data: string(b[half:])}
	}
}

func elementValue(t rs.Type, as attrs, typ uint16) rs.Value {
	a, ok := as.get(typ)
	if !ok {
		return rs.Value{}
	}
	return rs.Value{Type: t, Data: string(dataValue(a))}
}

// joinIntervals makes elements with an end of the pairs that an interval set
// is kept as, where the end is the first key behind the interval.
func joinIntervals(s *rs.Set, list []rawElement) []rs.Element {
	out := make([]rs.Element, 0, len(list))
	isInterval := slices.Contains(s.Flags, "interval")
	if !isInterval || s.Key.IsConcat() {
		for _, e := range list {
			if isInterval {
				e.Key, e.End = turnedKey(e.Key), turnedKey(e.End)
			}
			out = append(out, e.Element)
		}
		return out
	}
	slices.SortStableFunc(list, func(a, b rawElement) int {
		if c := strings.Compare(a.Key.Data, b.Key.Data); c != 0 {
			return c
		}
		// An interval that ends here stands before the one that begins here.
		switch {
		case a.end && !b.end:
			return -1
		case b.end && !a.end:
			return 1
		}
		return 0
	})
	for i, e := range list {
		if e.end {
			continue
		}
		switch {
		case e.CatchAll:
		case i+1 < len(list):
			e.End = before(list[i+1].Key)
		default:
			e.End = rs.Value{Type: e.Key.Type, Data: strings.Repeat("\xff", len(e.Key.Data))}
		}
		if e.Key, e.End = turnedKey(e.Key), turnedKey(e.End); e.End == e.Key {
			e.End = rs.Value{}
		}
		out = append(out, e.Element)
	}
	return out
}

// sortListed puts the elements of a set into the order in which nft lists them
// (list_expr_sort in nft's mergesort.c): numbers by their value, names and
// concatenations as if their bytes were a number in the host's order, flags by
// the first of them; ranges of concatenations as the kernel lists them.
func sortListed(s *rs.Set) {
	interval := slices.Contains(s.Flags, "interval")
	if !interval {
		// nft's sort turns the order of equals round.
		slices.Reverse(s.Elements)
	}
	slices.SortStableFunc(s.Elements, func(a, b rs.Element) int {
		if a.CatchAll != b.CatchAll {
			if a.CatchAll {
				return 1
			}
			return -1
		}
		if interval {
			return 0
		}
		return bytes.Compare(listKey(a.Key, len(b.Key.Data)), listKey(b.Key, len(a.Key.Data)))
	})
}

// listKey is a number in network byte order, at least so many bytes long, by
// which an element stands among others.
func listKey(v rs.Value, size int) []byte {
	var key []byte
	parts := v.Parts()
	for _, p := range parts {
		key = append(key, p.Data...)
	}
	if len(parts) > 1 || v.Type.HostOrder() || v.Type == rs.TypeIfname || v.Type == rs.TypeString {
		slices.Reverse(key)
	}
	if n, ok := v.Uint(); ok && v.Type.IsFlags() && v.Type != rs.TypeBitmask {
		key = binary.BigEndian.AppendUint64(nil, n&-n)
	}
	return append(make([]byte, max(size-len(key), 0)), key...)
}

// turnedKey is a key of an interval set in the other byte order, where its type
// has two: the kernel holds such keys in network byte order, which has a before
// and an after.
func turnedKey(v rs.Value) rs.Value {
	parts := v.Parts()
	for i, p := range parts {
		if turns(p.Type, len(p.Data)) {
			parts[i].Data = string(turned([]byte(p.Data)))
		}
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return rs.Concat(parts...)
}

// before is the key just below v, which is in network byte order as the keys
// of every interval set are.
func before(v rs.Value) rs.Value {
	b := []byte(v.Data)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return rs.Value{Type: v.Type, Data: string(b)}
}

// after is the key just above v; false where there is none.
func after(v rs.Value) (rs.Value, bool) {
	b := []byte(v.Data)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return rs.Value{Type: v.Type, Data: string(b)}, true
		}
	}
	return rs.Value{}, false
}
