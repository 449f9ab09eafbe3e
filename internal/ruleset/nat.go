package ruleset

import (
	"strings"
)

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
	// Addr and Port are the constants; both empty where Map is used. AddrEnd and
	// PortEnd are the last of a range.
	Addr, Port       Value
	AddrEnd, PortEnd Value
	// Key is looked up in Map, which holds addresses and ports, or addresses
	// alone.
	Key      Expr
	Map      string
	AddrOnly bool
	// Anonymous is the map itself where it has no name of its own.
	Anonymous *Set
	// To is what gives the address where it is neither a constant nor a map's.
	To Expr
	// Prefix keeps the part of the address that belongs to the host, and changes
	// that of the network alone.
	Prefix bool
	Flags  []string
}

func (n NAT) String() string {
	prefix := ""
	if n.Prefix {
		prefix = "prefix"
	}
	return joined(string(n.Kind), n.Family, prefix, "to", n.target(), strings.Join(n.Flags, ","))
}

func (n NAT) target() string {
	var addr string
	switch {
	case n.Key != nil:
		return n.Key.String() + " map " + setText(n.Map, n.Anonymous)
	case n.To != nil:
		addr = n.To.String()
	case n.Addr.Data != "":
		addr = n.addrText()
	}
	if n.Port.Data == "" {
		return addr
	}
	return addr + ":" + spanText(n.Port, n.PortEnd)
}

// addrText writes the address or range; one of IPv6 in brackets where a port
// follows.
func (n NAT) addrText() string {
	brackets := n.Port.Data != "" && n.Addr.Type == TypeIPv6Addr
	if n.AddrEnd.Data != "" {
		if p, ok := PrefixOf(n.Addr, n.AddrEnd); ok && !brackets {
			return p.String()
		}
	}
	texts := []string{n.Addr.String()}
	if n.AddrEnd.Data != "" {
		texts = append(texts, n.AddrEnd.String())
	}
	for i := range texts {
		if brackets {
			texts[i] = "[" + texts[i] + "]"
		}
	}
	return strings.Join(texts, "-")
}

// spanText writes a value, or the values from it to another.
func spanText(from, to Value) string {
	if to.Data == "" {
		return from.String()
	}
	return from.String() + "-" + to.String()
}

// Masquerade translates the source of a connection to the address of the
// interface that it leaves by, and to one of the ports from Port to PortEnd
// where they are given.
type Masquerade struct {
	Flags         []string
	Port, PortEnd Value
}

func (m Masquerade) String() string {
	return joined("masquerade", toPort(m.Port, m.PortEnd, nil), strings.Join(m.Flags, ","))
}

// Redirect translates the destination of a connection to this host; Port is
// empty where the port stays. To gives the port where it is no constant.
type Redirect struct {
	Port    Value
	Flags   []string
	PortEnd Value
	To      Expr
}

func (r Redirect) String() string {
	return joined("redirect", toPort(r.Port, r.PortEnd, r.To), strings.Join(r.Flags, ","))
}

func toPort(from, to Value, x Expr) string {
	switch {
	case x != nil:
		return "to :" + x.String()
	case from.Data == "":
		return ""
	}
	return "to :" + spanText(from, to)
}

// TProxy hands a packet to a socket of this host without changing it. Addr and
// Port are empty where the socket's are the packet's.
type TProxy struct {
	// Family is "ip" or "ip6" in a table of both.
	Family     string
	Addr, Port Expr
}

func (p TProxy) String() string {
	to := ""
	if p.Addr != nil {
		to = p.Addr.String()
		if c, ok := p.Addr.(Const); ok && c.Value.Type == TypeIPv6Addr {
			to = "[" + to + "]"
		}
	}
	if p.Port != nil {
		to += ":" + p.Port.String()
	}
	return joined("tproxy", p.Family, "to", to)
}

// Dup sends a copy of the packet to another host, by a device where Device is
// given; in a table of family netdev To is the device.
type Dup struct{ To, Device Expr }

func (d Dup) String() string {
	if d.Device == nil {
		return "dup to " + d.To.String()
	}
	return "dup to " + d.To.String() + " device " + d.Device.String()
}

// Forward sends the packet out by a device as it is; to the neighbour Addr of
// Family where it is given.
type Forward struct {
	Device Expr
	Addr   Expr
	Family string
}

func (f Forward) String() string {
	if f.Addr == nil {
		return "fwd to " + f.Device.String()
	}
	return "fwd " + f.Family + " to " + f.Addr.String() + " device " + f.Device.String()
}

func (NAT) part()        {}
func (Masquerade) part() {}
func (Redirect) part()   {}
func (TProxy) part()     {}
func (Dup) part()        {}
func (Forward) part()    {}

func (NAT) statement()        {}
func (Masquerade) statement() {}
func (Redirect) statement()   {}
func (TProxy) statement()     {}
func (Dup) statement()        {}
func (Forward) statement()    {}
