package inspect_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
)

// FuzzModel makes a ruleset of arbitrary bytes, sensible or not, and explains
// all of it in every view.
func FuzzModel(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("a table with a chain and some rules"))
	f.Add(bytes.Repeat([]byte{1, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31}, 40))
	f.Add(bytes.Repeat([]byte{250, 2, 97, 4, 180, 6, 33, 8, 12, 10}, 60))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := inspect.NewModel((&maker{data: data}).ruleset(), webNames)
		for _, o := range m.Objects() {
			for _, n := range m.Explain(o) {
				if n.Sentence == "" || n.Object != o {
					t.Errorf("%s: %+v", o, n)
				}
			}
		}
		var text bytes.Buffer
		if err := view.Text(&text, m, view.Options{Width: 60, All: true}); err != nil {
			t.Error(err)
		}
		if strings.ContainsRune(text.String(), '\x1b') {
			t.Error("an escape sequence of the ruleset's reaches the terminal")
		}
		if err := view.NFT(io.Discard, m, view.Options{Handles: true}); err != nil {
			t.Error(err)
		}
		var doc bytes.Buffer
		if err := view.WriteDocument(&doc, m, view.Options{}); err != nil || !json.Valid(doc.Bytes()) {
			t.Errorf("no JSON: %v", err)
		}
		var nft bytes.Buffer
		if err := view.JSON(&nft, m, view.Options{}, "devel"); err != nil || !json.Valid(nft.Bytes()) {
			t.Errorf("no JSON of nft's: %v\n%s", err, nft.Bytes())
		}
	})
}

// maker turns bytes into a ruleset; where they end it goes on with zeros.
type maker struct{ data []byte }

func (m *maker) byte() byte {
	if len(m.data) == 0 {
		return 0
	}
	b := m.data[0]
	m.data = m.data[1:]
	return b
}

func (m *maker) below(n int) int { return int(m.byte()) % n }

func (m *maker) some(most int, add func()) {
	for range m.below(most + 1) {
		add()
	}
}

func pick[T any](m *maker, list ...T) T { return list[m.below(len(list))] }

func (m *maker) name() string {
	return pick(m, "a", "b", "c", "DOCKER-USER", "", "\x1b[31mred", "{x}")
}

func (m *maker) ruleset() ruleset.Ruleset {
	var rs ruleset.Ruleset
	m.some(4, func() { rs.Tables = append(rs.Tables, m.table()) })
	return rs
}

func (m *maker) table() ruleset.Table {
	t := ruleset.Table{Family: pick(m, append(ruleset.Families, "odd")...), Name: m.name()}
	if m.below(8) == 0 {
		t.Flags = []string{pick(m, "dormant", "owner", "new")}
	}
	m.some(3, func() { t.Sets = append(t.Sets, m.set(m.name())) })
	m.some(5, func() {
		c := ruleset.Chain{Name: m.name(), Base: m.base()}
		m.some(4, func() { c.Rules = append(c.Rules, m.rule()) })
		t.Chains = append(t.Chains, c)
	})
	return t
}

func (m *maker) base() *ruleset.Base {
	if m.below(2) == 0 {
		return nil
	}
	b := &ruleset.Base{
		Type: pick(m, "filter", "nat", "route", ""), Priority: int32(m.byte())*3 - 400, Policy: pick(m, ruleset.Accept, ruleset.Drop, ""),
		Hook: pick(m, ruleset.HookIngress, ruleset.HookPrerouting, ruleset.HookInput, ruleset.HookForward, ruleset.HookOutput, ruleset.HookPostrouting, ruleset.HookEgress, "hook9"),
	}
	m.some(2, func() { b.Devices = append(b.Devices, m.name()) })
	return b
}

