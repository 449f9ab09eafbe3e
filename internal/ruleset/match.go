package ruleset

import (
	"net/netip"
	"strings"
)

// Part is one piece of a rule: a [Match] or a [Statement]. A packet meets the
// parts from left to right and leaves the rule at the first match that fails.
type Part interface {
	// String writes the part in nft's words.
	String() string
	part()
}

// Match is a part that lets a packet pass on or not.
type Match interface {
	Part
	match()
}

// Op is the operator of a match, as nft writes it.
type Op string

// The operators. Equal is not written by nft.
const (
	Equal          Op = "=="
	NotEqual       Op = "!="
	Less           Op = "<"
	LessOrEqual    Op = "<="
	Greater        Op = ">"
	GreaterOrEqual Op = ">="
)

// text is the operator with a blank behind it, or nothing where nft leaves it
// out.
func (o Op) text() string {
	if o == Equal || o == "" {
		return ""
	}
	return string(o) + " "
}

// Compare holds where an expression stands in relation Op to a constant. For a
// type of flags, Equal means that exactly these flags are set; see [HasAny].
type Compare struct {
	Left  Expr
	Op    Op
	Right Value
}

// Is is the comparison for equality.
func Is(left Expr, right Value) Compare { return Compare{left, Equal, right} }

// IsNot is the comparison for inequality.
func IsNot(left Expr, right Value) Compare { return Compare{left, NotEqual, right} }

func (c Compare) String() string {
	switch {
	case c.OfFlags():
		masked := c.Left.(Masked)
		return masked.Expr.String() + " " + c.Op.text() + c.Right.String() + " / " + masked.Mask.String()
	case isOperation(c.Left), c.Right.Type.IsFlags() && !c.Right.Type.IsConcat() && c.Right.Type != TypeCtLabel:
		// nft leaves "==" out only where it cannot be mistaken for a test of bits.
		op := c.Op
		if op == "" {
			op = Equal
		}
		if c.Right.Type.IsFlags() {
			return c.Left.String() + " " + string(op) + " " + alternatives(c.Right)
		}
		return c.Left.String() + " " + string(op) + " " + operand(c.Left, c.Right)
	}
	return c.Left.String() + " " + c.Op.text() + operand(c.Left, c.Right)
}

// OfFlags says whether c asks for exactly some of several flags, which nft
// writes "syn / syn,ack".
func (c Compare) OfFlags() bool {
	masked, ok := c.Left.(Masked)
	return ok && masked.Mask.Type.IsFlags() && strings.Contains(masked.Mask.String(), ",") &&
		(c.Op == Equal || c.Op == NotEqual || c.Op == "")
}

// operand writes a constant that stands against an expression: bytes of a
// packet that have no name in hexadecimal.
func operand(left Expr, v Value) string {
	switch x := left.(type) {
	case Masked:
		return operand(x.Expr, v)
	case Binary:
		return operand(x.Left, v)
	case Payload:
		if x.Field == "" {
			return v.raw()
		}
	}
	return v.String()
}

// alternatives joins flags as an expression.
func alternatives(flags Value) string { return strings.ReplaceAll(flags.String(), ",", " | ") }

// InPrefix holds where an address lies in a prefix.
type InPrefix struct {
	Left   Expr
	Op     Op
	Prefix netip.Prefix
}

func (m InPrefix) String() string {
	return m.Left.String() + " " + m.Op.text() + m.Prefix.String()
}

// InRange holds where an expression lies between two constants, both included.
type InRange struct {
	Left     Expr
	Op       Op
	From, To Value
}

func (m InRange) String() string {
	op := m.Op.text()
	if isOperation(m.Left) && op == "" {
		op = string(Equal) + " "
	}
	return m.Left.String() + " " + op + m.From.numeric() + "-" + m.To.numeric()
}

// HasAny holds where at least one of the flags in Flags is set; with NotEqual,
// where none is.
type HasAny struct {
	Left  Expr
	Op    Op
	Flags Value
}

// Has is the match for any of some flags.
func Has(left Expr, flags Value) HasAny { return HasAny{left, Equal, flags} }

func (m HasAny) String() string {
	op := ""
	if m.Op == NotEqual {
		op = "! "
	}
	return m.Left.String() + " " + op + m.Flags.String()
}

// Lookup holds where an expression is an element of a set.
type Lookup struct {
	Left Expr
	Op   Op
	Set  string
	// Anonymous is the set itself where it has no name of its own and was
	// written inside the rule.
	Anonymous *Set
}

// In is the lookup in a named set.
func In(left Expr, set string) Lookup { return Lookup{Left: left, Op: Equal, Set: set} }

func (l Lookup) String() string {
	op := l.Op.text()
	if isOperation(l.Left) && op == "" {
		op = string(Equal) + " "
	}
	return l.Left.String() + " " + op + setText(l.Set, l.Anonymous)
}

// setText names a set, or writes its elements where it is anonymous.
func setText(name string, anonymous *Set) string {
	if anonymous == nil {
		return "@" + name
	}
	texts := make([]string, len(anonymous.Elements))
	for i, e := range anonymous.Elements {
		texts[i] = e.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

func (Compare) part()   {}
func (InPrefix) part()  {}
func (InRange) part()   {}
func (HasAny) part()    {}
func (Lookup) part()    {}
func (Compare) match()  {}
func (InPrefix) match() {}
func (InRange) match()  {}
func (HasAny) match()   {}
func (Lookup) match()   {}
