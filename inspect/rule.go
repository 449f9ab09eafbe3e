package inspect

import (
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// scope is what a sentence may refer to: a table, and where it is about a rule,
// the rule and its chain.
type scope struct {
	m     *Model
	in    *ruleset.Table
	info  *chainInfo
	rule  *ruleset.Rule
	index int
}

// clause is a step of a rule: what a packet must be, and what then happens.
type clause struct {
	conditions []phrase
	actions    []string
}

// reading is a rule taken apart for its sentence.
type reading struct {
	clauses []clause
	// outcome says what follows for the packet.
	outcome []string
	// ended is set by a part behind which the rule does not go on; rest are the
	// parts that stand there all the same.
	ended   bool
	rest    []string
	unknown bool
}

func (r *reading) when(condition phrase) {
	last := len(r.clauses) - 1
	if last < 0 || len(r.clauses[last].actions) > 0 {
		r.clauses = append(r.clauses, clause{})
		last++
	}
	r.clauses[last].conditions = append(r.clauses[last].conditions, condition)
}

// knows says whether a condition was asked for already.
func (r *reading) knows(words string) bool {
	return slices.ContainsFunc(r.clauses, func(c clause) bool {
		return slices.ContainsFunc(c.conditions, func(p phrase) bool { return p.words == words })
	})
}

func (r *reading) then(action string) {
	if len(r.clauses) == 0 {
		r.clauses = append(r.clauses, clause{})
	}
	last := &r.clauses[len(r.clauses)-1]
	last.actions = append(last.actions, action)
}

func (r *reading) follows(sentence string) { r.outcome = append(r.outcome, sentence) }

// read takes the rule apart.
func (s *scope) read() *reading {
	r := &reading{}
	for i := 0; i < len(s.rule.Parts); i++ {
		p := s.rule.Parts[i]
		if r.ended {
			r.rest = append(r.rest, p.String())
			continue
		}
		if name, ok := notUnderstood(p); ok {
			names := []string{name}
			for i+1 < len(s.rule.Parts) {
				next, ok := notUnderstood(s.rule.Parts[i+1])
				if !ok {
					break
				}
				names = append(names, next)
				i++
			}
			s.opaque(r, names, i+1 == len(s.rule.Parts))
			continue
		}
		s.part(r, p)
	}
	if !r.ended {
		r.follows(s.m.say.Say("then", "next", s.next()))
	}
	return r
}

// notUnderstood names a part that is not understood, and of which it is not
// known whether it lets the packet pass.
func notUnderstood(p ruleset.Part) (string, bool) {
	switch p := p.(type) {
	case ruleset.Opaque:
		return p.Name, true
	case ruleset.Compat:
		if _, ok := p.IPTables(); !p.Target && !ok {
			return "xt match " + p.Name, true
		}
	}
	return "", false
}

func (s *scope) opaque(r *reading, names []string, last bool) {
	r.unknown = true
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = s.m.say.Say("quoted", "text", n)
	}
	parts := s.m.say.Count("opaque.parts", uint64(len(names)), "names", s.m.say.And(quoted))
	if last {
		r.then(s.m.say.Say("act.opaque", "parts", parts))
		r.follows(s.m.say.Say("opaque.last", "next", s.next()))
		r.ended = true
		return
	}
	r.when(phrase{words: s.m.say.Say("cond.opaque", "parts", parts)})
}

// part reads one part that is understood.
func (s *scope) part(r *reading, p ruleset.Part) {
	switch p := p.(type) {
	case ruleset.Match:
		r.when(s.condition(p))
	case ruleset.Limit:
		r.when(phrase{words: s.limit(p)})
	case ruleset.Counter:
		r.then(s.counted())
	case ruleset.Log:
		r.then(s.log(p))
	case ruleset.Mangle:
		r.then(s.mangle(p))
	case ruleset.Notrack:
		r.then(s.m.say.Say("act.notrack"))
	case ruleset.Verdict:
		s.verdict(r, p)
	case ruleset.VMap:
		s.vmap(r, p)
	case ruleset.NAT:
		s.nat(r, p)
	case ruleset.Masquerade:
		if p.Port.Data != "" {
			s.translated(r, s.m.say.Say("act.nat.raw", "text", p.String()))
			return
		}
		s.translated(r, s.flagged("act.masquerade", p.Flags))
	case ruleset.Redirect:
		s.redirect(r, p)
	case ruleset.Reject:
		s.reject(r, p)
	case ruleset.Compat:
		if p.Target {
			s.iptables(r, p)
			return
		}
		words, _ := p.IPTables()
		r.when(phrase{words: s.m.say.Say("cond.iptables", "text", words)})
	default:
		if !s.other(r, p) {
			// The vocabulary knows a statement that has no words here yet.
			r.unknown = true
			r.then(s.m.say.Say("act.raw", "text", p.String()))
		}
	}
}

