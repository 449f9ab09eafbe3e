package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	rs "nftnet/internal/ruleset"
)

// packet is what a rule can ask about: what the kernel knows beside the bytes,
// and the headers.
type packet struct {
	meta, ct, fib map[uint32][]byte
	headers       map[uint32][]byte
}

// machine runs a rule's expressions as the kernel does.
type machine struct {
	packet
	regs  [registerFile]byte
	trace []string
}

// run is what the rule does with a packet: its statements with all that they
// use, up to the match that fails.
func run(p packet, list []attr) string {
	m := machine{packet: p}
	for _, a := range list {
		as := a.nested()
		data, _ := as.get(unix.NFTA_EXPR_DATA)
		if !m.step(as.str(unix.NFTA_EXPR_NAME), data.nested()) {
			m.trace = append(m.trace, "next rule")
			break
		}
	}
	return strings.Join(m.trace, "; ")
}

func (m *machine) at(reg uint32) []byte { return m.regs[min(max(word(reg), 0)*4, registerFile):] }

func (m *machine) put(reg uint32, b []byte) {
	// The kernel fills up the last word with zeros.
	copy(m.at(reg), append(slices.Clone(b), make([]byte, align4(len(b))-len(b))...))
}

func (m *machine) do(format string, args ...any) bool {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
	return true
}

func (m *machine) step(name string, as attrs) bool {
	value := func(typ uint16) []byte {
		a, _ := as.get(typ)
		return dataValue(a)
	}
	switch name {
	case "meta":
		if as.has(unix.NFTA_META_SREG) {
			return m.do("set meta %d to %x", as.u32(unix.NFTA_META_KEY), m.at(as.u32(unix.NFTA_META_SREG))[:4])
		}
		m.put(as.u32(unix.NFTA_META_DREG), m.meta[as.u32(unix.NFTA_META_KEY)])
	case "ct":
		m.put(as.u32(unix.NFTA_CT_DREG), m.ct[as.u32(unix.NFTA_CT_KEY)])
	case "fib":
		m.put(as.u32(unix.NFTA_FIB_DREG), m.fib[as.u32(unix.NFTA_FIB_RESULT)])
	case "payload":
		offset := as.u32(unix.NFTA_PAYLOAD_OFFSET)
		m.put(as.u32(unix.NFTA_PAYLOAD_DREG), m.headers[as.u32(unix.NFTA_PAYLOAD_BASE)][offset:][:as.u32(unix.NFTA_PAYLOAD_LEN)])
	case "immediate":
		a, _ := as.get(unix.NFTA_IMMEDIATE_DATA)
		if v, ok := a.nested().get(unix.NFTA_DATA_VERDICT); ok {
			return m.do("verdict %x", v.data)
		}
		m.put(as.u32(unix.NFTA_IMMEDIATE_DREG), dataValue(a))
	case "bitwise":
		out := slices.Clone(m.at(as.u32(unix.NFTA_BITWISE_SREG))[:as.u32(unix.NFTA_BITWISE_LEN)])
		for i := range out {
			out[i] = out[i]&value(unix.NFTA_BITWISE_MASK)[i] ^ value(unix.NFTA_BITWISE_XOR)[i]
		}
		m.put(as.u32(unix.NFTA_BITWISE_DREG), out)
	case "byteorder":
		m.put(as.u32(unix.NFTA_BYTEORDER_DREG), turned(m.at(as.u32(unix.NFTA_BYTEORDER_SREG))[:as.u32(unix.NFTA_BYTEORDER_LEN)]))
	case "cmp":
		data := value(unix.NFTA_CMP_DATA)
		return holds(as.u32(unix.NFTA_CMP_OP), bytes.Compare(m.at(as.u32(unix.NFTA_CMP_SREG))[:len(data)], data))
	case "range":
		from, to := value(unix.NFTA_RANGE_FROM_DATA), value(unix.NFTA_RANGE_TO_DATA)
		v := m.at(as.u32(unix.NFTA_RANGE_SREG))[:len(from)]
		inside := bytes.Compare(v, from) >= 0 && bytes.Compare(v, to) <= 0
		return inside == (as.u32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_EQ)
	case "lookup":
		return m.lookup(as)
	case "counter":
		return m.do("count")
	case "nat":
		return m.do("nat %d %d: %x", as.u32(unix.NFTA_NAT_TYPE), as.u32(unix.NFTA_NAT_FAMILY), m.natArgs(as))
	case "masq":
		return m.do("masquerade")
	}
	return true
}

