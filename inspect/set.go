package inspect

import (
	"slices"
	"strings"
	"time"

	"nftnet/internal/ruleset"
)

func (m *Model) setNotes(info *setInfo) []Note {
	note := func(topic Topic, sentence string) Note {
		return Note{Object: info.object, Level: Info, Topic: topic, Sentence: sentence}
	}
	use := note(TopicUse, m.usedBy(info))
	for _, u := range info.users {
		use.Evidence = append(use.Evidence, m.evidence(u.Rule))
	}
	notes := []Note{note(TopicWhat, m.setWhat(info)), use}
	if info.set.Counter {
		id := "set.counter"
		if m.natSet(info) {
			id = "set.counter.nat"
		}
		notes = append(notes, note(TopicCounter, m.say.Say(id)))
	}
	return notes
}

// setWhat says what a set holds.
func (m *Model) setWhat(info *setInfo) string {
	s := info.set
	sentences := []string{m.say.Count("set.what", uint64(len(s.Elements)), "key", m.typeWords(s.Key))}
	if s.Data != "" {
		sentences[0] = m.say.Count("map.what", uint64(len(s.Elements)), "key", m.typeWords(s.Key), "data", m.typeWords(s.Data))
	}
	for _, f := range s.Flags {
		if id := "set.flag." + f; m.say.Say(id) != id {
			sentences = append(sentences, m.say.Say(id))
		}
	}
	if s.Timeout != 0 {
		sentences = append(sentences, m.say.Say("set.timeout", "time", period(s.Timeout)))
	}
	sentences = append(sentences, m.carried(s.Extra)...)
	if s.Size != 0 {
		sentences = append(sentences, m.say.Say("set.size", "size", count(uint64(s.Size))))
	}
	return strings.Join(sentences, m.say.Say("sentence.join"))
}

// typeWords says what a value of a data type is.
func (m *Model) typeWords(t ruleset.Type) string {
	var words []string
	for _, p := range t.Parts() {
		p = p.Base()
		id := "type." + string(p)
		w := m.say.Say(id)
		if w == id {
			w = m.say.Say("type.other", "type", string(p))
		}
		words = append(words, w)
	}
	return m.say.And(words)
}

// usedBy names the rules that look a set up.
func (m *Model) usedBy(info *setInfo) string {
	if len(info.users) == 0 {
		if m.doubtful[tableObject(info.table)] {
			return m.say.Say("set.unused.known")
		}
		return m.say.Say("set.unused")
	}
	var uses []string
	for _, u := range info.users {
		uses = append(uses, m.say.Say("set.use", "rule", m.ruleName(u.Rule, info.table), "key", m.expression(u.Key)))
	}
	return m.say.Say("set.used", "uses", m.say.And(m.shortened(unique(uses))))
}

// natSet says whether only first packets of connections are looked up in a set.
func (m *Model) natSet(info *setInfo) bool {
	for _, u := range info.users {
		if chain := m.chains[u.Rule.chain(u.Rule.Chain)]; chain == nil || !chain.natOnly() {
			return false
		}
	}
	return len(info.users) > 0
}

// key is what all users of a set look up in it; nil where they differ.
func (m *Model) key(info *setInfo) ruleset.Expr {
	if len(info.users) == 0 {
		return nil
	}
	first := info.users[0].Key
	for _, u := range info.users[1:] {
		if u.Key.String() != first.String() {
			return nil
		}
	}
	return first
}

