package inspect

import (
	"strings"

	"nftnet/internal/ruleset"
)

// packet is what is known of a packet, by the expression that reads it. An
// expression that is not in it may read anything. The keys are of types that
// can be compared: [ruleset.Meta], [ruleset.Payload], [ruleset.Ct],
// [ruleset.Fib].
type packet map[ruleset.Expr]known

// read gives what is known of an expression, and whether the packet has what it
// reads at all: a rule that reads IPv4 addresses ends for an IPv6 packet,
// whatever the operator.
func (p packet) read(x ruleset.Expr) (known, truth) {
	switch x := x.(type) {
	case ruleset.Payload:
		has, proto := p.has(x)
		if proto == "th" {
			x.Proto = proto
		}
		return p[x], has
	case ruleset.Meta, ruleset.Fib:
		return p[x], yes
	case ruleset.Ct:
		return p[x], p.tracks(x)
	}
	return known{}, yes
}

// tracks says whether the packet can have the part of a connection that x
// reads: its addresses are of one family.
func (p packet) tracks(x ruleset.Ct) truth {
	switch x.Key {
	case ruleset.CtIPSaddr, ruleset.CtIPDaddr:
		return p.is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv4))
	case ruleset.CtIP6Saddr, ruleset.CtIP6Daddr:
		return p.is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv6))
	}
	return yes
}

var (
	nfproto = ruleset.Meta{Key: ruleset.MetaNFProto}
	l4proto = ruleset.Meta{Key: ruleset.MetaL4Proto}
	iifname = ruleset.Meta{Key: ruleset.MetaIIFName}
	oifname = ruleset.Meta{Key: ruleset.MetaOIFName}
)

func (p packet) is(x ruleset.Expr, v ruleset.Value) truth { return p[x].within([]span{spanAt(v)}) }

// transports are the headers whose ports stand where those of every transport
// protocol do.
var transports = map[string]uint8{
	"tcp": ruleset.ProtoTCP, "udp": ruleset.ProtoUDP, "sctp": ruleset.ProtoSCTP, "icmp": ruleset.ProtoICMP,
	"icmpv6": ruleset.ProtoICMPv6,
}

// has says whether the packet has the header of a field, and by which header's
// name the field is known.
func (p packet) has(x ruleset.Payload) (truth, string) {
	switch x.Proto {
	case "ip":
		return p.is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv4)), x.Proto
	case "ip6":
		return p.is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv6)), x.Proto
	}
	if n, ok := transports[x.Proto]; ok {
		name := x.Proto
		if strings.HasSuffix(x.Field, "port") {
			name = "th"
		}
		return p.is(l4proto, ruleset.Proto(n)), name
	}
	if x.Proto == "th" {
		return yes, x.Proto
	}
	return maybe, x.Proto
}

// evaluator answers conditions about a packet with the sets of one table.
type evaluator struct {
	m      *Model
	table  *ruleset.Table
	packet packet
	// ordinary takes the packet for one that nothing special is true of: what is
	// not known equals no single value that a rule asks for.
	ordinary bool
	// vague is set where something could not be decided for several values that a
	// question is about, and might be for one of them.
	vague *bool
}

// undecided notes that a condition on x could not be decided.
func (e evaluator) undecided(x ruleset.Expr) {
	for _, part := range partsOf(x) {
		if k, has := e.packet.read(part); len(k.in) > 1 || has == maybe {
			*e.vague = true
		}
	}
}

// match says whether a match holds.
func (e evaluator) match(m ruleset.Match) truth {
	t := testOf(m)
	if t.left == nil {
		return maybe
	}
	held, has := e.test(t)
	if held == maybe || has == maybe {
		e.undecided(t.left)
	}
	held, has = e.settle(held), e.settle(has)
	if t.negated {
		held = held.not()
	}
	return both(has, held)
}

func (e evaluator) settle(t truth) truth {
	if e.ordinary && t == maybe {
		return no
	}
	return t
}

