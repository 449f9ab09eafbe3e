package inspect_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// Short words for the tables below.
var (
	iifname  = ruleset.Meta{Key: ruleset.MetaIIFName}
	oifname  = ruleset.Meta{Key: ruleset.MetaOIFName}
	l4proto  = ruleset.Meta{Key: ruleset.MetaL4Proto}
	nfproto  = ruleset.Meta{Key: ruleset.MetaNFProto}
	mark     = ruleset.Meta{Key: ruleset.MetaMark}
	ctState  = ruleset.Ct{Key: ruleset.CtState}
	ctStat   = ruleset.Ct{Key: ruleset.CtStatus}
	accept   = ruleset.Verdict{Kind: ruleset.Accept}
	drop     = ruleset.Verdict{Kind: ruleset.Drop}
	ret      = ruleset.Verdict{Kind: ruleset.Return}
	counter  = ruleset.Counter{}
	local    = ruleset.Is(ruleset.FibDaddrType, ruleset.HostUint32(ruleset.TypeFibAddrType, ruleset.FibLocal))
	addr     = netip.MustParseAddr
	prefix   = netip.MustParsePrefix
	addrPort = netip.MustParseAddrPort
)

func field(proto, name string) ruleset.Payload {
	p, ok := ruleset.Field(proto, name)
	if !ok {
		panic("no field " + proto + " " + name)
	}
	return p
}

func state(bits uint32) ruleset.Value { return ruleset.HostUint32(ruleset.TypeCtState, bits) }

func bridge(name string) ruleset.Element { return ruleset.Element{Key: ruleset.Iface(name)} }

// base is a base chain of type filter, or nat where typ says so.
func base(name, typ string, h ruleset.Hook, priority int32, rules ...ruleset.Rule) ruleset.Chain {
	return ruleset.Chain{
		Name: name, Rules: rules,
		Base: &ruleset.Base{Type: typ, Hook: h, Priority: priority, Policy: ruleset.Accept},
	}
}

func chain(name string, rules ...ruleset.Rule) ruleset.Chain {
	return ruleset.Chain{Name: name, Rules: rules}
}

func rule(parts ...ruleset.Part) ruleset.Rule { return ruleset.NewRule(parts...) }

func table(f ruleset.Family, name string, sets []ruleset.Set, chains ...ruleset.Chain) ruleset.Table {
	return ruleset.Table{Family: f, Name: name, Sets: sets, Chains: chains}
}

func model(tables ...ruleset.Table) *inspect.Model { return named(inspect.Names{}, tables...) }

func named(n inspect.Names, tables ...ruleset.Table) *inspect.Model {
	return inspect.NewModel(ruleset.Ruleset{Tables: tables}, n)
}

// object is an object of table inet t.
func object(k inspect.Kind, name string, index int) inspect.Object {
	o := inspect.Object{Kind: k, Family: ruleset.FamilyInet, Table: "t", Index: index}
	if k == inspect.KindSet || k == inspect.KindElement {
		o.Set = name
	} else {
		o.Chain = name
	}
	return o
}

// say lists the sentences on an object, with the mark of its level before each
// that is no mere explanation.
func say(m *inspect.Model, o inspect.Object) []string {
	out := []string{}
	for _, n := range m.Explain(o) {
		mark := map[inspect.Level]string{inspect.Warn: "! ", inspect.Unknown: "? "}[n.Level]
		out = append(out, mark+n.Sentence)
	}
	return out
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