// sentence composes what the rule does.
func (s *scope) sentence(r *reading) string {
	say := s.m.say
	var sentences, steps []string
	for i, c := range r.clauses {
		if len(c.actions) == 0 {
			c.actions = []string{say.Say("act.nothing")}
		}
		id := "rule.packet"
		switch {
		case i > 0:
			id = "rule.ofthese"
		case len(c.conditions) == 0:
			id = "rule.every"
		}
		steps = append(steps, say.Say(id, "conditions", say.And(s.m.merged(c.conditions)), "actions", say.And(c.actions)))
	}
	if len(steps) > 0 {
		sentences = append(sentences, say.Say("sentence", "text", strings.Join(steps, say.Say("rule.steps"))))
	} else {
		sentences = append(sentences, say.Say("rule.empty"))
	}
	sentences = append(sentences, r.outcome...)
	if len(r.rest) > 0 {
		sentences = append(sentences, say.Say("rule.rest", "parts", strings.Join(r.rest, " ")))
	}
	return strings.Join(sentences, say.Say("sentence.join"))
}

// notes explains the rule.
func (s *scope) notes() []Note {
	o := s.info.object.rule(s.index)
	r := s.read()
	level := Info
	if r.unknown {
		level = Unknown
	}
	notes := []Note{{Object: o, Level: level, Topic: TopicWhat, Sentence: s.sentence(r)}}
	if by := s.info.taker; by >= 0 && by < s.index {
		notes = append(notes, Note{
			Object: o, Level: Warn, Topic: TopicReach,
			Sentence: s.m.say.Say("rule.dead", "rule", s.m.ruleName(s.info.object.rule(by), s.in)),
			Evidence: []Evidence{s.m.evidence(s.info.object.rule(by))},
		})
	}
	for _, n := range append(s.interfaces(), s.listeners()...) {
		n.Object = o
		notes = append(notes, n)
	}
	if owner, ok := s.m.owner(s.rule.Comment); ok {
		notes = append(notes, Note{
			Object: o, Level: Info, Topic: TopicOwner, Sentence: s.m.say.Say("owner", "owner", owner),
			Evidence: []Evidence{{Object: o, Text: s.rule.Comment}},
		})
	}
	for _, p := range s.rule.Parts {
		if c, ok := p.(ruleset.Counter); ok && c.Packets > 0 {
			notes = append(notes, Note{
				Object: o, Level: Info, Topic: TopicCounter, Sentence: s.m.counted(c, s.natOnly()),
				Evidence: []Evidence{{Object: o, Text: c.String()}},
			})
		}
	}
	return notes
}

// takesAll says whether no packet goes from a rule on to the next one.
func takesAll(r ruleset.Rule) bool {
	for _, p := range r.Parts {
		switch p := p.(type) {
		case ruleset.Counter, ruleset.Log, ruleset.Notrack:
		case ruleset.Verdict:
			switch p.Kind {
			case ruleset.Accept, ruleset.Drop, ruleset.Return, ruleset.Goto:
				return true
			}
			return false
		case ruleset.Reject:
			return true
		default:
			return false
		}
	}
	return false
}

// evidence is an object of the ruleset in nft's words.
func (m *Model) evidence(o Object) Evidence {
	e := Evidence{Object: o}
	switch o.Kind {
	case KindRule:
		if info := m.chains[o.chain(o.Chain)]; info != nil && o.Index < len(info.chain.Rules) {
			e.Text = info.chain.Rules[o.Index].Text(ruleset.Format{Stateless: true})
		}
	case KindChain:
		if info := m.chains[o]; info != nil && info.chain.Base != nil {
			e.Text = info.chain.Base.String()
		}
	}
	return e
}
