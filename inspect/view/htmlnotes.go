package view

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"nftnet/inspect"
)

// htmlNote is a note whose sentence leads to what it speaks of.
type htmlNote struct {
	Level, Topic string
	Spans        []span
	// More are the objects that the note rests upon and its sentence does not
	// name: it only counts what is too much for a sentence.
	More []span
}

// notes are the notes on an object.
func (h *htmlBuilder) notes(o inspect.Object) []htmlNote {
	list := h.o.notes(h.m, o)
	rules := h.rulePhrases(o, list)
	var out []htmlNote
	for _, n := range list {
		evidence := h.evidence(n, o)
		note := htmlNote{Level: string(n.Level), Topic: string(n.Topic), Spans: linked(visible(n.Sentence), longestFirst(evidence, rules))}
		for _, p := range evidence {
			if !mentions(note.Spans, p) {
				note.More = append(note.More, p)
			}
		}
		out = append(out, note)
	}
	return out
}

// evidence are the objects that a note on o rests upon, each once.
func (h *htmlBuilder) evidence(n inspect.Note, o inspect.Object) []span {
	var out []span
	seen := map[string]bool{}
	for _, e := range n.Evidence {
		if p, ok := h.phrase(e.Object, o); ok && !seen[p.To] {
			seen[p.To] = true
			out = append(out, p)
		}
	}
	return out
}

// named is how many rules a sentence names at most.
const named = 6

// rulePhrases are the rules that sentences about an object may name: those that
// any note rests upon, and those that lead to its chain. A rule's phrase stands
// for nothing else wherever it is found; a chain may be called like any word.
func (h *htmlBuilder) rulePhrases(o inspect.Object, list []inspect.Note) []span {
	var out []span
	add := func(rule inspect.Object) {
		if p, ok := h.phrase(rule, o); ok && rule.Kind == inspect.KindRule && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, n := range list {
		// What is more than a sentence names is in none.
		for _, e := range n.Evidence[:min(len(n.Evidence), named)] {
			add(e.Object)
		}
	}
	if o.Chain != "" {
		callers := h.m.Callers(chainOf(tableOf(o), o.Chain))
		for _, c := range callers[:min(len(callers), named)] {
			add(c.Rule)
		}
	}
	return out
}

// longestFirst unites phrases. Of two that begin alike the longer one says
// more: "rule 1 of DOCKER" begins "rule 1 of DOCKER-USER".
func longestFirst(a, b []span) []span {
	all := slices.Concat(a[:min(len(a), named)], b)
	slices.SortStableFunc(all, func(a, b span) int { return cmp.Compare(len(b.Text), len(a.Text)) })
	return all
}

// phrase is how sentences about an object name another one, and its anchor;
// false where the page does not show it.
func (h *htmlBuilder) phrase(o, reader inspect.Object) (span, bool) {
	if o == reader || !h.shown[tableOf(o)] {
		return span{}, false
	}
	say := h.m.Language()
	name := o.Chain
	if o.Kind == inspect.KindSet {
		name = o.Set
	}
	if tableOf(o) != tableOf(reader) {
		name = say.Say("chain.other", "chain", name, "family", string(o.Family), "table", o.Table)
	}
	switch {
	case o.Kind == inspect.KindRule && !h.o.Brief:
		name = say.Say("rule.name", "n", strconv.Itoa(o.Index+1), "chain", name)
	case o.Kind == inspect.KindChain, o.Kind == inspect.KindSet && !h.o.Brief:
	default:
		return span{}, false
	}
	return span{Text: visible(name), To: anchor(o)}, true
}

func mentions(spans []span, p span) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.To == p.To })
}

// linked makes links of the phrases in a sentence; of two at one place that
// which comes first in the list.
func linked(sentence string, phrases []span) []span {
	if len(phrases) == 0 {
		return []span{{Text: sentence}}
	}
	var out []span
	plain := 0
	for i := 0; i < len(sentence); {
		p, ok := phraseAt(sentence, i, phrases)
		if !ok {
			_, size := utf8.DecodeRuneInString(sentence[i:])
			i += size
			continue
		}
		if plain < i {
			out = append(out, span{Text: sentence[plain:i]})
		}
		out = append(out, p)
		i += len(p.Text)
		plain = i
	}
	if plain < len(sentence) {
		out = append(out, span{Text: sentence[plain:]})
	}
	return out
}

// phraseAt finds the phrase that begins at i and is no part of a longer word.
func phraseAt(sentence string, i int, phrases []span) (span, bool) {
	if before, _ := utf8.DecodeLastRuneInString(sentence[:i]); i > 0 && partOfName(before) {
		return span{}, false
	}
	for _, p := range phrases {
		if !strings.HasPrefix(sentence[i:], p.Text) {
			continue
		}
		rest := sentence[i+len(p.Text):]
		after, size := utf8.DecodeRuneInString(rest)
		if after == '.' {
			// It ends a sentence, or stands in a name.
			after, _ = utf8.DecodeRuneInString(rest[size:])
		}
		if rest == "" || !partOfName(after) {
			return p, true
		}
	}
	return span{}, false
}

// partOfName says whether names are made of such characters. Words of Chinese
// stand beside names without a blank.
func partOfName(r rune) bool {
	return r < utf8.RuneSelf && r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(`_-/\`, r))
}

// tableOf is the table of an object.
func tableOf(o inspect.Object) inspect.Object {
	return inspect.Object{Kind: inspect.KindTable, Family: o.Family, Table: o.Table}
}