func (m *Model) elementNotes(info *setInfo, i int) []Note {
	e, o := info.set.Elements[i], info.object.element(i)
	owner, owned := m.owner(e.Comment)
	what := m.elementWhat(info, e, owner)
	level := Info
	if opaqueElement(info.set, e) {
		level = Unknown
	}
	what = strings.Join(append([]string{what}, m.carried(e.Extra)...), m.say.Say("sentence.join"))
	notes := []Note{{Object: o, Level: level, Topic: TopicWhat, Sentence: what}}
	if owned && !strings.Contains(what, owner) {
		notes = append(notes, Note{
			Object: o, Level: Info, Topic: TopicOwner, Sentence: m.say.Say("owner", "owner", owner),
			Evidence: []Evidence{{Object: o, Text: e.Comment}},
		})
	}
	if e.Expires != 0 {
		notes = append(notes, Note{Object: o, Level: Info, Topic: TopicEnd, Sentence: m.say.Say("element.expires", "time", period(e.Expires))})
	}
	if e.Counter != nil && e.Counter.Packets > 0 {
		notes = append(notes, Note{
			Object: o, Level: Info, Topic: TopicCounter, Sentence: m.counted(*e.Counter, m.natSet(info)),
			Evidence: []Evidence{{Object: o, Text: e.Counter.String()}},
		})
	}
	return notes
}