func holds(op uint32, c int) bool {
	switch op {
	case unix.NFT_CMP_EQ:
		return c == 0
	case unix.NFT_CMP_NEQ:
		return c != 0
	case unix.NFT_CMP_LT:
		return c < 0
	case unix.NFT_CMP_LTE:
		return c <= 0
	case unix.NFT_CMP_GT:
		return c > 0
	}
	return c >= 0
}

// lookup finds every other key, by its bytes, and in a map what follows from
// them.
func (m *machine) lookup(as attrs) bool {
	set := fuzzSets()[as.str(unix.NFTA_LOOKUP_SET)]
	h := fnv.New64a()
	h.Write([]byte(set.Name))
	h.Write(m.at(as.u32(unix.NFTA_LOOKUP_SREG))[:set.keyLen])
	found := h.Sum64()%2 == 0
	if !as.has(unix.NFTA_LOOKUP_DREG) {
		return found != (as.u32(unix.NFTA_LOOKUP_FLAGS) == unix.NFT_LOOKUP_F_INV)
	}
	if found && as.u32(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT {
		return m.do("verdict of %x", h.Sum(nil))
	}
	m.put(as.u32(unix.NFTA_LOOKUP_DREG), h.Sum(nil))
	return found
}

func (m *machine) natArgs(as attrs) []byte {
	var out []byte
	size := 4
	if as.u32(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6 {
		size = 16
	}
	if a, ok := as.get(unix.NFTA_NAT_REG_ADDR_MIN); ok {
		out = append(out, m.at(a.u32())[:size]...)
	}
	if a, ok := as.get(unix.NFTA_NAT_REG_PROTO_MIN); ok {
		out = append(append(out, '|'), m.at(a.u32())[:2]...)
	}
	return out
}

// randomPacket draws a packet whose parts fit each other.
func randomPacket(t *rapid.T) packet {
	few := func(n int) []byte { return rapid.SliceOfN(rapid.ByteRange(0, 2), n, n).Draw(t, "bytes") }
	proto := rapid.SampledFrom([]byte{rs.ProtoTCP, rs.ProtoUDP, rs.ProtoICMP}).Draw(t, "protocol")
	nh, ll := few(64), few(64)
	family, ether := rs.NFProtoIPv4, uint16(unix.ETH_P_IP)
	nh[9] = proto
	if rapid.Bool().Draw(t, "IPv6") {
		family, ether = rs.NFProtoIPv6, unix.ETH_P_IPV6
		nh[6] = proto
	}
	binary.BigEndian.PutUint16(ll[12:], ether)
	name := make([]byte, 16)
	copy(name, rapid.SampledFrom([]string{"a", "ab", "abc"}).Draw(t, "interface"))
	return packet{
		meta: map[uint32][]byte{
			unix.NFT_META_MARK: few(4), unix.NFT_META_IIFNAME: name, unix.NFT_META_L4PROTO: {proto}, unix.NFT_META_NFPROTO: {family},
			unix.NFT_META_PROTOCOL: binary.BigEndian.AppendUint16(nil, ether), unix.NFT_META_LEN: few(4), unix.NFT_META_PKTTYPE: few(1),
			unix.NFT_META_IIFTYPE: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER),
		},
		ct:      map[uint32][]byte{unix.NFT_CT_STATE: few(4), unix.NFT_CT_STATUS: few(4), unix.NFT_CT_MARK: few(4), unix.NFT_CT_SRC_IP: few(4)},
		fib:     map[uint32][]byte{unix.NFT_FIB_RESULT_ADDRTYPE: few(4), unix.NFT_FIB_RESULT_OIFNAME: name},
		headers: map[uint32][]byte{unix.NFT_PAYLOAD_LL_HEADER: ll, unix.NFT_PAYLOAD_NETWORK_HEADER: nh, unix.NFT_PAYLOAD_TRANSPORT_HEADER: few(64)},
	}
}

// ruleMaker draws expressions: mostly such that belong together, but also
// registers that were never loaded, or were overwritten, and constants of the
// wrong length.
type ruleMaker struct {
	t *rapid.T
	packet
	message
	loads []load
	names []string
}

// load is a register that was filled, with what the packet has there.
type load struct {
	reg   uint32
	value []byte
}

var registers = []uint32{1, 1, 1, 2, 3, 8, 9, 10, 12}

func (m *ruleMaker) pick(n int, label string) int { return rapid.IntRange(0, n-1).Draw(m.t, label) }

func (m *ruleMaker) expr(name string, fill func(*message)) {
	m.names = append(m.names, name)
	m.nest(unix.NFTA_LIST_ELEM, func(b *message) {
		b.str(unix.NFTA_EXPR_NAME, name)
		b.nest(unix.NFTA_EXPR_DATA, fill)
	})
}

func (m *ruleMaker) value(b *message, typ uint16, v []byte) {
	b.nest(typ, func(b *message) { b.raw(unix.NFTA_DATA_VALUE, v) })
}

// read draws a load into a register.
func (m *ruleMaker) read(reg uint32) {
	keyed := func(name string, values map[uint32][]byte, key, dreg uint16) {
		k := rapid.SampledFrom(sortedKeys(values)).Draw(m.t, "key")
		m.expr(name, func(b *message) {
			b.u32(key, k)
			b.u32(dreg, reg)
			if name == "fib" {
				b.u32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
			}
		})
		m.loads = append(m.loads, load{reg, values[k]})
	}
	switch m.pick(5, "kind") {
	case 0:
		keyed("meta", m.packet.meta, unix.NFTA_META_KEY, unix.NFTA_META_DREG)
	case 1:
		keyed("ct", m.packet.ct, unix.NFTA_CT_KEY, unix.NFTA_CT_DREG)
	case 2:
		keyed("fib", m.packet.fib, unix.NFTA_FIB_RESULT, unix.NFTA_FIB_DREG)
	default:
		m.payload(reg)
	}
}

// check draws a meta load and the comparison that holds: what nft puts in by
// itself.
func (m *ruleMaker) check(key uint32) {
	v := m.packet.meta[key]
	m.expr("meta", func(b *message) {
		b.u32(unix.NFTA_META_KEY, key)
		b.u32(unix.NFTA_META_DREG, 1)
	})
	m.expr("cmp", func(b *message) {
		b.u32(unix.NFTA_CMP_SREG, 1)
		b.u32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		m.value(b, unix.NFTA_CMP_DATA, v)
	})
}

// phrase draws expressions that belong together, as nft writes them.
func (m *ruleMaker) phrase() {
	switch m.pick(12, "phrase") {
	case 0:
		m.check(rapid.SampledFrom([]uint32{unix.NFT_META_NFPROTO, unix.NFT_META_PROTOCOL, unix.NFT_META_IIFTYPE}).Draw(m.t, "check"))
	case 1:
		m.check(unix.NFT_META_L4PROTO)
	case 2:
		m.statement()
	case 3:
		m.payload(1)
		m.lookupIn(rapid.SampledFrom([]string{"hosts", "ports", "to"}).Draw(m.t, "set"), load{1, nil}, 1)
		m.nat(1)
	case 4:
		// Two loads, one perhaps over the other, of which the first is used.
		m.read(rapid.SampledFrom([]uint32{1, 1, 9, 2}).Draw(m.t, "register"))
		l := m.loads[len(m.loads)-1]
		m.read(rapid.SampledFrom([]uint32{1, 8, 9, 10, 11}).Draw(m.t, "register"))
		m.cmp(l.reg, unix.NFT_CMP_EQ, l.value)
		m.cmp(m.loads[len(m.loads)-1].reg, unix.NFT_CMP_EQ, m.loads[len(m.loads)-1].value)
	case 5:
		// A concatenation: the key of the map publish, and its use.
		m.expr("meta", func(b *message) {
			b.u32(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)
			b.u32(unix.NFTA_META_DREG, 1)
		})
		m.expr("payload", func(b *message) {
			b.u32(unix.NFTA_PAYLOAD_DREG, 9)
			b.u32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
			b.u32(unix.NFTA_PAYLOAD_OFFSET, 2)
			b.u32(unix.NFTA_PAYLOAD_LEN, 2)
		})
		m.lookupIn("publish", load{1, nil}, 1)
		m.nat(1)
	default:
		m.read(1)
		l := m.loads[len(m.loads)-1]
		if m.pick(3, "mask") == 0 {
			m.bitwise()
			l = m.loads[len(m.loads)-1]
		}
		op := rapid.SampledFrom([]uint32{0, 0, 0, 1, 2, 3, 5}).Draw(m.t, "operator")
		if op > 1 && m.pick(2, "turned") == 0 {
			m.order(l)
			l = m.loads[len(m.loads)-1]
		}
		v := l.value
		if m.pick(3, "constant") == 0 {
			v = m.drawBytes(len(v))
		}
		m.cmp(l.reg, op, v)
		if op == unix.NFT_CMP_GTE && m.pick(2, "range") == 0 {
			m.cmp(l.reg, unix.NFT_CMP_LTE, m.drawBytes(len(v)))
		}
	}
}

// step draws any expression.
func (m *ruleMaker) step() {
	reg := rapid.SampledFrom(registers).Draw(m.t, "register")
	switch m.pick(14, "kind") {
	case 0, 1, 2, 3, 4, 5:
		m.read(reg)
	case 6, 7, 8:
		m.compare()
	case 9:
		m.rangeOrOrder()
	case 10:
		m.bitwise()
	case 11:
		m.lookup()
	case 12:
		v := m.drawBytes(rapid.SampledFrom([]int{2, 4, 4, 16}).Draw(m.t, "length"))
		m.expr("immediate", func(b *message) {
			b.u32(unix.NFTA_IMMEDIATE_DREG, reg)
			m.value(b, unix.NFTA_IMMEDIATE_DATA, v)
		})
		m.loads = append(m.loads, load{reg, v})
	case 13:
		m.statement()
	}
}

func sortedKeys(m map[uint32][]byte) []uint32 {
	var keys []uint32
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (m *ruleMaker) drawBytes(n int) []byte {
	return rapid.SliceOfN(rapid.ByteRange(0, 2), n, n).Draw(m.t, "bytes")
}

// places are where fields begin, with lengths of fields, parts of them and
// more than one.
var places = []struct{ base, offset, length uint32 }{
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4}, {unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 3}, {unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 8},
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16}, {unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 5}, {unix.NFT_PAYLOAD_NETWORK_HEADER, 9, 1},
	{unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 1}, {unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2}, {unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 4},
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1}, {unix.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1}, {unix.NFT_PAYLOAD_TRANSPORT_HEADER, 4, 4},
	{unix.NFT_PAYLOAD_LL_HEADER, 6, 6}, {unix.NFT_PAYLOAD_LL_HEADER, 12, 2}, {unix.NFT_PAYLOAD_LL_HEADER, 6, 8},
}

