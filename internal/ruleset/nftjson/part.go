package nftjson

import (
	"encoding/hex"
	"strings"

	"nftnet/internal/ruleset"
)

// parts are the matches and statements of a rule.
func (p printer) parts(parts []ruleset.Part) array {
	out := make(array, len(parts))
	for i, part := range parts {
		out[i] = p.part(part)
	}
	return out
}

func (p printer) part(part ruleset.Part) any {
	switch part := part.(type) {
	case ruleset.Match:
		return one("match", p.match(part))
	case ruleset.Verdict:
		return p.verdict(part)
	case ruleset.VMap:
		return one("vmap", p.mapping(part.Key, part.Map, part.Anonymous))
	case ruleset.Compat:
		return one("xt", compat(part))
	case ruleset.Opaque:
		return unknown(part.Name, hex.EncodeToString([]byte(part.Data)))
	}
	if v, ok := p.action(part); ok {
		return v
	}
	if v, ok := p.state(part); ok {
		return v
	}
	if v, ok := p.translation(part); ok {
		return v
	}
	return unknown("statement", part.String())
}

// match is a comparison (relational_expr_json).
func (p printer) match(m ruleset.Match) object {
	switch m := m.(type) {
	case ruleset.Compare:
		return p.compare(m)
	case ruleset.InPrefix:
		return p.relation(m.Op, m.Left, prefixOf(m.Prefix))
	case ruleset.InRange:
		return p.relation(m.Op, m.Left, one("range", array{numeric(m.From), numeric(m.To)}))
	case ruleset.HasAny:
		// Tests of bits have operators of their own: "in" is what nft's text leaves
		// out (OP_IMPLICIT), "!" its OP_NEG.
		op := ruleset.Op("in")
		if m.Op == ruleset.NotEqual {
			op = "!"
		}
		return p.relation(op, m.Left, flags(m.Flags))
	case ruleset.Lookup:
		return p.relation(m.Op, m.Left, p.setRef(m.Set, m.Anonymous))
	}
	return unknown("match", m.String())
}

func (p printer) relation(op ruleset.Op, left ruleset.Expr, right any) object {
	if op == "" {
		op = ruleset.Equal
	}
	return object{{"op", string(op)}, {"left", p.expr(left)}, {"right", right}}
}

func (p printer) compare(c ruleset.Compare) object {
	if m, ok := c.Left.(ruleset.Masked); ok && c.OfFlags() {
		o := p.relation(c.Op, m.Expr, flags(c.Right))
		o[1].value = operation("&", p.expr(m.Expr), flags(m.Mask))
		return o
	}
	return p.relation(c.Op, c.Left, alternatives(c.Right))
}

// verdict is a verdict (verdict_expr_json).
func (p printer) verdict(v ruleset.Verdict) object {
	switch {
	case v.Anonymous != nil:
		rules := make(array, len(v.Anonymous.Rules))
		for i := range v.Anonymous.Rules {
			rules[i] = p.rule(&v.Anonymous.Rules[i])
		}
		return one(string(v.Kind), one("rules", rules))
	case v.Chain != "":
		return one(string(v.Kind), one("target", v.Chain))
	}
	return one(string(v.Kind), nil)
}

// compat is an extension of iptables, of which nft has no more than the name.
func compat(c ruleset.Compat) object {
	kind := "match"
	if c.Target {
		kind = "target"
	}
	o := object{{"type", kind}, {"name", c.Name}, {"rev", uint64(c.Revision)}}
	words, ok := c.IPTables()
	return o.with(ok, "iptables", words).with(!ok, "data", hex.EncodeToString([]byte(c.Info)))
}

// action is a statement that does something with the packet and is no verdict.
func (p printer) action(part ruleset.Part) (any, bool) {
	switch s := part.(type) {
	case ruleset.Reject:
		return one("reject", p.reject(s)), true
	case ruleset.Log:
		return one("log", log(s)), true
	case ruleset.Mangle:
		value := alternatives(s.Right)
		switch {
		case s.From != nil:
			value = p.expr(s.From)
		case s.Left == ruleset.Expr(ruleset.Ct{Key: ruleset.CtEvent}):
			value = flags(s.Right)
		}
		return one("mangle", object{{"key", p.expr(s.Left)}, {"value", value}}), true
	case ruleset.Notrack:
		return one("notrack", nil), true
	case ruleset.Enqueue:
		return one("queue", p.queue(s)), true
	case ruleset.FlowAdd:
		return one("flow", object{{"op", "add"}, {"flowtable", "@" + s.Table}}), true
	case ruleset.ResetOption:
		// The whole option, of which nothing is read.
		s.Option.Length = 0
		return one("reset", exthdr(s.Option)), true
	case ruleset.SynProxy:
		return one("synproxy", synproxy(s).orNull()), true
	}
	return nil, false
}

// reject is the answer: the kind of message and the code in it, which nft's JSON
// names where its text does not.
func (p printer) reject(r ruleset.Reject) any {
	with := r.With
	switch with {
	case "tcp reset":
		return one("type", with)
	case "":
		with = ruleset.RejectDefault(p.family)
	}
	kind, code, _ := strings.Cut(with, " ")
	if n, ok := parse(code); ok {
		return object{{"type", kind}, {"expr", n}}
	}
	return object{{"type", kind}, {"expr", code}}
}

func log(l ruleset.Log) any {
	return object{}.
		with(l.Prefix != "", "prefix", l.Prefix).
		with(l.HasGroup, "group", uint64(l.Group)).
		with(l.Snaplen != 0, "snaplen", uint64(l.Snaplen)).
		with(l.Threshold != 0, "queue-threshold", uint64(l.Threshold)).
		with(l.Level != "", "level", l.Level).
		with(len(l.Flags) > 0, "flags", oneOrMore(l.Flags)).
		orNull()
}

func (p printer) queue(q ruleset.Enqueue) object {
	var num any = uint64(q.From)
	switch {
	case q.By != nil:
		num = p.expr(q.By)
	case q.To != q.From:
		num = one("range", array{uint64(q.From), uint64(q.To)})
	}
	return one("num", num).with(len(q.Flags) > 0, "flags", oneOrMore(q.Flags))
}

func synproxy(s ruleset.SynProxy) object {
	return object{}.
		with(s.HasMSS, "mss", uint64(s.MSS)).
		with(s.HasWScale, "wscale", uint64(s.WScale)).
		with(s.Timestamp || s.SackPerm, "flags", synproxyFlags(s))
}

func synproxyFlags(s ruleset.SynProxy) array {
	var out array
	if s.Timestamp {
		out = append(out, "timestamp")
	}
	if s.SackPerm {
		out = append(out, "sack-perm")
	}
	return out
}
