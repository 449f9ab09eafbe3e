package kernel

import (
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// The flags of a translation (linux/netfilter/nf_nat.h): those with a word in
// nft, and two that only say that an address or a port is given.
const (
	natRangeGiven  = unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED
	natRandom      = unix.NF_NAT_RANGE_PROTO_RANDOM
	natFullyRandom = unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	natPersistent  = unix.NF_NAT_RANGE_PERSISTENT
	natNetmap      = 1 << 6
)

var natWords = []struct {
	bit  uint32
	name string
}{{natRandom, "random"}, {natFullyRandom, "fully-random"}, {natPersistent, "persistent"}}

// natFlags lists the flags of a translation; false where nft has no word for
// one.
func natFlags(bits uint32) ([]string, bool) {
	var out []string
	bits &^= natRangeGiven
	for _, f := range natWords {
		if bits&f.bit != 0 {
			out = append(out, f.name)
			bits &^= f.bit
		}
	}
	return out, bits == 0
}

// natFamilies are the families that an address of a translation may have.
var natFamilies = map[uint32]struct {
	word string
	typ  rs.Type
}{unix.NFPROTO_IPV4: {"ip", rs.TypeIPv4Addr}, unix.NFPROTO_IPV6: {"ip6", rs.TypeIPv6Addr}}

func (d *ruleDecoder) nat(as attrs, _ rs.Opaque) bool {
	bits := as.u32(unix.NFTA_NAT_FLAGS)
	flags, ok := natFlags(bits &^ natNetmap)
	kind, known := map[uint32]rs.NATKind{unix.NFT_NAT_DNAT: rs.DNAT, unix.NFT_NAT_SNAT: rs.SNAT}[as.u32(unix.NFTA_NAT_TYPE)]
	family, hasFamily := natFamilies[as.u32(unix.NFTA_NAT_FAMILY)]
	if !ok || !known || !hasFamily && as.has(unix.NFTA_NAT_REG_ADDR_MIN) {
		return false
	}
	n := rs.NAT{Kind: kind, Flags: flags, Family: family.word, Prefix: bits&natNetmap != 0}
	if l, ok := d.register(as, unix.NFTA_NAT_REG_ADDR_MIN); ok {
		if m, ok := l.expr.(rs.MapExpr); ok && l.mask == nil && !l.swapped {
			return d.natByMap(n, l, m, family.typ, as)
		}
	}
	return d.natTo(n, family.typ, as)
}

// natByMap is a translation to what a map holds: an address, or an address and a
// port behind it, or ranges of them.
func (d *ruleDecoder) natByMap(n rs.NAT, l loaded, m rs.MapExpr, addrType rs.Type, as attrs) bool {
	from := word(as.u32(unix.NFTA_NAT_REG_ADDR_MIN))
	at := func(typ uint16) int {
		if !as.has(typ) {
			return -1
		}
		return word(as.u32(typ)) - from
	}
	addrEnd, port, portEnd := at(unix.NFTA_NAT_REG_ADDR_MAX), at(unix.NFTA_NAT_REG_PROTO_MIN), at(unix.NFTA_NAT_REG_PROTO_MAX)
	if addrEnd == 0 {
		addrEnd = -1
	}
	if portEnd == port {
		portEnd = -1
	}
	addrWords := words(addrType.Size())
	withPort := rs.ConcatTypes(addrType, rs.TypeInetService)
	interval := d.sets[m.Map].DataInterval
	switch {
	case m.Data == withPort && !interval && port == addrWords && addrEnd < 0 && portEnd < 0:
	case m.Data == withPort && interval && addrEnd == addrWords+1 && port == addrWords && portEnd == 2*addrWords+1:
	case m.Data == addrType && interval && addrEnd == addrWords && port < 0:
		n.AddrOnly = true
	case m.Data == addrType && !interval && addrEnd < 0 && port < 0:
		n.AddrOnly = true
		d.leaveOutFamily(&n)
	case m.Data == addrType && !interval && addrEnd < 0 && len(d.regs[port+from].value) == 2 && portEnd < 0:
		// An address from the map and a port beside it.
		p := d.regs[port+from]
		d.use(p)
		n.Port = rs.Value{Type: rs.TypeInetService, Data: string(p.value)}
		n.To = m
		d.leaveOutFamily(&n)
	default:
		return false
	}
	if n.To == nil {
		n.Key, n.Map, n.Anonymous = m.Key, m.Map, m.Anonymous
	}
	d.use(l)
	d.needs(m.Key)
	d.add(n)
	return true
}

// natTo is a translation to constants, ranges of them, or an address that the
// kernel computes.
func (d *ruleDecoder) natTo(n rs.NAT, addrType rs.Type, as attrs) bool {
	addr, ok1 := d.valueSpan(as, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX, addrType, &n.Addr, &n.AddrEnd)
	port, ok2 := d.valueSpan(as, unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX, rs.TypeInetService, &n.Port, &n.PortEnd)
	if !ok1 {
		l, ok := d.register(as, unix.NFTA_NAT_REG_ADDR_MIN)
		if !ok || l.expr == nil || as.has(unix.NFTA_NAT_REG_ADDR_MAX) && !as.sameRegisters(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX) {
			return false
		}
		n.To, addr = d.whole(l), []loaded{l}
	}
	if !ok2 || len(addr)+len(port) == 0 {
		return false
	}
	for _, l := range append(addr, port...) {
		d.use(l)
	}
	if n.To != nil {
		d.needs(n.To)
	}
	d.leaveOutFamily(&n)
	d.add(n)
	return true
}

// valueSpan reads a constant, or a range of them, from the registers that two
// attributes name; false where the registers hold something else.
func (d *ruleDecoder) valueSpan(as attrs, lo, hi uint16, typ rs.Type, from, to *rs.Value) ([]loaded, bool) {
	if !as.has(lo) {
		return nil, !as.has(hi)
	}
	first, _ := d.register(as, lo)
	if len(first.value) != typ.Size() {
		return nil, false
	}
	*from = rs.Value{Type: typ, Data: string(first.value)}
	if as.sameRegisters(lo, hi) {
		return []loaded{first}, true
	}
	last, _ := d.register(as, hi)
	if len(last.value) != typ.Size() {
		return nil, false
	}
	*to = rs.Value{Type: typ, Data: string(last.value)}
	return []loaded{first, last}, true
}

// leaveOutFamily leaves the family out where nft does: in a table of it.
func (d *ruleDecoder) leaveOutFamily(n *rs.NAT) {
	if string(d.family) == n.Family && !n.Prefix {
		n.Family = ""
	}
}

// sameRegisters says whether a range has no end, or ends where it begins.
func (as attrs) sameRegisters(lo, hi uint16) bool {
	return !as.has(hi) || as.has(lo) && as.u32(lo) == as.u32(hi)
}

func (d *ruleDecoder) masq(as attrs, _ rs.Opaque) bool {
	flags, ok := natFlags(as.u32(unix.NFTA_MASQ_FLAGS))
	m := rs.Masquerade{Flags: flags}
	ports, known := d.valueSpan(as, unix.NFTA_MASQ_REG_PROTO_MIN, unix.NFTA_MASQ_REG_PROTO_MAX, rs.TypeInetService, &m.Port, &m.PortEnd)
	if !ok || !known {
		return false
	}
	for _, l := range ports {
		d.use(l)
	}
	d.add(m)
	return true
}

func (d *ruleDecoder) redir(as attrs, _ rs.Opaque) bool {
	flags, ok := natFlags(as.u32(unix.NFTA_REDIR_FLAGS))
	r := rs.Redirect{Flags: flags}
	ports, known := d.valueSpan(as, unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFTA_REDIR_REG_PROTO_MAX, rs.TypeInetService, &r.Port, &r.PortEnd)
	if !known {
		l, found := d.register(as, unix.NFTA_REDIR_REG_PROTO_MIN)
		if !found || l.expr == nil || !as.sameRegisters(unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFTA_REDIR_REG_PROTO_MAX) {
			return false
		}
		r.To, ports = d.whole(l), []loaded{l}
	}
	if !ok {
		return false
	}
	for _, l := range ports {
		d.use(l)
	}
	if r.To != nil {
		d.keepChecks()
		d.needs(r.To)
	}
	d.add(r)
	return true
}

// operandOf is what a register gives to a statement: a constant of a type, or an
// expression.
func (d *ruleDecoder) operandOf(as attrs, typ uint16, t rs.Type) (rs.Expr, bool) {
	l, ok := d.register(as, typ)
	switch {
	case !ok:
		return nil, !as.has(typ)
	case l.expr != nil:
		x := d.whole(l)
		d.use(l)
		d.needs(x)
		return x, true
	case t.Size() != len(l.value):
		return nil, false
	}
	d.use(l)
	return rs.Const{Value: rs.Value{Type: t, Data: string(l.value)}}, true
}

func (d *ruleDecoder) tproxy(as attrs, _ rs.Opaque) bool {
	const family, addr, port = 1, 2, 3
	f := natFamilies[as.u32(family)]
	var p rs.TProxy
	var ok1, ok2 bool
	p.Addr, ok1 = d.operandOf(as, addr, f.typ)
	if ok1 && as.has(port) {
		d.keepChecks()
	}
	p.Port, ok2 = d.operandOf(as, port, rs.TypeInetService)
	if !ok1 || !ok2 {
		return false
	}
	if d.family == rs.FamilyInet {
		p.Family = f.word
	}
	d.add(p)
	return true
}

func (d *ruleDecoder) dup(as attrs, _ rs.Opaque) bool {
	addrType := rs.TypeIPv4Addr
	if d.family == rs.FamilyIP6 {
		addrType = rs.TypeIPv6Addr
	}
	to, ok1 := d.operandOf(as, unix.NFTA_DUP_SREG_ADDR, addrType)
	device, ok2 := d.operandOf(as, unix.NFTA_DUP_SREG_DEV, rs.TypeIfIndex)
	if !ok1 || !ok2 || to == nil && device == nil {
		return false
	}
	if to == nil {
		to, device = device, nil
	}
	d.add(rs.Dup{To: to, Device: device})
	return true
}

func (d *ruleDecoder) forward(as attrs, _ rs.Opaque) bool {
	const dev, addr, proto = 1, 2, 3
	f := natFamilies[as.u32(proto)]
	device, ok1 := d.operandOf(as, dev, rs.TypeIfIndex)
	to, ok2 := d.operandOf(as, addr, f.typ)
	if !ok1 || !ok2 || device == nil {
		return false
	}
	d.add(rs.Forward{Device: device, Addr: to, Family: f.word})
	return true
}
