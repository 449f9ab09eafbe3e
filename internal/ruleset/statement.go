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
}

// JumpTo is the verdict that calls a chain and comes back.
func JumpTo(chain string) Verdict { return Verdict{Jump, chain} }

// GotoChain is the verdict that goes to a chain and does not come back here.
func GotoChain(chain string) Verdict { return Verdict{Goto, chain} }

func (v Verdict) String() string {
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

// NATKind is the side of a packet that a translation changes.
type NATKind string

// The translations that take an address.
const (
	SNAT NATKind = "snat"
	DNAT NATKind = "dnat"
)

// NAT translates the source or destination of a connection to a constant, or
// to what a map holds for a key.
type NAT struct {
	Kind NATKind
	// Family is "ip" or "ip6"; empty for the family of the table.
	Family string
	// Addr and Port are the constants; both empty where Map is used.
	Addr, Port Value
	// Key is looked up in Map, which holds addresses and ports, or addresses
	// alone.
	Key      Expr
	Map      string
	AddrOnly bool
	Flags    []string
}

func (n NAT) String() string {
	var to string
	switch {
	case n.Key != nil:
		to = n.Key.String() + " map @" + n.Map
	case n.Addr.Data == "":
		to = ":" + n.Port.String()
	case n.Port.Data != "" && n.Addr.Type == TypeIPv6Addr:
		to = "[" + n.Addr.String() + "]:" + n.Port.String()
	case n.Port.Data != "":
		to = n.Addr.String() + ":" + n.Port.String()
	default:
		to = n.Addr.String()
	}
	return joined(string(n.Kind), n.Family, "to", to, strings.Join(n.Flags, ","))
}

// Masquerade translates the source of a connection to the address of the
// interface that it leaves by.
type Masquerade struct{ Flags []string }

func (m Masquerade) String() string { return joined("masquerade", strings.Join(m.Flags, ",")) }

// Redirect translates the destination of a connection to this host; Port is
// empty where the port stays.
type Redirect struct {
	Port  Value
	Flags []string
}

func (r Redirect) String() string {
	to := ""
	if r.Port.Data != "" {
		to = "to :" + r.Port.String()
	}
	return joined("redirect", to, strings.Join(r.Flags, ","))
}

// Reject drops a packet and says so to its sender. With is nft's word for the
// answer, empty for the default of the family.
type Reject struct{ With string }

func (r Reject) String() string {
	if r.With == "" {
		return "reject"
	}
	return "reject with " + r.With
}

// Log writes a line about the packet to the kernel's log.
type Log struct {
	Prefix string
	// Level is nft's word for it, empty for the default, warn.
	Level string
	// Group is the netlink group that takes the packet instead, where HasGroup.
	Group    uint16
	HasGroup bool
}

func (l Log) String() string {
	prefix, group, level := "", "", ""
	if l.Prefix != "" {
		prefix = "prefix " + quote(l.Prefix)
	}
	if l.HasGroup {
		group = fmt.Sprintf("group %d", l.Group)
	}
	if l.Level != "" {
		level = "level " + l.Level
	}
	return joined("log", prefix, group, level)
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
	} else if l.Burst != 5 {
		burst = fmt.Sprintf("burst %d packets", l.Burst)
	}
	return joined("limit rate", over, rate, burst)
}

// byteRate writes a number of bytes in the largest unit that divides it, as
// nft does.
func byteRate(n uint64) string {
	units := []string{"bytes", "kbytes", "mbytes"}
	i := 0
	for i < len(units)-1 && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// Mangle sets a meta or ct key, or bytes of the packet, to a constant.
type Mangle struct {
	Left  Expr
	Right Value
}

func (m Mangle) String() string { return m.Left.String() + " set " + m.Right.String() }

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
}

func (c Compat) String() string {
	if c.Target {
		return "xt target " + quote(c.Name)
	}
	return "xt match " + quote(c.Name)
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

func (Counter) part()    {}
func (Verdict) part()    {}
func (VMap) part()       {}
func (NAT) part()        {}
func (Masquerade) part() {}
func (Redirect) part()   {}
func (Reject) part()     {}
func (Log) part()        {}
func (Limit) part()      {}
func (Mangle) part()     {}
func (Notrack) part()    {}
func (Compat) part()     {}
func (Opaque) part()     {}

func (Counter) statement()    {}
func (Verdict) statement()    {}
func (VMap) statement()       {}
func (NAT) statement()        {}
func (Masquerade) statement() {}
func (Redirect) statement()   {}
func (Reject) statement()     {}
func (Log) statement()        {}
func (Limit) statement()      {}
func (Mangle) statement()     {}
func (Notrack) statement()    {}
func (Compat) statement()     {}
func (Opaque) statement()     {}
