package inspect

import (
	"nftnet/internal/ruleset"
)

// test is a match taken apart: what is read, whether the answer is turned
// round, and what it is held against.
type test struct {
	left    ruleset.Expr
	negated bool
	against operand
}

// operand is the right side of a match; one of its fields is given.
type operand struct {
	// value is compared by op.
	value ruleset.Value
	op    ruleset.Op
	// prefix and bounds are what the left side lies in.
	prefix ruleset.InPrefix
	bounds ruleset.InRange
	// flags are those of which one must be set.
	flags ruleset.Value
	// set names a set; elements are those of an anonymous one.
	set       string
	anonymous *ruleset.Set
}

// form tells which field of an operand is given, by the ids of templates.
func (o operand) form() string {
	switch {
	case o.anonymous != nil:
		return "list"
	case o.set != "":
		return "set"
	case o.prefix.Prefix.IsValid():
		return "prefix"
	case o.bounds.Left != nil:
		return "range"
	case o.flags.Data != "":
		return "flags"
	case o.op == ruleset.Equal || o.op == ruleset.NotEqual || o.op == "":
		return "one"
	}
	return "order"
}

func testOf(m ruleset.Match) test {
	switch m := m.(type) {
	case ruleset.Compare:
		return test{m.Left, m.Op == ruleset.NotEqual, operand{value: m.Right, op: m.Op}}
	case ruleset.InPrefix:
		return test{m.Left, m.Op == ruleset.NotEqual, operand{prefix: m}}
	case ruleset.InRange:
		return test{m.Left, m.Op == ruleset.NotEqual, operand{bounds: m}}
	case ruleset.HasAny:
		return test{m.Left, m.Op == ruleset.NotEqual, operand{flags: m.Flags}}
	case ruleset.Lookup:
		return test{m.Left, m.Op == ruleset.NotEqual, operand{set: m.Set, anonymous: m.Anonymous}}
	}
	return test{}
}
