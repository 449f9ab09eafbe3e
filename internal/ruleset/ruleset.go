package ruleset

import (
	"cmp"
	"slices"
	"strings"
)

// Family is the address family of a table: which packets it sees.
type Family string

// The families of tables, as nft writes them.
const (
	FamilyInet   Family = "inet"
	FamilyIP     Family = "ip"
	FamilyIP6    Family = "ip6"
	FamilyARP    Family = "arp"
	FamilyBridge Family = "bridge"
	FamilyNetdev Family = "netdev"
)

// Families lists every family, in the order in which nft lists tables.
var Families = []Family{FamilyIP, FamilyIP6, FamilyInet, FamilyARP, FamilyBridge, FamilyNetdev}

// Ruleset is a collection of tables.
type Ruleset struct{ Tables []Table }

// Table finds a table; nil where there is none.
func (rs Ruleset) Table(f Family, name string) *Table {
	for i := range rs.Tables {
		if rs.Tables[i].Family == f && rs.Tables[i].Name == name {
			return &rs.Tables[i]
		}
	}
	return nil
}

// Table is a namespace for chains and sets.
type Table struct {
	Family Family
	Name   string
	// Flags are nft's words: dormant, owner, persist.
	Flags   []string
	Comment string
	Handle  uint64
	Objects []Object
	Sets    []Set
	Chains  []Chain
	// Flowtables are left alone by [Diff], as Objects are.
	Flowtables []Flowtable
}

// Object is a stateful object with a name of its own, which several rules may
// share: a counter, a quota, a limit. [Diff] leaves objects alone.
type Object struct {
	// Kind is nft's word for it ("counter", "ct helper").
	Kind string
	Name string
	// State is what it holds: a [Counter], or an [Opaque].
	State   Part
	Comment string
	Handle  uint64
}

// Chain finds a chain; nil where there is none.
func (t Table) Chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Set finds a set or map; nil where there is none.
func (t Table) Set(name string) *Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}

// AddElement puts an element into one of the table's sets; it panics where
// there is no such set, which only a mistake in the program can ask for.
func (t *Table) AddElement(set string, e Element) {
	s := t.Set(set)
	if s == nil {
		panic("ruleset: table " + t.Name + " has no set " + set)
	}
	s.Elements = append(s.Elements, e)
}

// Hook is a place in the kernel's packet path where base chains are called.
type Hook string

// The hooks, as nft writes them.
const (
	HookIngress     Hook = "ingress"
	HookEgress      Hook = "egress"
	HookPrerouting  Hook = "prerouting"
	HookInput       Hook = "input"
	HookForward     Hook = "forward"
	HookOutput      Hook = "output"
	HookPostrouting Hook = "postrouting"
)

// The standard priorities of families ip, ip6 and inet
// (linux/netfilter_ipv4.h, enum nf_ip_hook_priorities).
const (
	PriorityRaw      int32 = -300
	PriorityMangle   int32 = -150
	PriorityDstNAT   int32 = -100
	PriorityFilter   int32 = 0
	PrioritySecurity int32 = 50
	PrioritySrcNAT   int32 = 100
)

// Base makes a chain a base chain: one that the kernel calls at a hook.
type Base struct {
	// Type is "filter", "nat" or "route".
	Type     string
	Hook     Hook
	Priority int32
	// Policy is what happens to a packet that reaches the chain's end.
	Policy VerdictKind
	// Devices are the interfaces of a chain at ingress or egress.
	Devices []string
	// Family is that of the chain's table, empty for inet. It does not count when
	// chains are compared: it decides which names nft has for priorities.
	Family Family
}

func (b *Base) equal(o *Base) bool {
	if b == nil || o == nil {
		return b == o
	}
	return b.Type == o.Type && b.Hook == o.Hook && b.Priority == o.Priority && b.Policy == o.Policy &&
		slices.Equal(b.Devices, o.Devices)
}

