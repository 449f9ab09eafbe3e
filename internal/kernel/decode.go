package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// ruleDecoder runs the expressions of one rule as the kernel's register machine
// would and writes down what they mean. Loads into registers become the left
// side of the expression that uses them; what is not understood, or loaded and
// not used by anything understood, stays in the rule as an Opaque part.
type ruleDecoder struct {
	family rs.Family
	sets   map[string]knownSet
	parts  []decoded
	regs   map[int]loaded
	// context is what the rule has checked for.
	context
	// lower is the comparison that the next one may close to a range.
	lower lowerBound
}

// decoded is a part, or a load that waits for its use.
type decoded struct {
	part    rs.Part
	removed bool
}

// knownSet is a set of the rule's table with the length of its keys and of what
// it holds in bytes, which a type that is not known does not tell.
type knownSet struct {
	*rs.Set
	keyLen, dataLen int
}

// loaded is what a register holds: an expression or a constant.
type loaded struct {
	expr  rs.Expr
	size  int
	value []byte
	// parts are the places of the loads that made the value: they go when it is
	// used, all together.
	parts []int
	// mask and xor are what a bitwise expression did to the value of expr.
	mask, xor []byte
	// swapped says that the value was turned from host to network byte order, or
	// back.
	swapped bool
}

// lowerBound is a comparison that may be the first of a range: with >= from a
// range, with < one outside of it.
type lowerBound struct {
	part int
	c    rs.Compare
}

// word is the place of a register in the kernel's register file, in 4 byte
// words (enum nft_registers).
func word(reg uint32) int {
	if reg >= unix.NFT_REG32_00 {
		return int(reg - unix.NFT_REG32_00)
	}
	return (int(reg) - 1) * 4
}

// words is how many words of the register file n bytes take.
func words(n int) int { return align4(n) / 4 }

// decodeRule reads the list of expressions of a rule.
func decodeRule(family rs.Family, sets map[string]knownSet, list []attr) []rs.Part {
	d := &ruleDecoder{
		family: family, sets: sets, regs: map[int]loaded{}, lower: lowerBound{part: -1}, context: newContext(family),
	}
	for _, a := range list {
		d.expression(a)
	}
	var out []rs.Part
	for _, p := range d.parts {
		if !p.removed {
			out = append(out, p.part)
		}
	}
	return out
}

// networkOfFamily are the families whose tables see packets of one protocol.
var networkOfFamily = map[rs.Family]string{rs.FamilyIP: "ip", rs.FamilyIP6: "ip6", rs.FamilyARP: "arp"}

// exprDecoder understands one kind of expression, as far as it has no other
// attributes than these. decode returns false for what it does not understand.
type exprDecoder struct {
	attrs  []uint16
	decode func(*ruleDecoder, attrs, rs.Opaque) bool
}

// upTo are the attributes of an expression that is understood whole.
func upTo(last uint16) []uint16 {
	out := make([]uint16, last)
	for i := range out {
		out[i] = uint16(i + 1)
	}
	return out
}

// decoders lists the kinds of expressions with the last of their attributes
// (linux/netfilter/nf_tables.h).
var decoders map[string]exprDecoder

