package ruleset

import (
	"fmt"
	"slices"
	"strings"
)

// Verb is what a change does to its object.
type Verb string

// The verbs, as nft writes them.
const (
	Add    Verb = "add"
	Delete Verb = "delete"
	Flush  Verb = "flush"
)

// Change is one step of a [Batch]. Of Chain, Set, Rule and Elements those are
// given that name the object: none for a table, Chain alone for a chain, Chain
// and Rule for a rule, Set alone for a set, Set and Elements for elements.
type Change struct {
	Verb   Verb
	Family Family
	Table  string
	// Flags are those of a table that is added.
	Flags    []string
	Chain    *Chain
	Rule     *Rule
	Set      *Set
	Elements []Element
}

// Object names what the change is about, in nft's words.
func (c Change) Object() string {
	table := fmt.Sprintf("%s %s", c.Family, c.Table)
	switch {
	case c.Rule != nil:
		return fmt.Sprintf("rule %s %s", table, c.Chain.Name)
	case c.Chain != nil:
		return fmt.Sprintf("chain %s %s", table, c.Chain.Name)
	case c.Elements != nil:
		return fmt.Sprintf("element %s %s", table, c.Set.Name)
	case c.Set != nil:
		return fmt.Sprintf("%s %s %s", c.Set.kind(), table, c.Set.Name)
	}
	return "table " + table
}

// String writes the change as a command of nft.
func (c Change) String() string {
	head := string(c.Verb) + " " + c.Object()
	if c.Verb == Delete && c.Rule == nil && c.Elements == nil || c.Verb == Flush {
		return head
	}
	switch {
	case c.Rule != nil:
		return head + " " + c.Rule.text(Format{Stateless: true})
	case c.Chain != nil && c.Chain.Base != nil:
		return fmt.Sprintf("%s { %s }", head, c.Chain.Base)
	case c.Elements != nil:
		texts := make([]string, len(c.Elements))
		for i, e := range c.Elements {
			texts[i] = e.text(Format{Stateless: true})
		}
		return fmt.Sprintf("%s { %s }", head, strings.Join(texts, ", "))
	case c.Set != nil:
		return fmt.Sprintf("%s { %s; }", head, strings.Join(c.Set.definition(), "; "))
	case len(c.Flags) > 0:
		return fmt.Sprintf("%s { flags %s; }", head, strings.Join(c.Flags, ","))
	}
	return head
}

// Batch is a list of changes that the kernel takes all together or not at all.
type Batch []Change

// String writes the batch as a file for nft -f.
func (b Batch) String() string {
	var s strings.Builder
	for _, c := range b {
		s.WriteString(c.String())
		s.WriteByte('\n')
	}
	return s.String()
}

// Diff is the batch that turns have into want, in an order that the kernel
// takes: nothing is removed while something refers to it, nothing is referred
// to before it is there. Rules are compared as the kernel runs them; counters
// and handles do not count, so that equal rules keep their counters. Chains
// that are [Chain.UserOwned] in want keep the rules that they have, and what
// those rules refer to is kept too. Where such a rule refers to a set whose
// definition changes, it is taken out and put back.
func Diff(have, want Ruleset) Batch {
	var b Batch
	for _, t := range have.Tables {
		if want.Table(t.Family, t.Name) == nil {
			b = append(b, Change{Verb: Delete, Family: t.Family, Table: t.Name})
		}
	}
	for i := range want.Tables {
		w := &want.Tables[i]
		h := have.Table(w.Family, w.Name)
		if h == nil {
			b = append(b, Change{Verb: Add, Family: w.Family, Table: w.Name, Flags: w.Flags})
			h = &Table{Family: w.Family, Name: w.Name}
		} else if slices.Contains(h.Flags, "dormant") && !slices.Contains(w.Flags, "dormant") {
			// Nothing of a dormant table runs.
			b = append(b, Change{Verb: Add, Family: w.Family, Table: w.Name, Flags: w.Flags})
		}
		b = append(b, newTableDiff(h, w).batch()...)
	}
	return b
}

// tableDiff sorts the objects of a table by what has to happen to them.
type tableDiff struct {
	have, want *Table
	// kept are the chains and sets that a user's rules refer to.
	keptChains, keptSets map[string]bool
	// remade are chains and sets whose definition changes.
	remadeChains, remadeSets map[string]bool
	// refilled are chains that stay and get new rules.
	refilled map[string]bool
}

func newTableDiff(have, want *Table) *tableDiff {
	d := &tableDiff{
		have: have, want: want,
		keptChains: map[string]bool{}, keptSets: map[string]bool{},
		remadeChains: map[string]bool{}, remadeSets: map[string]bool{}, refilled: map[string]bool{},
	}
	for _, c := range want.Chains {
		if c.UserOwned {
			d.keep(c.Name)
		}
	}
	for i := range want.Sets {
		s := &want.Sets[i]
		if h := have.Set(s.Name); h != nil && !h.sameDefinition(*s) {
			d.remadeSets[s.Name] = true
		}
	}
	for i := range have.Chains {
		h := &have.Chains[i]
		w := want.Chain(h.Name)
		switch {
		case w == nil && !d.keptChains[h.Name]:
		case w != nil && !w.UserOwned && !w.Base.equal(h.Base):
			d.remadeChains[h.Name] = true
		case !sameRules(h.Rules, d.rulesOf(h.Name)) || d.refersToRemadeSet(h):
			d.refilled[h.Name] = true
		}
	}
	return d
}

// rulesOf are the rules that a chain is to have. A chain of the user keeps its
// own, and so does one that only the user's rules reach.
func (d *tableDiff) rulesOf(name string) []Rule {
	h, w := d.have.Chain(name), d.want.Chain(name)
	if h != nil && (w == nil || w.UserOwned) {
		return h.Rules
	}
	return w.Rules
}