func (m *ruleMaker) payload(reg uint32) {
	p := rapid.SampledFrom(places).Draw(m.t, "place")
	m.expr("payload", func(b *message) {
		b.u32(unix.NFTA_PAYLOAD_DREG, reg)
		b.u32(unix.NFTA_PAYLOAD_BASE, p.base)
		b.u32(unix.NFTA_PAYLOAD_OFFSET, p.offset)
		b.u32(unix.NFTA_PAYLOAD_LEN, p.length)
	})
	m.loads = append(m.loads, load{reg, m.headers[p.base][p.offset:][:p.length]})
}

// last is the load that the next expression uses: mostly the latest.
func (m *ruleMaker) last() load {
	if len(m.loads) == 0 || m.pick(10, "stray") == 0 {
		return load{rapid.SampledFrom(registers).Draw(m.t, "register"), m.drawBytes(4)}
	}
	return m.loads[len(m.loads)-1-m.pick(min(2, len(m.loads)), "back")]
}

func (m *ruleMaker) compare() {
	l := m.last()
	v := l.value
	switch m.pick(6, "constant") {
	case 0:
		v = m.drawBytes(len(v))
	case 1:
		v = v[:1+m.pick(len(v), "length")]
	}
	m.cmp(l.reg, rapid.SampledFrom([]uint32{0, 0, 0, 1, 2, 3, 4, 5}).Draw(m.t, "operator"), v)
}