// An expression may hold others, which are decoded the same way.
func init() {
	decoders = map[string]exprDecoder{
		"meta":         {upTo(unix.NFTA_META_SREG), (*ruleDecoder).meta},
		"payload":      {upTo(nftaPayloadCsumFlags), (*ruleDecoder).payload},
		"exthdr":       {upTo(nftaExthdrSreg), (*ruleDecoder).exthdr},
		"ct":           {upTo(unix.NFTA_CT_SREG), (*ruleDecoder).ct},
		"fib":          {upTo(unix.NFTA_FIB_FLAGS), (*ruleDecoder).fib},
		"rt":           {upTo(2), (*ruleDecoder).route},
		"socket":       {upTo(3), (*ruleDecoder).socket},
		"osf":          {upTo(3), (*ruleDecoder).osf},
		"xfrm":         {upTo(4), (*ruleDecoder).ipsec},
		"numgen":       {upTo(unix.NFTA_NG_OFFSET), (*ruleDecoder).numgen},
		"hash":         {upTo(nftaHashType), (*ruleDecoder).hash},
		"bitwise":      {upTo(nftaBitwiseData), (*ruleDecoder).bitwise},
		"byteorder":    {upTo(unix.NFTA_BYTEORDER_SIZE), (*ruleDecoder).byteorder},
		"cmp":          {upTo(unix.NFTA_CMP_DATA), (*ruleDecoder).cmp},
		"range":        {upTo(unix.NFTA_RANGE_TO_DATA), (*ruleDecoder).rangeExpr},
		"lookup":       {upTo(unix.NFTA_LOOKUP_FLAGS), (*ruleDecoder).lookup},
		"immediate":    {upTo(unix.NFTA_IMMEDIATE_DATA), (*ruleDecoder).immediate},
		"counter":      {upTo(nftaCounterPad), (*ruleDecoder).counter},
		"nat":          {upTo(unix.NFTA_NAT_FLAGS), (*ruleDecoder).nat},
		"masq":         {upTo(unix.NFTA_MASQ_REG_PROTO_MAX), (*ruleDecoder).masq},
		"redir":        {upTo(unix.NFTA_REDIR_FLAGS), (*ruleDecoder).redir},
		"tproxy":       {upTo(3), (*ruleDecoder).tproxy},
		"dup":          {upTo(unix.NFTA_DUP_SREG_DEV), (*ruleDecoder).dup},
		"fwd":          {upTo(3), (*ruleDecoder).forward},
		"reject":       {upTo(unix.NFTA_REJECT_ICMP_CODE), (*ruleDecoder).reject},
		"log":          {upTo(unix.NFTA_LOG_FLAGS), (*ruleDecoder).log},
		"limit":        {upTo(nftaLimitPad), (*ruleDecoder).limit},
		"quota":        {upTo(5), (*ruleDecoder).quota},
		"connlimit":    {upTo(2), (*ruleDecoder).connlimit},
		"last":         {upTo(3), (*ruleDecoder).last},
		"synproxy":     {upTo(3), (*ruleDecoder).synproxy},
		"objref":       {upTo(5), (*ruleDecoder).objref},
		"dynset":       {upTo(nftaDynsetExpressions), (*ruleDecoder).dynset},
		"queue":        {upTo(4), (*ruleDecoder).queue},
		"flow_offload": {upTo(1), (*ruleDecoder).flow},
		"notrack":      {nil, (*ruleDecoder).notrack},
		"match":        {upTo(unix.NFTA_MATCH_INFO), (*ruleDecoder).xt},
		"target":       {upTo(unix.NFTA_TARGET_INFO), (*ruleDecoder).xt},
	}
}

// Attributes that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	nftaPayloadCsumFlags  = 8
	nftaHashType          = 7
	nftaBitwiseOp         = 6
	nftaBitwiseData       = 7
	nftaCounterPad        = 3
	nftaLimitPad          = 6
	nftaDynsetExpressions = 10
)

// only says whether as holds attributes of these types only, each at most
// once, so that nothing that an attribute says is lost unseen.
func (as attrs) only(types []uint16) bool {
	for i, a := range as {
		if !slices.Contains(types, a.typ) || slices.ContainsFunc(as[:i], func(b attr) bool { return b.typ == a.typ }) {
			return false
		}
	}
	return true
}

// expression decodes one expression; what no decoder understands becomes
// Opaque.
func (d *ruleDecoder) expression(a attr) {
	as, err := parseAttrs(a.data)
	data, _ := attrs(as).get(unix.NFTA_EXPR_DATA)
	raw := rs.Opaque{Name: attrs(as).str(unix.NFTA_EXPR_NAME), Data: string(data.data)}
	if err == nil && attrs(as).only([]uint16{unix.NFTA_EXPR_NAME, unix.NFTA_EXPR_DATA}) {
		inside, err := parseAttrs(data.data)
		x, known := decoders[raw.Name]
		if err == nil && known && attrs(inside).only(x.attrs) && x.decode(d, inside, raw) {
			return
		}
	} else {
		raw.Data = string(a.data)
	}
	d.unknown(raw)
}

// add appends a part. What has an effect of its own must not move to the other
// side of a check: nft keeps the checks before it.
func (d *ruleDecoder) add(p rs.Part) {
	d.parts = append(d.parts, decoded{part: p})
	if _, ok := p.(rs.Statement); ok {
		d.keepChecks()
	}
}

// unknown appends what is not understood. It may have written any register.
func (d *ruleDecoder) unknown(raw rs.Opaque) {
	d.add(raw)
	clear(d.regs)
}

// load notes that a register was filled. Until it is used, the raw expression
// stands in its place, and those before it that made the value in theirs.
func (d *ruleDecoder) load(reg uint32, l loaded, raw rs.Opaque) {
	at := word(reg)
	d.overwrite(at, words(l.size))
	l.parts = append(slices.Clone(l.parts), len(d.parts))
	d.parts = append(d.parts, decoded{part: raw})
	d.regs[at] = l
}

// overwrite forgets what stood in n words from at on.
func (d *ruleDecoder) overwrite(at, n int) {
	for w, l := range d.regs {
		if w < at+n && at < w+words(l.size) {
			delete(d.regs, w)
		}
	}
}

// register is what the register holds that an attribute names.
func (d *ruleDecoder) register(as attrs, typ uint16) (loaded, bool) {
	if !as.has(typ) {
		return loaded{}, false
	}
	l, ok := d.regs[word(as.u32(typ))]
	return l, ok
}

// use takes what a register holds for the part that is decoded next.
func (d *ruleDecoder) use(l loaded) {
	for _, p := range l.parts {
		d.parts[p].removed = true
	}
}
