package ruleset

import (
	"fmt"
	"strings"
)

// Binary joins an expression with a constant by an operator of bits: "|", "^",
// "<<", ">>". That with "&" is [Masked].
type Binary struct {
	Left  Expr
	Op    string
	Right Value
}

// Type implements [Expr].
func (b Binary) Type() Type { return b.Left.Type() }

func (b Binary) String() string {
	right := operand(b.Left, b.Right)
	if b.Right.Type.IsFlags() {
		right = alternatives(b.Right)
		if strings.Contains(right, "|") && binding[b.Op] < binding["|"] {
			right = "(" + right + ")"
		}
	}
	return operandText(b.Left, b.Op) + " " + b.Op + " " + right
}

// binding is how loosely nft's operators bind (expr_binop_precedence in nft's
// expression.c).
var binding = map[string]int{"<<": 1, ">>": 1, "&": 2, "^": 3, "|": 4}

// operandText writes the left side of an operator, in brackets where it binds
// looser.
func operandText(x Expr, op string) string {
	inner := ""
	switch x := x.(type) {
	case Binary:
		inner = x.Op
	case Masked:
		inner = "&"
	}
	if inner != "" && binding[op] < binding[inner] {
		return "(" + x.String() + ")"
	}
	return x.String()
}

// isOperation says whether nft must write == behind x: without it a test of
// bits could be meant.
func isOperation(x Expr) bool {
	switch x.(type) {
	case Masked, Binary:
		return true
	}
	return false
}

// MapExpr is what a map holds for a key.
type MapExpr struct {
	Key Expr
	Map string
	// Anonymous is the map itself where it has no name of its own.
	Anonymous *Set
	// Data is the type of what the map holds.
	Data Type
}

// Type implements [Expr].
func (m MapExpr) Type() Type { return m.Data }

func (m MapExpr) String() string { return m.Key.String() + " map " + setText(m.Map, m.Anonymous) }

// Const is a constant where an expression is asked for.
type Const struct{ Value Value }

// Type implements [Expr].
func (c Const) Type() Type { return c.Value.Type }

func (c Const) String() string { return c.Value.String() }

// Numgen is a number that the kernel makes for each packet: one more each time,
// or a random one; from Offset on, Mod different ones.
type Numgen struct {
	Random      bool
	Mod, Offset uint32
}

// Type implements [Expr].
func (Numgen) Type() Type { return TypeHostInteger }

func (n Numgen) String() string {
	mode := "inc"
	if n.Random {
		mode = "random"
	}
	return fmt.Sprintf("numgen %s mod %d%s", mode, n.Mod, offsetText(n.Offset))
}

func offsetText(offset uint32) string {
	if offset == 0 {
		return ""
	}
	return fmt.Sprintf(" offset %d", offset)
}

// Hash is a number that the kernel makes of an expression, or where Of is nil,
// of the connection, the same in both directions.
type Hash struct {
	Of          Expr
	Mod, Offset uint32
	Seed        uint32
	HasSeed     bool
}

// Type implements [Expr].
func (Hash) Type() Type { return TypeHostInteger }

func (h Hash) String() string {
	if h.Of == nil {
		return fmt.Sprintf("symhash mod %d%s", h.Mod, offsetText(h.Offset))
	}
	seed := ""
	if h.HasSeed {
		seed = fmt.Sprintf(" seed 0x%x", h.Seed)
	}
	return fmt.Sprintf("jhash %s mod %d%s%s", h.Of, h.Mod, seed, offsetText(h.Offset))
}

// Socket reads the socket that a packet is for.
type Socket struct {
	// Key is nft's word: transparent, mark, wildcard, cgroupv2.
	Key string
	// Level is the level of a control group.
	Level uint32
}

// Type implements [Expr].
func (s Socket) Type() Type {
	switch s.Key {
	case "mark":
		return TypeMark
	case "cgroupv2":
		return TypeCGroupV2
	}
	return TypeInteger
}

func (s Socket) String() string {
	if s.Key == "cgroupv2" {
		return fmt.Sprintf("socket cgroupv2 level %d", s.Level)
	}
	return "socket " + s.Key
}

// Route reads the route that a packet takes. Family stands before the key where
// the rule does not say it otherwise.
type Route struct {
	// Key is nft's word: classid, nexthop, mtu, ipsec.
	Key    string
	Family string
}

// Type implements [Expr].
func (r Route) Type() Type {
	switch r.Key {
	case "classid":
		return TypeRealm
	case "nexthop":
		if r.Family == "ip6" {
			return TypeIPv6Addr
		}
		return TypeIPv4Addr
	case "ipsec":
		return TypeBoolean
	}
	return TypeHostInteger
}

func (r Route) String() string {
	if r.Key == "nexthop" {
		return joined("rt", r.Family, r.Key)
	}
	return "rt " + r.Key
}

// OSF is the operating system that a connection's first packet looks like.
type OSF struct {
	// TTL is nft's word for how the time to live counts: loose, skip, or empty.
	TTL string
	// Version asks for the version too.
	Version bool
}

// Type implements [Expr].
func (OSF) Type() Type { return TypeString }

func (o OSF) String() string {
	ttl, what := "", "name"
	if o.TTL != "" {
		ttl = "ttl " + o.TTL
	}
	if o.Version {
		what = "version"
	}
	return joined("osf", ttl, what)
}

// IPsec reads the security policy of a packet.
type IPsec struct {
	// Dir is in or out.
	Dir string
	// Policy is the number of the policy, where there are several.
	Policy uint32
	// Key is nft's words: reqid, spi, ip saddr, ip6 daddr.
	Key string
}

// Type implements [Expr].
func (x IPsec) Type() Type {
	switch {
	case x.Key == "reqid":
		return TypeHostInteger
	case strings.HasPrefix(x.Key, "ip6"):
		return TypeIPv6Addr
	case strings.HasPrefix(x.Key, "ip"):
		return TypeIPv4Addr
	}
	return TypeInteger
}

func (x IPsec) String() string {
	policy := ""
	if x.Policy != 0 {
		policy = fmt.Sprintf("spnum %d", x.Policy)
	}
	return joined("ipsec", x.Dir, policy, x.Key)
}

func (Binary) expr()  {}
func (MapExpr) expr() {}
func (Const) expr()   {}
func (Numgen) expr()  {}
func (Hash) expr()    {}
func (Socket) expr()  {}
func (Route) expr()   {}
func (OSF) expr()     {}
func (IPsec) expr()   {}
