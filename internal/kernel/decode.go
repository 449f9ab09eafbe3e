package kernel

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// ruleDecoder runs the expressions of one rule as the kernel's register machine
// would and writes down what they mean. Loads into registers become the left
// side of the expression that uses them; what is not understood, or loaded and
// not used by anything understood, stays in the rule as an Opaque part.
type ruleDecoder struct {
	family rs.Family
	sets   map[string]*rs.Set
	parts  []decoded
	regs   map[int]loaded
	// nfproto and l4proto are the protocols that the rule has checked for, and
	// where the check stands among the parts: it goes when it only made a later
	// part possible.
	nfproto, l4proto dependency
}

// decoded is a part, or a load that waits for its use.
type decoded struct {
	part    rs.Part
	removed bool
}

// loaded is what a register holds: an expression, a constant, or the result of
// a map lookup.
type loaded struct {
	expr  rs.Expr
	size  int
	value []byte
	mapOf *rs.VMap
	// part is the place of the load among the parts.
	part int
	// mask is what a bitwise expression left of the value.
	mask []byte
}

type dependency struct {
	value uint8
	known bool
	part  int
}

// word is the place of a register in the kernel's register file, in 4 byte
// words (enum nft_registers).
func word(reg uint32) int {
	if reg >= unix.NFT_REG32_00 {
		return int(reg - unix.NFT_REG32_00)
	}
	return int(reg-1) * 4
}

// decodeRule reads the list of expressions of a rule.
func decodeRule(family rs.Family, sets map[string]*rs.Set, list []attr) []rs.Part {
	d := &ruleDecoder{family: family, sets: sets, regs: map[int]loaded{}}
	for _, a := range list {
		as := a.nested()
		name := as.str(unix.NFTA_EXPR_NAME)
		data, _ := as.get(unix.NFTA_EXPR_DATA)
		d.expression(name, data)
	}
	var out []rs.Part
	for _, p := range d.parts {
		if !p.removed {
			out = append(out, p.part)
		}
	}
	return out
}

// expression decodes one expression; what no case understands becomes Opaque.
func (d *ruleDecoder) expression(name string, data attr) {
	raw := rs.Opaque{Name: name, Data: string(data.data)}
	known := false
	if list, err := parseAttrs(data.data); err == nil {
		if decode, ok := decoders[name]; ok {
			known = decode(d, list, raw)
		}
	}
	if !known {
		d.add(raw)
	}
}

func (d *ruleDecoder) add(p rs.Part) { d.parts = append(d.parts, decoded{part: p}) }

// load notes that a register was filled. Until it is used, the raw expression
// stands in its place.
func (d *ruleDecoder) load(reg uint32, l loaded, raw rs.Opaque) {
	l.part = len(d.parts)
	d.parts = append(d.parts, decoded{part: raw})
	d.regs[word(reg)] = l
}

// use takes what a register holds for the part that is decoded next.
func (d *ruleDecoder) use(l loaded) { d.parts[l.part].removed = true }

var decoders = map[string]func(*ruleDecoder, attrs, rs.Opaque) bool{
	"meta": (*ruleDecoder).meta, "payload": (*ruleDecoder).payload, "ct": (*ruleDecoder).ct,
	"fib": (*ruleDecoder).fib, "cmp": (*ruleDecoder).cmp, "bitwise": (*ruleDecoder).bitwise,
	"range": (*ruleDecoder).rangeExpr, "lookup": (*ruleDecoder).lookup, "immediate": (*ruleDecoder).immediate,
	"counter": (*ruleDecoder).counter, "nat": (*ruleDecoder).nat, "masq": (*ruleDecoder).masq,
	"redir": (*ruleDecoder).redir, "reject": (*ruleDecoder).reject, "log": (*ruleDecoder).log,
	"limit": (*ruleDecoder).limit, "notrack": (*ruleDecoder).notrack, "match": (*ruleDecoder).xt, "target": (*ruleDecoder).xt,
}

// only says whether as holds attributes of these types only, so that nothing
// that an attribute says is lost unseen.
func (as attrs) only(types ...uint16) bool {
	for _, a := range as {
		if !slices.Contains(types, a.typ) {
			return false
		}
	}
	return true
}

