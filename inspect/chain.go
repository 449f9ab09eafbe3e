package inspect

import (
	"strconv"
	"strings"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// conntrackPriority is where connection tracking runs at prerouting and output
// (NF_IP_PRI_CONNTRACK).
const conntrackPriority = -200

func (m *Model) chainNotes(info *chainInfo) []Note {
	var notes []Note
	add := func(level Level, topic Topic, sentence string, evidence ...Evidence) {
		if sentence != "" {
			notes = append(notes, Note{Object: info.object, Level: level, Topic: topic, Sentence: sentence, Evidence: evidence})
		}
	}
	switch {
	case info.base != nil:
		add(Info, TopicWhat, m.baseWhat(info))
		add(Info, TopicOrder, m.baseOrder(info.base), m.neighbourEvidence(info.base)...)
	case info.chain.Base != nil:
		add(Warn, TopicReach, m.say.Say("chain.dormant"))
	default:
		add(Info, TopicReach, m.calledFrom(info), m.callerEvidence(info)...)
		add(Info, TopicReach, m.seesHooks(info))
	}
	if info.chain.Name == layout.UserChain {
		add(Info, TopicCustom, m.userStory(info))
	}
	add(Info, TopicEnd, m.chainEnd(info))
	if info.natOnly() && len(info.chain.Rules) > 0 {
		id := "chain.nat"
		if info.base == nil {
			id = "chain.nat.called"
		}
		add(Info, TopicNAT, m.say.Say(id))
	}
	return append(notes, m.makerNotes(info.object)...)
}

// baseWhat says when the kernel calls a base chain.
func (m *Model) baseWhat(info *chainInfo) string {
	b := info.chain.Base
	var hooks []string
	for _, h := range info.hooks {
		hooks = append(hooks, m.hookName(h))
	}
	packets := m.say.Say("packets." + string(info.table.Family))
	sentences := []string{m.say.Say("chain.base", "hooks", m.say.And(m.shortened(hooks)), "packets", packets,
		"type", b.Type, "priority", m.priority(*b))}
	if info.base.At != b.Priority {
		sentences = append(sentences, m.say.Say("chain.nat.at", "at", strconv.Itoa(int(info.base.At))))
	}
	if b.Type == "route" {
		sentences = append(sentences, m.say.Say("chain.route"))
	}
	if tracked := b.Hook == ruleset.HookPrerouting || b.Hook == ruleset.HookOutput; tracked &&
		info.hooks[0].Layer == LayerIP && info.base.At < conntrackPriority {
		sentences = append(sentences, m.say.Say("chain.raw"))
	}
	return strings.Join(sentences, m.say.Say("sentence.join"))
}

// priority writes a priority as a number and by its name, where it has one.
func (m *Model) priority(b ruleset.Base) string {
	number, name := strconv.Itoa(int(b.Priority)), b.PriorityText()
	if number == name {
		return number
	}
	return m.say.Say("priority.named", "number", number, "name", name)
}

// baseOrder names the chains before and after a base chain at its hook.
func (m *Model) baseOrder(b *BaseChain) string {
	before, after, unordered := m.neighbours(b)
	var sentences []string
	say := func(id string, chains []*BaseChain) {
		if len(chains) > 0 {
			sentences = append(sentences, m.say.Say(id, "chains", m.chainNames(chains, b.Table)))
		}
	}
	say("order.before", before)
	say("order.after", after)
	say("order.unordered", unordered)
	if len(sentences) == 0 {
		return m.say.Say("order.alone", "hook", m.hookName(b.Hook))
	}
	return strings.Join(sentences, m.say.Say("sentence.join"))
}

func (m *Model) neighbourEvidence(b *BaseChain) []Evidence {
	before, after, unordered := m.neighbours(b)
	var out []Evidence
	for _, list := range [][]*BaseChain{before, unordered, after} {
		for _, o := range list {
			out = append(out, m.evidence(o.Object))
		}
	}
	return out
}

// calledFrom says by which rules a packet gets to a regular chain.
func (m *Model) calledFrom(info *chainInfo) string {
	if len(info.callers) == 0 {
		if m.doubtful[tableObject(info.table)] {
			return m.say.Say("chain.uncalled.known")
		}
		return m.say.Say("chain.uncalled")
	}
	var ways []string
	for _, c := range info.callers {
		ways = append(ways, m.callerWords(c, info.table))
	}
	return m.say.Say("chain.called", "ways", m.say.Or(m.shortened(unique(ways))))
}

func (m *Model) callerWords(c Caller, in *ruleset.Table) string {
	by := m.say.Say("by." + string(c.Kind))
	switch {
	case c.Rule == (Object{}):
		return m.say.Count("caller.map.unused", uint64(c.Elements), "map", c.Map, "by", by)
	case c.Map == "" || m.anonymous(in, c.Map):
		return m.say.Say("caller.rule", "rule", m.ruleName(c.Rule, in), "by", by)
	}
	return m.say.Count("caller.map", uint64(c.Elements), "map", c.Map, "rule", m.ruleName(c.Rule, in), "by", by)
}

func (m *Model) anonymous(t *ruleset.Table, set string) bool {
	s := m.set(t, set)
	return s == nil || s.Anonymous
}

func (m *Model) callerEvidence(info *chainInfo) []Evidence {
	var out []Evidence
	for _, c := range info.callers {
		if c.Rule != (Object{}) {
			out = append(out, m.evidence(c.Rule))
		}
	}
	return out
}

// seesHooks names the base chains from which a packet gets to a regular chain.
func (m *Model) seesHooks(info *chainInfo) string {
	if len(info.from) == 0 {
		return ""
	}
	var names []string
	for _, b := range info.from {
		names = append(names, m.say.Say("chain.at", "hook", m.hookName(b.Hook), "chain", m.chainName(b.Object, info.table)))
	}
	return m.say.Say("chain.sees", "chains", m.say.And(m.shortened(names)))
}

// chainEnd says what becomes of a packet that no rule of the chain decides.
func (m *Model) chainEnd(info *chainInfo) string {
	if info.taker >= 0 {
		return ""
	}
	if b := info.chain.Base; b != nil {
		return m.say.Say("policy." + string(b.Policy))
	}
	ways := m.ways(info)
	if ways == "" {
		return ""
	}
	id := "chain.end"
	if len(info.chain.Rules) == 0 {
		id = "chain.empty"
	}
	return m.say.Say(id, "ways", ways)
}

// userStory says what rules in the user's chain decide, as far as its callers
// show it.
func (m *Model) userStory(info *chainInfo) string {
	sentences := []string{m.say.Say("user.chain")}
	for _, c := range info.callers {
		caller := m.chains[c.Rule.chain(c.Rule.Chain)]
		if caller == nil || c.Kind != ruleset.Jump || c.Rule.Index != 0 {
			continue
		}
		if rest := len(caller.chain.Rules) - 1; rest > 0 {
			sentences = append(sentences, m.say.Count("user.first", uint64(rest), "chain", m.chainName(caller.object, info.table)))
		}
	}
	if len(info.from) == 1 && !info.guessed && info.from[0].Hook.Hook == ruleset.HookForward && info.from[0].Hook.Layer == LayerIP {
		sentences = append(sentences, m.say.Say("user.forward"))
	}
	return strings.Join(sentences, m.say.Say("sentence.join"))
}
