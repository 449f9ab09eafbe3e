package kernel

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

var cmpByNumber = map[uint32]rs.Op{
	unix.NFT_CMP_EQ: rs.Equal, unix.NFT_CMP_NEQ: rs.NotEqual, unix.NFT_CMP_LT: rs.Less, unix.NFT_CMP_LTE: rs.LessOrEqual,
	unix.NFT_CMP_GT: rs.Greater, unix.NFT_CMP_GTE: rs.GreaterOrEqual,
}

func (d *ruleDecoder) cmp(as attrs, _ rs.Opaque) bool {
	l, ok := d.register(as, unix.NFTA_CMP_SREG)
	op, known := cmpByNumber[as.u32(unix.NFTA_CMP_OP)]
	a, _ := as.get(unix.NFTA_CMP_DATA)
	data := dataValue(a)
	if !ok || !known || l.expr == nil || len(data) == 0 {
		return false
	}
	if fields := d.split(l, op, data); fields != nil {
		d.use(l)
		for _, f := range fields {
			d.match(f)
		}
		return true
	}
	m, ok := d.comparison(l, op, data)
	if !ok {
		return false
	}
	d.use(l)
	c, isCompare := m.(rs.Compare)
	if isCompare && d.closes(c) {
		return true
	}
	d.match(m)
	d.lower = lowerBound{part: -1}
	if isCompare && (op == rs.GreaterOrEqual || op == rs.Less) {
		d.lower = lowerBound{len(d.parts) - 1, c}
	}
	return true
}

