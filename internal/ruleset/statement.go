package ruleset

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Statement is a part that does something with a packet.
type Statement interface {
	Part
	statement()
}

// Counter counts the packets that get to it. In a NAT chain these are the
// first packets of connections.
type Counter struct{ Packets, Bytes uint64 }

func (c Counter) String() string {
	return fmt.Sprintf("counter packets %d bytes %d", c.Packets, c.Bytes)
}

// VerdictKind is what a verdict does.
type VerdictKind string

// The verdicts, as nft writes them.
const (
	Accept   VerdictKind = "accept"
	Drop     VerdictKind = "drop"
	Continue VerdictKind = "continue"
	Return   VerdictKind = "return"
	Jump     VerdictKind = "jump"
	Goto     VerdictKind = "goto"
	Queue    VerdictKind = "queue"
)

// Verdict ends a packet's way through a rule. Chain is where Jump and Goto go.
type Verdict struct {
	Kind  VerdictKind
	Chain string
	// Anonymous is the chain itself where it has no name of its own and was
	// written inside the rule.
	Anonymous *Chain
}

// JumpTo is the verdict that calls a chain and comes back.
func JumpTo(chain string) Verdict { return Verdict{Kind: Jump, Chain: chain} }

// GotoChain is the verdict that goes to a chain and does not come back here.
func GotoChain(chain string) Verdict { return Verdict{Kind: Goto, Chain: chain} }

func (v Verdict) String() string { return v.text(Format{}) }

func (v Verdict) text(f Format) string {
	if v.Anonymous != nil {
		var b strings.Builder
		for _, r := range v.Anonymous.Rules {
			fmt.Fprintf(&b, "\t\t\t%s%s\n", r.text(f), f.handle(r.Handle))
		}
		return string(v.Kind) + " {\n" + b.String() + "\t\t}"
	}
	if v.Chain == "" {
		return string(v.Kind)
	}
	return string(v.Kind) + " " + v.Chain
}

// VMap looks a key up in a verdict map and does what stands there; a packet
// whose key is not in the map goes on to the next rule.
type VMap struct {
	Key       Expr
	Map       string
	Anonymous *Set
}

func (v VMap) String() string { return v.Key.String() + " vmap " + setText(v.Map, v.Anonymous) }

// Reject drops a packet and says so to its sender. With is nft's word for the
// answer, empty for the default of the family.
type Reject struct{ With string }

func (r Reject) String() string {
	if r.With == "" {
		return "reject"
	}
	return "reject with " + r.With
}

// RejectDefault is what a reject that names no answer answers in a table of the
// family: port unreachable, in the family's own words.
func RejectDefault(f Family) string {
	switch f {
	case FamilyIP:
		return "icmp port-unreachable"
	case FamilyIP6:
		return "icmpv6 port-unreachable"
	}
	return "icmpx port-unreachable"
}

// Log writes a line about the packet to the kernel's log.
type Log struct {
	Prefix string
	// Level is nft's word for it, empty for the default, warn.
	Level string
	// Group is the netlink group that takes the packet instead, where HasGroup.
	Group    uint16
	HasGroup bool
	// Snaplen is how many bytes of the packet the group gets, and Threshold how
	// many packets it gets at a time; 0 for the defaults.
	Snaplen   uint32
	Threshold uint16
	// Flags are nft's words for what else of the packet is logged: "tcp
	// sequence", "ip options".
	Flags []string
}

func (l Log) String() string {
	prefix, group, level, snaplen, threshold, flags := "", "", "", "", "", ""
	if l.Prefix != "" {
		prefix = "prefix " + quote(l.Prefix)
	}
	if l.HasGroup {
		group = fmt.Sprintf("group %d", l.Group)
	}
	if l.Level != "" {
		level = "level " + l.Level
	}
	if l.Snaplen != 0 {
		snaplen = fmt.Sprintf("snaplen %d", l.Snaplen)
	}
	if l.Threshold != 0 {
		threshold = fmt.Sprintf("queue-threshold %d", l.Threshold)
	}
	if len(l.Flags) > 0 {
		flags = "flags " + strings.Join(l.Flags, " flags ")
	}
	return joined("log", prefix, group, snaplen, threshold, level, flags)
}

