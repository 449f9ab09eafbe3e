package inspect

import (
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// truth is what can be said of a condition about a packet of which not
// everything is known.
type truth int8

const (
	no    truth = -1
	maybe truth = 0
	yes   truth = 1
)

func (t truth) not() truth { return -t }

func both(a, b truth) truth { return min(a, b) }

// span is a range of values, both ends included, as bytes whose order is that
// of the values.
type span struct{ low, high string }

func (s span) contains(o span) bool { return s.low <= o.low && o.high <= s.high }
func (s span) meets(o span) bool    { return s.low <= o.high && o.low <= s.high }

const ifnameSize = 16

// spanOf is the range from one value to another.
func spanOf(from, to ruleset.Value) span {
	return span{ordered(from, "\x00"), ordered(to, "\x00")}
}

// spanAt is the range that one value stands for: itself, or all names that
// begin so for the beginning of a name.
func spanAt(v ruleset.Value) span {
	if v.Type == ruleset.TypeIfname && len(v.Data) < ifnameSize && !strings.HasSuffix(v.Data, "\x00") {
		return span{ordered(v, "\x00"), ordered(v, "\xff")}
	}
	return spanOf(v, v)
}

// ordered gives a value's bytes so that comparing them compares the values.
func ordered(v ruleset.Value, fill string) string {
	if v.Type == ruleset.TypeIfname {
		return v.Data + strings.Repeat(fill, max(0, ifnameSize-len(v.Data)))
	}
	n, ok := v.Uint()
	if !ok || !v.Type.HostOrder() {
		return v.Data
	}
	b := make([]byte, len(v.Data))
	for i := range b {
		b[len(b)-1-i] = byte(n >> (8 * i))
	}
	return string(b)
}

// known is what is known of a value of a packet: it lies in one of in, where
// there are any, and in none of out, which
// is in order. Of flags, those of mask are as in bits.
// The zero value says nothing.
type known struct {
	in, out    []span
	mask, bits uint64
}

func exactly(values ...ruleset.Value) known {
	var k known
	for _, v := range values {
		k.in = append(k.in, spanAt(v))
	}
	return k
}

func noneOf(values ...ruleset.Value) known { return known{out: merged(exactly(values...).in)} }

// flags knows the flags of mask.
func flags(mask, bits uint32) known { return known{mask: uint64(mask), bits: uint64(bits)} }

// allFlags is the mask of a value whose flags are all known.
const allFlags = ^uint32(0)

// within says whether the value lies in one of several ranges.
func (k known) within(list []span) truth {
	if len(k.out) > 0 {
		list = slices.DeleteFunc(slices.Clone(list), k.excludes)
	}
	if len(list) == 0 {
		return no
	}
	if len(k.in) == 0 {
		return maybe
	}
	covered, met := true, false
	for _, in := range k.in {
		covered = covered && slices.ContainsFunc(list, func(s span) bool { return s.contains(in) })
		met = met || slices.ContainsFunc(list, in.meets)
	}
	switch {
	case covered:
		return yes
	case met:
		return maybe
	}
	return no
}

// excludes says whether the value cannot lie in a range.
func (k known) excludes(s span) bool {
	i, found := slices.BinarySearchFunc(k.out, s.low, func(o span, low string) int { return strings.Compare(o.low, low) })
	if found {
		return k.out[i].contains(s)
	}
	return i > 0 && k.out[i-1].contains(s)
}

// merged puts ranges in order and unites those that overlap.
func merged(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return strings.Compare(a.low, b.low) })
	var out []span
	for _, s := range list {
		if n := len(out); n > 0 && s.low <= out[n-1].high {
			out[n-1].high = max(out[n-1].high, s.high)
			continue
		}
		out = append(out, s)
	}
	return out
}

// compared says whether the value stands in relation op to a constant; != is
// for the caller to turn round.
func (k known) compared(op ruleset.Op, v ruleset.Value) truth {
	at := spanAt(v)
	below := span{strings.Repeat("\x00", len(at.low)), at.high}
	above := span{at.low, strings.Repeat("\xff", len(at.high))}
	switch op {
	case ruleset.Less:
		return k.within([]span{above}).not()
	case ruleset.LessOrEqual:
		return k.within([]span{below})
	case ruleset.Greater:
		return k.within([]span{below}).not()
	case ruleset.GreaterOrEqual:
		return k.within([]span{above})
	}
	if k.mask != 0 {
		n, _ := v.Uint()
		return k.masked(^uint64(0), n)
	}
	return k.within([]span{at})
}

// masked says whether the flags of mask are exactly those of want.
func (k known) masked(mask, want uint64) truth {
	// A value of flags has 32 bits: those above are all zero.
	mask &= uint64(allFlags)
	switch {
	case (k.bits^want)&k.mask&mask != 0 || want&^mask != 0:
		return no
	case mask&^k.mask == 0:
		return yes
	}
	return maybe
}

// any says whether one of some flags is set.
func (k known) any(flags uint64) truth {
	switch {
	case k.bits&k.mask&flags != 0:
		return yes
	case flags&^k.mask == 0:
		return no
	}
	return maybe
}