func (d *ruleDecoder) meta(as attrs, raw rs.Opaque) bool {
	key, ok := metaByNumber[as.u32(unix.NFTA_META_KEY)]
	if !ok {
		return false
	}
	m := rs.Meta{Key: key}
	if as.has(unix.NFTA_META_DREG) {
		d.load(as.u32(unix.NFTA_META_DREG), loaded{expr: m, size: loadSize(m)}, raw)
		return true
	}
	return d.mangle(m, as.u32(unix.NFTA_META_SREG))
}

// mangle is a statement that sets left to the constant in a register.
func (d *ruleDecoder) mangle(left rs.Expr, sreg uint32) bool {
	l, ok := d.regs[word(sreg)]
	if !ok || l.value == nil {
		return false
	}
	d.use(l)
	d.add(rs.Mangle{Left: left, Right: rs.Value{Type: left.Type(), Data: string(l.value)}})
	return true
}

func (d *ruleDecoder) payload(as attrs, raw rs.Opaque) bool {
	base, ok := payloadByNumber[as.u32(unix.NFTA_PAYLOAD_BASE)]
	if !ok || !as.has(unix.NFTA_PAYLOAD_DREG) {
		return false
	}
	offset, length := int(as.u32(unix.NFTA_PAYLOAD_OFFSET)), int(as.u32(unix.NFTA_PAYLOAD_LEN))
	p := d.field(base, offset, length)
	d.load(as.u32(unix.NFTA_PAYLOAD_DREG), loaded{expr: p, size: length}, raw)
	return true
}

var payloadByNumber = map[uint32]rs.Header{
	unix.NFT_PAYLOAD_LL_HEADER: rs.LinkHeader, unix.NFT_PAYLOAD_NETWORK_HEADER: rs.NetworkHeader,
	unix.NFT_PAYLOAD_TRANSPORT_HEADER: rs.TransportHeader,
}

// field names the place that a payload expression reads, as far as the rule
// says which protocol it is. An address of which only the first bytes are read
// keeps the address's name.
func (d *ruleDecoder) field(base rs.Header, offset, length int) rs.Payload {
	for _, proto := range d.protocols(base) {
		if f, ok := rs.FieldAt(proto, base, offset, length); ok {
			return f
		}
		for _, full := range []int{4, 16} {
			if f, ok := rs.FieldAt(proto, base, offset, full); ok && length < full && isAddr(f) {
				f.Length = length
				return f
			}
		}
	}
	return rs.RawPayload(base, offset, length)
}

func isAddr(f rs.Payload) bool { return f.Typ == rs.TypeIPv4Addr || f.Typ == rs.TypeIPv6Addr }

// protocols lists the protocols that a header may be of, by what is known at
// this point of the rule.
func (d *ruleDecoder) protocols(base rs.Header) []string {
	switch base {
	case rs.LinkHeader:
		return []string{"ether"}
	case rs.NetworkHeader:
		switch {
		case d.family == rs.FamilyIP, d.nfproto.known && d.nfproto.value == rs.NFProtoIPv4:
			return []string{"ip"}
		case d.family == rs.FamilyIP6, d.nfproto.known && d.nfproto.value == rs.NFProtoIPv6:
			return []string{"ip6"}
		}
	case rs.TransportHeader:
		if d.l4proto.known {
			if name, ok := transportNames[d.l4proto.value]; ok {
				return []string{name, "th"}
			}
		}
		return []string{"th"}
	}
	return nil
}

var transportNames = inverse(transportProtos)

func (d *ruleDecoder) ct(as attrs, raw rs.Opaque) bool {
	key, ok := ctByNumber[as.u32(unix.NFTA_CT_KEY)]
	if !ok {
		return false
	}
	c := rs.Ct{Key: key}
	if dir, ok := as.get(unix.NFTA_CT_DIRECTION); ok {
		c.Dir = rs.Original
		if dir.u8() == 1 {
			c.Dir = rs.Reply
		}
	}
	if as.has(unix.NFTA_CT_DREG) {
		d.load(as.u32(unix.NFTA_CT_DREG), loaded{expr: c, size: loadSize(c)}, raw)
		return true
	}
	return d.mangle(c, as.u32(unix.NFTA_CT_SREG))
}

