package inspect

import (
	"net/netip"
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// phrase is a condition in words. An address and a port of one side of the
// packet, which have a verb and a noun, can become one phrase.
type phrase struct {
	words string
	// verb and noun are empty where the phrase is no address and no port.
	verb, noun string
	port       bool
}

// merged puts phrases into words, an address and a port of the same side into
// one.
func (m *Model) merged(phrases []phrase) []string {
	var out []string
	phrases = slices.Clone(phrases)
	for len(phrases) > 0 {
		p := phrases[0]
		phrases = phrases[1:]
		other := slices.IndexFunc(phrases, func(o phrase) bool { return p.verb != "" && o.verb == p.verb && o.port != p.port })
		if other < 0 {
			out = append(out, p.words)
			continue
		}
		port, addr := p.noun, phrases[other].noun
		if !p.port {
			port, addr = addr, port
		}
		out = append(out, m.say.Say(p.verb, "x", m.say.Say("noun.portof", "port", port, "addr", addr)))
		phrases = slices.Delete(phrases, other, other+1)
	}
	return out
}

// condition says what is true of a packet that passes a match: "came in by
// interface eth0".
func (s *scope) condition(m ruleset.Match) phrase {
	t := testOf(m)
	if t.left == nil {
		return phrase{words: s.m.say.Say("cond.raw", "text", m.String())}
	}
	if words := s.special(t); words != "" {
		return phrase{words: s.needed(t, words)}
	}
	p := s.plain(t)
	p.words = s.needed(t, p.words)
	return p
}

// needed adds to a negated condition what a packet must be for the comparison
// to be made at all: one with a field that the packet does not have fails,
// whatever its operator.
func (s *scope) needed(t test, words string) string {
	if !t.negated {
		return words
	}
	for _, need := range s.needs(t.left) {
		words = s.m.say.Say("cond.needs", "need", need, "cond", words)
	}
	return words
}

// needs lists what a packet must be for an expression to be readable at all, as
// far as the table's family does not see to it.
func (s *scope) needs(x ruleset.Expr) []string {
	switch x := x.(type) {
	case ruleset.Masked:
		return s.needs(x.Expr)
	case ruleset.Binary:
		return s.needs(x.Left)
	case ruleset.Exthdr:
		if !x.Exists {
			// What is not there cannot be compared.
			return []string{s.m.say.Say("needs.option", "option", x.String())}
		}
	case ruleset.ConcatExpr:
		var out []string
		for _, p := range x.Parts {
			for _, n := range s.needs(p) {
				if !slices.Contains(out, n) {
					out = append(out, n)
				}
			}
		}
		return out
	case ruleset.Payload:
		switch {
		case x.Proto == "ip" && s.in.Family != ruleset.FamilyIP:
			return []string{s.m.say.Say("proto.ipv4")}
		case x.Proto == "ip6" && s.in.Family != ruleset.FamilyIP6:
			return []string{s.m.say.Say("proto.ipv6")}
		case isType(x):
			// The words for these say it already.
			return nil
		case x.Base == ruleset.TransportHeader && x.Proto != "th" && x.Proto != "":
			return []string{x.Proto}
		}
	}
	return nil
}

// plain puts a test into words by a verb for what is read and a noun for what
// it is held against.
func (s *scope) plain(t test) phrase {
	if c, ok := t.left.(ruleset.ConcatExpr); ok {
		return phrase{words: s.concat(t, c)}
	}
	verb, noun, kind := verbOf(t.left), s.noun(t.left, t.against), nounKind(t.left.Type())
	plain := t.against.form() == "one" || t.against.form() == "list"
	if verb == "" || kind == "value" && !plain {
		verb = "verb.has"
	}
	if p, ok := t.left.(ruleset.Payload); ok && p.Field == "" && plain {
		verb = "verb.raw"
	}
	if t.negated {
		return phrase{words: s.m.say.Say(verb+".not", "x", noun, "expr", s.m.expression(t.left))}
	}
	p := phrase{words: s.m.say.Say(verb, "x", noun, "expr", s.m.expression(t.left))}
	if kind == "addr" || kind == "port" {
		p.verb, p.noun, p.port = verb, noun, kind == "port"
	}
	return p
}

func (s *scope) concat(t test, c ruleset.ConcatExpr) string {
	id := "verb.together"
	if t.negated {
		id += ".not"
	}
	return s.m.say.Say(id, "exprs", s.m.expression(c), "x", s.noun(t.left, t.against))
}

// Expressions that have a verb of their own; all others are had.
var (
	metaVerbs = map[ruleset.MetaKey]string{
		ruleset.MetaIIFName: "verb.in", ruleset.MetaIIF: "verb.in", ruleset.MetaOIFName: "verb.out", ruleset.MetaOIF: "verb.out",
		ruleset.MetaL4Proto: "verb.is", ruleset.MetaNFProto: "verb.is", ruleset.MetaMark: "verb.mark",
		ruleset.MetaSKUID: "verb.user", ruleset.MetaSKGID: "verb.group",
	}
	fieldVerbs = map[string]string{
		"saddr": "verb.from", "daddr": "verb.to", "sport": "verb.from", "dport": "verb.to", "protocol": "verb.is",
	}
	originalVerbs = map[ruleset.CtKey]string{
		ruleset.CtProtoDst: "verb.aimed", ruleset.CtIPDaddr: "verb.aimed", ruleset.CtIP6Daddr: "verb.aimed",
		ruleset.CtIPSaddr: "verb.began", ruleset.CtIP6Saddr: "verb.began",
	}
)

func verbOf(x ruleset.Expr) string {
	switch x := x.(type) {
	case ruleset.Meta:
		return metaVerbs[x.Key]
	case ruleset.Payload:
		return fieldVerbs[x.Field]
	case ruleset.Ct:
		if x.Dir == ruleset.Original {
			return originalVerbs[x.Key]
		}
	}
	return ""
}

// nounKind groups data types by the words for their values.
func nounKind(t ruleset.Type) string {
	switch t {
	case ruleset.TypeIfname, ruleset.TypeIfIndex:
		return "iface"
	case ruleset.TypeIPv4Addr, ruleset.TypeIPv6Addr, ruleset.TypeEtherAddr:
		return "addr"
	case ruleset.TypeInetService:
		return "port"
	}
	return "value"
}

// noun puts what an expression is held against into words.
func (s *scope) noun(x ruleset.Expr, o operand) string {
	say, kind := s.m.say, nounKind(x.Type())
	port := say.Say("port")
	if p, ok := x.(ruleset.Payload); ok && p.Proto != "th" {
		port = say.Say("port.of", "proto", p.Proto)
	}
	switch form := o.form(); form {
	case "list":
		return s.choice(kind, port, o.anonymous)
	case "set":
		return say.Say("noun."+kind+".set", "port", port, "set", s.m.setName(s.in, o.set))
	case "prefix":
		return say.Say("noun.addr.prefix", "prefix", s.m.prefix(o.prefix.Prefix))
	case "range":
		return say.Say("noun."+kind+".range", "port", port, "from", o.bounds.From.String(), "to", o.bounds.To.String())
	case "flags":
		return say.Or(strings.Split(o.flags.String(), ","))
	case "order":
		return say.Say("noun."+kind+".order", "port", port, "order", say.Say("order."+string(o.op)), "value", o.value.String())
	}
	return s.single(kind, port, o.value)
}

// single is the noun for one value.
func (s *scope) single(kind, port string, v ruleset.Value) string {
	switch {
	case kind == "port":
		return s.m.say.Say("noun.port.one", "port", port, "value", v.String())
	case v.Type == ruleset.TypeIfIndex:
		// The loopback interface has the number 1 in every namespace
		// (LOOPBACK_IFINDEX in the kernel).
		if n, _ := v.Uint(); n == 1 {
			return s.m.iface("lo")
		}
		if v.Label != "" {
			return s.m.iface(v.Label)
		}
		return s.m.say.Say("noun.iface.index", "value", v.String())
	case v.Type == ruleset.TypeNFProto && v == ruleset.NFProto(ruleset.NFProtoIPv4):
		return s.m.say.Say("proto.ipv4")
	case v.Type == ruleset.TypeNFProto && v == ruleset.NFProto(ruleset.NFProtoIPv6):
		return s.m.say.Say("proto.ipv6")
	}
	return s.m.value(v)
}

// choice is the noun for the elements of an anonymous set.
func (s *scope) choice(kind, port string, set *ruleset.Set) string {
	var values []string
	for _, e := range set.Elements {
		values = append(values, s.m.elementKey(e))
	}
	list := s.m.say.Or(s.m.shortened(values))
	if kind == "port" {
		return s.m.say.Say("noun.port.one", "port", port, "value", list)
	}
	return list
}

// keyConditions says what is true of a packet whose key is that of an element.
// A protocol and a port that follow each other become one phrase.
func (s *scope) keyConditions(key ruleset.Expr, e ruleset.Element) []string {
	exprs := []ruleset.Expr{key}
	if c, ok := key.(ruleset.ConcatExpr); ok {
		exprs = c.Parts
	}
	from, to := e.Key.Parts(), e.Key.Parts()
	if e.End.Data != "" {
		to = e.End.Parts()
	}
	if len(exprs) != len(from) || len(to) != len(from) {
		return []string{s.m.say.Say("verb.key", "expr", s.m.expression(key), "x", e.KeyText())}
	}
	var out []phrase
	for i := 0; i < len(exprs); i++ {
		if i+1 < len(exprs) && isProtoPort(exprs[i], exprs[i+1]) && from[i] == to[i] && from[i+1] == to[i+1] {
			out = append(out, s.protoPort(exprs[i+1], from[i], from[i+1]))
			i++
			continue
		}
		out = append(out, s.condition(keyMatch(exprs[i], from[i], to[i])))
	}
	return s.m.merged(out)
}

func keyMatch(x ruleset.Expr, from, to ruleset.Value) ruleset.Match {
	if from == to {
		return ruleset.Is(x, from)
	}
	if p, err := netip.ParsePrefix((ruleset.Element{Key: from, End: to}).KeyText()); err == nil {
		return ruleset.InPrefix{Left: x, Op: ruleset.Equal, Prefix: p}
	}
	return ruleset.InRange{Left: x, Op: ruleset.Equal, From: from, To: to}
}

func isProtoPort(proto, port ruleset.Expr) bool {
	return proto == ruleset.Expr(ruleset.Meta{Key: ruleset.MetaL4Proto}) &&
		(port == ruleset.Expr(ruleset.THDport) || port == ruleset.Expr(ruleset.THSport))
}

func (s *scope) protoPort(x ruleset.Expr, proto, port ruleset.Value) phrase {
	noun := s.m.say.Say("noun.port.one", "port", s.m.say.Say("port.of", "proto", proto.String()), "value", port.String())
	return phrase{words: s.m.say.Say(verbOf(x), "x", noun), verb: verbOf(x), noun: noun, port: true}
}