func (m *maker) set(name string) ruleset.Set {
	s := ruleset.Set{
		Name: name, Key: m.typ(), Data: pick(m, "", ruleset.TypeVerdict, m.typ()), Counter: m.below(2) == 0,
		Anonymous: m.below(4) == 0, Flags: []string{pick(m, "constant", "interval", "dynamic", "odd")},
	}
	m.some(4, func() {
		e := ruleset.Element{Key: m.value(s.Key), Comment: m.comment(), CatchAll: m.below(5) == 0, Expires: uint64(m.below(3)) * 1000}
		switch m.below(4) {
		case 0:
			e.Verdict = m.verdict()
		case 1:
			e.Data = m.value(s.Data)
			if m.below(3) == 0 {
				e.DataEnd, e.Object = m.value(s.Data), m.name()
			}
		case 2:
			e.End = m.value(s.Key)
			e.Extra = []ruleset.Part{m.part(0)}
		}
		if s.Counter {
			e.Counter = &ruleset.Counter{Packets: uint64(m.byte()) << 56, Bytes: uint64(m.byte()) << 56}
		}
		s.Elements = append(s.Elements, e)
	})
	return s
}

func (m *maker) comment() string {
	return pick(m, "", owner, "net=", "net=4f2a9c01d3e5", "\x1b]0;title\a", "text {id}")
}

func (m *maker) typ() ruleset.Type {
	one := func() ruleset.Type {
		return pick(m, ruleset.TypeIfname, ruleset.TypeIPv4Addr, ruleset.TypeIPv6Addr, ruleset.TypeInetProto, ruleset.TypeInetService,
			ruleset.TypeCtState, ruleset.TypeMark, ruleset.TypeInteger, ruleset.Type("unknown_type_77"))
	}
	t := one()
	if m.below(3) == 0 {
		t = ruleset.ConcatTypes(t, one())
	}
	return t
}

// value is of the right length, or of any.
func (m *maker) value(t ruleset.Type) ruleset.Value {
	size := t.Size()
	if m.below(4) == 0 {
		size = m.below(40)
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = m.byte()
	}
	return ruleset.Value{Type: t, Data: string(b)}
}

func (m *maker) verdict() ruleset.Verdict {
	v := ruleset.Verdict{Kind: pick(m, ruleset.Accept, ruleset.Drop, ruleset.Return, ruleset.Jump, ruleset.Goto, ruleset.Continue, ruleset.Queue, "")}
	if v.Kind == ruleset.Jump || v.Kind == ruleset.Goto {
		v.Chain = m.name()
	}
	return v
}

func (m *maker) rule() ruleset.Rule {
	r := ruleset.Rule{Comment: m.comment(), Handle: uint64(m.byte())}
	m.some(5, func() { r.Parts = append(r.Parts, m.part(2)) })
	return r
}

func (m *maker) expr(depth int) ruleset.Expr {
	proto := pick(m, "ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6", "ether", "odd")
	payload, ok := ruleset.Field(proto, pick(m, "saddr", "daddr", "sport", "dport", "type", "flags", "ttl"))
	if !ok {
		payload = ruleset.RawPayload(pick(m, ruleset.LinkHeader, ruleset.NetworkHeader, ruleset.TransportHeader), m.below(40), m.below(20))
	}
	switch m.below(6) {
	case 0:
		return payload
	case 1:
		return ruleset.Ct{Key: pick(m, ruleset.CtState, ruleset.CtStatus, ruleset.CtMark, ruleset.CtProtoDst, "odd"), Dir: pick(m, "", ruleset.Original)}
	case 2:
		return ruleset.Fib{Flags: pick(m, "daddr", "saddr", "saddr . iif", ""), Result: pick(m, "type", "oif", "oifname", "check", "odd")}
	case 3:
		if depth > 0 {
			return ruleset.Masked{Expr: m.expr(depth - 1), Mask: m.value(m.typ())}
		}
	case 4:
		if depth > 0 {
			return ruleset.ConcatOf(m.expr(depth-1), m.expr(depth-1))
		}
	}
	return ruleset.Meta{Key: pick(m, ruleset.MetaIIFName, ruleset.MetaOIFName, ruleset.MetaIIF, ruleset.MetaOIFGroup, ruleset.MetaL4Proto, ruleset.MetaNFProto, ruleset.MetaMark, "odd")}
}

func (m *maker) op() ruleset.Op {
	return pick(m, ruleset.Equal, ruleset.NotEqual, ruleset.Less, ruleset.GreaterOrEqual, "")
}