// Limit lets packets through up to a rate; with Over, those beyond it.
type Limit struct {
	Rate  uint64
	Unit  string // "second", "minute", "hour", "day", "week"
	Burst uint32
	Over  bool
	Bytes bool
}

func (l Limit) String() string {
	over := ""
	if l.Over {
		over = "over"
	}
	rate, burst := fmt.Sprintf("%d/%s", l.Rate, l.Unit), ""
	if l.Bytes {
		rate = byteRate(l.Rate) + "/" + l.Unit
		if l.Burst != 0 {
			burst = "burst " + byteRate(uint64(l.Burst))
		}
	} else if l.Burst != 0 && l.Burst != 5 {
		burst = fmt.Sprintf("burst %d packets", l.Burst)
	}
	return joined("limit rate", over, rate, burst)
}

// byteRate writes a number of bytes as nft does.
func byteRate(n uint64) string {
	n, unit := ByteUnit(n)
	return fmt.Sprintf("%d %s", n, unit)
}

// ByteUnit is a number of bytes in the largest unit of nft's that divides it.
func ByteUnit(n uint64) (uint64, string) {
	units := []string{"bytes", "kbytes", "mbytes"}
	i := 0
	for i < len(units)-1 && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return n, units[i]
}

// Mangle sets a meta or ct key, or bytes of the packet, to a constant, or where
// From is given, to what that reads.
type Mangle struct {
	Left  Expr
	Right Value
	From  Expr
}

func (m Mangle) String() string {
	right := operand(m.Left, m.Right)
	switch {
	case m.From != nil:
		right = m.From.String()
	case m.Left == Expr(Ct{Key: CtEvent}):
	case m.Right.Type.IsFlags() && !m.Right.Type.IsConcat():
		right = alternatives(m.Right)
	}
	return m.Left.String() + " set " + right
}

// Notrack keeps a packet out of connection tracking.
type Notrack struct{}

func (Notrack) String() string { return "notrack" }

// Compat is an iptables match or target that iptables-nft stored as such.
type Compat struct {
	Target   bool
	Name     string
	Revision uint32
	// Info is the extension's own structure, as raw bytes.
	Info string
	// Family is that of the rule's table, Proto the transport protocol that the
	// rule has checked for.
	Family Family
	Proto  string
}

// String writes the extension as nft lists it: with the help of the libraries of
// iptables it translates most.
func (c Compat) String() string {
	if w, ok := c.words(); ok && w.translated {
		return w.nft
	}
	if c.Target {
		return "xt target " + c.Name
	}
	return "xt match " + c.Name
}

// Opaque is an expression that the reader does not understand: its name in the
// kernel and its raw attributes. It is shown, never dropped.
type Opaque struct {
	Name string
	Data string
}

func (o Opaque) String() string {
	return fmt.Sprintf("unknown %q 0x%s", o.Name, hex.EncodeToString([]byte(o.Data)))
}

// joined puts blanks between the words that are not empty.
func joined(words ...string) string {
	kept := words[:0:0]
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

func (Counter) part() {}
func (Verdict) part() {}
func (VMap) part()    {}
func (Reject) part()  {}
func (Log) part()     {}
func (Limit) part()   {}
func (Mangle) part()  {}
func (Notrack) part() {}
func (Compat) part()  {}
func (Opaque) part()  {}

func (Counter) statement() {}
func (Verdict) statement() {}
func (VMap) statement()    {}
func (Reject) statement()  {}
func (Log) statement()     {}
func (Limit) statement()   {}
func (Mangle) statement()  {}
func (Notrack) statement() {}
func (Compat) statement()  {}
func (Opaque) statement()  {}
