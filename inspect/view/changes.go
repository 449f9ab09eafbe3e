package view

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"nftnet/inspect"
)

// signs stand before the lines of changes, as in a diff.
const (
	signRemoved = "-"
	signAdded   = "+"
	signMoved   = ">"
)

// changeStyles are the colours of lines by their sign.
func changeStyles(color bool) map[string]style {
	if !color {
		plain := func(s string) string { return s }
		return map[string]style{signRemoved: plain, signAdded: plain, signMoved: plain}
	}
	of := func(s lipgloss.Style) style { return func(t string) string { return s.Render(t) } }
	return map[string]style{
		signRemoved: of(lipgloss.NewStyle().Foreground(lipgloss.Red)),
		signAdded:   of(lipgloss.NewStyle().Foreground(lipgloss.Green)),
		signMoved:   of(lipgloss.NewStyle().Foreground(lipgloss.Yellow)),
	}
}

// Changes writes changes as text: each in nft's words, marked "-", "+" or, for
// a rule at another place, ">", with the plain words below it.
func Changes(w io.Writer, list []inspect.Change, m *inspect.Model, o Options) error {
	t := &changes{text: newText(w, m, o), styles: changeStyles(o.Color)}
	elements := map[inspect.Object]int{}
	for _, c := range list {
		if c.Object.Kind == inspect.KindElement && !o.All {
			set := c.Object
			set.Index = 0
			if elements[set]++; elements[set] > shownElements {
				continue
			}
		}
		t.rest(elements, c.Object)
		t.change(c)
	}
	t.rest(elements, inspect.Object{})
	return t.w.Flush()
}

// changes writes the text of changes.
type changes struct {
	*text
	styles map[string]style
	// table and part are the headers that were written last.
	table, part string
	// full is the set of the last element.
	full inspect.Object
}

// rest counts the changed elements that were left out of the last set, once
// another object comes.
func (t *changes) rest(elements map[inspect.Object]int, next inspect.Object) {
	if next.Kind == inspect.KindElement {
		next.Index = 0
	}
	if n := elements[t.full] - shownElements; t.full != next && n > 0 && !t.o.All {
		t.line(6, t.style.levels[inspect.Info], t.m.Language().Count("view.more", uint64(n)))
	}
	t.full = next
}

func (t *changes) change(c inspect.Change) {
	t.heads(c.Object)
	indent, place := 4, ""
	switch c.Object.Kind {
	case inspect.KindTable:
		indent = 2
	case inspect.KindRule:
		place = fmt.Sprintf("%d  ", c.Object.Index+1)
	}
	switch c.Kind {
	case inspect.Moved:
		t.lines(indent, signMoved, fmt.Sprintf("%d → %d  ", c.From+1, c.Object.Index+1), c.After)
	default:
		before, after := differing(c.Before, c.After)
		t.lines(indent, signRemoved, place, before)
		t.lines(indent, signAdded, place, after)
	}
	if !t.o.HideNotes {
		t.note(indent+5, inspect.Note{Level: inspect.Info, Sentence: c.Sentence})
	}
}

// differing leaves out the lines of an altered object that both sides have; a
// name that only says what it is about stays.
func differing(before, after []string) (was, is []string) {
	if len(before) == 0 || len(after) == 0 {
		return before, after
	}
	only := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(l string) bool { return slices.Contains(b, l) })
	}
	return only(before, after), only(after, before)
}

func (t *changes) lines(indent int, sign, place string, lines []string) {
	for _, l := range lines {
		t.line(indent, t.styles[sign], sign+" "+place+l)
		place = strings.Repeat(" ", len(place))
	}
}

// heads writes the table and the chain or set that the next lines are about,
// where it is another one than before.
func (t *changes) heads(o inspect.Object) {
	if table := fmt.Sprintf("TABLE %s %s", o.Family, o.Table); table != t.table {
		if t.table != "" {
			t.blank()
		}
		t.table, t.part = table, ""
		t.line(0, t.style.header, table)
	}
	part := ""
	switch {
	case o.Chain != "":
		part = "chain " + o.Chain
	case o.Kind == inspect.KindState:
		part = o.Set
	case o.Set != "":
		part = "set " + o.Set
	}
	if part != t.part && part != "" {
		t.line(2, t.style.header, part)
	}
	t.part = part
}

// ChangesVersion is the version of the JSON of changes.
const ChangesVersion = 1

// ChangesDocument is the JSON of a comparison.
type ChangesDocument struct {
	// Version is [ChangesVersion].
	Version int          `json:"version"`
	Equal   bool         `json:"equal"`
	Changes []ChangeJSON `json:"changes"`
}

// ChangeJSON is an [inspect.Change].
type ChangeJSON struct {
	// Change is added, removed, moved or altered; Kind is what the object is.
	Change string `json:"change"`
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Family string `json:"family"`
	Table  string `json:"table"`
	Chain  string `json:"chain,omitempty"`
	Set    string `json:"set,omitempty"`
	// Index is the place of a rule or element, From the earlier one of a rule that
	// was moved; both count from 1.
	Index    int      `json:"index,omitempty"`
	From     int      `json:"from,omitempty"`
	Before   []string `json:"before,omitempty"`
	After    []string `json:"after,omitempty"`
	Sentence string   `json:"sentence"`
}

// NewChangesDocument makes changes fit for JSON.
func NewChangesDocument(list []inspect.Change) ChangesDocument {
	return ChangesDocument{Version: ChangesVersion, Equal: len(list) == 0, Changes: ChangesJSON(list)}
}

// ChangesJSON makes changes fit for JSON; of none it makes an empty list.
func ChangesJSON(list []inspect.Change) []ChangeJSON {
	out := make([]ChangeJSON, len(list))
	for i, c := range list {
		o := c.Object
		out[i] = ChangeJSON{
			Change: string(c.Kind), Kind: string(o.Kind), Object: o.String(), Family: string(o.Family), Table: o.Table,
			Chain: o.Chain, Set: o.Set, Before: c.Before, After: c.After, Sentence: c.Sentence,
		}
		if o.Kind == inspect.KindRule || o.Kind == inspect.KindElement {
			out[i].Index = o.Index + 1
		}
		if c.Kind == inspect.Moved {
			out[i].From = c.From + 1
		}
	}
	return out
}