func (m *maker) part(depth int) ruleset.Part {
	anonymous := func() *ruleset.Set {
		if depth == 0 || m.below(2) == 0 {
			return nil
		}
		s := m.set("__set0")
		return &s
	}
	x := m.expr(depth)
	switch m.below(18) {
	case 0:
		return ruleset.Compare{Left: x, Op: m.op(), Right: m.value(x.Type())}
	case 1:
		a, _ := netip.AddrFromSlice([]byte(m.value(ruleset.TypeIPv4Addr).Data))
		return ruleset.InPrefix{Left: x, Op: m.op(), Prefix: netip.PrefixFrom(a, m.below(40))}
	case 2:
		return ruleset.InRange{Left: x, Op: m.op(), From: m.value(x.Type()), To: m.value(x.Type())}
	case 3:
		return ruleset.HasAny{Left: x, Op: m.op(), Flags: m.value(x.Type())}
	case 4:
		return ruleset.Lookup{Left: x, Op: m.op(), Set: m.name(), Anonymous: anonymous()}
	case 5:
		return ruleset.VMap{Key: x, Map: m.name(), Anonymous: anonymous()}
	case 6:
		return ruleset.NAT{Kind: pick(m, ruleset.SNAT, ruleset.DNAT), Family: pick(m, "", "ip", "ip6"), Key: x, Map: m.name()}
	case 7:
		return ruleset.NAT{Kind: ruleset.DNAT, Addr: m.value(ruleset.TypeIPv4Addr), Port: m.value(ruleset.TypeInetService)}
	case 8:
		return ruleset.Compat{Target: m.below(2) == 0, Name: m.name()}
	case 9:
		return ruleset.Opaque{Name: m.name(), Data: m.name()}
	case 10:
		return ruleset.Mangle{Left: x, Right: m.value(x.Type())}
	case 11:
		return pick[ruleset.Part](m, ruleset.Masquerade{}, ruleset.Redirect{Port: m.value(ruleset.TypeInetService)}, ruleset.Reject{With: m.name()}, ruleset.Notrack{})
	case 12:
		return pick[ruleset.Part](m, ruleset.Log{Prefix: m.comment(), HasGroup: m.below(2) == 0}, ruleset.Limit{Rate: uint64(m.byte()), Unit: "day", Over: m.below(2) == 0})
	case 14:
		return pick[ruleset.Part](m,
			ruleset.Quota{Bytes: uint64(m.byte()), Over: m.below(2) == 0}, ruleset.ConnLimit{Count: 3}, ruleset.Last{},
			ruleset.SetUpdate{Op: pick(m, "add", "delete"), Set: m.name(), Key: x, Meter: m.below(2) == 0, Parts: []ruleset.Part{ruleset.Limit{Unit: "day"}}},
			ruleset.ObjectRef{Kind: pick(m, "counter", "quota", "synproxy"), Name: m.name()}, ruleset.ObjectRef{Kind: "limit", Key: x, Map: m.name(), Anonymous: anonymous()},
			ruleset.Enqueue{From: 1, To: 2, By: ruleset.Numgen{Mod: 2}}, ruleset.FlowAdd{Table: m.name()}, ruleset.SynProxy{},
			ruleset.ResetOption{Option: ruleset.Exthdr{Kind: ruleset.ExthdrTCP, Name: m.name()}})
	case 15:
		from := ruleset.MapExpr{Key: x, Map: m.name(), Anonymous: anonymous(), Data: ruleset.TypeIPv4Addr}
		return pick[ruleset.Part](m,
			ruleset.Mangle{Left: x, From: from}, ruleset.NAT{Kind: ruleset.SNAT, To: from}, ruleset.Redirect{To: from},
			ruleset.TProxy{Addr: from}, ruleset.Dup{To: from}, ruleset.Forward{Device: from},
			ruleset.Compare{Left: ruleset.Binary{Left: x, Op: "|", Right: m.value(x.Type())}, Op: m.op(), Right: m.value(x.Type())},
			ruleset.Compat{Target: true, Name: pick(m, "DNAT", "MARK", "REJECT", "NFQUEUE", "TPROXY"), Info: string(make([]byte, 64)), Revision: uint32(m.below(3))})
	case 13:
		return ruleset.Counter{Packets: uint64(m.byte()) << 56, Bytes: uint64(m.byte()) << 50}
	}
	return m.verdict()
}
