package inspect

import (
	"nftnet/internal/ruleset"
)

// other reads statements that few rules have; false for one that has no words
// here.
func (s *scope) other(r *reading, p ruleset.Part) bool {
	say := s.m.say
	switch p := p.(type) {
	case ruleset.Quota:
		r.when(phrase{words: s.bound("cond.quota", p.Over, "n", byteSize(p.Bytes))})
	case ruleset.ConnLimit:
		r.when(phrase{words: s.bound("cond.connections", p.Over, "n", count(uint64(p.Count)))})
	case ruleset.Last:
		r.then(say.Say("act.last"))
	case ruleset.Dup:
		r.then(say.Say("act.dup", "to", s.given(p.To)))
	case ruleset.Forward:
		s.finish(r, say.Say("act.forward", "device", s.given(p.Device)), say.Say("after.stolen"))
	case ruleset.TProxy:
		r.then(say.Say("act.tproxy", "text", p.String()))
	case ruleset.SynProxy:
		s.finish(r, say.Say("act.synproxy"), say.Say("after.synproxy"))
	case ruleset.Enqueue:
		s.finish(r, say.Say("act.queue"), say.Say("after.queue"))
	case ruleset.FlowAdd:
		r.then(say.Say("act.flow", "table", p.Table))
	case ruleset.ResetOption:
		r.then(say.Say("act.reset", "option", p.Option.String()))
	case ruleset.SetUpdate:
		s.update(r, p)
	case ruleset.ObjectRef:
		s.object(r, p)
	default:
		return false
	}
	return true
}

// bound is a condition of a bound, or of what lies beyond it.
func (s *scope) bound(id string, over bool, args ...string) string {
	if over {
		id += ".over"
	}
	return s.m.say.Say(id, args...)
}

// finish is an action behind which neither the rule nor the packet goes on as
// before.
func (s *scope) finish(r *reading, action, after string) {
	r.then(action)
	r.follows(after)
	r.ended = true
}

// given names what an expression gives to a statement.
func (s *scope) given(x ruleset.Expr) string {
	if c, ok := x.(ruleset.Const); ok {
		return s.m.value(c.Value)
	}
	return s.m.say.Say("quoted", "text", x.String())
}

// update says what a rule does to a set. What the element carries may keep a
// packet from going on.
func (s *scope) update(r *reading, u ruleset.SetUpdate) {
	id, set := "act.update", s.m.say.Say("quoted", "text", u.Set)
	if !u.Meter {
		set = s.m.setName(s.in, u.Set)
	}
	if u.Op == "delete" {
		id = "act.update.delete"
	}
	r.then(s.m.say.Say(id, "key", s.m.expression(u.Key), "set", set))
	for _, p := range u.Parts {
		switch p.(type) {
		case ruleset.Counter, ruleset.Last:
		default:
			r.when(phrase{words: s.m.say.Say("cond.raw", "text", p.String())})
		}
	}
}

// conditionalObjects are the kinds of objects that let only some packets past.
var conditionalObjects = map[string]bool{"quota": true, "limit": true, "ct count": true}

func (s *scope) object(r *reading, o ruleset.ObjectRef) {
	which := s.m.say.Say("object.named", "kind", o.Kind, "name", o.Name)
	if o.Key != nil {
		which = s.m.say.Say("object.map", "kind", o.Kind, "key", s.m.expression(o.Key))
	}
	switch {
	case conditionalObjects[o.Kind]:
		r.when(phrase{words: s.m.say.Say("cond.object", "object", which)})
	case o.Kind == "synproxy":
		s.finish(r, s.m.say.Say("act.object", "object", which), s.m.say.Say("after.synproxy"))
	default:
		r.then(s.m.say.Say("act.object", "object", which))
	}
}

// What becomes of a packet behind the targets of iptables.
var (
	xtTranslations = map[string]bool{"DNAT": true, "SNAT": true, "MASQUERADE": true, "REDIRECT": true, "NETMAP": true}
	xtGoesOn       = map[string]bool{
		"MARK": true, "CONNMARK": true, "LOG": true, "NFLOG": true, "TCPMSS": true, "CT": true, "CHECKSUM": true, "TOS": true,
		"DSCP": true, "TTL": true, "HL": true, "CLASSIFY": true, "TRACE": true, "NOTRACK": true,
	}
)

// iptables says what a target of iptables does.
func (s *scope) iptables(r *reading, c ruleset.Compat) {
	words, ok := c.IPTables()
	action := s.m.say.Say("act.iptables", "text", words)
	switch {
	case !ok:
		r.unknown = true
		s.finish(r, s.m.say.Say("act.xt", "name", c.Name), s.m.say.Say("xt.after"))
	case xtTranslations[c.Name]:
		s.translated(r, action)
	case c.Name == "REJECT":
		s.finish(r, action, s.m.say.Say("after.drop"))
	case c.Name == "NFQUEUE":
		s.finish(r, action, s.m.say.Say("after.queue"))
	case xtGoesOn[c.Name]:
		r.then(action)
	default:
		s.finish(r, action, s.m.say.Say("xt.after"))
	}
}
