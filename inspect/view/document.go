package view

import (
	"encoding/json"
	"io"

	"nftnet/inspect"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// Version is the version of the JSON that [WriteDocument] writes. It changes when a
// field goes or changes its meaning; new fields may come without.
const Version = 1

// Document is what [WriteDocument] writes. Every object has its text in nft's words,
// as nft 1.0.6 writes it, and its notes.
type Document struct {
	// Version is [Version].
	Version int `json:"version"`
	// Notes are about the ruleset as a whole.
	Notes []Note `json:"notes"`
	// Unknown names the objects with parts that are not understood.
	Unknown []string `json:"unknown"`
	Hooks   []Hook   `json:"hooks"`
	Tables  []Table  `json:"tables"`
}

// Note is an [inspect.Note].
type Note struct {
	Level    string     `json:"level"`
	Topic    string     `json:"topic"`
	Sentence string     `json:"sentence"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Evidence is what a note rests upon: an object and its text.
type Evidence struct {
	Object string `json:"object"`
	NFT    string `json:"nft"`
}

// Hook is a hook with its base chains in the order in which the kernel calls
// them.
type Hook struct {
	// Layer is ip, bridge, arp or device; Device is the interface of a hook of
	// the layer device.
	Layer  string      `json:"layer"`
	Hook   string      `json:"hook"`
	Device string      `json:"device,omitempty"`
	Chains []BaseChain `json:"chains"`
	Notes  []Note      `json:"notes"`
}

// BaseChain is a chain at a hook.
type BaseChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Type   string `json:"type"`
	// Priority is the chain's own number, CalledAt the one at which the kernel
	// calls it: nat chains are called together.
	Priority int32 `json:"priority"`
	CalledAt int32 `json:"called_at"`
	// Unordered marks a chain whose order among those of the same number is not
	// known.
	Unordered bool `json:"unordered,omitempty"`
}

// Table is a table.
type Table struct {
	Family string   `json:"family"`
	Name   string   `json:"name"`
	Flags  []string `json:"flags,omitempty"`
	Handle uint64   `json:"handle,omitempty"`
	Maker  *Maker   `json:"maker,omitempty"`
	Notes  []Note   `json:"notes"`
	Chains []Chain  `json:"chains"`
	Sets   []Set    `json:"sets"`
}

// Chain is a chain; NFT is the line that makes it a base chain, empty for a
// regular one.
type Chain struct {
	Name   string `json:"name"`
	NFT    string `json:"nft,omitempty"`
	Handle uint64 `json:"handle,omitempty"`
	// Type to Policy are those of a base chain.
	Type     string   `json:"type,omitempty"`
	Hook     string   `json:"hook,omitempty"`
	Priority *int32   `json:"priority,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Devices  []string `json:"devices,omitempty"`
	// Callers are the rules by which packets get to the chain.
	Callers []Caller `json:"callers,omitempty"`
	Maker   *Maker   `json:"maker,omitempty"`
	Notes   []Note   `json:"notes"`
	Rules   []Rule   `json:"rules"`
}

// Caller is a rule that leads to a chain: by the verdict Kind in the rule, or
// in elements of the map Map. Rule is empty where no rule is known to look the
// map up.
type Caller struct {
	Rule     string `json:"rule,omitempty"`
	Kind     string `json:"kind"`
	Map      string `json:"map,omitempty"`
	Elements int    `json:"elements,omitempty"`
}

// Rule is a rule; Index counts from 1.
type Rule struct {
	Index  int    `json:"index"`
	NFT    string `json:"nft"`
	Handle uint64 `json:"handle,omitempty"`
	// IPTables is the rule in the words of iptables-save, where it has extensions
	// of iptables and all of it is understood.
	IPTables string   `json:"iptables,omitempty"`
	Comment  string   `json:"comment,omitempty"`
	Owner    *Owner   `json:"owner,omitempty"`
	Counter  *Counter `json:"counter,omitempty"`
	Notes    []Note   `json:"notes"`
}

// Set is a set or, where Data is given, a map.
type Set struct {
	Name    string   `json:"name"`
	NFT     []string `json:"nft"`
	Handle  uint64   `json:"handle,omitempty"`
	Key     string   `json:"key"`
	Data    string   `json:"data,omitempty"`
	Flags   []string `json:"flags,omitempty"`
	Comment string   `json:"comment,omitempty"`
	Size    uint32   `json:"size,omitempty"`
	// Counter says that each element has a counter.
	Counter  bool      `json:"counter,omitempty"`
	Users    []User    `json:"users,omitempty"`
	Notes    []Note    `json:"notes"`
	Elements []Element `json:"elements"`
}

// User is a rule that looks a set up, and what it looks up.
type User struct {
	Rule string `json:"rule"`
	Key  string `json:"key"`
}

// Element is an element; Index counts from 1.
type Element struct {
	Index   int      `json:"index"`
	NFT     string   `json:"nft"`
	Key     string   `json:"key"`
	Data    string   `json:"data,omitempty"`
	Comment string   `json:"comment,omitempty"`
	Owner   *Owner   `json:"owner,omitempty"`
	Counter *Counter `json:"counter,omitempty"`
	// TimeoutMS and ExpiresMS are in milliseconds.
	TimeoutMS uint64 `json:"timeout_ms,omitempty"`
	ExpiresMS uint64 `json:"expires_ms,omitempty"`
	Notes     []Note `json:"notes"`
}

// Owner is the Docker network and endpoint that an object is there for, by the
// beginnings of their ids.
type Owner struct {
	Network  string `json:"network"`
	Endpoint string `json:"endpoint,omitempty"`
}

// Counter is a counter; what it counts stands in the notes.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// WriteDocument writes the model as a [Document].
func WriteDocument(w io.Writer, m *inspect.Model, o Options) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(NewDocument(m, o))
}

