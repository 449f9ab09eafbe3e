package inspect

import (
	"net/netip"
	"strconv"
	"strings"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// listed is how many values a sentence lists before it only counts the rest.
const listed = 6

// expression names in words what a match reads: "source address".
func (m *Model) expression(x ruleset.Expr) string {
	id := ""
	switch x := x.(type) {
	case ruleset.Binary, ruleset.MapExpr, ruleset.Hash, ruleset.Numgen:
		return m.say.Say("quoted", "text", x.String())
	case ruleset.Masked:
		return m.say.Say("expr.masked", "expr", m.expression(x.Expr), "mask", x.Mask.String())
	case ruleset.ConcatExpr:
		parts := make([]string, len(x.Parts))
		for i, p := range x.Parts {
			parts[i] = m.expression(p)
		}
		return m.say.And(parts)
	case ruleset.Payload:
		if x.Field == "" {
			return m.say.Say("expr.raw", "bits", strconv.Itoa(x.Length*8), "offset", strconv.Itoa(x.Offset*8),
				"header", m.say.Say("header."+string(x.Base)))
		}
		id = "expr.field." + x.Field
	case ruleset.Ct:
		if x.Dir != "" {
			return m.say.Say("expr.directed", "dir", string(x.Dir), "key", string(x.Key))
		}
		id = "expr.ct." + string(x.Key)
	case ruleset.Fib:
		return m.say.Say("expr.fib", "flags", x.Flags, "result", x.Result)
	case ruleset.Meta:
		id = "expr.meta." + string(x.Key)
	}
	if name := m.say.Say(id); name != id {
		return name
	}
	return x.String()
}

// iface names an interface, with the network whose bridge it is.
func (m *Model) iface(name string) string {
	if name == "" {
		return m.say.Say("iface.none")
	}
	if n, ok := m.names.bridge(name); ok {
		return m.say.Say("iface.bridge", "name", name, "network", n.Name)
	}
	return m.say.Say("iface.one", "name", name)
}

// addr writes an address and whose it is.
func (m *Model) addr(a netip.Addr) string {
	if e, ok := m.names.holder(a); ok {
		return m.say.Say("addr.container", "addr", a.String(), "container", e.Container)
	}
	if n, ok := m.names.gateway(a); ok {
		return m.say.Say("addr.gateway", "addr", a.String(), "network", n.Name)
	}
	return a.String()
}

var (
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
	loopback6  = netip.PrefixFrom(netip.IPv6Loopback(), 128)
	linkLocal4 = netip.MustParsePrefix("169.254.0.0/16")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
)

// prefix writes a prefix and what it is known for.
func (m *Model) prefix(p netip.Prefix) string {
	if n, ok := m.names.subnet(p); ok {
		return m.say.Say("prefix.network", "prefix", p.String(), "network", n.Name)
	}
	switch p {
	case loopback4, loopback6:
		return m.say.Say("prefix.loopback", "prefix", p.String())
	case linkLocal4, linkLocal6:
		return m.say.Say("prefix.linklocal", "prefix", p.String())
	}
	return p.String()
}

// value writes a constant as plainly as can be.
func (m *Model) value(v ruleset.Value) string {
	if a, ok := v.Addr(); ok {
		return m.addr(a)
	}
	if v.Type.IsConcat() {
		parts := v.Parts()
		words := make([]string, len(parts))
		for i, p := range parts {
			words[i] = m.value(p)
		}
		return strings.Join(words, m.say.Say("list.concat"))
	}
	if v.Type == ruleset.TypeIfname && v.Data != "" {
		return m.ifaceValue(v)
	}
	return v.String()
}

// ifaceValue names the interface that a constant holds, or the interfaces
// where the constant is only how their names begin.
func (m *Model) ifaceValue(v ruleset.Value) string {
	if len(v.Data) < 16 && !strings.HasSuffix(v.Data, "\x00") {
		return m.say.Say("iface.begins", "name", v.Data)
	}
	return m.iface(v.Name())
}

// owner names whom a comment of ours says that an object is for; false where
// the comment says something else.
func (m *Model) owner(comment string) (string, bool) {
	o, ok := layout.ParseOwner(comment)
	if !ok {
		return "", false
	}
	network := m.say.Say("owner.network.id", "id", o.Network)
	if n, ok := m.names.network(o.Network); ok {
		network = m.say.Say("owner.network", "name", n.Name)
	}
	if o.Endpoint == "" {
		return network, true
	}
	if e, ok := m.names.endpoint(o.Endpoint); ok {
		return m.say.Say("owner.container", "container", e.Container, "network", network), true
	}
	return m.say.Say("owner.endpoint.id", "id", o.Endpoint, "network", network), true
}

// setName names a set and says how full it is.
func (m *Model) setName(table *ruleset.Table, name string) string {
	s := m.set(table, name)
	if s == nil {
		return m.say.Say("set.ref", "name", name)
	}
	return m.say.Count("set.ref", uint64(len(s.Elements)), "name", name)
}

// elementKey writes the key of an element: a value, a range, a prefix, or all.
func (m *Model) elementKey(e ruleset.Element) string {
	switch {
	case e.CatchAll:
		return m.say.Say("element.every")
	case e.End.Data == "":
		return m.value(e.Key)
	}
	return e.KeyText()
}

// chainName names a chain; one of another table than the reader is in is named
// with its table.
func (m *Model) chainName(o Object, in *ruleset.Table) string {
	if in != nil && o.Family == in.Family && o.Table == in.Name {
		return o.Chain
	}
	return m.say.Say("chain.other", "chain", o.Chain, "family", string(o.Family), "table", o.Table)
}

// ruleName names a rule by its place.
func (m *Model) ruleName(o Object, in *ruleset.Table) string {
	return m.say.Say("rule.name", "n", strconv.Itoa(o.Index+1), "chain", m.chainName(o, in))
}

// chainNames lists base chains, but no more than a sentence bears.
func (m *Model) chainNames(chains []*BaseChain, in *ruleset.Table) string {
	var names []string
	for _, b := range chains {
		names = append(names, m.chainName(b.Object, in))
	}
	return m.say.And(m.shortened(names))
}

// shortened cuts a list to what a sentence bears; the last phrase then counts
// the rest.
func (m *Model) shortened(phrases []string) []string {
	if len(phrases) <= listed {
		return phrases
	}
	rest := m.say.Count("list.more", uint64(len(phrases)-listed+1))
	return append(phrases[:listed-1:listed-1], rest)
}

// hookName names a hook.
func (m *Model) hookName(o Object) string {
	id := "hook.name." + string(o.Layer)
	if o.Device != "" {
		id += ".device"
	}
	return m.say.Say(id, "hook", string(o.Hook), "device", o.Device)
}

// count writes a number of something for a sentence.
func count(n uint64) string { return strconv.FormatUint(n, 10) }