// test says whether what stands in a match holds, the operator != left aside,
// and whether the packet has what is read.
func (e evaluator) test(t test) (held, has truth) {
	if t.against.anonymous != nil || t.against.set != "" {
		return e.lookup(t)
	}
	if m, ok := t.left.(ruleset.Masked); ok {
		k, has := e.packet.read(m.Expr)
		mask, ok1 := m.Mask.Uint()
		want, ok2 := t.against.value.Uint()
		if !ok1 || !ok2 || t.against.form() != "one" {
			return maybe, has
		}
		return k.masked(mask, want), has
	}
	k, has := e.packet.read(t.left)
	switch o := t.against; o.form() {
	case "prefix":
		p := o.prefix.Prefix
		return k.within([]span{spanOfPrefix(p)}), has
	case "range":
		return k.within([]span{spanOf(o.bounds.From, o.bounds.To)}), has
	case "flags":
		n, _ := o.flags.Uint()
		return k.any(n), has
	default:
		return k.compared(o.op, o.value), has
	}
}

func (e evaluator) lookup(t test) (held, has truth) {
	s := t.against.anonymous
	if s == nil {
		s = e.m.set(e.table, t.against.set)
	}
	if s == nil {
		return maybe, maybe
	}
	held, has = no, e.hasAll(t.left)
	for _, el := range s.Elements {
		held = max(held, e.element(t.left, el))
		if held == yes {
			break
		}
	}
	if held == no && s.Timeout != 0 {
		// What fills by itself may hold the packet's key when it comes.
		held = maybe
	}
	return held, has
}

func (e evaluator) hasAll(key ruleset.Expr) truth {
	has := yes
	for _, x := range partsOf(key) {
		_, h := e.packet.read(x)
		has = both(has, h)
	}
	return has
}

// element says whether a key is that of an element.
func (e evaluator) element(key ruleset.Expr, el ruleset.Element) truth {
	if el.CatchAll {
		return yes
	}
	exprs, from := partsOf(key), el.Key.Parts()
	to := from
	if el.End.Data != "" {
		to = el.End.Parts()
	}
	if len(exprs) != len(from) || len(to) != len(from) {
		return maybe
	}
	held := yes
	for i, x := range exprs {
		held = both(held, e.within(x, from[i], to[i]))
	}
	return held
}

func (e evaluator) within(x ruleset.Expr, from, to ruleset.Value) truth {
	k, _ := e.packet.read(x)
	if _, masked := x.(ruleset.Masked); masked {
		return maybe
	}
	if k.mask != 0 && from == to {
		return k.compared(ruleset.Equal, from)
	}
	at := spanOf(from, to)
	if from == to {
		at = spanAt(from)
	}
	return k.within([]span{at})
}

// choice is a verdict that a verdict map may give.
type choice struct {
	verdict ruleset.Verdict
	held    truth
}

// choices lists the verdicts that a lookup in a verdict map may give; a certain
// one stands alone.
func (e evaluator) choices(v ruleset.VMap) []choice {
	s := v.Anonymous
	if s == nil {
		s = e.m.set(e.table, v.Map)
	}
	if s == nil {
		return []choice{{ruleset.Verdict{}, maybe}}
	}
	has := e.settle(e.hasAll(v.Key))
	var out []choice
	var otherwise *ruleset.Verdict
	for _, el := range s.Elements {
		if el.CatchAll {
			otherwise = &el.Verdict
			continue
		}
		held := e.element(v.Key, el)
		if held == maybe {
			e.undecided(v.Key)
		}
		switch held = both(has, e.settle(held)); held {
		case yes:
			return []choice{{el.Verdict, yes}}
		case maybe:
			out = append(out, choice{el.Verdict, maybe})
		}
	}
	if otherwise != nil && has != no {
		// The others come first: none of them is certain.
		out = append(out, choice{*otherwise, has})
	}
	return out
}