// Chain is a list of rules. A regular chain has no Base: packets get there by
// a jump only.
type Chain struct {
	Name   string
	Base   *Base
	Rules  []Rule
	Handle uint64
	// UserOwned marks a chain whose rules belong to the user: [Diff] makes the
	// chain where it is missing, with the rules given, and leaves the rules of
	// an existing one alone.
	UserOwned bool
	Comment   string
	// Flags are nft's words: offload.
	Flags []string
	// Anonymous marks a chain that was written inside the rule that calls it.
	Anonymous bool
}

// Rule is a list of matches and statements that a packet meets from left to
// right.
type Rule struct {
	Parts   []Part
	Comment string
	Handle  uint64
}

// NewRule is a rule of the given parts.
func NewRule(parts ...Part) Rule { return Rule{Parts: parts} }

// Because is the rule with a comment.
func (r Rule) Because(comment string) Rule {
	r.Comment = comment
	return r
}

// Equal says whether two rules do the same: counters and handles do not count.
func (r Rule) Equal(o Rule) bool {
	return r.text(Format{Stateless: true}) == o.text(Format{Stateless: true})
}

// Set is a set, or a map where Data is given.
type Set struct {
	Name string
	Key  Type
	// Data is the type that a map holds for each key, [TypeVerdict] for a
	// verdict map, the kind of object for a map of named objects ("counter"),
	// empty for a set. With DataInterval it holds a range of such values.
	Data         Type
	DataInterval bool
	// KeyOf and DataOf are the expressions that the set was declared by instead
	// of types, nil where it was not: they say more of integers and strings.
	KeyOf, DataOf Expr
	// Flags are nft's words: constant, dynamic, interval, timeout.
	Flags []string
	// Counter gives every element a counter of its own; Extra are the other
	// stateful parts that every element gets.
	Counter bool
	Extra   []Part
	// CounterLast says that the counter stands behind the other parts.
	CounterLast bool
	Anonymous   bool
	// AutoMerge lets nft unite intervals that touch.
	AutoMerge bool
	Comment   string
	// Size is the greatest number of elements, 0 for no bound.
	Size uint32
	// Policy is nft's word for what the kernel should save: "memory", or empty
	// for the default, time.
	Policy string
	// Timeout and GCInterval are in milliseconds: how long an element stays
	// that says nothing itself, and how often the kernel removes old ones.
	Timeout, GCInterval uint64
	Handle              uint64
	Elements            []Element
}

// sameDefinition says whether two sets differ at most in their elements.
func (s Set) sameDefinition(o Set) bool {
	return s.Name == o.Name && s.Key == o.Key && s.Data == o.Data && s.Counter == o.Counter &&
		s.Anonymous == o.Anonymous && s.Size == o.Size && slices.Equal(s.Flags, o.Flags) &&
		s.Timeout == o.Timeout && s.GCInterval == o.GCInterval && s.Policy == o.Policy &&
		s.Comment == o.Comment && s.AutoMerge == o.AutoMerge && s.DataInterval == o.DataInterval && sameParts(s.Extra, o.Extra)
}

func sameParts(a, b []Part) bool {
	return slices.EqualFunc(a, b, func(x, y Part) bool { return x.String() == y.String() })
}

// kind is nft's word for what s is.
func (s Set) kind() string {
	if s.Data != "" {
		return "map"
	}
	return "set"
}

// Element is a member of a set, or a key of a map with what the map holds for
// it: Data, a Verdict in a verdict map, or the name of an Object.
type Element struct {
	Key Value
	// End is the last key of a range, empty where the element is one key.
	End Value
	// DataEnd is the last value of a range that a map holds.
	Data, DataEnd Value
	Verdict       Verdict
	Object        string
	Comment       string
	// Counter is nil where the set keeps no counters.
	Counter *Counter
	// CatchAll marks the element "*", which stands for every key without an
	// element of its own.
	CatchAll bool
	// Timeout and Expires are in milliseconds; 0 for an element that stays.
	Timeout, Expires uint64
	// CounterLast says that the counter stands behind the other parts.
	CounterLast bool
	// Extra are stateful parts of the element beside its counter.
	Extra []Part
}