func (d *ruleDecoder) fib(as attrs, raw rs.Opaque) bool {
	bits := as.u32(unix.NFTA_FIB_FLAGS)
	var flags []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.NFTA_FIB_F_SADDR, "saddr"}, {unix.NFTA_FIB_F_DADDR, "daddr"}, {unix.NFTA_FIB_F_MARK, "mark"},
		{unix.NFTA_FIB_F_IIF, "iif"}, {unix.NFTA_FIB_F_OIF, "oif"},
	} {
		if bits&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	x := rs.Fib{Flags: strings.Join(flags, " . ")}
	switch result := as.u32(unix.NFTA_FIB_RESULT); {
	case result == unix.NFT_FIB_RESULT_ADDRTYPE:
		x.Result = "type"
	case result == unix.NFT_FIB_RESULT_OIFNAME:
		x.Result = "oifname"
	case result == unix.NFT_FIB_RESULT_OIF && bits&unix.NFTA_FIB_F_PRESENT != 0:
		x.Result = "check"
	case result == unix.NFT_FIB_RESULT_OIF:
		x.Result = "oif"
	default:
		return false
	}
	d.load(as.u32(unix.NFTA_FIB_DREG), loaded{expr: x, size: loadSize(x)}, raw)
	return true
}

// dataValue is the constant inside an attribute of the kind nft_data.
func dataValue(a attr) []byte {
	v, _ := a.nested().get(unix.NFTA_DATA_VALUE)
	return v.data
}

func (d *ruleDecoder) bitwise(as attrs, raw rs.Opaque) bool {
	if !as.only(unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG, unix.NFTA_BITWISE_LEN, unix.NFTA_BITWISE_MASK,
		unix.NFTA_BITWISE_XOR, nftaBitwiseOp) || as.u32(nftaBitwiseOp) != 0 {
		return false
	}
	l, ok := d.regs[word(as.u32(unix.NFTA_BITWISE_SREG))]
	mask, _ := as.get(unix.NFTA_BITWISE_MASK)
	xor, _ := as.get(unix.NFTA_BITWISE_XOR)
	if !ok || l.expr == nil || l.mask != nil || !zero(dataValue(xor)) {
		return false
	}
	d.use(l)
	l.mask = dataValue(mask)
	d.load(as.u32(unix.NFTA_BITWISE_DREG), l, raw)
	return true
}

const nftaBitwiseOp = 6

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

var cmpByNumber = map[uint32]rs.Op{
	unix.NFT_CMP_EQ: rs.Equal, unix.NFT_CMP_NEQ: rs.NotEqual, unix.NFT_CMP_LT: rs.Less, unix.NFT_CMP_LTE: rs.LessOrEqual,
	unix.NFT_CMP_GT: rs.Greater, unix.NFT_CMP_GTE: rs.GreaterOrEqual,
}

func (d *ruleDecoder) cmp(as attrs, _ rs.Opaque) bool {
	l, ok := d.regs[word(as.u32(unix.NFTA_CMP_SREG))]
	op, known := cmpByNumber[as.u32(unix.NFTA_CMP_OP)]
	a, _ := as.get(unix.NFTA_CMP_DATA)
	data := dataValue(a)
	if !ok || !known || l.expr == nil || len(data) == 0 {
		return false
	}
	if from, ok := d.rangeStart(l, op); ok {
		d.parts[len(d.parts)-1].part = rs.InRange{
			Left: from.Left, Op: rs.Equal, From: from.Right, To: rs.Value{Type: from.Left.Type(), Data: string(data)},
		}
		return true
	}
	d.use(l)
	d.needs(l.expr)
	m := comparison(l, op, data)
	d.learn(m)
	d.add(m)
	return true
}

// rangeStart finds the comparison that a lesser-or-equal one on the same
// register closes to a range.
func (d *ruleDecoder) rangeStart(l loaded, op rs.Op) (rs.Compare, bool) {
	if op != rs.LessOrEqual || len(d.parts) == 0 {
		return rs.Compare{}, false
	}
	last := d.parts[len(d.parts)-1]
	from, ok := last.part.(rs.Compare)
	if !ok || last.removed || from.Op != rs.GreaterOrEqual || from.Left.String() != l.expr.String() {
		return rs.Compare{}, false
	}
	return from, true
}

// comparison is the match that compares a register with a constant.
func comparison(l loaded, op rs.Op, data []byte) rs.Match {
	typ := l.expr.Type()
	if l.mask != nil {
		return maskedComparison(l, op, data)
	}
	if f, ok := l.expr.(rs.Payload); ok && isAddr(f) {
		full := typ.Size()
		if f.Length < full && len(data) == f.Length {
			p := netip.PrefixFrom(addrOf(data, full), len(data)*8)
			f.Length = full
			return rs.InPrefix{Left: f, Op: op, Prefix: p}
		}
	}
	return rs.Compare{Left: l.expr, Op: op, Right: rs.Value{Type: typ, Data: string(data)}}
}

