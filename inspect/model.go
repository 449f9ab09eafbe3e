package inspect

import (
	"slices"

	"nftnet/inspect/message"
	"nftnet/internal/ruleset"
)

// Layer is the place of hooks in the network stack: packets of one layer do
// not meet the hooks of another, but for bridged ones with br_netfilter.
type Layer string

// The layers.
const (
	// LayerIP has the hooks of tables of the families ip, ip6 and inet.
	LayerIP Layer = "ip"
	// LayerBridge has the hooks for frames that a bridge hands on.
	LayerBridge Layer = "bridge"
	// LayerARP has the hooks for ARP packets.
	LayerARP Layer = "arp"
	// LayerDevice has the hooks of single interfaces, ingress and egress.
	LayerDevice Layer = "device"
)

// Model is a ruleset and what follows from it. It does not change; its methods
// may be called from several goroutines.
type Model struct {
	Ruleset ruleset.Ruleset
	// Hooks are in the order in which a packet may meet them. The five hooks of
	// [LayerIP] are always there, others where a chain is called at them.
	Hooks []Hook

	names  *nameIndex
	say    message.Catalogue
	chains map[Object]*chainInfo
	sets   map[Object]*setInfo
	// opaque are the objects with parts that are not understood, doubtful the
	// tables with such rules.
	opaque   []Object
	doubtful map[Object]bool
}

// Hook is a place in the packet path and the base chains that are called there.
type Hook struct {
	Object Object
	// Chains are in the order in which the kernel calls them.
	Chains []*BaseChain
}

// BaseChain is a chain that the kernel calls at a hook.
type BaseChain struct {
	Object Object
	Table  *ruleset.Table
	Chain  *ruleset.Chain
	Hook   Object
	// IPv4 and IPv6 say which packets of [LayerIP] meet the chain.
	IPv4, IPv6 bool
	// At is the priority at which the kernel calls the chain. A chain of type nat
	// is called when the kernel translates, whatever its own priority, which
	// orders the nat chains of a hook among themselves.
	At int32
	// Unordered marks a chain at whose priority another one is called: the
	// kernel calls the chain first that was made last, and does not tell which.
	Unordered bool
}

// meets says whether there is a packet that meets both chains.
func (b *BaseChain) meets(o *BaseChain) bool {
	if b.Hook.Layer != LayerIP {
		return true
	}
	return b.IPv4 && o.IPv4 || b.IPv6 && o.IPv6
}

// chainInfo is what the model knows about a chain.
type chainInfo struct {
	object Object
	table  *ruleset.Table
	chain  *ruleset.Chain
	base   *BaseChain
	// hooks are those at which the chain is called; several for one of several
	// devices.
	hooks   []Object
	callers []Caller
	// from are the base chains from which a packet may get here. Guessed is set
	// where it may also get here by a rule that is not understood.
	from    []*BaseChain
	guessed bool
	// taker is the place of the first rule behind which no packet gets, or -1.
	taker int
}

// Caller is a rule by which packets get to a chain.
type Caller struct {
	// Rule is the zero Object where no rule that is understood looks Map up.
	Rule Object
	Kind ruleset.VerdictKind
	// Map is the verdict map by whose elements the rule gets here, Elements their
	// number; empty for a verdict in the rule itself.
	Map      string
	Elements int
}

// setInfo is what the model knows about a set.
type setInfo struct {
	object Object
	table  *ruleset.Table
	set    *ruleset.Set
	users  []Use
}

// Use is a rule that looks a set up.
type Use struct {
	Rule Object
	// Key is what the rule looks up.
	Key ruleset.Expr
	// Part is the part of the rule that does it.
	Part ruleset.Part
}

// NewModel makes the model of rs.
func NewModel(rs ruleset.Ruleset, names Names) *Model {
	m := &Model{
		Ruleset: rs, names: newNameIndex(names), say: names.language(),
		chains: map[Object]*chainInfo{}, sets: map[Object]*setInfo{}, doubtful: map[Object]bool{},
	}
	for i := range m.Ruleset.Tables {
		m.addTable(&m.Ruleset.Tables[i])
	}
	m.addHooks()
	for i := range m.Ruleset.Tables {
		m.connect(&m.Ruleset.Tables[i])
	}
	m.reach()
	return m
}

// addTable enters the chains and sets of a table; of two of one name, which
// the kernel never has, the first.
func (m *Model) addTable(t *ruleset.Table) {
	table := tableObject(t)
	for i := range t.Chains {
		c := &t.Chains[i]
		if o := table.chain(c.Name); m.chains[o] == nil {
			m.chains[o] = &chainInfo{object: o, table: t, chain: c, taker: slices.IndexFunc(c.Rules, takesAll)}
		}
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		if o := table.set(s.Name); m.sets[o] == nil {
			m.sets[o] = &setInfo{object: o, table: t, set: s}
		}
	}
}

// Dormant says whether a table is switched off: the kernel calls none of its
// chains.
func Dormant(t *ruleset.Table) bool { return slices.Contains(t.Flags, "dormant") }

// Language is the language of the model's sentences.
func (m *Model) Language() message.Catalogue { return m.say }

// Unknown lists the rules, and the sets with elements, that hold parts which
// are not understood.
func (m *Model) Unknown() []Object { return m.opaque }

// set finds a set of a table; nil where there is none.
func (m *Model) set(t *ruleset.Table, name string) *ruleset.Set {
	if info := m.sets[tableObject(t).set(name)]; info != nil {
		return info.set
	}
	return nil
}

// Callers lists the rules by which packets get to a chain.
func (m *Model) Callers(chain Object) []Caller {
	if info, ok := m.chains[chain]; ok {
		return info.callers
	}
	return nil
}

// Uses lists the rules that look a set up.
func (m *Model) Uses(set Object) []Use {
	if info, ok := m.sets[set]; ok {
		return info.users
	}
	return nil
}
