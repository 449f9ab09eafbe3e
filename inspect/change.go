package inspect

import (
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/ruleset"
)

// ChangeKind is what happened to an object.
type ChangeKind string

// The kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	// Moved is for a rule that stands at another place among the others.
	Moved ChangeKind = "moved"
	// Altered is for an object that is still there and not as it was.
	Altered ChangeKind = "altered"
)

// Change is a difference between two rulesets.
type Change struct {
	Kind ChangeKind
	// Object is in the later ruleset, where it was removed in the earlier one.
	Object Object
	// From is the place in the earlier ruleset of a rule that was moved.
	From int
	// Before and After are the object in nft's words, line by line; the one or the
	// other is empty where there was none.
	Before, After []string
	// Sentence says it in plain words.
	Sentence string
}

// Changes lists what is different in m from an earlier ruleset, table by table.
// Handles, counters and what else changes by itself do not count, nor does the
// order of tables, chains, sets and elements.
func (m *Model) Changes(earlier *Model) []Change {
	d := &differ{say: m.say.Say, was: earlier, is: m}
	for i := range earlier.Ruleset.Tables {
		if t := &earlier.Ruleset.Tables[i]; m.Ruleset.Table(t.Family, t.Name) == nil {
			d.table(t, nil)
		}
	}
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		d.table(earlier.Ruleset.Table(t.Family, t.Name), t)
	}
	return d.out
}

// differ compares two rulesets.
type differ struct {
	say     func(id string, args ...string) string
	was, is *Model
	out     []Change
}

// stateless leaves out what changes by itself.
var stateless = ruleset.Format{Stateless: true}

// thing is an object of either ruleset with what is compared of it.
type thing struct {
	object Object
	lines  []string
}

// compare enters what became of the things of one kind in a table, by name.
func (d *differ) compare(was, is []thing) {
	there := make(map[string]thing, len(is))
	for _, t := range is {
		there[thingKey(t)] = t
	}
	before := make(map[string]bool, len(was))
	for _, t := range was {
		before[thingKey(t)] = true
		now, ok := there[thingKey(t)]
		switch {
		case !ok:
			d.add(Change{Kind: Removed, Object: t.object, Before: t.lines})
		case !slices.Equal(t.lines, now.lines):
			d.add(Change{Kind: Altered, Object: now.object, Before: t.lines, After: now.lines})
		}
	}
	for _, t := range is {
		if !before[thingKey(t)] {
			d.add(Change{Kind: Added, Object: t.object, After: t.lines})
		}
	}
}

func thingKey(t thing) string { return t.object.Chain + "\x00" + t.object.Set }

func (d *differ) add(c Change) {
	c.Sentence = d.sentence(c)
	d.out = append(d.out, c)
}

// table compares two tables of one name, of which one may be nil.
func (d *differ) table(was, is *ruleset.Table) {
	some := is
	if some == nil {
		some = was
	}
	o := tableObject(some)
	var before, after []thing
	empty := &ruleset.Table{Family: some.Family, Name: some.Name}
	if was == nil {
		was = empty
	} else {
		before = []thing{{o, tableLines(was)}}
	}
	if is == nil {
		is = empty
	} else {
		after = []thing{{o, tableLines(is)}}
	}
	d.compare(before, after)
	d.compare(stateThings(o, was), stateThings(o, is))
	d.compare(setThings(o, was), setThings(o, is))
	d.elements(o, was, is)
	d.compare(chainThings(o, was), chainThings(o, is))
	d.rules(o, was, is)
}

// tableLines are what a table is by itself.
func tableLines(t *ruleset.Table) []string {
	bare := ruleset.Table{Family: t.Family, Name: t.Name, Flags: t.Flags, Comment: t.Comment}
	return definition(bare.Text(stateless))
}

// definition is the text of an object without its outer braces.
func definition(text string) []string {
	var out []string
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		out = append(out, strings.TrimSpace(l))
	}
	out[0] = strings.TrimSuffix(out[0], " {")
	if last := len(out) - 1; last > 0 && out[last] == "}" {
		out = out[:last]
	}
	return out
}

// stateThings are a table's named objects and flow tables.
func stateThings(o Object, t *ruleset.Table) []thing {
	var out []thing
	for _, s := range t.Objects {
		x := o.set(s.Kind + " " + s.Name)
		x.Kind = KindState
		out = append(out, thing{x, definition(s.Text(stateless))})
	}
	for _, f := range t.Flowtables {
		x := o.set("flowtable " + f.Name)
		x.Kind = KindState
		out = append(out, thing{x, definition(f.Text(stateless))})
	}
	return out
}

func setThings(o Object, t *ruleset.Table) []thing {
	var out []thing
	for _, s := range t.Sets {
		if !s.Anonymous {
			s.Elements = nil
			out = append(out, thing{o.set(s.Name), definition(s.Text(stateless))})
		}
	}
	return out
}

func chainThings(o Object, t *ruleset.Table) []thing {
	var out []thing
	for _, c := range t.Chains {
		if !c.Anonymous {
			c.Rules = nil
			out = append(out, thing{o.chain(c.Name), definition(c.Text(stateless))})
		}
	}
	return out
}

// elements compares the elements of the sets that are in either table.
func (d *differ) elements(o Object, was, is *ruleset.Table) {
	none := &ruleset.Set{}
	for _, s := range was.Sets {
		if !s.Anonymous && is.Set(s.Name) == nil {
			d.members(o.set(s.Name), &s, none)
		}
	}
	for i := range is.Sets {
		s := &is.Sets[i]
		if s.Anonymous {
			continue
		}
		before := was.Set(s.Name)
		if before == nil {
			before = none
		}
		d.members(o.set(s.Name), before, s)
	}
}

