package nftjson

import (
	"io"
	"slices"

	"nftnet/internal/ruleset"
)

// schemaVersion is JSON_SCHEMA_VERSION of nft's src/json.c.
const schemaVersion = 1

// Options says what is printed.
type Options struct {
	// Version is that of the program that prints.
	Version string
	// Stateless leaves out what changes by itself, as nft -s does.
	Stateless bool
	// ChainsOnly leaves out everything in a table but its chains.
	ChainsOnly bool
}

// Write prints tables as nft -j list ruleset does, an object a line. What is
// printed is never held as a whole.
func Write(w io.Writer, tables []*ruleset.Table, o Options) error {
	e := newEncoder(w)
	e.w.WriteString(`{"nftables": [`)
	e.value(one("metainfo", object{
		{"version", o.Version}, {"release_name", "nftnet"}, {"json_schema_version", uint64(schemaVersion)},
	}))
	for _, t := range tables {
		p := printer{stateless: o.Stateless, family: t.Family}
		for v := range p.table(t, o.ChainsOnly) {
			e.w.WriteString(",\n")
			e.value(v)
		}
	}
	e.w.WriteString("]}\n")
	return e.w.Flush()
}

// printer makes values of a table of a family.
type printer struct {
	stateless bool
	family    ruleset.Family
}

// table lists the objects of a table in nft's order: rules last, as they refer
// to everything else (table_print_json_full).
func (p printer) table(t *ruleset.Table, chainsOnly bool) lazy {
	return func(yield func(any) bool) {
		parts := []lazy{p.head(t), p.objects(t), p.sets(t), p.flowtables(t), p.chains(t), p.rules(t)}
		if chainsOnly {
			parts = []lazy{p.head(t), p.chains(t)}
		}
		for _, part := range parts {
			for v := range part {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// each makes a value of each of items that keep wants.
func each[T any](items []T, keep func(*T) bool, value func(*T) any) lazy {
	return func(yield func(any) bool) {
		for i := range items {
			if keep(&items[i]) && !yield(value(&items[i])) {
				return
			}
		}
	}
}

func all[T any](*T) bool { return true }

func (p printer) head(t *ruleset.Table) lazy {
	return func(yield func(any) bool) {
		yield(one("table", object{{"family", string(t.Family)}, {"name", t.Name}, {"handle", t.Handle}}.
			with(len(t.Flags) > 0, "flags", oneOrMore(t.Flags)).
			with(t.Comment != "", "comment", t.Comment)))
	}
}

// named begins an object of a table, in the order of obj_print_json.
func named(t *ruleset.Table, name string, handle uint64) object {
	return object{{"family", string(t.Family)}, {"name", name}, {"table", t.Name}, {"handle", handle}}
}

func (p printer) chains(t *ruleset.Table) lazy {
	return each(t.Chains, func(c *ruleset.Chain) bool { return !c.Anonymous }, func(c *ruleset.Chain) any {
		o := object{{"family", string(t.Family)}, {"table", t.Name}, {"name", c.Name}, {"handle", c.Handle}}
		if b := c.Base; b != nil {
			o = append(o, object{
				{"type", b.Type}, {"hook", string(b.Hook)}, {"prio", int64(b.Priority)}, {"policy", string(b.Policy)},
			}...)
			o = o.with(len(b.Devices) > 0, "dev", oneOrMore(slices.Sorted(slices.Values(b.Devices))))
		}
		return one("chain", o.with(len(c.Flags) > 0, "flags", texts(c.Flags)).with(c.Comment != "", "comment", c.Comment))
	})
}

func (p printer) rules(t *ruleset.Table) lazy {
	return func(yield func(any) bool) {
		for i := range t.Chains {
			c := &t.Chains[i]
			if c.Anonymous {
				continue
			}
			for j := range c.Rules {
				head := object{{"family", string(t.Family)}, {"table", t.Name}, {"chain", c.Name}}
				if !yield(one("rule", append(head, p.rule(&c.Rules[j])...))) {
					return
				}
			}
		}
	}
}

// rule is what a rule is beside its place.
func (p printer) rule(r *ruleset.Rule) object {
	return object{{"handle", r.Handle}}.
		with(r.Comment != "", "comment", r.Comment).
		with(len(r.Parts) > 0, "expr", p.parts(r.Parts))
}

func (p printer) flowtables(t *ruleset.Table) lazy {
	return each(t.Flowtables, all, func(f *ruleset.Flowtable) any {
		o := append(named(t, f.Name, f.Handle), object{{"hook", string(f.Hook)}, {"prio", int64(f.Priority)}}...)
		return one("flowtable", o.
			with(len(f.Devices) > 0, "dev", oneOrMore(f.Devices)).
			with(len(f.Flags) > 0, "flags", texts(f.Flags)))
	})
}

// oneOrMore is a word, or the list of several, as nft writes flags and devices.
func oneOrMore(words []string) any {
	if len(words) == 1 {
		return words[0]
	}
	return texts(words)
}

func texts(words []string) array {
	out := make(array, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}
