package inspect

import (
	"strings"

	"nftnet/internal/ruleset"
)

// special puts tests into words that have better ones than the plain form;
// empty where there are none.
func (s *scope) special(t test) string {
	switch x := t.left.(type) {
	case ruleset.Masked:
		return s.masked(t, x)
	case ruleset.Fib:
		return s.fib(t, x)
	case ruleset.Ct:
		switch x.Key {
		case ruleset.CtState:
			return s.state(t)
		case ruleset.CtStatus:
			return s.status(t)
		}
	case ruleset.Payload:
		return s.field(t, x)
	}
	return ""
}

// field has words for the fields that name the kind of a packet.
func (s *scope) field(t test, p ruleset.Payload) string {
	switch {
	case p.Typ == ruleset.TypeTCPFlag && t.against.form() == "flags":
		return s.not(t, "cond.tcpflags.any", "flags", s.noun(p, t.against))
	case p.Typ == ruleset.TypeTCPFlag && t.against.form() == "one":
		return s.not(t, "cond.tcpflags", "flags", flagList(t.against.value.String()))
	case isType(p):
		return s.not(t, "cond.icmp", "proto", p.Proto, "type", s.noun(p, t.against))
	}
	return ""
}

// isType says whether a field is the type of a message of ICMP or IGMP.
func isType(p ruleset.Payload) bool { return p.Base == ruleset.TransportHeader && p.Field == "type" }

func flagList(s string) string { return strings.ReplaceAll(s, ",", " ") }

func (s *scope) not(t test, id string, args ...string) string {
	if t.negated {
		id += ".not"
	}
	return s.m.say.Say(id, args...)
}

// masked has words for tests of some bits of a value.
func (s *scope) masked(t test, x ruleset.Masked) string {
	if t.against.form() != "one" {
		return ""
	}
	if p, ok := x.Expr.(ruleset.Payload); ok && p.Typ == ruleset.TypeTCPFlag {
		return s.not(t, "cond.tcpflags.of", "flags", flagList(t.against.value.String()), "of", flagList(x.Mask.String()))
	}
	return s.not(t, "cond.bits", "expr", s.m.expression(x.Expr), "mask", x.Mask.String(), "value", t.against.value.String())
}

// fib has words for the questions to the routing table that rules ask most.
func (s *scope) fib(t test, x ruleset.Fib) string {
	if t.against.form() == "list" && x.Result == "type" && (x.Flags == "daddr" || x.Flags == "saddr") {
		return s.not(t, "cond.fib."+x.Flags, "type", s.noun(x, t.against))
	}
	if t.against.form() != "one" {
		return ""
	}
	v, _ := t.against.value.Uint()
	switch {
	case x.Result == "type" && (x.Flags == "daddr" || x.Flags == "saddr"):
		if v == uint64(ruleset.FibLocal) {
			return s.not(t, "cond.fib."+x.Flags+".local")
		}
		return s.not(t, "cond.fib."+x.Flags, "type", t.against.value.String())
	case (x.Result == "oif" || x.Result == "check") && strings.HasPrefix(x.Flags, "saddr") && strings.HasSuffix(x.Flags, "iif") && v == 0:
		return s.not(t, "cond.fib.noroute")
	}
	return ""
}

// state has words for each state of a connection.
func (s *scope) state(t test) string {
	var states []string
	switch t.against.form() {
	case "flags":
		states = strings.Split(t.against.flags.String(), ",")
	case "one":
		if states = strings.Split(t.against.value.String(), ","); len(states) > 1 {
			return ""
		}
	case "list":
		for _, e := range t.against.anonymous.Elements {
			states = append(states, e.KeyText())
		}
	default:
		return ""
	}
	return s.not(t, "cond.state", "states", s.m.say.Or(s.stateNames(states)))
}

func (s *scope) stateNames(states []string) []string {
	out := make([]string, len(states))
	for i, name := range states {
		id := "state." + name
		if out[i] = s.m.say.Say(id); out[i] == id {
			out[i] = s.m.say.Say("state.other", "state", name)
		}
	}
	return out
}

// status has words for connections whose addresses were translated.
func (s *scope) status(t test) string {
	if t.against.form() != "flags" {
		return ""
	}
	switch t.against.flags.String() {
	case "dnat":
		return s.not(t, "cond.status.dnat")
	case "snat":
		return s.not(t, "cond.status.snat")
	}
	return s.not(t, "cond.status", "flags", s.noun(t.left, t.against))
}