func (m *ruleMaker) cmp(reg, op uint32, v []byte) {
	m.expr("cmp", func(b *message) {
		b.u32(unix.NFTA_CMP_SREG, reg)
		b.u32(unix.NFTA_CMP_OP, op)
		m.value(b, unix.NFTA_CMP_DATA, v)
	})
}

func (m *ruleMaker) order(l load) {
	m.expr("byteorder", func(b *message) {
		b.u32(unix.NFTA_BYTEORDER_SREG, l.reg)
		b.u32(unix.NFTA_BYTEORDER_DREG, l.reg)
		b.u32(unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
		b.u32(unix.NFTA_BYTEORDER_LEN, uint32(len(l.value)))
		b.u32(unix.NFTA_BYTEORDER_SIZE, uint32(len(l.value)))
	})
	m.loads = append(m.loads, load{l.reg, turned(l.value)})
}

func (m *ruleMaker) rangeOrOrder() {
	l := m.last()
	if m.pick(2, "order") == 0 {
		m.order(l)
		return
	}
	from, to := l.value, m.drawBytes(len(l.value))
	op := uint32(m.pick(2, "operator"))
	m.expr("range", func(b *message) {
		b.u32(unix.NFTA_RANGE_SREG, l.reg)
		b.u32(unix.NFTA_RANGE_OP, op)
		m.value(b, unix.NFTA_RANGE_FROM_DATA, from)
		m.value(b, unix.NFTA_RANGE_TO_DATA, to)
	})
}

func (m *ruleMaker) bitwise() {
	l := m.last()
	mask := make([]byte, len(l.value))
	prefix := m.pick(2, "prefix") == 0
	for i := range mask {
		mask[i] = rapid.SampledFrom([]byte{255, 255, 0, 1, 240}).Draw(m.t, "mask")
		if prefix && (i > 0 || mask[0] != 240) {
			mask[i] = []byte{255, 0}[min(1, i*2/len(mask))]
		}
	}
	out := make([]byte, len(mask))
	for i := range out {
		out[i] = l.value[i] & mask[i]
	}
	m.expr("bitwise", func(b *message) {
		b.u32(unix.NFTA_BITWISE_SREG, l.reg)
		b.u32(unix.NFTA_BITWISE_DREG, l.reg)
		b.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		m.value(b, unix.NFTA_BITWISE_MASK, mask)
		m.value(b, unix.NFTA_BITWISE_XOR, make([]byte, len(mask)))
	})
	m.loads = append(m.loads, load{l.reg, out})
}

func (m *ruleMaker) lookup() {
	name := rapid.SampledFrom([]string{"ports", "marks", "verdicts", "publish", "hosts", "to"}).Draw(m.t, "set")
	m.lookupIn(name, m.last(), rapid.SampledFrom(registers).Draw(m.t, "register"))
}

func (m *ruleMaker) lookupIn(name string, l load, to uint32) {
	m.expr("lookup", func(b *message) {
		b.str(unix.NFTA_LOOKUP_SET, name)
		b.u32(unix.NFTA_LOOKUP_SREG, l.reg)
		switch name {
		case "verdicts":
			b.u32(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
		case "publish", "to":
			b.u32(unix.NFTA_LOOKUP_DREG, to)
		default:
			b.u32(unix.NFTA_LOOKUP_FLAGS, uint32(l.reg%2))
		}
	})
	if name == "publish" || name == "to" {
		m.loads = append(m.loads, load{to, m.drawBytes(4)})
	}
}

func (m *ruleMaker) statement() {
	switch m.pick(5, "statement") {
	case 0:
		m.expr("counter", func(b *message) {})
	case 1:
		m.expr("immediate", func(b *message) {
			b.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			b.nest(unix.NFTA_IMMEDIATE_DATA, func(b *message) {
				b.nest(unix.NFTA_DATA_VERDICT, func(b *message) { b.u32(unix.NFTA_VERDICT_CODE, 1) })
			})
		})
	case 2:
		m.nat(m.last().reg)
	case 3:
		m.expr("masq", func(b *message) {})
	case 4:
		m.expr("tunnel", func(b *message) { b.u32(1, 5) })
	}
}

func (m *ruleMaker) nat(reg uint32) {
	m.expr("nat", func(b *message) {
		b.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		b.u32(unix.NFTA_NAT_FAMILY, unix.NFPROTO_IPV4)
		b.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg)
		if port := rapid.SampledFrom([]uint32{0, 0, 9, 9, 2, reg}).Draw(m.t, "register"); port != 0 {
			b.u32(unix.NFTA_NAT_REG_PROTO_MIN, port)
		}
	})
}

// TestReadRulesDoWhatTheKernelDoes makes up rules and packets. What the rule
// does, run as the kernel runs it, and what the rule does that we write for what
// we read, must be the same; and nothing that is not understood may vanish.
func TestReadRulesDoWhatTheKernelDoes(t *testing.T) {
	understood := 0
	rapid.Check(t, func(t *rapid.T) {
		m := ruleMaker{t: t, packet: randomPacket(t)}
		for range 1 + m.pick(4, "length") {
			if m.pick(5, "phrase") == 0 {
				m.step()
			} else {
				m.phrase()
			}
		}
		family := rapid.SampledFrom([]rs.Family{rs.FamilyInet, rs.FamilyNetdev, rs.FamilyBridge}).Draw(t, "family")
		list, err := parseAttrs(m.b)
		if err != nil {
			t.Fatal(err)
		}
		r := rs.Rule{Parts: decodeRule(family, fuzzSets(), list)}

		opaque := map[string]int{}
		for _, p := range r.Parts {
			if o, ok := p.(rs.Opaque); ok {
				opaque[o.Name]++
			}
		}
		for name, n := range opaque {
			if in := count(m.names, name); n > in {
				t.Fatalf("%s\nshows %d unknown %s of %d", r, n, name, in)
			}
		}
		if opaque["tunnel"] != count(m.names, "tunnel") {
			t.Fatalf("%s\nof %v lost what is unknown", r, m.names)
		}
		exprs, err := encodeRule(family, r)
		if err != nil {
			return
		}
		var out message
		for _, x := range exprs {
			b, err := marshalExpr(family, x)
			if err != nil {
				t.Fatal(err)
			}
			out.raw(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
		}
		understood++
		again := (attr{data: out.b}).nested()
		for _, p := range []packet{m.packet, randomPacket(t), randomPacket(t)} {
			if want, got := run(p, list), run(p, again); got != want {
				t.Fatalf("%v\nread as %s\ndoes  %s\nshould %s", m.names, r, got, want)
			}
		}
	})
	if understood == 0 {
		t.Error("no rule was understood")
	}
	t.Logf("%d rules were understood", understood)
}

func count(names []string, name string) int {
	n := 0
	for _, x := range names {
		if x == name {
			n++
		}
	}
	return n
}
