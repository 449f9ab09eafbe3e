// Package message turns the inspector's findings into sentences. Every
// sentence is a template in one [Catalogue], keyed by an id and filled with
// named arguments, so that a second language is a second catalogue and no
// second program.
//
// The package imports the standard library only.
package message

import (
	"strconv"
	"strings"
)

// Catalogue is the inspector's language: its templates by id.
type Catalogue struct {
	// Templates are sentences and parts of sentences. "{name}" stands for an
	// argument.
	Templates map[string]string
	// Plural names the form of a counted template for n; it is appended to the
	// id behind a dot.
	Plural func(n uint64) string
	// Join puts a piece behind another; nil where they stand as they are.
	Join func(text, piece string) string
}

// Say fills the template id with args, which are names and values in turn.
// Values are not looked at for templates, so that text of the user's stays as
// it is. An id that is not in the catalogue stands for itself.
func (c Catalogue) Say(id string, args ...string) string {
	rest, ok := c.Templates[id]
	if !ok {
		return id
	}
	text := ""
	add := func(piece string) { text = c.put(text, piece) }
	for {
		before, from, found := strings.Cut(rest, "{")
		add(before)
		if !found {
			return text
		}
		name, after, found := strings.Cut(from, "}")
		if !found {
			add("{" + from)
			return text
		}
		add(value(name, args))
		rest = after
	}
}

func value(name string, args []string) string {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == name {
			return args[i+1]
		}
	}
	return "{" + name + "}"
}

// Count fills the form of the template id that belongs to n things; the
// template has n as the argument "n".
func (c Catalogue) Count(id string, n uint64, args ...string) string {
	return c.Say(id+"."+c.Plural(n), append([]string{"n", strconv.FormatUint(n, 10)}, args...)...)
}

// And joins phrases to a list of which all hold.
func (c Catalogue) And(phrases []string) string { return c.join("list.and", phrases) }

// Or joins phrases to a list of which one holds.
func (c Catalogue) Or(phrases []string) string { return c.join("list.or", phrases) }

func (c Catalogue) join(last string, phrases []string) string {
	if len(phrases) == 0 {
		return ""
	}
	head := strings.Join(phrases[:len(phrases)-1], c.Say("list.comma"))
	if head == "" {
		return phrases[len(phrases)-1]
	}
	return c.put(c.put(head, c.Say(last)), phrases[len(phrases)-1])
}

// put puts a piece of text behind another.
func (c Catalogue) put(text, piece string) string {
	if c.Join != nil {
		return c.Join(text, piece)
	}
	return text + piece
}
