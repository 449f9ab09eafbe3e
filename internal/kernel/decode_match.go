package kernel

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

func (d *ruleDecoder) meta(as attrs, raw rs.Opaque) bool {
	key, ok := metaByNumber[as.u32(unix.NFTA_META_KEY)]
	if !ok {
		return false
	}
	m := rs.Meta{Key: key}
	if as.has(unix.NFTA_META_SREG) {
		return !as.has(unix.NFTA_META_DREG) && d.mangle(m, as.u32(unix.NFTA_META_SREG))
	}
	d.load(as.u32(unix.NFTA_META_DREG), loaded{expr: m, size: loadSize(m)}, raw)
	return true
}

var payloadByNumber = map[uint32]rs.Header{
	unix.NFT_PAYLOAD_LL_HEADER: rs.LinkHeader, unix.NFT_PAYLOAD_NETWORK_HEADER: rs.NetworkHeader,
	unix.NFT_PAYLOAD_TRANSPORT_HEADER: rs.TransportHeader,
}

func (d *ruleDecoder) payload(as attrs, raw rs.Opaque) bool {
	base, ok := payloadByNumber[as.u32(unix.NFTA_PAYLOAD_BASE)]
	offset, length := as.u32(unix.NFTA_PAYLOAD_OFFSET), as.u32(unix.NFTA_PAYLOAD_LEN)
	if !ok || !as.has(unix.NFTA_PAYLOAD_DREG) || length == 0 || length > registerFile || offset > 1<<16 {
		return false
	}
	p := d.field(base, int(offset), int(length))
	d.load(as.u32(unix.NFTA_PAYLOAD_DREG), loaded{expr: p, size: int(length)}, raw)
	return true
}

// registerFile is the size of the kernel's registers in bytes.
const registerFile = 64

// field names the place that a payload expression reads, as far as the rule
// says which protocol it is. An address of which only the first bytes are read
// keeps the address's name.
func (d *ruleDecoder) field(base rs.Header, offset, length int) rs.Payload {
	proto := d.protocol(base)
	if f, ok := rs.FieldAt(proto, base, offset, length); ok {
		return f
	}
	for _, full := range []int{4, 16} {
		if f, ok := rs.FieldAt(proto, base, offset, full); ok && length < full && isAddr(f) {
			f.Length = length
			return f
		}
	}
	return rs.RawPayload(base, offset, length)
}

func isAddr(x rs.Expr) bool { return x.Type() == rs.TypeIPv4Addr || x.Type() == rs.TypeIPv6Addr }

// protocol is the protocol that a header is of, by what is known at this point
// of the rule.
func (d *ruleDecoder) protocol(base rs.Header) string {
	switch {
	case base == rs.LinkHeader:
		return "ether"
	case base == rs.NetworkHeader:
		return d.network.proto
	case d.transport.proto == "":
		return "th"
	case d.transport.proto == "icmp" && d.network.proto != "ip", d.transport.proto == "icmpv6" && d.network.proto != "ip6":
		// Their names imply the network protocol, which the rule does not check.
		return ""
	}
	return d.transport.proto
}

func (d *ruleDecoder) ct(as attrs, raw rs.Opaque) bool {
	key, ok := ctByNumber[as.u32(unix.NFTA_CT_KEY)]
	if !ok {
		return false
	}
	c := rs.Ct{Key: key}
	if dir, ok := as.get(unix.NFTA_CT_DIRECTION); ok {
		switch dir.u8() {
		case 0:
			c.Dir = rs.Original
		case 1:
			c.Dir = rs.Reply
		default:
			return false
		}
	}
	if as.has(unix.NFTA_CT_SREG) {
		return !as.has(unix.NFTA_CT_DREG) && d.mangle(c, as.u32(unix.NFTA_CT_SREG))
	}
	d.load(as.u32(unix.NFTA_CT_DREG), loaded{expr: c, size: loadSize(c)}, raw)
	return true
}

// fibFlags are the flags of fib, in nft's order.
var fibFlags = []struct {
	bit  uint32
	name string
}{
	{unix.NFTA_FIB_F_SADDR, "saddr"}, {unix.NFTA_FIB_F_DADDR, "daddr"}, {unix.NFTA_FIB_F_MARK, "mark"},
	{unix.NFTA_FIB_F_IIF, "iif"}, {unix.NFTA_FIB_F_OIF, "oif"},
}