// period writes milliseconds for people.
func period(ms uint64) string {
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

// carried names the parts that an element has, or that each element of a set
// gets, beside its counter.
func (m *Model) carried(parts []ruleset.Part) []string {
	var known, opaque, out []string
	for _, p := range parts {
		if name, ok := notUnderstood(p); ok {
			opaque = append(opaque, m.say.Say("quoted", "text", name))
			continue
		}
		known = append(known, p.String())
	}
	if len(known) > 0 {
		out = append(out, m.say.Say("element.carries", "parts", m.say.And(known)))
	}
	if len(opaque) > 0 {
		out = append(out, m.say.Say("element.extra", "parts", m.say.And(opaque)))
	}
	return out
}

// elementWhat says what an element stands for, by what the rules that look it
// up ask of a packet.
func (m *Model) elementWhat(info *setInfo, e ruleset.Element, owner string) string {
	s := &scope{m: m, in: info.table}
	key := m.key(info)
	var conditions string
	switch {
	case e.CatchAll:
		conditions = m.say.Say("element.every")
	case key != nil:
		conditions = m.say.And(s.keyConditions(key, e))
	}
	switch {
	case e.Verdict.Kind != "":
		return m.verdictElement(e, conditions)
	case info.set.Data == ruleset.TypeVerdict:
		return m.say.Say("element.verdict.unknown")
	case e.Data.Data != "" || e.Object != "":
		return m.dataElement(info, key, e, conditions, owner)
	case e.CatchAll:
		return m.say.Say("element.set.every")
	case conditions != "":
		return m.say.Say("element.set", "conditions", conditions)
	}
	return m.say.Say("element.value", "value", m.elementKey(e))
}

func (m *Model) verdictElement(e ruleset.Element, conditions string) string {
	action := m.say.Say("act."+string(e.Verdict.Kind), "chain", e.Verdict.Chain)
	switch {
	case e.CatchAll:
		return m.say.Say("element.verdict.every", "action", action)
	case conditions == "":
		return m.say.Say("element.verdict.key", "key", m.elementKey(e), "action", action)
	}
	return m.say.Say("element.verdict", "conditions", conditions, "action", action)
}

// dataElement says to what a map leads, in the words of a published port where
// the map is used as one.
func (m *Model) dataElement(info *setInfo, key ruleset.Expr, e ruleset.Element, conditions, owner string) string {
	to, kind := m.target(e.Data, owner), natKind(info)
	switch {
	case e.Object != "":
		to = m.say.Say("target.object", "kind", string(info.set.Data), "name", e.Object)
	case e.DataEnd.Data != "":
		to = e.DataText()
	}
	if kind == ruleset.DNAT && !e.CatchAll && e.End.Data == "" {
		if words, ok := m.published(info, key, e, to); ok {
			return words
		}
	}
	switch {
	case conditions == "" || e.CatchAll && kind == "":
		return m.say.Say("element.data", "key", m.elementKey(e), "to", to)
	case kind == "":
		return m.say.Say("element.map", "conditions", conditions, "to", to)
	case e.CatchAll:
		return m.say.Say("element.nat.every", "side", m.say.Say("side."+string(kind)), "to", to)
	}
	return m.say.Say("element.nat", "conditions", conditions, "side", m.say.Say("side."+string(kind)), "to", to)
}

// target writes what a map leads to: an address and a port with whose they
// are.
func (m *Model) target(v ruleset.Value, owner string) string {
	parts := v.Parts()
	a, ok := parts[0].Addr()
	if !ok || len(parts) > 2 {
		return m.value(v)
	}
	addr := m.addr(a)
	if owner != "" {
		addr = a.String()
	}
	if len(parts) == 2 {
		addr = m.say.Say("nat.addrport", "addr", addr, "port", parts[1].String())
	}
	if owner != "" {
		addr = m.say.Say("target.owned", "to", addr, "owner", owner)
	}
	return addr
}

// natKind is the translation that all users of a map make; empty where they
// differ.
func natKind(info *setInfo) ruleset.NATKind {
	var kind ruleset.NATKind
	for i, u := range info.users {
		n, ok := u.Part.(ruleset.NAT)
		if !ok || i > 0 && n.Kind != kind {
			return ""
		}
		kind = n.Kind
	}
	return kind
}

// published words an element of a map of published ports: protocol and port,
// with the host address before them or without.
func (m *Model) published(info *setInfo, key ruleset.Expr, e ruleset.Element, to string) (string, bool) {
	exprs, values := partsOf(key), e.Key.Parts()
	if len(exprs) != len(values) {
		return "", false
	}
	id := "published.any"
	if m.localOnly(info) {
		id = "published.local"
	}
	on := m.say.Say(id, "family", m.natFamily(info))
	if len(exprs) == 3 {
		a, ok := values[0].Addr()
		p, payload := exprs[0].(ruleset.Payload)
		if !ok || !payload || p.Field != "daddr" {
			return "", false
		}
		on = m.say.Say("published.at", "addr", m.addr(a))
		exprs, values = exprs[1:], values[1:]
	}
	if len(exprs) != 2 || !isProtoPort(exprs[0], exprs[1]) || exprs[1] == ruleset.Expr(ruleset.THSport) {
		return "", false
	}
	return m.say.Say("published", "proto", values[0].String(), "port", values[1].String(), "on", on, "to", to), true
}

// natFamily names the addresses that the users of a map translate.
func (m *Model) natFamily(info *setInfo) string {
	family := string(info.table.Family)
	if n, ok := info.users[0].Part.(ruleset.NAT); ok && n.Family != "" {
		family = n.Family
	}
	if family == "ip6" {
		return m.say.Say("proto.ipv6")
	}
	return m.say.Say("proto.ipv4")
}

// localOnly says whether only packets for the host's own addresses are looked
// up in a set.
func (m *Model) localOnly(info *setInfo) bool {
	for _, u := range info.users {
		if !m.localRule(u.Rule, map[Object]bool{}) {
			return false
		}
	}
	return len(info.users) > 0
}

// localRule says whether a rule tests for an address of the host itself, or
// stands in a chain to which only such rules lead.
func (m *Model) localRule(rule Object, seen map[Object]bool) bool {
	info := m.chains[rule.chain(rule.Chain)]
	if info == nil {
		return false
	}
	local := ruleset.Is(ruleset.FibDaddrType, ruleset.HostUint32(ruleset.TypeFibAddrType, ruleset.FibLocal))
	if slices.ContainsFunc(info.chain.Rules[rule.Index].Parts, func(p ruleset.Part) bool {
		c, ok := p.(ruleset.Compare)
		return ok && c.Left == local.Left && c.Op == local.Op && c.Right == local.Right
	}) {
		return true
	}
	if seen[info.object] || info.base != nil || info.guessed || len(info.callers) == 0 {
		return false
	}
	seen[info.object] = true
	for _, c := range info.callers {
		if !m.localRule(c.Rule, seen) {
			return false
		}
	}
	return true
}