// key is what makes an element the same member of its set.
func (e Element) key() elementKey { return elementKey{e.Key, e.End, e.CatchAll} }

type elementKey struct {
	key, end Value
	catchAll bool
}

// same says whether two elements hold the same: counters and times to live do
// not count.
func (e Element) same(o Element) bool {
	return e.key() == o.key() && e.Data == o.Data && e.DataEnd == o.DataEnd && e.Verdict == o.Verdict &&
		e.Object == o.Object && e.Comment == o.Comment && e.Timeout == o.Timeout
}

// Merge unites rulesets: tables, sets and chains of the same name become one,
// with the rules of the first before those of the second and each element
// once. Of two different definitions of one object the first stands.
func Merge(parts ...Ruleset) Ruleset {
	var out Ruleset
	for _, p := range parts {
		for _, t := range p.Tables {
			have := out.Table(t.Family, t.Name)
			if have == nil {
				out.Tables = append(out.Tables, Table{
					Family: t.Family, Name: t.Name, Flags: t.Flags, Comment: t.Comment, Handle: t.Handle, Objects: t.Objects, Flowtables: t.Flowtables,
				})
				have = &out.Tables[len(out.Tables)-1]
			}
			have.merge(t)
		}
	}
	return out
}

func (t *Table) merge(o Table) {
	for _, s := range o.Sets {
		have := t.Set(s.Name)
		if have == nil {
			t.Sets = append(t.Sets, s)
			t.Sets[len(t.Sets)-1].Elements = nil
			have = &t.Sets[len(t.Sets)-1]
		}
		have.addElements(s.Elements)
	}
	for _, c := range o.Chains {
		have := t.Chain(c.Name)
		if have == nil {
			c.Rules = slices.Clone(c.Rules)
			t.Chains = append(t.Chains, c)
			continue
		}
		have.Rules = append(have.Rules, c.Rules...)
	}
}

// addElements adds the elements whose keys are not there yet.
func (s *Set) addElements(more []Element) {
	if len(s.Elements) == 0 {
		s.Elements = slices.Clone(more)
		return
	}
	seen := make(map[elementKey]bool, len(s.Elements)+len(more))
	for _, e := range s.Elements {
		seen[e.key()] = true
	}
	for _, e := range more {
		if !seen[e.key()] {
			seen[e.key()] = true
			s.Elements = append(s.Elements, e)
		}
	}
}

// Sorted is the ruleset with tables, sets, chains and elements in the order of
// their names: two rulesets that do the same print the same. The order of
// rules stays.
func (rs Ruleset) Sorted() Ruleset {
	out := Ruleset{Tables: slices.Clone(rs.Tables)}
	slices.SortFunc(out.Tables, func(a, b Table) int {
		return strings.Compare(string(a.Family)+" "+a.Name, string(b.Family)+" "+b.Name)
	})
	for i := range out.Tables {
		t := &out.Tables[i]
		t.Sets = slices.Clone(t.Sets)
		t.Chains = slices.Clone(t.Chains)
		slices.SortFunc(t.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(t.Chains, func(a, b Chain) int { return strings.Compare(a.Name, b.Name) })
		for j := range t.Sets {
			t.Sets[j].Elements = slices.Clone(t.Sets[j].Elements)
			SortElements(t.Sets[j].Elements)
		}
	}
	return out
}

// SortElements orders elements by their keys: numbers by their value, other
// keys by their bytes, and "*" last.
func SortElements(elements []Element) {
	slices.SortStableFunc(elements, func(a, b Element) int {
		if a.CatchAll != b.CatchAll {
			if a.CatchAll {
				return 1
			}
			return -1
		}
		x, ok := a.Key.Uint()
		y, ok2 := b.Key.Uint()
		if c := cmp.Compare(x, y); ok && ok2 && a.Key.Type == b.Key.Type && c != 0 {
			return c
		}
		if c := strings.Compare(a.Key.Data, b.Key.Data); c != 0 {
			return c
		}
		return strings.Compare(a.End.Data, b.End.Data)
	})
}