func sameRules(a, b []Rule) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// keep marks a chain of the user and all that its rules reach. What is wanted
// anyway needs no mark, and its content is not the user's.
func (d *tableDiff) keep(name string) {
	c, w := d.have.Chain(name), d.want.Chain(name)
	if c == nil || d.keptChains[name] || w != nil && !w.UserOwned {
		return
	}
	d.keptChains[name] = true
	for _, r := range c.Rules {
		for _, s := range SetsOf(r) {
			if d.want.Set(s) == nil {
				d.keepSet(s)
			}
		}
		for _, t := range Targets(r) {
			d.keep(t)
		}
	}
}

func (d *tableDiff) keepSet(name string) {
	set := d.have.Set(name)
	if set == nil {
		return
	}
	d.keptSets[name] = true
	for _, e := range set.Elements {
		d.keep(e.Verdict.Chain)
	}
}

func (d *tableDiff) refersToRemadeSet(c *Chain) bool {
	for _, r := range c.Rules {
		for _, s := range SetsOf(r) {
			if d.remadeSets[s] {
				return true
			}
		}
	}
	return false
}

func (d *tableDiff) batch() Batch {
	var b Batch
	b = append(b, d.emptyChains()...)
	b = append(b, d.deleteElements()...)
	b = append(b, d.deleteObjects()...)
	b = append(b, d.addObjects()...)
	b = append(b, d.addRules()...)
	return append(b, d.addElements()...)
}

func (d *tableDiff) change(v Verb) Change {
	return Change{Verb: v, Family: d.want.Family, Table: d.want.Name}
}

// chainGoes says whether a chain that is there is to go.
func (d *tableDiff) chainGoes(name string) bool {
	return d.remadeChains[name] || (d.want.Chain(name) == nil && !d.keptChains[name])
}

func (d *tableDiff) setGoes(name string) bool {
	return d.remadeSets[name] || (d.want.Set(name) == nil && !d.keptSets[name])
}

func (d *tableDiff) emptyChains() Batch {
	var b Batch
	for i := range d.have.Chains {
		c := &d.have.Chains[i]
		if len(c.Rules) > 0 && (d.refilled[c.Name] || d.chainGoes(c.Name)) {
			ch := d.change(Flush)
			ch.Chain = c
			b = append(b, ch)
		}
	}
	return b
}

func (d *tableDiff) deleteElements() Batch {
	var b Batch
	for i := range d.have.Sets {
		h := &d.have.Sets[i]
		w := d.want.Set(h.Name)
		if h.Anonymous || w == nil || d.remadeSets[h.Name] {
			continue
		}
		if gone := missing(h.Elements, w.Elements); len(gone) > 0 {
			ch := d.change(Delete)
			ch.Set, ch.Elements = h, gone
			b = append(b, ch)
		}
	}
	return b
}

// missing lists the elements of a that b does not hold in the same way.
func missing(a, b []Element) []Element {
	there := make(map[elementKey]Element, len(b))
	for _, e := range b {
		there[e.key()] = e
	}
	var out []Element
	for _, e := range a {
		if o, ok := there[e.key()]; !ok || !e.same(o) {
			out = append(out, e)
		}
	}
	return out
}

func (d *tableDiff) deleteObjects() Batch {
	var b Batch
	for i := range d.have.Sets {
		s := &d.have.Sets[i]
		if !s.Anonymous && d.setGoes(s.Name) {
			ch := d.change(Delete)
			ch.Set = s
			b = append(b, ch)
		}
	}
	for i := range d.have.Chains {
		c := &d.have.Chains[i]
		if d.chainGoes(c.Name) {
			ch := d.change(Delete)
			ch.Chain = c
			b = append(b, ch)
		}
	}
	return b
}

func (d *tableDiff) addObjects() Batch {
	var b Batch
	for i := range d.want.Sets {
		s := &d.want.Sets[i]
		if d.have.Set(s.Name) == nil || d.remadeSets[s.Name] {
			ch := d.change(Add)
			ch.Set = s
			b = append(b, ch)
		}
	}
	for i := range d.want.Chains {
		c := &d.want.Chains[i]
		if d.have.Chain(c.Name) == nil || d.remadeChains[c.Name] {
			ch := d.change(Add)
			ch.Chain = c
			b = append(b, ch)
		}
	}
	return b
}

func (d *tableDiff) addRules() Batch {
	var b Batch
	add := func(c *Chain, rules []Rule) {
		for i := range rules {
			ch := d.change(Add)
			ch.Chain, ch.Rule = c, &rules[i]
			b = append(b, ch)
		}
	}
	for i := range d.want.Chains {
		c := &d.want.Chains[i]
		if d.have.Chain(c.Name) == nil || d.remadeChains[c.Name] || d.refilled[c.Name] {
			add(c, d.rulesOf(c.Name))
		}
	}
	for i := range d.have.Chains {
		// Kept for the user, and emptied for a set that had to be made anew.
		if c := &d.have.Chains[i]; d.refilled[c.Name] && d.want.Chain(c.Name) == nil {
			add(c, c.Rules)
		}
	}
	return b
}

func (d *tableDiff) addElements() Batch {
	var b Batch
	for i := range d.want.Sets {
		w := &d.want.Sets[i]
		add := w.Elements
		if h := d.have.Set(w.Name); h != nil && !d.remadeSets[w.Name] {
			add = missing(w.Elements, h.Elements)
		}
		if len(add) > 0 {
			ch := d.change(Add)
			ch.Set, ch.Elements = w, add
			b = append(b, ch)
		}
	}
	return b
}
