package inspect

import (
	"nftnet/internal/ruleset"
)

// How often a packet at a hook has no interface of one side.
const (
	// always: no packet there has one.
	always = "always"
	// own: packets that the host itself sends have none.
	own = "own"
)

// emptyInterfaces lists the hooks at which a packet has no input or output
// interface. Its name is then empty: a comparison for a name fails, one for
// another name than that holds (nft_meta_store_ifname in the kernel).
var emptyInterfaces = map[Layer]map[bool]map[ruleset.Hook]string{
	LayerIP: {
		true:  {ruleset.HookOutput: always, ruleset.HookPostrouting: own},
		false: {ruleset.HookPrerouting: always, ruleset.HookInput: always},
	},
	LayerBridge: {
		true:  {ruleset.HookOutput: always, ruleset.HookPostrouting: always},
		false: {ruleset.HookPrerouting: always, ruleset.HookInput: always},
	},
	LayerARP: {
		true:  {ruleset.HookOutput: always},
		false: {ruleset.HookInput: always},
	},
}

// ifaceTest is a test of an interface in a rule.
type ifaceTest struct {
	input bool
	// holds says whether the test holds for an empty name; looked marks the key
	// of a map, which finds nothing.
	holds, looked bool
}

// interfaces says where the rule's tests of interfaces meet packets that have
// no such interface.
func (s *scope) interfaces() []Note {
	var out []Note
	for _, p := range s.rule.Parts {
		for _, t := range ifaceTests(p) {
			if n, ok := s.interfaceNote(t); ok && !hasNote(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

func hasNote(notes []Note, n Note) bool {
	for _, o := range notes {
		if o.Sentence == n.Sentence {
			return true
		}
	}
	return false
}

// ifaceTests finds the tests of interfaces in a part of a rule.
func ifaceTests(p ruleset.Part) []ifaceTest {
	switch p := p.(type) {
	case ruleset.Match:
		t := testOf(p)
		switch x := t.left.(type) {
		case ruleset.Meta:
			return ifaceTestsOf([]ruleset.Expr{x}, emptyPasses(t, x), false)
		case ruleset.ConcatExpr:
			return ifaceTestsOf(x.Parts, t.negated, false)
		}
	case ruleset.VMap:
		return ifaceTestsOf(partsOf(p.Key), false, true)
	case ruleset.NAT:
		if p.Key != nil {
			return ifaceTestsOf(partsOf(p.Key), false, true)
		}
	}
	return nil
}

func partsOf(x ruleset.Expr) []ruleset.Expr {
	if c, ok := x.(ruleset.ConcatExpr); ok {
		return c.Parts
	}
	return []ruleset.Expr{x}
}

func ifaceTestsOf(exprs []ruleset.Expr, holds, looked bool) []ifaceTest {
	var out []ifaceTest
	for _, x := range exprs {
		m, ok := x.(ruleset.Meta)
		if !ok {
			continue
		}
		switch m.Key {
		case ruleset.MetaIIFName, ruleset.MetaIIF:
			out = append(out, ifaceTest{input: true, holds: holds, looked: looked})
		case ruleset.MetaOIFName, ruleset.MetaOIF:
			out = append(out, ifaceTest{holds: holds, looked: looked})
		case ruleset.MetaIIFType, ruleset.MetaIIFGroup:
			// These cannot be read where there is no interface: the rule ends there,
			// whatever the operator.
			out = append(out, ifaceTest{input: true, looked: looked})
		case ruleset.MetaOIFType, ruleset.MetaOIFGroup:
			out = append(out, ifaceTest{looked: looked})
		}
	}
	return out
}

// emptyPasses says whether a test holds for no interface: an empty name, or
// the index 0.
func emptyPasses(t test, x ruleset.Meta) bool {
	if t.against.form() == "one" && x.Key != ruleset.MetaIIFName && x.Key != ruleset.MetaOIFName {
		if n, ok := t.against.value.Uint(); ok && n == 0 {
			return !t.negated
		}
	}
	if t.against.form() == "one" && t.against.value.Data != "" && t.against.value.Name() == "" {
		return !t.negated
	}
	return t.negated
}

// interfaceNote is the note for one test, over all hooks from which a packet
// gets to the rule.
func (s *scope) interfaceNote(t ifaceTest) (Note, bool) {
	all, some := s.hooksWithout(t.input)
	n := Note{Level: Info, Topic: TopicInterface}
	when, hooks := "", all
	switch {
	case len(all) > 0 && len(some) == 0 && len(all) == len(s.hookNames()) && !s.info.guessed:
		when = "all"
		if t.effect() == "never" {
			n.Level = Warn
		}
	case len(all) > 0:
		when = "some"
	case len(some) > 0:
		when, hooks = "own", some
	default:
		return Note{}, false
	}
	side := "iface.side.out"
	if t.input {
		side = "iface.side.in"
	}
	n.Sentence = s.m.say.Say("iface."+when+"."+t.effect(), "hooks", s.m.say.Or(hooks), "side", s.m.say.Say(side))
	return n, true
}

// effect tells, by the ids of templates, what a test does with a packet that
// has no interface.
func (t ifaceTest) effect() string {
	switch {
	case t.looked:
		return "looked"
	case t.holds:
		return "holds"
	}
	return "never"
}

// hooksWithout lists the hooks from which packets without an interface get to
// the rule: all packets of the hook, or only what the host itself sends.
func (s *scope) hooksWithout(input bool) (all, some []string) {
	for _, b := range s.info.from {
		switch emptyInterfaces[b.Hook.Layer][input][b.Hook.Hook] {
		case always:
			all = append(all, s.m.hookName(b.Hook))
		case own:
			some = append(some, s.m.hookName(b.Hook))
		}
	}
	return unique(all), unique(some)
}

// hookNames lists the hooks from which a packet gets to the rule's chain.
func (s *scope) hookNames() []string {
	var out []string
	for _, b := range s.info.from {
		out = append(out, s.m.hookName(b.Hook))
	}
	return unique(out)
}

func unique(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