// addrOf is the address that begins with b.
func addrOf(b []byte, full int) netip.Addr {
	whole := make([]byte, full)
	copy(whole, b)
	a, _ := netip.AddrFromSlice(whole)
	return a
}

// maskedComparison is a comparison of some of an expression's bits: a prefix,
// a test of flags, or the plain operation.
func maskedComparison(l loaded, op rs.Op, data []byte) rs.Match {
	typ := l.expr.Type()
	mask := rs.Value{Type: typ, Data: string(l.mask)}
	if f, ok := l.expr.(rs.Payload); ok && isAddr(f) {
		if bits, ok := prefixBits(l.mask); ok && len(l.mask) == typ.Size() && len(data) == len(l.mask) {
			return rs.InPrefix{Left: f, Op: op, Prefix: netip.PrefixFrom(addrOf(data, typ.Size()), bits)}
		}
	}
	if typ.IsFlags() && zero(data) {
		switch op {
		case rs.NotEqual:
			return rs.HasAny{Left: l.expr, Op: rs.Equal, Flags: mask}
		case rs.Equal:
			return rs.HasAny{Left: l.expr, Op: rs.NotEqual, Flags: mask}
		}
	}
	return rs.Compare{Left: rs.Masked{Expr: l.expr, Mask: mask}, Op: op, Right: rs.Value{Type: typ, Data: string(data)}}
}

// prefixBits is the length of the prefix that a mask keeps; false where the
// mask is none.
func prefixBits(mask []byte) (int, bool) {
	bits, ended := 0, false
	for i := range len(mask) * 8 {
		set := mask[i/8]&(1<<(7-i%8)) != 0
		if set && ended {
			return 0, false
		}
		if set {
			bits++
		}
		ended = !set
	}
	return bits, true
}

// learn notes which protocol a match checks for.
func (d *ruleDecoder) learn(m rs.Match) {
	c, ok := m.(rs.Compare)
	if !ok || c.Op != rs.Equal || len(c.Right.Data) != 1 {
		return
	}
	dep := dependency{value: c.Right.Data[0], known: true, part: len(d.parts)}
	switch c.Left {
	case rs.Meta{Key: rs.MetaNFProto}:
		d.nfproto = dep
	case rs.Meta{Key: rs.MetaL4Proto}, rs.IPProtocol, rs.IP6NextHdr:
		d.l4proto = dep
	}
}

// needs removes the check that only made it possible to read x: nft writes it
// by itself.
func (d *ruleDecoder) needs(x rs.Expr) {
	if c, ok := x.(rs.ConcatExpr); ok {
		for _, p := range c.Parts {
			d.needs(p)
		}
		return
	}
	p, ok := x.(rs.Payload)
	if !ok || p.Field == "" || p.Proto == "th" {
		return
	}
	dep := &d.l4proto
	if p.Base == rs.NetworkHeader {
		if d.family != rs.FamilyInet {
			return
		}
		dep = &d.nfproto
	}
	if p.Base != rs.LinkHeader && dep.known && dep.part >= 0 {
		d.parts[dep.part].removed = true
		dep.part = -1
	}
}

func (d *ruleDecoder) rangeExpr(as attrs, _ rs.Opaque) bool {
	l, ok := d.regs[word(as.u32(unix.NFTA_RANGE_SREG))]
	from, _ := as.get(unix.NFTA_RANGE_FROM_DATA)
	to, _ := as.get(unix.NFTA_RANGE_TO_DATA)
	if !ok || l.expr == nil || l.mask != nil {
		return false
	}
	op := rs.Equal
	if as.u32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ {
		op = rs.NotEqual
	}
	d.use(l)
	d.needs(l.expr)
	typ := l.expr.Type()
	d.add(rs.InRange{
		Left: l.expr, Op: op,
		From: rs.Value{Type: typ, Data: string(dataValue(from))}, To: rs.Value{Type: typ, Data: string(dataValue(to))},
	})
	return true
}