// NewDocument is the model as a [Document]. Elements are never left out.
func NewDocument(m *inspect.Model, o Options) Document {
	d := Document{Version: Version, Unknown: []string{}, Hooks: []Hook{}, Tables: []Table{}}
	n := documents{m: m, o: o}
	d.Notes = n.notes(inspect.Object{Kind: inspect.KindRuleset})
	for _, u := range m.Unknown() {
		if o.Only.Has(u) {
			d.Unknown = append(d.Unknown, u.String())
		}
	}
	for _, h := range m.Hooks {
		if o.Only.Has(h.Object) {
			d.Hooks = append(d.Hooks, n.hook(h))
		}
	}
	for i := range m.Ruleset.Tables {
		if t := &m.Ruleset.Tables[i]; o.shows(t) {
			d.Tables = append(d.Tables, n.table(t))
		}
	}
	return d
}

type documents struct {
	m *inspect.Model
	o Options
}

// notes are the notes on an object; an empty list where none are wanted.
func (d documents) notes(o inspect.Object) []Note {
	out := []Note{}
	for _, n := range d.o.notes(d.m, o) {
		note := Note{Level: string(n.Level), Topic: string(n.Topic), Sentence: n.Sentence}
		for _, e := range n.Evidence {
			note.Evidence = append(note.Evidence, Evidence{Object: e.Object.String(), NFT: e.Text})
		}
		out = append(out, note)
	}
	return out
}

func (d documents) hook(h inspect.Hook) Hook {
	out := Hook{
		Layer: string(h.Object.Layer), Hook: string(h.Object.Hook), Device: h.Object.Device,
		Chains: []BaseChain{}, Notes: d.notes(h.Object),
	}
	for _, b := range h.Chains {
		out.Chains = append(out.Chains, BaseChain{
			Family: string(b.Table.Family), Table: b.Table.Name, Chain: b.Chain.Name, Type: b.Chain.Base.Type,
			Priority: b.Chain.Base.Priority, CalledAt: b.At, Unordered: b.Unordered,
		})
	}
	return out
}

