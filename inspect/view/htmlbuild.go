package view

import (
	"strings"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// openElements is how many elements of a set the page shows unfolded.
const openElements = 12

// htmlTable, htmlBlock and htmlItem are a table, a chain or set in it, and a
// rule or element in that.
type htmlTable struct {
	ID, Family, Name string
	Handle           uint64
	// Definition is what the table says of itself in nft's words.
	Definition   []span
	Notes        []htmlNote
	Chains, Sets []htmlBlock
	Objects      []htmlItem
}

type htmlBlock struct {
	ID, Word, Name string
	Handle         uint64
	Definition     []span
	// Hook is set for a base chain, Policy is what it ends in.
	Hook, Policy string
	Notes        []htmlNote
	Items        []htmlItem
	Open         bool
}

type htmlItem struct {
	ID     string
	N      int
	Handle uint64
	Code   []span
	// IPTables is the rule in the words of iptables-save, where it has some.
	IPTables string
	Notes    []htmlNote
}

// htmlBuilder makes a page of a model.
type htmlBuilder struct {
	m *inspect.Model
	o Options
	// shown holds the tables, chains and sets that the page shows.
	shown map[inspect.Object]bool
}

func newHTMLBuilder(m *inspect.Model, o Options) *htmlBuilder {
	h := &htmlBuilder{m: m, o: o, shown: map[inspect.Object]bool{}}
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		if !o.shows(t) {
			continue
		}
		object := inspect.Object{Kind: inspect.KindTable, Family: t.Family, Table: t.Name}
		h.shown[object] = true
		for _, c := range t.Chains {
			h.shown[chainOf(object, c.Name)] = o.Only.Has(chainOf(object, c.Name))
		}
		for _, s := range t.Sets {
			h.shown[setOf(object, s.Name)] = !s.Anonymous && !o.Brief && o.Only.Has(setOf(object, s.Name))
		}
	}
	return h
}

func chainOf(table inspect.Object, name string) inspect.Object {
	table.Kind, table.Chain = inspect.KindChain, name
	return table
}

func setOf(table inspect.Object, name string) inspect.Object {
	table.Kind, table.Set = inspect.KindSet, name
	return table
}

// anchorOf is the anchor of what the page shows, empty for other things.
func (h *htmlBuilder) anchorOf(o inspect.Object) string {
	if !h.shown[o] {
		return ""
	}
	return anchor(o)
}

// code gives nft's words in a table their looks and links.
func (h *htmlBuilder) code(text string, table inspect.Object) []span {
	return syntax(text, links{
		chain: func(name string) string { return h.anchorOf(chainOf(table, name)) },
		set:   func(name string) string { return h.anchorOf(setOf(table, name)) },
	})
}

func (h *htmlBuilder) table(t *ruleset.Table) htmlTable {
	o := inspect.Object{Kind: inspect.KindTable, Family: t.Family, Table: t.Name}
	bare := ruleset.Table{Family: t.Family, Name: t.Name, Flags: t.Flags, Comment: t.Comment}
	out := htmlTable{
		ID: anchor(o), Family: string(t.Family), Name: visible(t.Name), Handle: t.Handle,
		Definition: h.code(inner(bare.Text(ruleset.Format{})), o), Notes: h.notes(o),
	}
	for _, c := range h.m.Order(t) {
		if h.shown[chainOf(o, c.Name)] {
			out.Chains = append(out.Chains, h.chain(o, c))
		}
	}
	if h.o.Brief {
		return out
	}
	for i := range t.Sets {
		if s := &t.Sets[i]; h.shown[setOf(o, s.Name)] {
			out.Sets = append(out.Sets, h.set(o, s))
		}
	}
	if h.o.Only != nil {
		return out
	}
	f := h.o.format()
	f.Handles = false
	for _, object := range t.Objects {
		out.Objects = append(out.Objects, htmlItem{Handle: object.Handle, Code: h.code(outdented(object.Text(f)), o)})
	}
	for _, ft := range t.Flowtables {
		out.Objects = append(out.Objects, htmlItem{Handle: ft.Handle, Code: h.code(outdented(ft.Text(f)), o)})
	}
	return out
}

func (h *htmlBuilder) chain(table inspect.Object, c *ruleset.Chain) htmlBlock {
	o := chainOf(table, c.Name)
	bare := ruleset.Chain{Base: c.Base, Comment: c.Comment, Flags: c.Flags}
	out := htmlBlock{
		ID: anchor(o), Word: "chain", Name: visible(c.Name), Handle: c.Handle,
		Definition: h.code(inner(bare.Text(ruleset.Format{})), table), Notes: h.notes(o), Open: true,
	}
	if c.Base != nil {
		out.Hook, out.Policy = string(c.Base.Hook), string(c.Base.Policy)
	}
	if h.o.Brief {
		return out
	}
	o.Kind = inspect.KindRule
	for i, r := range c.Rules {
		if o.Index = i; !h.o.Only.Has(o) {
			continue
		}
		item := htmlItem{
			ID: anchor(o), N: i + 1, Handle: r.Handle, Notes: h.notes(o),
			// A chain inside of a rule is written with the indent of a table.
			Code: h.code(strings.ReplaceAll(r.Text(ruleset.Format{Stateless: h.o.HideCounters}), "\n\t\t", "\n"), table),
		}
		if words, ok := r.IPTables(); ok && fromIPTables(r) {
			item.IPTables = visible(words)
		}
		out.Items = append(out.Items, item)
	}
	return out
}

func (h *htmlBuilder) set(table inspect.Object, s *ruleset.Set) htmlBlock {
	o := setOf(table, s.Name)
	head, definition := setHead(*s)
	word, _, _ := strings.Cut(head, " ")
	out := htmlBlock{
		ID: anchor(o), Word: word, Name: visible(s.Name), Handle: s.Handle,
		Definition: h.code(strings.Join(definition, "\n"), table), Notes: h.notes(o),
		Open: len(s.Elements) <= openElements,
	}
	o.Kind = inspect.KindElement
	for i, e := range s.Elements {
		if o.Index = i; !h.o.Only.Has(o) {
			continue
		}
		out.Items = append(out.Items, htmlItem{ID: anchor(o), N: i + 1, Code: h.code(element(e, h.o), table), Notes: h.notes(o)})
	}
	return out
}

// inner is what stands between the braces of a definition, without its indent.
func inner(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[1 : len(lines)-1]
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

// outdented takes the indent of a table's content from all lines.
func outdented(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n\t", "\n")
}