// closes joins a comparison with the one before it to a range.
func (d *ruleDecoder) closes(c rs.Compare) bool {
	low := d.lower.c
	ops := map[rs.Op]rs.Op{rs.GreaterOrEqual: rs.LessOrEqual, rs.Less: rs.Greater}
	if d.lower.part < 0 || ops[low.Op] != c.Op || low.Left.String() != c.Left.String() {
		return false
	}
	for _, p := range d.parts[d.lower.part+1:] {
		if !p.removed {
			return false
		}
	}
	op := rs.Equal
	if c.Op == rs.Greater {
		op = rs.NotEqual
	}
	d.parts[d.lower.part].part = rs.InRange{Left: c.Left, Op: op, From: low.Right, To: c.Right}
	d.lower = lowerBound{part: -1}
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
// of "tcp sport 1 tcp dport 2", and one of what is not a whole field too
// (payload_expr_expand); nil where the bytes have one name or none. That they
// are not all equal does not say so of each: nft lists it all the same.
func (d *ruleDecoder) split(l loaded, op rs.Op, data []byte) []rs.Match {
	p, isPayload := l.expr.(rs.Payload)
	if !isPayload || p.Proto == "th" || l.mask != nil || op != rs.Equal || len(data) != l.size {
		return nil
	}
	var out []rs.Match
	at, end := p.Offset*8, (p.Offset+p.Length)*8
	for at < end {
		f, ok := d.firstField(p.Base, at, end-at)
		if !ok {
			if len(out) == 0 {
				return nil
			}
			f = rs.RawPayload(p.Base, at/8, (end-at)/8)
		}
		n := f.BitLength()
		mask := make([]byte, len(data))
		for i := at - p.Offset*8; i < at-p.Offset*8+n; i++ {
			mask[i/8] |= 1 << (7 - i%8)
		}
		for i := range mask {
			mask[i] &= data[i]
		}
		value, _ := shifted(mask, end-at-n, n)
		out = append(out, fieldMatch(f, op, value))
		at += n
	}
	return out
}

// fieldMatch compares a field, or the first bytes of an address.
func fieldMatch(f rs.Payload, op rs.Op, value string) rs.Match {
	if full := f.Typ.Size(); isAddr(f) && len(value) < full {
		p := netip.PrefixFrom(addrOf([]byte(value), full), len(value)*8)
		f.Length = full
		return rs.InPrefix{Left: f, Op: op, Prefix: p}
	}
	return rs.Compare{Left: f, Op: op, Right: rs.Value{Type: f.Typ, Data: value}}
}

func (d *ruleDecoder) firstField(base rs.Header, at, most int) (rs.Payload, bool) {
	list := d.fieldsFrom(base, at)
	if len(list) == 0 {
		return rs.Payload{}, false
	}
	for _, f := range list {
		if f.BitLength() <= most {
			return f, true
		}
	}
	f := list[0]
	if isAddr(f) {
		f.Length = most / 8
		return f, most >= 8
	}
	return rs.Payload{}, false
}

// comparison is the match that compares what a register holds with a constant;
// false where the kernel would compare something else than the expression's
// value.
func (d *ruleDecoder) comparison(l loaded, op rs.Op, data []byte) (rs.Match, bool) {
	typ := l.expr.Type()
	ordered := op != rs.Equal && op != rs.NotEqual
	if l.swapped && len(data) == l.size {
		data = turned(data)
	} else if l.swapped || turns(typ, l.size) && ordered {
		return nil, false
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
		return d.maskedComparison(l, op, data), true
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
	switch x := x.(type) {
	case rs.Payload:
		return x.Bits != 0 || x.Typ.Size() == 0 || x.Length == x.Typ.Size()
	case rs.Exthdr:
		return x.Exists || x.Field != "" || strings.HasPrefix(x.Name, "@")
	}
	return true
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

// maskedComparison is a comparison of some of an expression's bits: a field, a
// prefix, a test of flags, or the plain operation.
func (d *ruleDecoder) maskedComparison(l loaded, op rs.Op, data []byte) rs.Match {
	typ := l.expr.Type()
	equality := op == rs.Equal || op == rs.NotEqual
	if f, shift, bits, ok := d.named(l); ok {
		if value, ok := shifted(data, shift, bits); ok {
			return rs.Compare{Left: f, Op: op, Right: rs.Value{Type: f.Type(), Data: value}}
		}
	}
	mask := loaded{expr: l.expr, swapped: l.swapped}.constant(l.mask)
	if zero(l.xor) && isAddr(l.expr) && equality && len(l.mask) == typ.Size() {
		p := netip.PrefixFrom(addrOf(data, typ.Size()), maskBits(l.mask))
		if p.IsValid() && p == p.Masked() {
			return rs.InPrefix{Left: l.expr, Op: op, Prefix: p}
		}
	}
	if zero(l.xor) && typ.IsFlags() && equality && zero(data) && !zero(l.mask) {
		if op == rs.NotEqual {
			return rs.HasAny{Left: l.expr, Op: rs.Equal, Flags: mask}
		}
		return rs.HasAny{Left: l.expr, Op: rs.NotEqual, Flags: mask}
	}
	return rs.Compare{Left: d.whole(l), Op: op, Right: rs.Value{Type: typ, Data: string(data)}}
}

// maskBits is the length of the prefix that a mask keeps; -1 where the mask is
// none.
func maskBits(mask []byte) int {
	from, to, ok := span(mask)
	switch {
	case zero(mask):
		return 0
	case !ok || from != 0:
		return -1
	}
	return to
}

func (d *ruleDecoder) rangeExpr(as attrs, _ rs.Opaque) bool {
	l, ok := d.register(as, unix.NFTA_RANGE_SREG)
	fromAttr, _ := as.get(unix.NFTA_RANGE_FROM_DATA)
	toAttr, _ := as.get(unix.NFTA_RANGE_TO_DATA)
	from, to := dataValue(fromAttr), dataValue(toAttr)
	op, known := map[uint32]rs.Op{unix.NFT_RANGE_EQ: rs.Equal, unix.NFT_RANGE_NEQ: rs.NotEqual}[as.u32(unix.NFTA_RANGE_OP)]
	if !ok || !known || l.expr == nil || turns(l.expr.Type(), l.size) != l.swapped ||
		len(from) != l.size || len(to) != l.size {
		return false
	}
	x := rs.InRange{Left: d.whole(l), Op: op}
	if f, shift, bits, ok := d.named(l); ok {
		low, ok1 := shifted(from, shift, bits)
		high, ok2 := shifted(to, shift, bits)
		if !ok1 || !ok2 {
			return false
		}
		x.Left, from, to = f, []byte(low), []byte(high)
	}
	if !isWhole(x.Left) {
		return false
	}
	if l.swapped {
		from, to = turned(from), turned(to)
	}
	typ := x.Left.Type()
	x.From, x.To = rs.Value{Type: typ, Data: string(from)}, rs.Value{Type: typ, Data: string(to)}
	d.use(l)
	d.needs(x.Left)
	d.add(x)
	return true
}

// key gathers the registers from reg on to the key of a lookup, size bytes of
// them.
func (d *ruleDecoder) key(reg uint32, size int, interval bool) (loaded, bool) {
	var exprs []rs.Expr
	var first loaded
	var used []int
	at, end := word(reg), word(reg)+words(size)
	for at < end {
		l, ok := d.regs[at]
		if !ok || l.size == 0 {
			return loaded{}, false
		}
		if len(exprs) == 0 {
			first = l
		}
		x := d.keyPart(l, interval)
		if x == nil {
			return loaded{}, false
		}
		exprs, used = append(exprs, x), append(used, l.parts...)
		at += words(l.size)
	}
	if len(exprs) == 0 || at != end {
		return loaded{}, false
	}
	first.parts = used
	if len(exprs) > 1 {
		return loaded{expr: rs.ConcatOf(exprs...), size: size, parts: used}, true
	}
	if _, _, _, ok := d.named(first); !ok {
		first.expr, first.mask, first.xor = exprs[0], nil, nil
	}
	return first, true
}

// keyPart is one part of a key; nil where it is not what it seems.
func (d *ruleDecoder) keyPart(l loaded, interval bool) rs.Expr {
	if l.expr == nil {
		if l.value == nil {
			return nil
		}
		return rs.Const{Value: rs.Value{Type: rs.TypeInteger, Data: string(l.value)}}
	}
	x := d.whole(l)
	if f, _, _, ok := d.named(l); ok {
		x = f
	}
	// The keys of an interval set are in network byte order, as they must be to
	// have a before and an after.
	if !isWhole(x) || l.swapped != (interval && turns(l.expr.Type(), l.size)) {
		return nil
	}
	return x
}

func (d *ruleDecoder) lookup(as attrs, raw rs.Opaque) bool {
	name, flags := as.str(unix.NFTA_LOOKUP_SET), as.u32(unix.NFTA_LOOKUP_FLAGS)
	set, ok := d.sets[name]
	if !ok || flags&^unix.NFT_LOOKUP_F_INV != 0 || flags != 0 && as.has(unix.NFTA_LOOKUP_DREG) {
		return false
	}
	key, ok := d.key(as.u32(unix.NFTA_LOOKUP_SREG), set.keyLen, slices.Contains(set.Flags, "interval"))
	key.expr = unshifted(key.expr)
	if !ok {
		return false
	}
	anonymous, ok := d.anonymous(set, &key)
	if !ok {
		return false
	}
	if dreg, ok := as.get(unix.NFTA_LOOKUP_DREG); ok && dreg.u32() != unix.NFT_REG_VERDICT {
		m := rs.MapExpr{Key: key.expr, Map: name, Anonymous: anonymous, Data: set.Data}
		size := set.dataLen
		if size <= 0 || size > registerFile {
			return false
		}
		// What is looked up waits for its use, as the key did.
		d.load(dreg.u32(), loaded{expr: m, size: size, parts: key.parts}, raw)
		return true
	} else if ok {
		d.use(key)
		d.needs(key.expr)
		d.add(rs.VMap{Key: key.expr, Map: name, Anonymous: anonymous})
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

// unshifted is a field of some bits that was moved to be a number, as nft does
// before a lookup, and does not write.
func unshifted(x rs.Expr) rs.Expr {
	b, ok := x.(rs.Binary)
	if !ok || b.Op != ">>" {
		return x
	}
	shift := 0
	switch f := b.Left.(type) {
	case rs.Payload:
		shift = f.Shift
	case rs.Exthdr:
		shift = f.Shift
	}
	if n, isNumber := b.Right.Uint(); isNumber && shift != 0 && n == uint64(shift) {
		return b.Left
	}
	return x
}

// anonymous is the set that a lookup writes out, nil for a set with a name. Its
// members stand where the bits of the key do, and are moved to be numbers.
func (d *ruleDecoder) anonymous(set knownSet, key *loaded) (*rs.Set, bool) {
	f, shift, bits, ok := d.named(*key)
	if ok {
		key.expr, key.mask, key.xor = f, nil, nil
	}
	if !set.Anonymous {
		return nil, true
	}
	if !ok {
		return set.Set, true
	}
	out := *set.Set
	out.Elements = slices.Clone(out.Elements)
	for i := range out.Elements {
		e := &out.Elements[i]
		for _, v := range []*rs.Value{&e.Key, &e.End} {
			if v.Data == "" {
				continue
			}
			// The end of a range has the bits below the field set.
			value, _ := shifted(lowCleared(v.Data, shift), shift, bits)
			*v = rs.Value{Type: f.Type(), Data: value}
		}
		if e.End == e.Key {
			e.End = rs.Value{}
		}
	}
	return &out, true
}

// lowCleared is b without its last bits.
func lowCleared(b string, bits int) []byte {
	out := []byte(b)
	for i := range bits {
		if at := len(out) - 1 - i/8; at >= 0 {
			out[at] &^= 1 << (i % 8)
		}
	}
	return out
}
