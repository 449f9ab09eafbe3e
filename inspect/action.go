package inspect

import (
	"fmt"
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// verdict says what a verdict does to a packet and what follows.
func (s *scope) verdict(r *reading, v ruleset.Verdict) {
	say := s.m.say
	switch v.Kind {
	case ruleset.Continue:
		return
	case ruleset.Accept:
		r.follows(s.afterAccept())
	case ruleset.Drop:
		r.follows(say.Say("after.drop"))
	case ruleset.Return:
		r.follows(say.Say("then", "next", s.ends()))
	case ruleset.Jump:
		r.follows(s.afterJump(v.Chain))
	case ruleset.Goto:
		r.follows(say.Say("after.goto", "chain", v.Chain, "ends", s.ends()))
	case ruleset.Queue:
		r.follows(say.Say("after.queue"))
	default:
		r.unknown = true
	}
	r.then(say.Say("act."+string(v.Kind), "chain", v.Chain))
	r.ended = true
}

func (s *scope) afterJump(chain string) string {
	info := s.m.chains[s.info.object.chain(chain)]
	if info != nil && len(info.chain.Rules) == 0 {
		return s.m.say.Say("after.jump.empty", "chain", chain, "next", s.next())
	}
	return s.m.say.Say("after.jump", "chain", chain, "next", s.next())
}

// afterAccept says which chains a packet still meets that was accepted here:
// accept ends one base chain, not the packet's way.
func (s *scope) afterAccept() string {
	say := s.m.say
	var names, later []string
	for _, b := range s.info.from {
		names = append(names, s.m.chainName(b.Object, s.in))
		_, after, unordered := s.m.neighbours(b)
		for _, o := range after {
			later = append(later, s.m.chainName(o.Object, s.in))
		}
		for _, o := range unordered {
			later = append(later, say.Say("order.perhaps", "chain", s.m.chainName(o.Object, s.in)))
		}
	}
	ended := say.Or(s.m.shortened(names))
	switch {
	case len(names) == 0 || s.info.guessed:
		return say.Say("after.accept.any")
	case len(later) == 0:
		return say.Say("after.accept.last", "chain", ended)
	case len(names) > 1:
		return say.Say("after.accept.several", "chain", ended)
	}
	return say.Say("after.accept.later", "chain", ended, "hook", s.m.hookName(s.info.from[0].Hook),
		"later", say.And(s.m.shortened(later)))
}

// next says where a packet goes from this rule.
func (s *scope) next() string {
	if s.index+1 < len(s.info.chain.Rules) {
		return s.m.say.Say("next.rule")
	}
	return s.ends()
}

// ends says where a packet goes from the end of this chain.
func (s *scope) ends() string {
	if ways := s.m.ways(s.info); ways != "" {
		return ways
	}
	return s.m.say.Say("end.caller")
}

// ways says where the end of a chain leads; empty where nothing leads into the
// chain.
func (m *Model) ways(info *chainInfo) string {
	var e chainEnds
	m.follow(info, &e, map[Object]bool{})
	ways := e.policies
	if len(e.behind) > 0 {
		ways = append(ways, m.say.Say("end.behind", "rule", m.say.Or(m.shortened(e.behind))))
	}
	return m.say.Or(m.shortened(ways))
}

// chainEnds are the places to which the end of a chain leads.
type chainEnds struct{ policies, behind []string }

// follow gathers where the end of a chain leads. From a chain that a packet
// went to by goto it is where the end of the chain leads that it came from.
func (m *Model) follow(info *chainInfo, e *chainEnds, seen map[Object]bool) {
	if seen[info.object] {
		return
	}
	seen[info.object] = true
	if b := info.chain.Base; b != nil {
		e.policies = append(e.policies, m.say.Say("end.policy", "chain", info.chain.Name, "policy", string(b.Policy)))
		return
	}
	for _, c := range info.callers {
		caller := m.chains[c.Rule.chain(c.Rule.Chain)]
		switch {
		case caller == nil:
		case c.Kind == ruleset.Goto:
			m.follow(caller, e, seen)
		case !seen[c.Rule]:
			seen[c.Rule] = true
			e.behind = append(e.behind, m.ruleName(c.Rule, info.table))
		}
	}
}

// vmap says what a lookup in a verdict map does.
func (s *scope) vmap(r *reading, v ruleset.VMap) {
	say, key := s.m.say, s.m.expression(v.Key)
	set := v.Anonymous
	if set == nil {
		set = s.m.set(s.in, v.Map)
	}
	if v.Anonymous != nil {
		r.then(say.Say("act.vmap.anonymous", "key", key, "verdicts", s.verdictList(v.Key, set.Elements)))
	} else {
		r.then(say.Say("act.vmap", "key", key, "set", s.m.setName(s.in, v.Map)))
	}
	r.ended = true
	if set == nil {
		r.follows(say.Say("vmap.miss", "next", s.next()))
		return
	}
	if v.Anonymous == nil && len(set.Elements) > 0 {
		r.follows(say.Say("vmap.holds", "verdicts", s.verdictKinds(set.Elements)))
	}
	if slices.ContainsFunc(set.Elements, func(e ruleset.Element) bool { return e.Verdict.Kind == ruleset.Continue }) {
		// Behind a verdict map the rule goes on for this verdict only.
		r.ended = false
		r.when(phrase{words: say.Say("cond.continue")})
	}
	switch back, every := mapLeads(set.Elements); {
	case back && !every:
		r.follows(say.Say("vmap.miss.back", "next", s.next()))
	case back:
		r.follows(say.Say("vmap.back", "next", s.next()))
	case !every:
		r.follows(say.Say("vmap.miss", "next", s.next()))
	}
}

// mapLeads says whether a packet may come back from a chain that a map sends it
// through, and whether the map has a verdict for every key.
func mapLeads(elements []ruleset.Element) (back, every bool) {
	for _, e := range elements {
		back = back || e.Verdict.Kind == ruleset.Jump
		every = every || e.CatchAll
	}
	return back, every
}

// verdictList says what a map does for each key.
func (s *scope) verdictList(key ruleset.Expr, elements []ruleset.Element) string {
	var out []string
	for _, e := range elements {
		name := s.m.elementKey(e)
		if c, ok := key.(ruleset.Ct); ok && c.Key == ruleset.CtState && !e.CatchAll {
			name = e.KeyText()
		}
		out = append(out, s.m.say.Say("vmap.entry", "key", name, "verdict", s.m.verdictWords(e.Verdict)))
	}
	return strings.Join(s.m.shortened(out), s.m.say.Say("list.comma"))
}

// verdictKinds lists the different verdicts of a map's elements.
func (s *scope) verdictKinds(elements []ruleset.Element) string {
	var out []string
	seen := map[ruleset.Verdict]bool{}
	for _, e := range elements {
		if !seen[e.Verdict] {
			seen[e.Verdict] = true
			out = append(out, s.m.verdictWords(e.Verdict))
		}
	}
	return s.m.say.Or(s.m.shortened(out))
}

func (m *Model) verdictWords(v ruleset.Verdict) string {
	id := "verdict." + string(v.Kind)
	if words := m.say.Say(id, "chain", v.Chain); words != id {
		return words
	}
	return v.String()
}

// nat says to what an address and a port are translated.
func (s *scope) nat(r *reading, n ruleset.NAT) {
	say := s.m.say
	if s.in.Family == ruleset.FamilyInet && n.Family != "" {
		// The kernel passes packets of the other family on (nft_nat_inet_eval).
		family := say.Say("proto.ipv4")
		if n.Family == "ip6" {
			family = say.Say("proto.ipv6")
		}
		if is := say.Say("verb.is", "x", family); !r.knows(is) {
			r.when(phrase{words: is})
		}
	}
	side := say.Say("side." + string(n.Kind))
	if n.AddrEnd.Data != "" || n.PortEnd.Data != "" || n.To != nil || n.Anonymous != nil || n.Prefix {
		s.translated(r, say.Say("act.nat.raw", "text", n.String()))
		if n.Key != nil {
			r.follows(say.Say("nat.miss", "next", s.next()))
		}
		return
	}
	if n.Key != nil {
		key := s.m.expression(n.Key)
		s.translated(r, s.flagged("act.nat.map", n.Flags, "side", side, "key", key, "set", s.m.setName(s.in, n.Map)))
		r.follows(say.Say("nat.miss", "next", s.next()))
		return
	}
	to := say.Say("nat.port", "port", n.Port.String())
	if n.Addr.Data != "" {
		to = s.m.value(n.Addr)
		if n.Port.Data != "" {
			to = say.Say("nat.addrport", "addr", to, "port", n.Port.String())
		}
	}
	s.translated(r, s.flagged("act.nat", n.Flags, "side", side, "to", to))
}

// flagged is an action with the flags of a translation behind it.
func (s *scope) flagged(id string, flags []string, args ...string) string {
	words := s.m.say.Say(id, args...)
	if len(flags) > 0 {
		words = s.m.say.Say("nat.flags", "action", words, "flags", s.m.say.And(flags))
	}
	return words
}

func (s *scope) translated(r *reading, action string) {
	r.then(action)
	r.follows(s.m.say.Say("after.nat"))
	r.ended = true
}

func (s *scope) redirect(r *reading, d ruleset.Redirect) {
	if d.PortEnd.Data != "" || d.To != nil {
		s.translated(r, s.m.say.Say("act.nat.raw", "text", d.String()))
		return
	}
	if d.Port.Data == "" {
		s.translated(r, s.flagged("act.redirect", d.Flags))
		return
	}
	s.translated(r, s.flagged("act.redirect.port", d.Flags, "port", d.Port.String()))
}

func (s *scope) reject(r *reading, j ruleset.Reject) {
	with := j.With
	if with == "" {
		with = "port-unreachable"
	}
	r.then(s.m.say.Say("act.reject", "with", with))
	r.follows(s.m.say.Say("after.drop"))
	r.ended = true
}

func (s *scope) limit(l ruleset.Limit) string {
	id := "cond.limit"
	if l.Bytes {
		id += ".bytes"
	}
	if l.Over {
		id += ".over"
	}
	burst := ""
	if l.Burst > 0 {
		burst = s.m.say.Say("limit.burst", "n", count(uint64(l.Burst)))
	}
	return s.m.say.Say(id, "rate", count(l.Rate), "unit", l.Unit, "burst", burst)
}

func (s *scope) log(l ruleset.Log) string {
	id := "act.log"
	if l.HasGroup {
		id = "act.log.group"
	}
	if l.Prefix != "" {
		id += ".prefix"
	}
	return s.m.say.Say(id, "prefix", fmt.Sprintf("%q", l.Prefix), "group", count(uint64(l.Group)))
}

func (s *scope) mangle(g ruleset.Mangle) string {
	if g.Left == ruleset.Expr(ruleset.Meta{Key: ruleset.MetaNFTrace}) {
		return s.m.say.Say("act.trace")
	}
	if g.From != nil {
		return s.m.say.Say("act.set.from", "expr", s.m.expression(g.Left), "from", s.m.expression(g.From))
	}
	return s.m.say.Say("act.set", "expr", s.m.expression(g.Left), "value", s.m.value(g.Right))
}

// counted says that a counter counts, and what.
func (s *scope) counted() string {
	if s.natOnly() {
		return s.m.say.Say("act.counter.nat")
	}
	return s.m.say.Say("act.counter")
}

// natOnly says whether only first packets of connections get to the rule.
func (s *scope) natOnly() bool {
	return s.info != nil && s.info.natOnly()
}

func (i *chainInfo) natOnly() bool {
	for _, b := range i.from {
		if b.Chain.Base.Type != "nat" {
			return false
		}
	}
	return len(i.from) > 0 && !i.guessed
}

// counted says what a counter has counted.
func (m *Model) counted(c ruleset.Counter, nat bool) string {
	id := "counter"
	if nat {
		id = "counter.nat"
	}
	return m.say.Count(id, c.Packets, "size", byteSize(c.Bytes))
}

// byteSize writes a number of bytes for people.
func byteSize(n uint64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < len("kMGTPE")-1 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTPE"[i])
}
