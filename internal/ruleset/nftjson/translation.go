package nftjson

import "nftnet/internal/ruleset"

// translation is a statement that sends a packet elsewhere.
func (p printer) translation(part ruleset.Part) (any, bool) {
	switch s := part.(type) {
	case ruleset.NAT:
		return one(string(s.Kind), p.nat(s).orNull()), true
	case ruleset.Masquerade:
		return one("masquerade", p.toPort(s.Port, s.PortEnd, nil, s.Flags)), true
	case ruleset.Redirect:
		return one("redirect", p.toPort(s.Port, s.PortEnd, s.To, s.Flags)), true
	case ruleset.TProxy:
		o := object{}.with(s.Family != "", "family", s.Family)
		return one("tproxy", p.given(p.given(o, "addr", s.Addr), "port", s.Port)), true
	case ruleset.Dup:
		return one("dup", p.given(p.given(nil, "addr", s.To), "dev", s.Device)), true
	case ruleset.Forward:
		o := p.given(nil, "dev", s.Device).with(s.Addr != nil, "family", s.Family)
		return one("fwd", p.given(o, "addr", s.Addr)), true
	}
	return nil, false
}

// given adds an expression where there is one.
func (p printer) given(o object, key string, x ruleset.Expr) object {
	if x == nil {
		return o
	}
	return append(o, member{key, p.expr(x)})
}

// nat is a translation to an address and a port (nat_stmt_json).
func (p printer) nat(n ruleset.NAT) object {
	o := object{}.with(n.Family != "", "family", n.Family)
	switch {
	case n.Key != nil:
		o = append(o, member{"addr", one("map", p.mapping(n.Key, n.Map, n.Anonymous))})
	case n.To != nil:
		o = append(o, member{"addr", p.expr(n.To)})
	case n.Addr.Data != "":
		o = append(o, member{"addr", interval(n.Addr, n.AddrEnd)})
	}
	o = o.with(n.Port.Data != "", "port", portSpan(n.Port, n.PortEnd))
	flags := n.Flags
	if n.Prefix {
		flags = append([]string{"netmap"}, flags...)
	}
	return o.with(len(flags) > 0, "flags", oneOrMore(flags)).with(n.Prefix, "type_flags", "prefix")
}

func (p printer) toPort(from, to ruleset.Value, x ruleset.Expr, flags []string) any {
	o := p.given(nil, "port", x)
	return o.with(from.Data != "", "port", portSpan(from, to)).with(len(flags) > 0, "flags", oneOrMore(flags)).orNull()
}

func portSpan(from, to ruleset.Value) any {
	if to.Data == "" {
		return value(from)
	}
	return one("range", array{value(from), value(to)})
}