func (d *ruleDecoder) fib(as attrs, raw rs.Opaque) bool {
	bits := as.u32(unix.NFTA_FIB_FLAGS)
	present := bits&unix.NFTA_FIB_F_PRESENT != 0
	bits &^= unix.NFTA_FIB_F_PRESENT
	var flags []string
	for _, f := range fibFlags {
		if bits&f.bit != 0 {
			flags = append(flags, f.name)
			bits &^= f.bit
		}
	}
	x := rs.Fib{Flags: strings.Join(flags, " . ")}
	switch result := as.u32(unix.NFTA_FIB_RESULT); {
	case bits != 0:
		return false
	case result == unix.NFT_FIB_RESULT_ADDRTYPE && !present:
		x.Result = "type"
	case result == unix.NFT_FIB_RESULT_OIFNAME && !present:
		x.Result = "oifname"
	case result == unix.NFT_FIB_RESULT_OIF && present:
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

// bitwise is understood as the mask of an expression; the kernel's other
// operations are not.
func (d *ruleDecoder) bitwise(as attrs, raw rs.Opaque) bool {
	l, ok := d.regs[word(as.u32(unix.NFTA_BITWISE_SREG))]
	mask, _ := as.get(unix.NFTA_BITWISE_MASK)
	xor, _ := as.get(unix.NFTA_BITWISE_XOR)
	if as.u32(nftaBitwiseOp) != 0 || !ok || l.expr == nil || l.mask != nil || l.swapped || !zero(dataValue(xor)) ||
		len(dataValue(mask)) != l.size || int(as.u32(unix.NFTA_BITWISE_LEN)) != l.size {
		return false
	}
	l.mask = dataValue(mask)
	d.load(as.u32(unix.NFTA_BITWISE_DREG), l, raw)
	return true
}

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// byteorder is understood where it turns a value of the host's byte order into
// one that can be compared byte by byte.
func (d *ruleDecoder) byteorder(as attrs, raw rs.Opaque) bool {
	l, ok := d.regs[word(as.u32(unix.NFTA_BYTEORDER_SREG))]
	if !ok || l.expr == nil || l.swapped || !turns(l.expr.Type(), l.size) ||
		as.u32(unix.NFTA_BYTEORDER_OP) != unix.NFT_BYTEORDER_HTON ||
		int(as.u32(unix.NFTA_BYTEORDER_LEN)) != l.size || int(as.u32(unix.NFTA_BYTEORDER_SIZE)) != l.size {
		return false
	}
	l.swapped = true
	d.load(as.u32(unix.NFTA_BYTEORDER_DREG), l, raw)
	return true
}

// turns says whether values of a type differ between host and network byte
// order: numbers that the kernel keeps in its own.
func turns(t rs.Type, size int) bool {
	return t.HostOrder() && size > 1 && t != rs.TypeIfname && t != rs.TypeString
}

// turned is b in the other byte order.
func turned(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

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
	m, ok := l.comparison(op, data)
	if !ok {
		return false
	}
	c, isCompare := m.(rs.Compare)
	load := l.parts[len(l.parts)-1]
	if isCompare && op == rs.LessOrEqual && d.lower == (lowerBound{len(d.parts) - 1, load, d.lower.from}) {
		d.parts[d.lower.part].part = rs.InRange{Left: c.Left, Op: rs.Equal, From: d.lower.from, To: c.Right}
		d.lower = lowerBound{part: -1}
		return true
	}
	d.use(l)
	if fields := split(l, m, d.protocol); fields != nil {
		for _, f := range fields {
			d.match(f)
		}
		return true
	}
	d.match(m)
	if isCompare && op == rs.GreaterOrEqual {
		d.lower = lowerBound{len(d.parts) - 1, load, c.Right}
	}
	return true
}

// match appends a match on one expression.
func (d *ruleDecoder) match(m rs.Match) {
	switch m := m.(type) {
	case rs.Compare:
		d.needs(m.Left)
	case rs.InPrefix:
		d.needs(m.Left)
	case rs.HasAny:
		d.needs(m.Left)
	}
	d.learn(m)
	d.add(m)
}

// split takes a comparison of several neighbouring fields apart. nft makes one
// of "tcp sport 1 tcp dport 2"; nil where m is none.
func split(l loaded, m rs.Match, protocol func(rs.Header) string) []rs.Match {
	c, ok := m.(rs.Compare)
	p, raw := l.expr.(rs.Payload)
	if !ok || !raw || p.Field != "" || l.mask != nil || c.Op != rs.Equal {
		return nil
	}
	var out []rs.Match
	for at := 0; at < p.Length; {
		f, ok := longestField(protocol(p.Base), p.Base, p.Offset+at, p.Length-at)
		if !ok {
			return nil
		}
		out = append(out, rs.Is(f, rs.Value{Type: f.Typ, Data: c.Right.Data[at : at+f.Length]}))
		at += f.Length
	}
	return out
}

func longestField(proto string, base rs.Header, offset, length int) (rs.Payload, bool) {
	for n := length; n > 0; n-- {
		if f, ok := rs.FieldAt(proto, base, offset, n); ok {
			return f, true
		}
	}
	return rs.Payload{}, false
}

// comparison is the match that compares what a register holds with a constant;
// false where the kernel would compare something else than the expression's
// value.
func (l loaded) comparison(op rs.Op, data []byte) (rs.Match, bool) {
	typ := l.expr.Type()
	ordered := op != rs.Equal && op != rs.NotEqual
	if turns(typ, l.size) && ordered != l.swapped {
		return nil, false
	}
	if l.swapped {
		data = turned(data)
	}
	if fib, ok := l.expr.(rs.Fib); ok && fib.Result == "check" && l.mask == nil {
		// nft 1.0.6 compares the whole register with the byte in it.
		if zero(data[1:]) {
			return rs.Compare{Left: fib, Op: op, Right: rs.Value{Type: typ, Data: string(data[:1])}}, true
		}
		return nil, false
	}
	switch {
	case l.mask != nil && len(data) == l.size:
		return l.maskedComparison(op, data), true
	case l.mask != nil:
		return nil, false
	case isAddr(l.expr) && !ordered && len(data) < typ.Size():
		p := netip.PrefixFrom(addrOf(data, typ.Size()), len(data)*8)
		// The kernel compares as many bytes as the constant has.
		return rs.InPrefix{Left: whole(l.expr), Op: op, Prefix: p}, l.size >= len(data)
	case typ == rs.TypeIfname && !ordered && bytes.IndexByte(data, 0) < 0 && len(data) < l.size,
		typ == rs.TypeIfname && !ordered && bytes.IndexByte(data, 0) == len(data)-1,
		len(data) == l.size && isWhole(l.expr):
		return rs.Compare{Left: l.expr, Op: op, Right: rs.Value{Type: typ, Data: string(data)}}, true
	}
	return nil, false
}

// isWhole says whether a load reads all of what its name says.
func isWhole(x rs.Expr) bool {
	f, ok := x.(rs.Payload)
	return !ok || f.Typ.Size() == 0 || f.Length == f.Typ.Size()
}

// whole is the expression that reads all of an address.
func whole(x rs.Expr) rs.Expr {
	if f, ok := x.(rs.Payload); ok {
		f.Length = f.Typ.Size()
		return f
	}
	return x
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
func (l loaded) maskedComparison(op rs.Op, data []byte) rs.Match {
	typ := l.expr.Type()
	mask := rs.Value{Type: typ, Data: string(l.mask)}
	equality := op == rs.Equal || op == rs.NotEqual
	if isAddr(l.expr) && equality && len(l.mask) == typ.Size() {
		p := netip.PrefixFrom(addrOf(data, typ.Size()), maskBits(l.mask))
		if p.IsValid() && p == p.Masked() {
			return rs.InPrefix{Left: l.expr, Op: op, Prefix: p}
		}
	}
	if typ.IsFlags() && equality && zero(data) && !zero(l.mask) {
		if op == rs.NotEqual {
			return rs.HasAny{Left: l.expr, Op: rs.Equal, Flags: mask}
		}
		return rs.HasAny{Left: l.expr, Op: rs.NotEqual, Flags: mask}
	}
	return rs.Compare{Left: rs.Masked{Expr: l.expr, Mask: mask}, Op: op, Right: rs.Value{Type: typ, Data: string(data)}}
}

// maskBits is the length of the prefix that a mask keeps; -1 where the mask is
// none.
func maskBits(mask []byte) int {
	bits, ended := 0, false
	for i := range len(mask) * 8 {
		set := mask[i/8]&(1<<(7-i%8)) != 0
		if set && ended {
			return -1
		}
		if set {
			bits++
		}
		ended = !set
	}
	return bits
}

func (d *ruleDecoder) rangeExpr(as attrs, _ rs.Opaque) bool {
	l, ok := d.regs[word(as.u32(unix.NFTA_RANGE_SREG))]
	fromAttr, _ := as.get(unix.NFTA_RANGE_FROM_DATA)
	toAttr, _ := as.get(unix.NFTA_RANGE_TO_DATA)
	from, to := dataValue(fromAttr), dataValue(toAttr)
	op, known := map[uint32]rs.Op{unix.NFT_RANGE_EQ: rs.Equal, unix.NFT_RANGE_NEQ: rs.NotEqual}[as.u32(unix.NFTA_RANGE_OP)]
	if !ok || !known || l.expr == nil || !isWhole(l.expr) || turns(l.expr.Type(), l.size) != l.swapped ||
		len(from) != l.size || len(to) != l.size {
		return false
	}
	if l.swapped {
		from, to = turned(from), turned(to)
	}
	d.use(l)
	d.needs(l.expr)
	left, typ := l.expr, l.expr.Type()
	if l.mask != nil {
		left = rs.Masked{Expr: left, Mask: rs.Value{Type: typ, Data: string(l.mask)}}
	}
	d.add(rs.InRange{
		Left: left, Op: op, From: rs.Value{Type: typ, Data: string(from)}, To: rs.Value{Type: typ, Data: string(to)},
	})
	return true
}

// key gathers the registers from reg on to the key of a lookup, size bytes of
// them.
func (d *ruleDecoder) key(reg uint32, size int, interval bool) (loaded, bool) {
	var exprs []rs.Expr
	var used []int
	at, end := word(reg), word(reg)+words(size)
	for at < end {
		l, ok := d.regs[at]
		// The keys of an interval set are in network byte order, as they must be
		// to have a before and an after.
		if !ok || l.expr == nil || l.mask != nil || l.size == 0 || !isWhole(l.expr) ||
			l.swapped != (interval && turns(l.expr.Type(), l.size)) {
			return loaded{}, false
		}
		exprs, used = append(exprs, l.expr), append(used, l.parts...)
		at += words(l.size)
	}
	if len(exprs) == 0 || at != end {
		return loaded{}, false
	}
	l := loaded{expr: exprs[0], size: size, parts: used}
	if len(exprs) > 1 {
		l.expr = rs.ConcatOf(exprs...)
	}
	return l, true
}

func (d *ruleDecoder) lookup(as attrs, raw rs.Opaque) bool {
	name, flags := as.str(unix.NFTA_LOOKUP_SET), as.u32(unix.NFTA_LOOKUP_FLAGS)
	set, ok := d.sets[name]
	if !ok || flags&^unix.NFT_LOOKUP_F_INV != 0 || flags != 0 && as.has(unix.NFTA_LOOKUP_DREG) {
		return false
	}
	key, ok := d.key(as.u32(unix.NFTA_LOOKUP_SREG), set.keyLen, slices.Contains(set.Flags, "interval"))
	if !ok {
		return false
	}
	var anonymous *rs.Set
	if set.Anonymous {
		anonymous = set.Set
	}
	m := rs.VMap{Key: key.expr, Map: name, Anonymous: anonymous}
	if dreg, ok := as.get(unix.NFTA_LOOKUP_DREG); ok && dreg.u32() != unix.NFT_REG_VERDICT {
		// What is looked up waits for its use, as the key did.
		d.load(dreg.u32(), loaded{mapOf: &m, size: registerFile, parts: key.parts}, raw)
		return true
	} else if ok {
		d.use(key)
		d.needs(key.expr)
		d.add(m)
		return true
	}
	op := rs.Equal
	if flags&unix.NFT_LOOKUP_F_INV != 0 {
		op = rs.NotEqual
	}
	d.use(key)
	d.needs(key.expr)
	d.add(rs.Lookup{Left: key.expr, Op: op, Set: name, Anonymous: anonymous})
	return true
}
