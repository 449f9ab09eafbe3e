// Package view shows an [inspect.Model]: as annotated text for a terminal, as
// plain nft text, as the JSON of nft, and as a JSON document with explanations. It lays out what package inspect says and adds
// nothing of its own.
package view

import (
	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// Options says what is shown and how. Its zero value shows everything in plain
// text.
type Options struct {
	// Width is the greatest length of a line of prose in columns; 0 is 80. Lines
	// of nft's own are never broken, so that they can be copied.
	Width int
	// Color allows escape sequences for colours.
	Color bool
	// Handles shows the kernel's handles.
	Handles bool
	// HideCounters leaves out the numbers of counters.
	HideCounters bool
	// HideNotes leaves out the explanations.
	HideNotes bool
	// Brief shows the hooks and the chains, without rules and sets.
	Brief bool
	// All shows every element of every set; without it text shows the first 20.
	All bool
	// Family and Table choose the tables that are shown; empty fields choose all.
	// Explanations still speak of the others.
	Family ruleset.Family
	Table  string
	// Only chooses what is shown of those tables; nil chooses all.
	Only *inspect.Selection
}

const defaultWidth = 80

func (o Options) width() int {
	if o.Width <= 0 {
		return defaultWidth
	}
	return o.Width
}

func (o Options) format() ruleset.Format {
	return ruleset.Format{Handles: o.Handles, Stateless: o.HideCounters}
}

func (o Options) shows(t *ruleset.Table) bool {
	return (o.Family == "" || o.Family == t.Family) && (o.Table == "" || o.Table == t.Name) &&
		o.Only.Has(inspect.Object{Kind: inspect.KindTable, Family: t.Family, Table: t.Name})
}

// notes are the notes on an object that o wants to see. Where a part of the
// ruleset is chosen they always say which, in place of what the whole is.
func (o Options) notes(m *inspect.Model, object inspect.Object) []inspect.Note {
	if o.Only != nil && object.Kind == inspect.KindRuleset {
		return o.Only.Notes()
	}
	if o.HideNotes {
		return nil
	}
	var out []inspect.Note
	for _, n := range m.Explain(object) {
		counted := n.Topic == inspect.TopicCounter && object.Kind != inspect.KindSet
		if !counted || !o.HideCounters {
			out = append(out, n)
		}
	}
	return out
}
