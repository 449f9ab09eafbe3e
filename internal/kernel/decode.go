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
	// link, network and transport are the protocols that the rule has checked
	// for.
	link, network, transport dependency
	// lower is the comparison that the next one may close to a range.
	lower lowerBound
}

// decoded is a part, or a load that waits for its use.
type decoded struct {
	part    rs.Part
	removed bool
}

// knownSet is a set of the rule's table with the length of its keys in bytes,
// which a type that is not known does not tell.
type knownSet struct {
	*rs.Set
	keyLen int
}

// loaded is what a register holds: an expression, a constant, or the result of
// a map lookup.
type loaded struct {
	expr  rs.Expr
	size  int
	value []byte
	mapOf *rs.VMap
	// parts are the places of the loads that made the value: they go when it is
	// used, all together.
	parts []int
	// mask is what a bitwise expression left of the value.
	mask []byte
	// swapped says that the value was turned from host to network byte order.
	swapped bool
}

// dependency is a protocol that a rule has checked for, and where the check
// stands among the parts: it goes when it only made a later part possible, and
// nft would put it in by itself.
type dependency struct {
	proto string
	part  int
	// by is what was compared.
	by rs.Expr
}

// lowerBound is a comparison for greater or equal: part is its place, load the
// place of the load that it used.
type lowerBound struct {
	part, load int
	from       rs.Value
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
	d := &ruleDecoder{family: family, sets: sets, regs: map[int]loaded{}, lower: lowerBound{part: -1}}
	d.network = dependency{proto: networkOfFamily[family], part: -1}
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

var decoders = map[string]exprDecoder{
	"meta": {[]uint16{unix.NFTA_META_DREG, unix.NFTA_META_KEY, unix.NFTA_META_SREG}, (*ruleDecoder).meta},
	"payload": {[]uint16{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_BASE, unix.NFTA_PAYLOAD_OFFSET, unix.NFTA_PAYLOAD_LEN},
		(*ruleDecoder).payload},
	"ct":  {[]uint16{unix.NFTA_CT_DREG, unix.NFTA_CT_KEY, unix.NFTA_CT_DIRECTION, unix.NFTA_CT_SREG}, (*ruleDecoder).ct},
	"fib": {[]uint16{unix.NFTA_FIB_DREG, unix.NFTA_FIB_RESULT, unix.NFTA_FIB_FLAGS}, (*ruleDecoder).fib},
	"bitwise": {[]uint16{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG, unix.NFTA_BITWISE_LEN, unix.NFTA_BITWISE_MASK,
		unix.NFTA_BITWISE_XOR, nftaBitwiseOp}, (*ruleDecoder).bitwise},
	"byteorder": {[]uint16{unix.NFTA_BYTEORDER_SREG, unix.NFTA_BYTEORDER_DREG, unix.NFTA_BYTEORDER_OP,
		unix.NFTA_BYTEORDER_LEN, unix.NFTA_BYTEORDER_SIZE}, (*ruleDecoder).byteorder},
	"cmp":   {[]uint16{unix.NFTA_CMP_SREG, unix.NFTA_CMP_OP, unix.NFTA_CMP_DATA}, (*ruleDecoder).cmp},
	"range": {[]uint16{unix.NFTA_RANGE_SREG, unix.NFTA_RANGE_OP, unix.NFTA_RANGE_FROM_DATA, unix.NFTA_RANGE_TO_DATA}, (*ruleDecoder).rangeExpr},
	"lookup": {[]uint16{unix.NFTA_LOOKUP_SET, unix.NFTA_LOOKUP_SET_ID, unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG,
		unix.NFTA_LOOKUP_FLAGS}, (*ruleDecoder).lookup},
	"immediate": {[]uint16{unix.NFTA_IMMEDIATE_DREG, unix.NFTA_IMMEDIATE_DATA}, (*ruleDecoder).immediate},
	"counter":   {[]uint16{unix.NFTA_COUNTER_BYTES, unix.NFTA_COUNTER_PACKETS, nftaCounterPad}, (*ruleDecoder).counter},
	"nat": {[]uint16{unix.NFTA_NAT_TYPE, unix.NFTA_NAT_FAMILY, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX,
		unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX, unix.NFTA_NAT_FLAGS}, (*ruleDecoder).nat},
	"masq":   {[]uint16{unix.NFTA_MASQ_FLAGS}, (*ruleDecoder).masq},
	"redir":  {[]uint16{unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFTA_REDIR_REG_PROTO_MAX, unix.NFTA_REDIR_FLAGS}, (*ruleDecoder).redir},
	"reject": {[]uint16{unix.NFTA_REJECT_TYPE, unix.NFTA_REJECT_ICMP_CODE}, (*ruleDecoder).reject},
	"log": {[]uint16{unix.NFTA_LOG_GROUP, unix.NFTA_LOG_PREFIX, unix.NFTA_LOG_LEVEL, unix.NFTA_LOG_SNAPLEN,
		unix.NFTA_LOG_QTHRESHOLD}, (*ruleDecoder).log},
	"limit": {[]uint16{unix.NFTA_LIMIT_RATE, unix.NFTA_LIMIT_UNIT, unix.NFTA_LIMIT_BURST, unix.NFTA_LIMIT_TYPE,
		unix.NFTA_LIMIT_FLAGS, nftaLimitPad}, (*ruleDecoder).limit},
	"notrack": {nil, (*ruleDecoder).notrack},
	"match":   {[]uint16{unix.NFTA_MATCH_NAME, unix.NFTA_MATCH_REV, unix.NFTA_MATCH_INFO}, (*ruleDecoder).xt},
	"target":  {[]uint16{unix.NFTA_TARGET_NAME, unix.NFTA_TARGET_REV, unix.NFTA_TARGET_INFO}, (*ruleDecoder).xt},
}

// Attributes that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	nftaBitwiseOp  = 6
	nftaCounterPad = 3
	nftaLimitPad   = 6
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

func (d *ruleDecoder) keepChecks() { d.link.part, d.network.part, d.transport.part = -1, -1, -1 }

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

// use takes what a register holds for the part that is decoded next.
func (d *ruleDecoder) use(l loaded) {
	for _, p := range l.parts {
		d.parts[p].removed = true
	}
}

// learn notes which protocol a match checks for.
func (d *ruleDecoder) learn(m rs.Match) {
	c, ok := m.(rs.Compare)
	if !ok || c.Op != rs.Equal {
		return
	}
	n, ok := c.Right.Uint()
	if !ok {
		return
	}
	dep := dependency{part: len(d.parts), by: c.Left}
	switch c.Left {
	case rs.Meta{Key: rs.MetaIIFType}:
		if dep.proto = linkNames[n]; dep.proto != "" {
			d.link = dep
		}
	case rs.Meta{Key: rs.MetaNFProto}:
		if dep.proto = nfprotoNames[n]; dep.proto != "" {
			d.network = dep
		}
	case rs.Meta{Key: rs.MetaProtocol}, rs.EtherType:
		if dep.proto = etherNames[n]; dep.proto != "" {
			d.network = dep
		}
	case rs.Meta{Key: rs.MetaL4Proto}, rs.IPProtocol, rs.IP6NextHdr:
		dep.proto = transportNames[uint8(n)]
		d.transport = dep
	}
}

var (
	// ARPHRD_ETHER (linux/if_arp.h).
	linkNames      = map[uint64]string{1: "ether"}
	nfprotoNames   = map[uint64]string{uint64(rs.NFProtoIPv4): "ip", uint64(rs.NFProtoIPv6): "ip6"}
	etherNames     = map[uint64]string{0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6"}
	transportNames = inverse(transportProtos)
)

// needs removes the checks that only made it possible to read x: nft puts them
// in by itself.
func (d *ruleDecoder) needs(x rs.Expr) {
	switch x := x.(type) {
	case rs.ConcatExpr:
		for _, p := range x.Parts {
			d.needs(p)
		}
	case rs.Masked:
		d.needs(x.Expr)
	case rs.Payload:
		if x.Field == "" {
			// What has no name implies nothing.
			d.keepChecks()
			return
		}
		switch x.Base {
		case rs.LinkHeader:
			d.remove(&d.link, d.family != rs.FamilyBridge)
		case rs.NetworkHeader:
			d.remove(&d.network, d.network.by != rs.Expr(rs.Meta{Key: rs.MetaProtocol}) || d.family != rs.FamilyInet)
		case rs.TransportHeader:
			// "ip protocol tcp" says more than "tcp dport" where there is IPv6 too.
			d.remove(&d.transport, x.Proto != "th" &&
				(d.transport.by == rs.Expr(rs.Meta{Key: rs.MetaL4Proto}) || d.family == rs.FamilyIP || d.family == rs.FamilyIP6))
			if x.Proto == "icmp" && d.network.proto == "ip" || x.Proto == "icmpv6" && d.network.proto == "ip6" {
				d.remove(&d.network, d.network.by != rs.Expr(rs.Meta{Key: rs.MetaProtocol}) || d.family != rs.FamilyInet)
			}
		}
	}
}

func (d *ruleDecoder) remove(dep *dependency, implied bool) {
	if implied && dep.proto != "" && dep.part >= 0 {
		d.parts[dep.part].removed = true
		dep.part = -1
	}
}
