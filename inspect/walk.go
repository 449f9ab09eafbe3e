package inspect

import (
	"slices"

	"nftnet/internal/ruleset"
)

// place is where a packet leaves a chain: at a rule, or at the chain's end,
// where Rule is [none].
type place struct {
	chain Object
	rule  int
}

// end is where a base chain lets go of a packet, and what becomes of it.
type end struct {
	place  place
	accept bool
	// policy says that the chain's policy decided, not a rule.
	policy bool
}

// fate is what a base chain does with a packet of which not everything is
// known.
type fate struct {
	// ends are all that are possible, ordinary those that are left for a packet
	// that nothing special is true of.
	ends, ordinary []end
	// vague says that it may be decided for each of the values that the packet
	// stands for, though not for all of them together.
	vague bool
}

// drops says whether every way through ends in a drop, and mayDrop whether that
// of an ordinary packet does. A rule that picks out packets to drop them is no
// obstacle: that is what it is there for.
func (f fate) drops() bool {
	return len(f.ends) > 0 && !slices.ContainsFunc(f.ends, func(e end) bool { return e.accept })
}

func (f fate) mayDrop() bool {
	return slices.ContainsFunc(f.ordinary, func(e end) bool { return !e.accept })
}

// decided says whether all ways end alike.
func (f fate) decided() bool {
	return !slices.ContainsFunc(f.ends, func(e end) bool { return e.accept != f.ends[0].accept })
}

// fate sends a packet through a base chain.
func (m *Model) fate(b *BaseChain, p packet) fate {
	var f fate
	f.ends, f.vague = m.ends(b, p, false)
	f.ordinary = f.ends
	if len(f.ends) > 1 {
		f.ordinary, _ = m.ends(b, p, true)
	}
	f.vague = f.vague && !f.decided()
	return f
}

func (m *Model) ends(b *BaseChain, p packet, ordinary bool) (ends []end, vague bool) {
	w := walker{m: m, e: evaluator{m: m, table: b.Table, packet: p, ordinary: ordinary, vague: &vague}}
	w.base(b)
	return w.ends, vague
}

// walker follows every way that a packet may take through a base chain.
type walker struct {
	m    *Model
	e    evaluator
	ends []end
}

// The kernel allows 16 jumps (NFT_JUMP_STACK_SIZE); it refuses longer ways, and
// loops.
const maxDepth = 16

func (w *walker) base(b *BaseChain) {
	for _, at := range w.chain(b.Object, 0) {
		w.ends = append(w.ends, end{place: at, accept: b.Chain.Base.Policy != ruleset.Drop, policy: true})
	}
}

// chain sends the packet through a chain and gives the places where it may come
// out without a decision.
func (w *walker) chain(o Object, depth int) []place {
	info := w.m.chains[o]
	if info == nil || depth > maxDepth {
		return []place{{o, none}}
	}
	var exits []place
	for i := range info.chain.Rules {
		out, goesOn := w.rule(o.rule(i), info.chain.Rules[i], depth)
		exits = append(exits, out...)
		if !goesOn {
			return exits
		}
	}
	return append(exits, place{o, none})
}

// rule gives the places where the packet may leave the rule's chain by it, and
// whether it may go on to the next rule.
func (w *walker) rule(o Object, r ruleset.Rule, depth int) (exits []place, goesOn bool) {
	held := yes
	for _, p := range r.Native().Parts {
		switch p := p.(type) {
		case ruleset.Match:
			held = both(held, w.e.match(p))
		case ruleset.VMap:
			return w.choose(o, held, w.e.choices(p), depth)
		default:
			v, t := w.statement(p)
			held = both(held, t)
			if v.Kind != "" {
				return w.verdict(o, held, v, depth)
			}
		}
		if held == no {
			return nil, true
		}
	}
	return nil, true
}

// choose follows the verdicts of a verdict map.
func (w *walker) choose(o Object, held truth, choices []choice, depth int) (exits []place, goesOn bool) {
	for _, c := range choices {
		out, next := w.verdict(o, both(held, c.held), c.verdict, depth)
		exits = append(exits, out...)
		if !next {
			return exits, false
		}
	}
	return exits, true
}

// harmless are targets of iptables that leave a packet to the next rule.
var harmless = []string{
	"LOG", "NFLOG", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "CT", "NOTRACK", "TRACE", "TCPMSS", "CLASSIFY",
	"DSCP", "TOS", "TTL", "HL", "SET", "CHECKSUM", "AUDIT", "LED", "IDLETIMER", "RATEEST",
}

// statement gives the verdict of a statement, if it is one, and whether the
// packet gets past it: what is not understood may hold it back.
func (w *walker) statement(p ruleset.Part) (ruleset.Verdict, truth) {
	switch p := p.(type) {
	case ruleset.Verdict:
		return p, yes
	case ruleset.Reject:
		return ruleset.Verdict{Kind: ruleset.Drop}, yes
	case ruleset.Counter, ruleset.Log, ruleset.Mangle, ruleset.Notrack:
		return ruleset.Verdict{}, yes
	case ruleset.Limit:
		held := w.e.settle(maybe)
		if w.e.ordinary && !p.Over {
			held = yes
		}
		return ruleset.Verdict{}, held
	case ruleset.Compat:
		return compat(p)
	}
	return ruleset.Verdict{}, maybe
}

func compat(c ruleset.Compat) (ruleset.Verdict, truth) {
	switch {
	case c.Target && c.Name == "REJECT":
		return ruleset.Verdict{Kind: ruleset.Drop}, yes
	case c.Target && slices.Contains(harmless, c.Name), !c.Target && c.Name == "comment":
		return ruleset.Verdict{}, yes
	}
	return ruleset.Verdict{}, maybe
}

// verdict follows a verdict that is met if held is.
func (w *walker) verdict(o Object, held truth, v ruleset.Verdict, depth int) (exits []place, goesOn bool) {
	if held == no {
		return nil, true
	}
	here, sure := place{o.chain(o.Chain), o.Index}, held == yes
	switch v.Kind {
	case ruleset.Continue:
		return nil, true
	case ruleset.Accept, ruleset.Drop:
		w.ends = append(w.ends, end{place: here, accept: v.Kind == ruleset.Accept})
	case ruleset.Return:
		return []place{here}, !sure
	case ruleset.Goto:
		return w.chain(o.chain(v.Chain), depth+1), !sure
	case ruleset.Jump:
		before := len(w.ends)
		out := w.chain(o.chain(v.Chain), depth+1)
		return nil, !sure || len(out) > 0 || len(w.ends) == before
	default:
		// A program decides, or nobody knows who.
		w.ends = append(w.ends, end{place: here, accept: true}, end{place: here})
	}
	return nil, !sure
}
