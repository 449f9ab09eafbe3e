package inspect

import (
	"fmt"

	"nftnet/internal/ruleset"
)

// Kind is what an [Object] is.
type Kind string

// The kinds of objects.
const (
	KindRuleset Kind = "ruleset"
	KindHook    Kind = "hook"
	KindTable   Kind = "table"
	KindChain   Kind = "chain"
	KindRule    Kind = "rule"
	KindSet     Kind = "set"
	KindElement Kind = "element"
	// KindState is a named object of a table, or a flow table; its Set holds the
	// kind and the name. Only a [Change] is about one.
	KindState Kind = "object"
)

// Object names something in a [Model]. Objects are comparable.
type Object struct {
	Kind Kind
	// Layer, Hook and Device name a hook; Device only where hooks are per
	// interface.
	Layer  Layer
	Hook   ruleset.Hook
	Device string
	// Family and Table name the table of every other object.
	Family ruleset.Family
	Table  string
	// Chain names a chain or the chain of a rule, Set a set or map or that of an
	// element.
	Chain, Set string
	// Index is the place of a rule in its chain or of an element in its set,
	// counted from 0.
	Index int
}

// String names the object in nft's words; rules and elements are counted from
// 1, as people do.
func (o Object) String() string {
	table := fmt.Sprintf("%s %s", o.Family, o.Table)
	switch o.Kind {
	case KindHook:
		if o.Device != "" {
			return fmt.Sprintf("hook %s %s %s", o.Layer, o.Hook, o.Device)
		}
		return fmt.Sprintf("hook %s %s", o.Layer, o.Hook)
	case KindTable:
		return "table " + table
	case KindChain:
		return fmt.Sprintf("chain %s %s", table, o.Chain)
	case KindRule:
		return fmt.Sprintf("rule %s %s %d", table, o.Chain, o.Index+1)
	case KindSet:
		return fmt.Sprintf("set %s %s", table, o.Set)
	case KindState:
		return fmt.Sprintf("object %s %s", table, o.Set)
	case KindElement:
		return fmt.Sprintf("element %s %s %d", table, o.Set, o.Index+1)
	}
	return string(o.Kind)
}

func tableObject(t *ruleset.Table) Object {
	return Object{Kind: KindTable, Family: t.Family, Table: t.Name}
}

func (o Object) chain(name string) Object {
	return Object{Kind: KindChain, Family: o.Family, Table: o.Table, Chain: name}
}

func (o Object) rule(i int) Object {
	return Object{Kind: KindRule, Family: o.Family, Table: o.Table, Chain: o.Chain, Index: i}
}

func (o Object) set(name string) Object {
	return Object{Kind: KindSet, Family: o.Family, Table: o.Table, Set: name}
}

func (o Object) element(i int) Object {
	return Object{Kind: KindElement, Family: o.Family, Table: o.Table, Set: o.Set, Index: i}
}

// Level says how a [Note] is to be taken.
type Level string

// The levels of notes.
const (
	// Info explains.
	Info Level = "info"
	// Warn points at something that most likely is not meant so.
	Warn Level = "warn"
	// Error points at something that keeps from working what is asked for.
	Error Level = "error"
	// Unknown marks an explanation that is not whole, because a part of the
	// object is not understood.
	Unknown Level = "unknown"
)

// Note is a sentence about an object.
type Note struct {
	Object Object
	Level  Level
	// Topic is the kind of the note; it is the same in every language.
	Topic Topic
	// Sentence is one or several whole sentences.
	Sentence string
	// Evidence is what the sentence rests upon beside the object itself.
	Evidence []Evidence
}

// Evidence is a part of the ruleset in nft's words.
type Evidence struct {
	Object Object
	Text   string
}

// Topic is what a note tells of its object.
type Topic string

// The topics of notes.
const (
	// TopicWhat says what the object is and does.
	TopicWhat Topic = "what"
	// TopicOrder says what comes before and after it at the same hook.
	TopicOrder Topic = "order"
	// TopicReach says how a packet gets there.
	TopicReach Topic = "reach"
	// TopicEnd says what becomes of a packet at the end of a chain.
	TopicEnd Topic = "end"
	// TopicNAT says what is special about chains that translate addresses.
	TopicNAT Topic = "nat"
	// TopicInterface says where an interface is empty.
	TopicInterface Topic = "interface"
	// TopicUse says who uses a set.
	TopicUse Topic = "use"
	// TopicOwner says for which network or container the object is there.
	TopicOwner Topic = "owner"
	// TopicCounter says what was counted.
	TopicCounter Topic = "counter"
	// TopicCustom says what is customary about a well-known object.
	TopicCustom Topic = "custom"
	// TopicMaker says who most likely made the object.
	TopicMaker Topic = "maker"
	// TopicListener says which program answers where a rule leads to a port.
	TopicListener Topic = "listener"
	// TopicObstacle says what is in the way of a network's packets.
	TopicObstacle Topic = "obstacle"
)
