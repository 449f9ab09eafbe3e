package kernel

import (
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// mangle is a statement that sets left, size bytes of it, to what a register
// holds.
func (d *ruleDecoder) mangle(left rs.Expr, size int, sreg uint32) bool {
	l, ok := d.regs[word(sreg)]
	if !ok {
		return false
	}
	m := rs.Mangle{Left: left}
	switch {
	case l.expr != nil:
		// A number goes in the order of what it is set to.
		if l.swapped != (turns(left.Type(), size) != turns(l.expr.Type(), l.size)) {
			return false
		}
		m.From = d.whole(l)
	case len(l.value) == size:
		m.Right = rs.Value{Type: left.Type(), Data: string(l.value)}
	default:
		return false
	}
	d.use(l)
	if f, ok := left.(rs.Payload); ok && f.Field != "" {
		d.needs(f)
	} else if x, ok := left.(rs.Exthdr); ok {
		d.needs(x)
	}
	if m.From != nil {
		d.needs(m.From)
	}
	d.add(m)
	return true
}

// setField sets bytes of the packet. Where some of their bits change only, they
// were read before, and the other bits are written back.
func (d *ruleDecoder) setField(p rs.Payload, sreg uint32) bool {
	l, ok := d.regs[word(sreg)]
	old, isField := l.expr.(rs.Payload)
	if !ok || !isField || l.mask == nil || old != p {
		return ok && d.mangle(p, p.Length, sreg)
	}
	cleared := make([]byte, len(l.mask))
	for i, m := range l.mask {
		cleared[i] = ^m
	}
	f, shift, known := d.bits(p, cleared)
	value, fits := shifted(l.xor, shift, f.BitLength())
	if !known || !fits {
		return d.mangle(p, p.Length, sreg)
	}
	d.use(l)
	d.needs(f)
	d.add(rs.Mangle{Left: f, Right: rs.Value{Type: f.Type(), Data: value}})
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

// rejectICMPX are nft's words for the answers that suit both families (enum
// nft_reject_inet_code).
var rejectICMPX = map[uint8]string{0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"}

// reject is written without its answer where that is the default: port
// unreachable in the words of the table's family (stmt_reject_postprocess,
// reject_stmt_print).
func (d *ruleDecoder) reject(as attrs, _ rs.Opaque) bool {
	codeAttr, _ := as.get(unix.NFTA_REJECT_ICMP_CODE)
	code := codeAttr.u8()
	with, ok := "", true
	switch as.u32(unix.NFTA_REJECT_TYPE) {
	case unix.NFT_REJECT_TCP_RST:
		with, ok = "tcp reset", code == 0
		if d.family == rs.FamilyIP || d.family == rs.FamilyIP6 {
			d.remove(transportLayer)
		}
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
	if own := strings.HasPrefix(with, "icmp ") || strings.HasPrefix(with, "icmpv6 "); own && networkOfFamily[d.family] == "" {
		// Written out, the answer implies the check.
		d.remove(networkLayer)
	}
	if with == rs.RejectDefault(d.family) {
		with = ""
	}
	d.add(rs.Reject{With: with})
	return true
}

// rejectICMP is an answer of the packet's own family, which the rule must have
// checked for.
func (d *ruleDecoder) rejectICMP(code uint8) (string, bool) {
	switch d.network {
	case "ip":
		return "icmp " + rs.Value{Type: rs.TypeICMPCode, Data: string([]byte{code})}.String(), true
	case "ip6":
		return "icmpv6 " + rs.Value{Type: rs.TypeICMPv6Code, Data: string([]byte{code})}.String(), true
	}
	return "", false
}

// logLevels are nft's words for the levels of log; 4, warn, is its default.
var logLevels = []string{"emerg", "alert", "crit", "err", "", "notice", "info", "debug", "audit"}

// The flags of log (linux/netfilter/nf_log.h).
const (
	logTCPSequence = 1 << iota
	logTCPOptions
	logIPOptions
	logUID
	logNFLog
	logMACDecode
	logAll = logTCPSequence | logTCPOptions | logIPOptions | logUID | logMACDecode
)

// logFlags are nft's words for what is logged beside, by their bits.
var logFlags = []struct {
	bit  uint32
	word string
}{{logIPOptions, "ip options"}, {logUID, "skuid"}, {logMACDecode, "ether"}}

func logWords(bits uint32) ([]string, bool) {
	if bits == logAll {
		return []string{"all"}, true
	}
	var out []string
	switch bits & (logTCPSequence | logTCPOptions) {
	case logTCPSequence:
		out = append(out, "tcp sequence")
	case logTCPOptions:
		out = append(out, "tcp options")
	case logTCPSequence | logTCPOptions:
		out = append(out, "tcp sequence,options")
	}
	for _, f := range logFlags {
		if bits&f.bit != 0 {
			out = append(out, f.word)
		}
	}
	return out, bits&^logAll == 0
}

func (d *ruleDecoder) log(as attrs, _ rs.Opaque) bool {
	group, hasGroup := as.get(unix.NFTA_LOG_GROUP)
	threshold, _ := as.get(unix.NFTA_LOG_QTHRESHOLD)
	level := as.u32(unix.NFTA_LOG_LEVEL)
	flags, ok := logWords(as.u32(unix.NFTA_LOG_FLAGS))
	if !ok || int(level) >= len(logLevels) {
		return false
	}
	l := rs.Log{
		Prefix: as.str(unix.NFTA_LOG_PREFIX), Group: group.u16(), HasGroup: hasGroup, Flags: flags,
		Snaplen: as.u32(unix.NFTA_LOG_SNAPLEN), Threshold: threshold.u16(),
	}
	if as.has(unix.NFTA_LOG_LEVEL) {
		l.Level = logLevels[level]
	}
	d.add(l)
	return true
}

var limitUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func (d *ruleDecoder) limit(as attrs, _ rs.Opaque) bool {
	l, ok := decodeLimit(as)
	if ok {
		d.add(l)
	}
	return ok
}

func decodeLimit(as attrs) (rs.Limit, bool) {
	unit, ok := limitUnits[as.u64(unix.NFTA_LIMIT_UNIT)]
	flags, typ := as.u32(unix.NFTA_LIMIT_FLAGS), as.u32(unix.NFTA_LIMIT_TYPE)
	if !ok || flags&^unix.NFT_LIMIT_F_INV != 0 || typ != unix.NFT_LIMIT_PKTS && typ != unix.NFT_LIMIT_PKT_BYTES {
		return rs.Limit{}, false
	}
	return rs.Limit{
		Rate: as.u64(unix.NFTA_LIMIT_RATE), Unit: unit, Burst: as.u32(unix.NFTA_LIMIT_BURST),
		Over: flags != 0, Bytes: typ == unix.NFT_LIMIT_PKT_BYTES,
	}, true
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
		Revision: as.u32(unix.NFTA_MATCH_REV), Info: string(info.data), Family: d.family, Proto: d.transport,
	})
	return true
}
