package kernel

import (
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// mangle is a statement that sets left to the constant in a register.
func (d *ruleDecoder) mangle(left rs.Expr, sreg uint32) bool {
	l, ok := d.regs[word(sreg)]
	if !ok || len(l.value) != loadSize(left) {
		return false
	}
	d.use(l)
	d.add(rs.Mangle{Left: left, Right: rs.Value{Type: left.Type(), Data: string(l.value)}})
	return true
}

func (d *ruleDecoder) immediate(as attrs, raw rs.Opaque) bool {
	a, _ := as.get(unix.NFTA_IMMEDIATE_DATA)
	if v, ok := a.nested().get(unix.NFTA_DATA_VERDICT); ok {
		verdict, ok := decodeVerdict(v)
		if ok && as.u32(unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
			d.add(verdict)
			return true
		}
		return false
	}
	data := dataValue(a)
	if len(data) == 0 {
		return false
	}
	d.load(as.u32(unix.NFTA_IMMEDIATE_DREG), loaded{value: data, size: len(data)}, raw)
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
	v := rs.Verdict{Kind: kind, Chain: as.str(unix.NFTA_VERDICT_CHAIN)}
	jumps := kind == rs.Jump || kind == rs.Goto
	return v, ok && jumps == (v.Chain != "") && as.only([]uint16{unix.NFTA_VERDICT_CODE, unix.NFTA_VERDICT_CHAIN})
}

func (d *ruleDecoder) counter(as attrs, _ rs.Opaque) bool {
	d.add(rs.Counter{Packets: as.u64(unix.NFTA_COUNTER_PACKETS), Bytes: as.u64(unix.NFTA_COUNTER_BYTES)})
	return true
}

// The flags of a translation (linux/netfilter/nf_nat.h): those with a word in
// nft, and two that only say that an address or a port is given.
const (
	natRangeGiven  = unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED
	natRandom      = unix.NF_NAT_RANGE_PROTO_RANDOM
	natFullyRandom = unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	natPersistent  = unix.NF_NAT_RANGE_PERSISTENT
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

func (d *ruleDecoder) nat(as attrs, _ rs.Opaque) bool {
	flags, ok := natFlags(as.u32(unix.NFTA_NAT_FLAGS))
	kind, known := map[uint32]rs.NATKind{unix.NFT_NAT_DNAT: rs.DNAT, unix.NFT_NAT_SNAT: rs.SNAT}[as.u32(unix.NFTA_NAT_TYPE)]
	n := rs.NAT{Kind: kind, Flags: flags}
	var addrType rs.Type
	switch as.u32(unix.NFTA_NAT_FAMILY) {
	case unix.NFPROTO_IPV4:
		n.Family, addrType = "ip", rs.TypeIPv4Addr
	case unix.NFPROTO_IPV6:
		n.Family, addrType = "ip6", rs.TypeIPv6Addr
	}
	if !ok || !known || addrType == "" ||
		!as.sameRegisters(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX) ||
		!as.sameRegisters(unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX) {
		return false
	}
	addrReg, hasAddr := as.get(unix.NFTA_NAT_REG_ADDR_MIN)
	portReg, hasPort := as.get(unix.NFTA_NAT_REG_PROTO_MIN)
	if l := d.regs[word(addrReg.u32())]; hasAddr && l.mapOf != nil {
		return d.natByMap(n, l, addrType, word(portReg.u32())-word(addrReg.u32()), hasPort)
	}
	return d.natToConstant(n, addrType, addrReg, hasAddr, portReg, hasPort)
}

// natByMap is a translation to what a named map holds: an address, or an
// address and a port behind it.
func (d *ruleDecoder) natByMap(n rs.NAT, l loaded, addrType rs.Type, portWord int, hasPort bool) bool {
	m := l.mapOf
	set := d.sets[m.Map]
	withPort := rs.ConcatTypes(addrType, rs.TypeInetService)
	switch {
	case m.Anonymous != nil || set.DataInterval:
		return false
	case set.Data == withPort && hasPort && portWord == words(addrType.Size()):
	case set.Data == addrType && !hasPort:
		n.AddrOnly = true
		d.leaveOutFamily(&n)
	default:
		return false
	}
	n.Key, n.Map = m.Key, m.Map
	d.use(l)
	d.needs(m.Key)
	d.add(n)
	return true
}

func (d *ruleDecoder) natToConstant(n rs.NAT, addrType rs.Type, addrReg attr, hasAddr bool, portReg attr, hasPort bool) bool {
	addr, port := d.regs[word(addrReg.u32())], d.regs[word(portReg.u32())]
	if hasAddr && len(addr.value) != addrType.Size() || hasPort && len(port.value) != 2 || !hasAddr && !hasPort {
		return false
	}
	if hasAddr {
		n.Addr = rs.Value{Type: addrType, Data: string(addr.value)}
		d.use(addr)
	}
	if hasPort {
		n.Port = rs.Value{Type: rs.TypeInetService, Data: string(port.value)}
		d.use(port)
	}
	d.leaveOutFamily(&n)
	d.add(n)
	return true
}

// leaveOutFamily leaves the family out where nft does: in a table of it.
func (d *ruleDecoder) leaveOutFamily(n *rs.NAT) {
	if string(d.family) == n.Family {
		n.Family = ""
	}
}

// sameRegisters says whether a range has no end, or ends where it begins.
func (as attrs) sameRegisters(lo, hi uint16) bool {
	return !as.has(hi) || as.has(lo) && as.u32(lo) == as.u32(hi)
}

func (d *ruleDecoder) masq(as attrs, _ rs.Opaque) bool {
	flags, ok := natFlags(as.u32(unix.NFTA_MASQ_FLAGS))
	if ok {
		d.add(rs.Masquerade{Flags: flags})
	}
	return ok
}

func (d *ruleDecoder) redir(as attrs, _ rs.Opaque) bool {
	flags, ok := natFlags(as.u32(unix.NFTA_REDIR_FLAGS))
	r := rs.Redirect{Flags: flags}
	l := d.regs[word(as.u32(unix.NFTA_REDIR_REG_PROTO_MIN))]
	hasPort := as.has(unix.NFTA_REDIR_REG_PROTO_MIN)
	if !ok || hasPort && len(l.value) != 2 || !as.sameRegisters(unix.NFTA_REDIR_REG_PROTO_MIN, unix.NFTA_REDIR_REG_PROTO_MAX) {
		return false
	}
	if hasPort {
		d.use(l)
		r.Port = rs.Value{Type: rs.TypeInetService, Data: string(l.value)}
	}
	d.add(r)
	return true
}

// rejectICMPX are nft's words for the answers that suit both families (enum
// nft_reject_inet_code).
var rejectICMPX = map[uint8]string{0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"}

// reject is written without its answer where that is the default: port
// unreachable in the words of the table's family.
func (d *ruleDecoder) reject(as attrs, _ rs.Opaque) bool {
	codeAttr, _ := as.get(unix.NFTA_REJECT_ICMP_CODE)
	code := codeAttr.u8()
	with, ok := "", true
	switch as.u32(unix.NFTA_REJECT_TYPE) {
	case unix.NFT_REJECT_TCP_RST:
		with, ok = "tcp reset", code == 0
		d.remove(&d.transport, d.family == rs.FamilyIP || d.family == rs.FamilyIP6)
	case unix.NFT_REJECT_ICMPX_UNREACH:
		with, ok = rejectICMPX[code]
		with = "icmpx " + with
	case unix.NFT_REJECT_ICMP_UNREACH:
		with, ok = d.rejectICMP(code)
	default:
		ok = false
	}
	if !ok {
		return false
	}
	if with == rejectDefault[d.family] {
		with = ""
	}
	d.add(rs.Reject{With: with})
	return true
}

var rejectDefault = map[rs.Family]string{
	rs.FamilyIP: "icmp port-unreachable", rs.FamilyIP6: "icmpv6 port-unreachable",
	rs.FamilyInet: "icmpx port-unreachable", rs.FamilyBridge: "icmpx port-unreachable", rs.FamilyNetdev: "icmpx port-unreachable",
}

// rejectICMP is an answer of the packet's own family, which the rule must have
// checked for.
func (d *ruleDecoder) rejectICMP(code uint8) (string, bool) {
	proto, typ := "icmp", rs.TypeICMPCode
	switch d.network.proto {
	case "ip":
	case "ip6":
		proto, typ = "icmpv6", rs.TypeICMPv6Code
	default:
		return "", false
	}
	// "reject with icmp" implies the check. A plain number has no such word.
	v := rs.Value{Type: typ, Data: string([]byte{code})}
	if !v.HasName() {
		return "", false
	}
	d.remove(&d.network, true)
	return proto + " " + v.String(), true
}

// logLevels are nft's words for the levels of log; 4, warn, is its default.
var logLevels = []string{"emerg", "alert", "crit", "err", "", "notice", "info", "debug", "audit"}

func (d *ruleDecoder) log(as attrs, _ rs.Opaque) bool {
	group, hasGroup := as.get(unix.NFTA_LOG_GROUP)
	threshold, _ := as.get(unix.NFTA_LOG_QTHRESHOLD)
	level := as.u32(unix.NFTA_LOG_LEVEL)
	if as.u32(unix.NFTA_LOG_SNAPLEN) != 0 || threshold.u16() != 0 || int(level) >= len(logLevels) ||
		hasGroup && as.has(unix.NFTA_LOG_LEVEL) {
		return false
	}
	l := rs.Log{Prefix: as.str(unix.NFTA_LOG_PREFIX), Group: group.u16(), HasGroup: hasGroup}
	if as.has(unix.NFTA_LOG_LEVEL) {
		l.Level = logLevels[level]
	}
	d.add(l)
	return true
}

var limitUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func (d *ruleDecoder) limit(as attrs, _ rs.Opaque) bool {
	unit, ok := limitUnits[as.u64(unix.NFTA_LIMIT_UNIT)]
	flags, typ := as.u32(unix.NFTA_LIMIT_FLAGS), as.u32(unix.NFTA_LIMIT_TYPE)
	if !ok || flags&^unix.NFT_LIMIT_F_INV != 0 || typ != unix.NFT_LIMIT_PKTS && typ != unix.NFT_LIMIT_PKT_BYTES {
		return false
	}
	d.add(rs.Limit{
		Rate: as.u64(unix.NFTA_LIMIT_RATE), Unit: unit, Burst: as.u32(unix.NFTA_LIMIT_BURST),
		Over: flags != 0, Bytes: typ == unix.NFT_LIMIT_PKT_BYTES,
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