// key gathers the registers from reg on to the expression that a lookup in set
// uses; size 0 takes what was loaded one behind the other.
func (d *ruleDecoder) key(reg uint32, size int) (rs.Expr, bool) {
	var exprs []rs.Expr
	var used []loaded
	at, end := word(reg), word(reg)+align4(size)/4
	for size == 0 || at < end {
		l, ok := d.regs[at]
		if !ok || l.expr == nil || l.mask != nil || d.parts[l.part].removed {
			break
		}
		exprs, used = append(exprs, l.expr), append(used, l)
		at += align4(l.size) / 4
	}
	if len(exprs) == 0 || (size != 0 && at != end) {
		return nil, false
	}
	for _, l := range used {
		d.use(l)
	}
	if len(exprs) == 1 {
		return exprs[0], true
	}
	return rs.ConcatOf(exprs...), true
}

func (d *ruleDecoder) lookup(as attrs, raw rs.Opaque) bool {
	if !as.only(unix.NFTA_LOOKUP_SET, unix.NFTA_LOOKUP_SET_ID, unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG, unix.NFTA_LOOKUP_FLAGS) {
		return false
	}
	name := as.str(unix.NFTA_LOOKUP_SET)
	set, size := d.sets[name], 0
	if set != nil {
		size = set.Key.Size()
	}
	key, ok := d.key(as.u32(unix.NFTA_LOOKUP_SREG), size)
	if !ok {
		return false
	}
	d.needs(key)
	var anonymous *rs.Set
	if set != nil && set.Anonymous {
		anonymous = set
	}
	if !as.has(unix.NFTA_LOOKUP_DREG) {
		op := rs.Equal
		if as.u32(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0 {
			op = rs.NotEqual
		}
		d.add(rs.Lookup{Left: key, Op: op, Set: name, Anonymous: anonymous})
		return true
	}
	m := rs.VMap{Key: key, Map: name, Anonymous: anonymous}
	if dreg := as.u32(unix.NFTA_LOOKUP_DREG); dreg != unix.NFT_REG_VERDICT {
		// The raw lookup stands for the whole until something uses its result.
		d.load(dreg, loaded{mapOf: &m}, raw)
		return true
	}
	d.add(m)
	return true
}

func (d *ruleDecoder) immediate(as attrs, raw rs.Opaque) bool {
	a, _ := as.get(unix.NFTA_IMMEDIATE_DATA)
	if v, ok := a.nested().get(unix.NFTA_DATA_VERDICT); ok {
		verdict, ok := decodeVerdict(v)
		if ok {
			d.add(verdict)
		}
		return ok
	}
	data := dataValue(a)
	if len(data) == 0 {
		return false
	}
	d.load(as.u32(unix.NFTA_IMMEDIATE_DREG), loaded{value: data}, raw)
	return true
}

var verdictByCode = func() map[uint32]rs.VerdictKind {
	m := map[uint32]rs.VerdictKind{}
	for k := range verdictKinds {
		m[verdictCode(k)] = k
	}
	return m
}()

func decodeVerdict(a attr) (rs.Verdict, bool) {
	as := a.nested()
	kind, ok := verdictByCode[as.u32(unix.NFTA_VERDICT_CODE)]
	return rs.Verdict{Kind: kind, Chain: as.str(unix.NFTA_VERDICT_CHAIN)}, ok
}

func (d *ruleDecoder) counter(as attrs, _ rs.Opaque) bool {
	d.add(rs.Counter{Packets: as.u64(unix.NFTA_COUNTER_PACKETS), Bytes: as.u64(unix.NFTA_COUNTER_BYTES)})
	return true
}

// natFlags lists the flags of a translation that nft writes
// (linux/netfilter/nf_nat.h).
func natFlags(bits uint32) []string {
	var out []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{{4, "random"}, {16, "fully-random"}, {8, "persistent"}} {
		if bits&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	return out
}

func (d *ruleDecoder) nat(as attrs, _ rs.Opaque) bool {
	n := rs.NAT{Kind: rs.SNAT, Family: "ip", Flags: natFlags(as.u32(unix.NFTA_NAT_FLAGS))}
	if as.u32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
		n.Kind = rs.DNAT
	}
	addrType := rs.TypeIPv4Addr
	if as.u32(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6 {
		n.Family, addrType = "ip6", rs.TypeIPv6Addr
	}
	addrReg, hasAddr := as.get(unix.NFTA_NAT_REG_ADDR_MIN)
	portReg, hasPort := as.get(unix.NFTA_NAT_REG_PROTO_MIN)
	if !as.sameRegisters(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX) ||
		!as.sameRegisters(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX) || (!hasAddr && !hasPort) {
		return false
	}
	var used []loaded
	if hasAddr {
		l := d.regs[word(addrReg.u32())]
		used = append(used, l)
		switch {
		case l.mapOf != nil && l.mapOf.Anonymous == nil:
			n.Key, n.Map = l.mapOf.Key, l.mapOf.Map
		case len(l.value) == addrType.Size():
			n.Addr = rs.Value{Type: addrType, Data: string(l.value)}
		default:
			return false
		}
	}
	if hasPort && n.Key == nil {
		l := d.regs[word(portReg.u32())]
		if len(l.value) != 2 {
			return false
		}
		used = append(used, l)
		n.Port = rs.Value{Type: rs.TypeInetService, Data: string(l.value)}
	}
	for _, l := range used {
		d.use(l)
	}
	// In a table of one family nft leaves the family out.
	if d.family != rs.FamilyInet {
		n.Family = ""
	}
	d.add(n)
	return true
}

// sameRegisters says whether a range has no end, or ends where it begins.
func (as attrs) sameRegisters(lo, hi uint16) bool {
	return !as.has(hi) || as.u32(lo) == as.u32(hi)
}

func (d *ruleDecoder) masq(as attrs, _ rs.Opaque) bool {
	if !as.only(unix.NFTA_MASQ_FLAGS) {
		return false
	}
	d.add(rs.Masquerade{Flags: natFlags(as.u32(unix.NFTA_MASQ_FLAGS))})
	return true
}

func (d *ruleDecoder) redir(as attrs, _ rs.Opaque) bool {
	r := rs.Redirect{Flags: natFlags(as.u32(unix.NFTA_REDIR_FLAGS))}
	if as.has(unix.NFTA_REDIR_REG_PROTO_MIN) {
		l := d.regs[word(as.u32(unix.NFTA_REDIR_REG_PROTO_MIN))]
		if len(l.value) != 2 || !as.sameRegisters(unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFTA_REDIR_REG_PROTO_MAX) {
			return false
		}
		d.use(l)
		r.Port = rs.Value{Type: rs.TypeInetService, Data: string(l.value)}
	}
	d.add(r)
	return true
}

// rejectWords are nft's words for the ICMP answers of reject (enum
// nft_reject_inet_code for icmpx).
var rejectWords = map[uint32]map[uint8]string{
	unix.NFT_REJECT_ICMPX_UNREACH: {
		0: "icmpx no-route", 1: "", 2: "icmpx host-unreachable", 3: "icmpx admin-prohibited",
	},
	unix.NFT_REJECT_TCP_RST: {0: "tcp reset"},
}

var rejectICMP = map[uint8]string{
	0: "icmp net-unreachable", 1: "icmp host-unreachable", 2: "icmp prot-unreachable", 3: "",
	9: "icmp net-prohibited", 10: "icmp host-prohibited", 13: "icmp admin-prohibited",
}

var rejectICMPv6 = map[uint8]string{
	0: "icmpv6 no-route", 1: "icmpv6 admin-prohibited", 3: "icmpv6 addr-unreachable", 4: "",
	5: "icmpv6 policy-fail", 6: "icmpv6 reject-route",
}

func (d *ruleDecoder) reject(as attrs, _ rs.Opaque) bool {
	typ := as.u32(unix.NFTA_REJECT_TYPE)
	code, _ := as.get(unix.NFTA_REJECT_ICMP_CODE)
	words := rejectWords[typ]
	if typ == unix.NFT_REJECT_ICMP_UNREACH {
		words = rejectICMP
		if d.family == rs.FamilyIP6 || (d.nfproto.known && d.nfproto.value == rs.NFProtoIPv6) {
			words = rejectICMPv6
		}
	}
	word, ok := words[code.u8()]
	if ok {
		d.add(rs.Reject{With: word})
	}
	return ok
}

// logLevels are nft's words for the levels of log; 4, warn, is its default.
var logLevels = []string{"emerg", "alert", "crit", "err", "", "notice", "info", "debug", "audit"}

func (d *ruleDecoder) log(as attrs, _ rs.Opaque) bool {
	if !as.only(unix.NFTA_LOG_GROUP, unix.NFTA_LOG_PREFIX, unix.NFTA_LOG_LEVEL, unix.NFTA_LOG_SNAPLEN,
		unix.NFTA_LOG_QTHRESHOLD) || as.u32(unix.NFTA_LOG_SNAPLEN) != 0 {
		return false
	}
	l := rs.Log{Prefix: as.str(unix.NFTA_LOG_PREFIX), HasGroup: as.has(unix.NFTA_LOG_GROUP)}
	if g, ok := as.get(unix.NFTA_LOG_GROUP); ok {
		l.Group = g.u16()
	}
	if q, ok := as.get(unix.NFTA_LOG_QTHRESHOLD); ok && q.u16() != 0 {
		return false
	}
	if as.has(unix.NFTA_LOG_LEVEL) {
		n := as.u32(unix.NFTA_LOG_LEVEL)
		if int(n) >= len(logLevels) {
			return false
		}
		l.Level = logLevels[n]
	}
	d.add(l)
	return true
}

var limitUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func (d *ruleDecoder) limit(as attrs, _ rs.Opaque) bool {
	unit, ok := limitUnits[as.u64(unix.NFTA_LIMIT_UNIT)]
	if !ok {
		return false
	}
	d.add(rs.Limit{
		Rate: as.u64(unix.NFTA_LIMIT_RATE), Unit: unit, Burst: as.u32(unix.NFTA_LIMIT_BURST),
		Over:  as.u32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV != 0,
		Bytes: as.u32(unix.NFTA_LIMIT_TYPE) == unix.NFT_LIMIT_PKT_BYTES,
	})
	return true
}

func (d *ruleDecoder) notrack(attrs, rs.Opaque) bool {
	d.add(rs.Notrack{})
	return true
}

// xt is an iptables extension; match and target have the same attributes.
func (d *ruleDecoder) xt(as attrs, raw rs.Opaque) bool {
	info, _ := as.get(unix.NFTA_MATCH_INFO)
	d.add(rs.Compat{
		Target: raw.Name == "target", Name: as.str(unix.NFTA_MATCH_NAME),
		Revision: as.u32(unix.NFTA_MATCH_REV), Info: string(info.data),
	})
	return true
}

// decodeSet reads a set without its elements.
func decodeSet(as attrs) rs.Set {
	flags := as.u32(unix.NFTA_SET_FLAGS)
	s := rs.Set{
		Name: as.str(unix.NFTA_SET_NAME), Key: rs.TypeByID(as.u32(unix.NFTA_SET_KEY_TYPE)),
		Anonymous: flags&unix.NFT_SET_ANONYMOUS != 0, Handle: as.u64(nftaSetHandle),
	}
	if flags&unix.NFT_SET_MAP != 0 {
		s.Data = rs.TypeVerdict
		if t := as.u32(unix.NFTA_SET_DATA_TYPE); t != nftDataVerdict {
			s.Data = rs.TypeByID(t)
		}
	}
	for _, word := range []string{"constant", "interval", "timeout", "dynamic"} {
		if flags&setFlags[word] != 0 {
			s.Flags = append(s.Flags, word)
		}
	}
	if desc, ok := as.get(unix.NFTA_SET_DESC); ok {
		s.Size = desc.nested().u32(unix.NFTA_SET_DESC_SIZE)
	}
	if x, ok := as.get(nftaSetExpr); ok {
		s.Counter = x.nested().str(unix.NFTA_EXPR_NAME) == "counter"
	}
	if u, ok := as.get(unix.NFTA_SET_USERDATA); ok {
		s.Comment = readComment(u.data, udataSetComment)
	}
	return s
}

// element flags (enum nft_set_elem_flags).
const elemIntervalEnd = unix.NFT_SET_ELEM_INTERVAL_END

// rawElement is an element as the kernel lists it: the end of an interval is
// an element of its own.
type rawElement struct {
	rs.Element
	end bool
}

func decodeElement(s *rs.Set, as attrs) rawElement {
	var e rawElement
	e.Key = elementValue(s.Key, as, unix.NFTA_SET_ELEM_KEY)
	e.End = elementValue(s.Key, as, nftaSetElemKeyEnd)
	flags := as.u32(unix.NFTA_SET_ELEM_FLAGS)
	e.end, e.CatchAll = flags&elemIntervalEnd != 0, flags&nftSetElemCatchAll != 0
	if data, ok := as.get(unix.NFTA_SET_ELEM_DATA); ok {
		if v, ok := data.nested().get(unix.NFTA_DATA_VERDICT); ok {
			e.Verdict, _ = decodeVerdict(v)
		} else {
			e.Data = rs.Value{Type: s.Data, Data: string(dataValue(data))}
		}
	}
	e.Timeout, e.Expires = as.u64(unix.NFTA_SET_ELEM_TIMEOUT), as.u64(unix.NFTA_SET_ELEM_EXPIRATION)
	if u, ok := as.get(unix.NFTA_SET_ELEM_USERDATA); ok {
		e.Comment = readComment(u.data, udataElementComment)
	}
	if x, ok := as.get(unix.NFTA_SET_ELEM_EXPR); ok {
		e.stateful(x)
	}
	if list, ok := as.get(nftaSetElemExpressions); ok {
		for _, x := range list.nested() {
			e.stateful(x)
		}
	}
	return e
}

func elementValue(t rs.Type, as attrs, typ uint16) rs.Value {
	a, ok := as.get(typ)
	if !ok {
		return rs.Value{}
	}
	return rs.Value{Type: t, Data: string(dataValue(a))}
}

// stateful adds a stateful part of an element: its counter, or another.
func (e *rawElement) stateful(x attr) {
	for _, p := range decodeRule(rs.FamilyInet, nil, []attr{x}) {
		if c, ok := p.(rs.Counter); ok && e.Counter == nil {
			e.Counter = &c
			continue
		}
		e.Extra = append(e.Extra, p)
	}
}

// joinIntervals makes elements with an end of the pairs that an interval set
// is kept as, where the end is the first key behind the interval.
func joinIntervals(s *rs.Set, list []rawElement) []rs.Element {
	out := make([]rs.Element, 0, len(list))
	if !slices.Contains(s.Flags, "interval") || s.Key.IsConcat() {
		for _, e := range list {
			out = append(out, e.Element)
		}
		return out
	}
	slices.SortStableFunc(list, func(a, b rawElement) int {
		if c := strings.Compare(a.Key.Data, b.Key.Data); c != 0 {
			return c
		}
		// An interval that ends here stands before the one that begins here.
		switch {
		case a.end && !b.end:
			return -1
		case b.end && !a.end:
			return 1
		}
		return 0
	})
	for i, e := range list {
		if e.end {
			continue
		}
		switch {
		case e.CatchAll:
		case i+1 < len(list):
			e.End = before(list[i+1].Key)
		default:
			e.End = rs.Value{Type: e.Key.Type, Data: strings.Repeat("\xff", len(e.Key.Data))}
		}
		if e.End == e.Key {
			e.End = rs.Value{}
		}
		out = append(out, e.Element)
	}
	return out
}

// before is the key just below v, which is in network byte order as the keys
// of every interval set are.
func before(v rs.Value) rs.Value {
	b := []byte(v.Data)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return rs.Value{Type: v.Type, Data: string(b)}
}

// decodeChain reads a chain without its rules.
func decodeChain(family rs.Family, as attrs) rs.Chain {
	c := rs.Chain{Name: as.str(unix.NFTA_CHAIN_NAME), Handle: as.u64(unix.NFTA_CHAIN_HANDLE)}
	hook, ok := as.get(unix.NFTA_CHAIN_HOOK)
	if !ok {
		return c
	}
	h := hook.nested()
	c.Base = &rs.Base{
		Type: as.str(unix.NFTA_CHAIN_TYPE), Policy: rs.Accept, Priority: int32(h.u32(unix.NFTA_HOOK_PRIORITY)),
		Hook: hookByNumber(family, h.u32(unix.NFTA_HOOK_HOOKNUM)),
	}
	if as.has(unix.NFTA_CHAIN_POLICY) && as.u32(unix.NFTA_CHAIN_POLICY) == 0 {
		c.Base.Policy = rs.Drop
	}
	if dev := h.str(unix.NFTA_HOOK_DEV); dev != "" {
		c.Base.Devices = []string{dev}
	}
	if devs, ok := h.get(nftaHookDevs); ok {
		c.Base.Devices = nil
		for _, d := range devs.nested() {
			c.Base.Devices = append(c.Base.Devices, d.str())
		}
	}
	return c
}

const nftaHookDevs = 4

func hookByNumber(family rs.Family, n uint32) rs.Hook {
	for h, num := range hooks[family] {
		if num == n {
			return h
		}
	}
	return rs.Hook("hook" + strconv.FormatUint(uint64(n), 10))
}
