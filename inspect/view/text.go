package view

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// shownElements is how many elements of a set the text shows unless all are
// asked for.
const shownElements = 20

// Text writes the model for people: the hooks in the order in which a packet
// meets them, then each table with its chains, rules and sets, each in nft's
// words with the explanation below it.
func Text(w io.Writer, m *inspect.Model, o Options) error {
	t := newText(w, m, o)
	t.opening()
	for i := range m.Ruleset.Tables {
		if table := &m.Ruleset.Tables[i]; o.shows(table) {
			t.table(table)
		}
	}
	return t.w.Flush()
}

// text writes the parts of the text view. Errors of the writer come out at the
// last Flush.
type text struct {
	w     *bufio.Writer
	m     *inspect.Model
	o     Options
	style palette
}

func newText(w io.Writer, m *inspect.Model, o Options) *text {
	return &text{w: bufio.NewWriter(w), m: m, o: o, style: newPalette(o.Color)}
}

// line writes a line of one style behind an indent.
func (t *text) line(indent int, style style, s string) {
	_, _ = fmt.Fprintf(t.w, "%s%s\n", strings.Repeat(" ", indent), style(printable(s)))
}

func (t *text) blank() { _, _ = t.w.WriteString("\n") }

// notes writes the notes on an object below it.
func (t *text) notes(indent int, o inspect.Object) {
	for _, n := range t.o.notes(t.m, o) {
		t.note(indent, n)
	}
}

// marks stand before notes that are more than explanations.
var marks = map[inspect.Level]string{inspect.Warn: "! ", inspect.Unknown: "? "}

func (t *text) note(indent int, n inspect.Note) {
	mark := marks[n.Level]
	style := t.style.levels[n.Level]
	for i, l := range wrap(printable(n.Sentence), t.o.width()-indent-len(mark)) {
		if i > 0 {
			mark = strings.Repeat(" ", len(mark))
		}
		_, _ = fmt.Fprintf(t.w, "%s%s\n", strings.Repeat(" ", indent), style(mark+l))
	}
}

// opening writes what the ruleset is and its hooks.
func (t *text) opening() {
	t.notes(0, inspect.Object{Kind: inspect.KindRuleset})
	if t.o.Only != nil || !t.o.HideNotes {
		t.blank()
	}
	if t.o.Only != nil {
		return
	}
	t.overview()
	for _, h := range t.m.Hooks {
		if t.o.HideNotes || len(h.Chains) == 0 {
			continue
		}
		t.line(0, t.style.header, h.Object.String())
		t.notes(2, h.Object)
		t.blank()
	}
}

func (t *text) table(table *ruleset.Table) {
	o := inspect.Object{Kind: inspect.KindTable, Family: table.Family, Table: table.Name}
	t.line(0, t.style.header, strings.ToUpper("table")+" "+string(table.Family)+" "+table.Name+t.handle(table.Handle))
	t.notes(2, o)
	t.blank()
	for _, c := range t.m.Order(table) {
		t.chain(o, c)
	}
	if t.o.Brief {
		return
	}
	for i := range table.Sets {
		if s := &table.Sets[i]; !s.Anonymous {
			t.set(o, s)
		}
	}
	if t.o.Only != nil {
		return
	}
	for _, x := range table.Objects {
		t.plain(x.Text(t.o.format()))
	}
	for _, x := range table.Flowtables {
		t.plain(x.Text(t.o.format()))
	}
}

// plain writes what stands in a table in nft's words alone.
func (t *text) plain(block string) {
	head, rest, _ := strings.Cut(strings.TrimSpace(block), "\n")
	t.line(2, t.style.header, strings.TrimSuffix(head, " {"))
	for l := range strings.Lines(strings.TrimSuffix(rest, "}")) {
		if l = strings.TrimSpace(l); l != "" {
			t.line(4, t.style.nft, l)
		}
	}
	t.blank()
}

func (t *text) handle(h uint64) string {
	if !t.o.Handles || h == 0 {
		return ""
	}
	return fmt.Sprintf(" # handle %d", h)
}

func (t *text) chain(table inspect.Object, c *ruleset.Chain) {
	o := table
	o.Kind, o.Chain = inspect.KindChain, c.Name
	if !t.o.Only.Has(o) {
		return
	}
	t.line(2, t.style.header, "chain "+c.Name+t.handle(c.Handle))
	if c.Base != nil {
		t.line(4, t.style.nft, c.Base.String())
	}
	t.notes(4, o)
	t.blank()
	if t.o.Brief {
		return
	}
	o.Kind = inspect.KindRule
	for i, r := range c.Rules {
		if o.Index = i; !t.o.Only.Has(o) {
			continue
		}
		// A chain within a rule is of several lines.
		first, rest, _ := strings.Cut(r.Text(t.o.format())+t.handle(r.Handle), "\n")
		t.line(2, t.style.nft, fmt.Sprintf("%4d  %s", i+1, first))
		for l := range strings.Lines(rest) {
			indent := len(l) - len(strings.TrimLeft(l, "\t"))
			t.line(8+2*max(0, indent-2), t.style.nft, strings.TrimSpace(l))
		}
		if words, ok := r.IPTables(); ok && fromIPTables(r) {
			t.line(10, t.style.nft, "iptables "+words)
		}
		t.notes(10, o)
	}
	if len(c.Rules) > 0 {
		t.blank()
	}
}

// fromIPTables says whether a rule has an extension of iptables.
func fromIPTables(r ruleset.Rule) bool {
	return slices.ContainsFunc(r.Parts, func(p ruleset.Part) bool {
		_, ok := p.(ruleset.Compat)
		return ok
	})
}

func (t *text) set(table inspect.Object, s *ruleset.Set) {
	o := table
	o.Kind, o.Set = inspect.KindSet, s.Name
	if !t.o.Only.Has(o) {
		return
	}
	head, definition := setHead(*s)
	t.line(2, t.style.header, head+t.handle(s.Handle))
	for _, l := range definition {
		t.line(4, t.style.nft, l)
	}
	t.notes(4, o)
	t.blank()
	o.Kind = inspect.KindElement
	shown, rest := 0, 0
	for i, e := range s.Elements {
		o.Index = i
		switch {
		case !t.o.Only.Has(o):
			continue
		case shown == shownElements && !t.o.All:
			rest++
			continue
		}
		shown++
		t.line(6, t.style.nft, element(e, t.o))
		t.notes(10, o)
	}
	if rest > 0 {
		t.line(6, t.style.levels[inspect.Info], t.m.Language().Count("view.more", uint64(rest)))
	}
	if shown > 0 {
		t.blank()
	}
}

// element writes an element; what changes by itself only where it is wanted.
func element(e ruleset.Element, o Options) string {
	if o.HideCounters {
		e.Counter, e.Expires = nil, 0
	}
	return e.String()
}

// setHead is a set's name and the lines that define it, as nft writes them.
func setHead(s ruleset.Set) (head string, definition []string) {
	s.Elements, s.Handle = nil, 0
	for _, l := range strings.Split(strings.TrimSpace(s.Text(ruleset.Format{})), "\n") {
		definition = append(definition, strings.TrimSpace(l))
	}
	head = strings.TrimSuffix(definition[0], " {")
	return head, definition[1 : len(definition)-1]
}