// members compares the elements of two sets of one name.
func (d *differ) members(o Object, was, is *ruleset.Set) {
	there := make(map[string]int, len(is.Elements))
	for i, e := range is.Elements {
		there[e.KeyText()] = i
	}
	before := make(map[string]bool, len(was.Elements))
	for i, e := range was.Elements {
		before[e.KeyText()] = true
		now, ok := there[e.KeyText()]
		if !ok {
			d.add(Change{Kind: Removed, Object: o.element(i), Before: elementLines(e)})
			continue
		}
		if a, b := elementLines(e), elementLines(is.Elements[now]); !slices.Equal(a, b) {
			d.add(Change{Kind: Altered, Object: o.element(now), Before: a, After: b})
		}
	}
	for i, e := range is.Elements {
		if !before[e.KeyText()] {
			d.add(Change{Kind: Added, Object: o.element(i), After: elementLines(e)})
		}
	}
}

func elementLines(e ruleset.Element) []string {
	e.Counter = nil
	return []string{e.Text(stateless)}
}

// rules compares the rules of the chains that are in either table.
func (d *differ) rules(o Object, was, is *ruleset.Table) {
	for _, c := range was.Chains {
		if !c.Anonymous && is.Chain(c.Name) == nil {
			d.chainRules(o.chain(c.Name), c.Rules, nil)
		}
	}
	for _, c := range is.Chains {
		if c.Anonymous {
			continue
		}
		var before []ruleset.Rule
		if old := was.Chain(c.Name); old != nil {
			before = old.Rules
		}
		d.chainRules(o.chain(c.Name), before, c.Rules)
	}
}

// chainRules lines up the rules of a chain before and after. A rule that went
// at one place and came at another was moved.
func (d *differ) chainRules(o Object, was, is []ruleset.Rule) {
	a, b := ruleLines(was), ruleLines(is)
	stayed, found := map[int]bool{}, map[int]bool{}
	for _, p := range common(a, b) {
		stayed[p[0]], found[p[1]] = true, true
	}
	gone := map[string][]int{}
	for i, l := range a {
		if !stayed[i] {
			gone[l] = append(gone[l], i)
		}
	}
	var arrived []Change
	for i, l := range b {
		if found[i] {
			continue
		}
		c := Change{Kind: Added, Object: o.rule(i), After: []string{is[i].Text(stateless)}}
		if from := gone[l]; len(from) > 0 {
			c.Kind, c.From, c.Before = Moved, from[0], c.After
			stayed[from[0]] = true
			gone[l] = from[1:]
		}
		arrived = append(arrived, c)
	}
	for i, r := range was {
		if !stayed[i] {
			d.add(Change{Kind: Removed, Object: o.rule(i), Before: []string{r.Text(stateless)}})
		}
	}
	for _, c := range arrived {
		d.add(c)
	}
}

// ruleLines are the rules as they are compared.
func ruleLines(rules []ruleset.Rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = steady(r).Text(stateless)
	}
	return out
}

// steady is a rule with the elements of its sets without a name in the order
// of their keys: the kernel lists ranges as it likes.
func steady(r ruleset.Rule) ruleset.Rule {
	sorted := func(s *ruleset.Set) *ruleset.Set {
		if s == nil {
			return nil
		}
		out := *s
		out.Elements = slices.Clone(s.Elements)
		ruleset.SortElements(out.Elements)
		return &out
	}
	r.Parts = slices.Clone(r.Parts)
	for i, p := range r.Parts {
		switch p := p.(type) {
		case ruleset.Lookup:
			p.Anonymous = sorted(p.Anonymous)
			r.Parts[i] = p
		case ruleset.VMap:
			p.Anonymous = sorted(p.Anonymous)
			r.Parts[i] = p
		case ruleset.NAT:
			p.Anonymous = sorted(p.Anonymous)
			r.Parts[i] = p
		}
	}
	return r
}

// sentence says a change in plain words.
func (d *differ) sentence(c Change) string {
	o := c.Object
	table := string(o.Family) + " " + o.Table
	m := d.is
	if c.Kind == Removed {
		m = d.was
	}
	switch o.Kind {
	case KindTable:
		return d.say("change.table."+string(c.Kind), "table", table)
	case KindState:
		return d.say("change.state."+string(c.Kind), "name", o.Set)
	case KindSet:
		return d.say("change.set."+string(c.Kind), "set", slices.Concat(c.After, c.Before)[0])
	case KindElement:
		return d.say("change.element."+string(c.Kind), "what", m.what(o))
	case KindRule:
		return d.say("change.rule."+string(c.Kind), "number", strconv.Itoa(o.Index+1),
			"from", strconv.Itoa(c.From+1), "what", m.what(o))
	}
	if c.Kind == Altered {
		if s := d.policy(o); s != "" {
			return s
		}
	}
	return d.say("change.chain."+string(c.Kind), "chain", o.Chain)
}

// policy says what a change of nothing but the policy of a chain means.
func (d *differ) policy(o Object) string {
	was, is := d.was.chains[o].chain.Base, d.is.chains[o].chain.Base
	if was == nil || is == nil || was.Policy == is.Policy {
		return ""
	}
	old := *was
	if old.Policy = is.Policy; old.String() != is.String() {
		return ""
	}
	return d.say("change.policy", "was", string(was.Policy), "what", d.say("policy."+string(is.Policy)))
}

// what is the sentence that says what an object does.
func (m *Model) what(o Object) string {
	for _, n := range m.Explain(o) {
		if n.Topic == TopicWhat {
			return n.Sentence
		}
	}
	return ""
}