func (d documents) table(t *ruleset.Table) Table {
	o := inspect.Object{Kind: inspect.KindTable, Family: t.Family, Table: t.Name}
	out := Table{
		Family: string(t.Family), Name: t.Name, Flags: t.Flags, Handle: t.Handle,
		Maker: makerOf(d.m, o), Notes: d.notes(o), Chains: []Chain{}, Sets: []Set{},
	}
	has := d.o.Only.Has
	for _, c := range d.m.Order(t) {
		if has(inspect.Object{Kind: inspect.KindChain, Family: t.Family, Table: t.Name, Chain: c.Name}) {
			out.Chains = append(out.Chains, d.chain(o, c))
		}
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		if !s.Anonymous && !d.o.Brief && has(inspect.Object{Kind: inspect.KindSet, Family: t.Family, Table: t.Name, Set: s.Name}) {
			out.Sets = append(out.Sets, d.set(o, s))
		}
	}
	return out
}

func (d documents) chain(o inspect.Object, c *ruleset.Chain) Chain {
	o.Kind, o.Chain = inspect.KindChain, c.Name
	out := Chain{Name: c.Name, Handle: c.Handle, Maker: makerOf(d.m, o), Notes: d.notes(o), Rules: []Rule{}}
	if b := c.Base; b != nil {
		out.NFT, out.Type, out.Hook = b.String(), b.Type, string(b.Hook)
		out.Priority, out.Policy, out.Devices = &b.Priority, string(b.Policy), b.Devices
	}
	for _, k := range d.m.Callers(o) {
		caller := Caller{Kind: string(k.Kind), Map: k.Map, Elements: k.Elements}
		if k.Rule != (inspect.Object{}) {
			caller.Rule = k.Rule.String()
		}
		out.Callers = append(out.Callers, caller)
	}
	if d.o.Brief {
		return out
	}
	o.Kind = inspect.KindRule
	for i, r := range c.Rules {
		if o.Index = i; !d.o.Only.Has(o) {
			continue
		}
		rule := Rule{
			Index: i + 1, NFT: r.Text(ruleset.Format{Stateless: d.o.HideCounters}), Handle: r.Handle,
			Comment: r.Comment, Owner: ownerOf(r.Comment), Notes: d.notes(o),
		}
		if words, ok := r.IPTables(); ok && fromIPTables(r) {
			rule.IPTables = words
		}
		for _, p := range r.Parts {
			if c, ok := p.(ruleset.Counter); ok && rule.Counter == nil {
				rule.Counter = d.counter(&c)
			}
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

func (d documents) set(o inspect.Object, s *ruleset.Set) Set {
	o.Kind, o.Set = inspect.KindSet, s.Name
	_, definition := setHead(*s)
	out := Set{
		Name: s.Name, NFT: definition, Handle: s.Handle, Key: string(s.Key), Data: string(s.Data), Flags: s.Flags,
		Comment: s.Comment, Size: s.Size, Counter: s.Counter, Notes: d.notes(o), Elements: []Element{},
	}
	for _, u := range d.m.Uses(o) {
		out.Users = append(out.Users, User{Rule: u.Rule.String(), Key: u.Key.String()})
	}
	o.Kind = inspect.KindElement
	for i, e := range s.Elements {
		if o.Index = i; !d.o.Only.Has(o) {
			continue
		}
		out.Elements = append(out.Elements, Element{
			Index: i + 1, NFT: element(e, d.o), Key: e.KeyText(), Data: e.DataText(), Comment: e.Comment,
			Owner: ownerOf(e.Comment), Counter: d.counter(e.Counter), TimeoutMS: e.Timeout, ExpiresMS: e.Expires,
			Notes: d.notes(o),
		})
	}
	return out
}

func (d documents) counter(c *ruleset.Counter) *Counter {
	if c == nil || d.o.HideCounters {
		return nil
	}
	return &Counter{Packets: c.Packets, Bytes: c.Bytes}
}

func ownerOf(comment string) *Owner {
	o, ok := layout.ParseOwner(comment)
	if !ok {
		return nil
	}
	return &Owner{Network: o.Network, Endpoint: o.Endpoint}
}
