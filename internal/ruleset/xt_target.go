package ruleset

import (
	"fmt"
	"strings"
)

// xtNAT is what a translation of iptables says: addresses and ports.
type xtNAT struct {
	flags    uint32
	lo, hi   string
	min, max uint16
}

const (
	xtNATAddr       = 1
	xtNATPort       = 2
	xtNATRandom     = 4
	xtNATPersistent = 8
	xtNATFully      = 16
	xtNATKnown      = 31
)

// natRange reads struct nf_nat_range (linux/netfilter/nf_nat.h), or for IPv4 of
// old struct nf_nat_ipv4_multi_range_compat.
func (x *xtInfo) natRange(compat bool) (xtNAT, bool) {
	if compat {
		n := xtNAT{flags: x.u32(4), lo: x.ip4(8).String(), hi: x.ip4(12).String(), min: x.port(16), max: x.port(18)}
		return n, x.u32(0) == 1 && n.flags&^xtNATKnown == 0
	}
	n := xtNAT{flags: x.u32(0), lo: x.addr(4).String(), hi: x.addr(20).String(), min: x.port(36), max: x.port(38)}
	return n, n.flags&^xtNATKnown == 0
}

// target is the address and the port as iptables writes them, and as nft does.
func (n xtNAT) target(ip6 bool) string {
	var out string
	lo, hi := n.lo, n.hi
	if ip6 && n.flags&xtNATPort != 0 {
		lo, hi = "["+lo+"]", "["+hi+"]"
	}
	if n.flags&xtNATAddr != 0 {
		out = lo
		if hi != lo {
			out += "-" + hi
		}
	}
	if n.flags&xtNATPort != 0 {
		out += ":" + ranged(n.min, n.max, "-")
	}
	return out
}

func (n xtNAT) options() (save, nft string) {
	var s, w []string
	for _, f := range []struct {
		bit       uint32
		save, nft string
	}{{xtNATRandom, "--random", "random"}, {xtNATFully, "--random-fully", "fully-random"}, {xtNATPersistent, "--persistent", "persistent"}} {
		if n.flags&f.bit != 0 {
			s, w = append(s, f.save), append(w, f.nft)
		}
	}
	return strings.Join(s, " "), strings.Join(w, ",")
}

// xtTargets put the targets of iptables into words, by name.
var xtTargets = map[string]func(*xtInfo) (xtWords, bool){
	"DNAT": xtDNAT("dnat", "--to-destination"), "SNAT": xtDNAT("snat", "--to-source"),
	"MASQUERADE": xtMasquerade("masquerade"), "REDIRECT": xtMasquerade("redirect"), "NETMAP": xtNetmap,
	"MARK": xtSetMark, "CONNMARK": xtConnmark, "REJECT": xtReject, "LOG": xtLog, "NFLOG": xtNFLog, "TCPMSS": xtTCPMSS,
	"CT": xtCT, "TPROXY": xtTProxy, "CLASSIFY": xtClassify, "CHECKSUM": xtChecksum, "TOS": xtSetTOS, "DSCP": xtSetDSCP,
	"TTL": xtSetTTL("ttl"), "HL": xtSetTTL("hl"), "NFQUEUE": xtNFQueue, "TRACE": xtTrace, "NOTRACK": xtNoTrack,
}

func xtDNAT(word, option string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		n, ok := x.natRange(x.revision == 0 && !x.ip6)
		save, nft := n.options()
		return both(joined(option, n.target(x.ip6), save), joined(word+" to", n.target(x.ip6), nft)), ok && x.revision <= 2
	}
}

func xtMasquerade(word string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		n, ok := x.natRange(!x.ip6)
		save, nft := n.options()
		ports, to := "", ""
		if n.flags&xtNATPort != 0 {
			ports, to = "--to-ports "+ranged(n.min, n.max, "-"), "to :"+ranged(n.min, n.max, "-")
		}
		return both(joined(ports, save), joined(word, to, nft)), ok && x.revision == 0
	}
}

func xtNetmap(x *xtInfo) (xtWords, bool) {
	// The address and its mask stand in the places of a range's ends.
	const lo, hi, lo6, hi6 = 8, 12, 4, 20
	if x.ip6 {
		return plainXT("--to " + x.netmap(lo6, hi6)), true
	}
	return plainXT("--to " + x.netmap(lo, hi)), x.u32(0) == 1
}

// netmap is the prefix between two addresses.
func (x *xtInfo) netmap(lo, hi int) string {
	a, b := Addr(x.addr(lo)), Addr(x.addr(hi))
	if p, ok := PrefixOf(a, b); ok {
		return p.String()
	}
	return a.String() + "-" + b.String()
}

func xtSetMark(x *xtInfo) (xtWords, bool) {
	mark, mask := x.u32(0), x.u32(4)
	save := fmt.Sprintf("--set-xmark 0x%x/0x%x", mark, mask)
	return both(save, xtMarkWords("meta mark", "mark", mark, mask)), x.revision == 2
}

// xtMarkWords says how a mark changes: bits of mask are cleared, those of mark
// turned round.
func xtMarkWords(left, right string, mark, mask uint32) string {
	switch {
	case mark == 0:
		return fmt.Sprintf("%s set %s and 0x%x", left, right, ^mask)
	case mark == mask:
		return fmt.Sprintf("%s set %s or 0x%x", left, right, mark)
	case mask == 0:
		return fmt.Sprintf("%s set %s xor 0x%x", left, right, mark)
	case mask == 0xffffffff:
		return fmt.Sprintf("%s set 0x%x", left, mark)
	}
	return fmt.Sprintf("%s set %s and 0x%x xor 0x%x", left, right, ^mask, mark)
}

func xtConnmark(x *xtInfo) (xtWords, bool) {
	ctmark, ctmask, nfmask, mode := x.u32(0), x.u32(4), x.u32(8), x.u8(12)
	if x.revision == 2 {
		// Revision 2 has the shift before the mode.
		mode = x.u8(14)
	}
	whole := ctmask == 0xffffffff && nfmask == 0xffffffff
	masks := fmt.Sprintf("--nfmask 0x%x --ctmask 0x%x", nfmask, ctmask)
	if x.revision > 2 || x.revision == 0 || x.revision == 2 && x.u8(13) != 0 {
		return xtWords{}, false
	}
	switch mode {
	case 0:
		return both(fmt.Sprintf("--set-xmark 0x%x/0x%x", ctmark, ctmask), xtMarkWords("ct mark", "ct mark", ctmark, ctmask)), true
	case 1:
		return xtWords{save: "--save-mark " + masks, nft: "ct mark set mark", translated: whole}, true
	case 2:
		return xtWords{save: "--restore-mark " + masks, nft: "meta mark set ct mark", translated: whole}, true
	}
	return xtWords{}, false
}

// The answers of REJECT by number (linux/netfilter_ipv4/ipt_REJECT.h,
// linux/netfilter_ipv6/ip6t_REJECT.h) with nft's words.
var (
	xtRejects = []struct{ save, nft string }{
		{"icmp-net-unreachable", "icmp net-unreachable"}, {"icmp-host-unreachable", "icmp host-unreachable"},
		{"icmp-proto-unreachable", "icmp prot-unreachable"}, {"icmp-port-unreachable", ""}, {"icmp-echo-reply", ""},
		{"icmp-net-prohibited", "icmp net-prohibited"}, {"icmp-host-prohibited", "icmp host-prohibited"}, {"tcp-reset", "tcp reset"},
		{"icmp-admin-prohibited", "icmp admin-prohibited"},
	}
	xtRejects6 = []struct{ save, nft string }{
		{"icmp6-no-route", "icmpv6 no-route"}, {"icmp6-adm-prohibited", "icmpv6 admin-prohibited"}, {"icmp6-not-neighbour", ""},
		{"icmp6-addr-unreachable", "icmpv6 addr-unreachable"}, {"icmp6-port-unreachable", ""}, {"icmp6-echo-reply", ""},
		{"tcp-reset", "tcp reset"}, {"icmp6-policy-fail", "icmpv6 policy-fail"}, {"icmp6-reject-route", "icmpv6 reject-route"},
	}
)

func xtReject(x *xtInfo) (xtWords, bool) {
	table := xtRejects
	if x.ip6 {
		table = xtRejects6
	}
	n := x.u32(0)
	if int64(n) >= int64(len(table)) {
		return xtWords{}, false
	}
	nft := "reject"
	if table[n].nft != "" {
		nft += " with " + table[n].nft
	}
	return both("--reject-with "+table[n].save, nft), true
}

func xtLog(x *xtInfo) (xtWords, bool) {
	level, flags, prefix := x.u8(0), x.u8(1), x.text(2, 30)
	names := []string{"emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"}
	if int(level) >= len(names) {
		return xtWords{}, false
	}
	var save, nft []string
	if prefix != "" {
		save, nft = append(save, "--log-prefix "+xtQuote(prefix)), append(nft, "prefix "+quote(prefix))
	}
	if level != 4 {
		save, nft = append(save, fmt.Sprintf("--log-level %d", level)), append(nft, "level "+names[level])
	}
	for i, f := range []struct{ save, nft string }{
		{"--log-tcp-sequence", "flags tcp sequence"}, {"--log-tcp-options", "flags tcp options"}, {"--log-ip-options", "flags ip options"},
		{"--log-uid", "flags skuid"}, {"", ""}, {"--log-macdecode", "flags ether"},
	} {
		if flags&(1<<i) != 0 {
			save, nft = append(save, f.save), append(nft, f.nft)
		}
	}
	return both(joined(save...), joined(append([]string{"log"}, nft...)...)), true
}

func xtNFLog(x *xtInfo) (xtWords, bool) {
	const copyLen = 1
	group, threshold, prefix := x.u16(4), x.u16(6), x.text(12, 64)
	var save []string
	nft := []string{"log"}
	if prefix != "" {
		save, nft = append(save, "--nflog-prefix "+xtQuote(prefix)), append(nft, "prefix "+quote(prefix))
	}
	if group != 0 {
		save = append(save, fmt.Sprintf("--nflog-group %d", group))
	}
	if x.u16(8)&copyLen != 0 {
		save, nft = append(save, fmt.Sprintf("--nflog-size %d", x.u32(0))), append(nft, fmt.Sprintf("snaplen %d", x.u32(0)))
	}
	if threshold > 1 {
		save, nft = append(save, fmt.Sprintf("--nflog-threshold %d", threshold)), append(nft, fmt.Sprintf("queue-threshold %d", threshold))
	}
	nft = append(nft, fmt.Sprintf("group %d", group))
	return both(joined(save...), joined(nft...)), true
}

func xtTCPMSS(x *xtInfo) (xtWords, bool) {
	if n := x.u16(0); n != 0xffff {
		return both(fmt.Sprintf("--set-mss %d", n), fmt.Sprintf("tcp option maxseg size set %d", n)), true
	}
	return both("--clamp-mss-to-pmtu", "tcp option maxseg size set rt mtu"), true
}

func xtCT(x *xtInfo) (xtWords, bool) {
	const notrack, zoneOrig, zoneReply, zoneMark = 1, 4, 8, 16
	flags, zone := x.u16(0), x.u16(2)
	if flags == notrack {
		return both("--notrack", "notrack"), x.revision <= 2
	}
	var save []string
	if helper := x.text(12, 16); helper != "" {
		save = append(save, "--helper "+xtQuote(helper))
	}
	if x.revision > 0 {
		if timeout := x.text(28, 32); timeout != "" {
			save = append(save, "--timeout "+xtQuote(timeout))
		}
	}
	if x.u32(4) != 0 || x.u32(8) != 0 {
		return xtWords{}, false // Events of which the words are not known here.
	}
	option := map[uint16]string{0: "--zone", zoneOrig: "--zone-orig", zoneReply: "--zone-reply"}[flags&(zoneOrig|zoneReply)]
	switch {
	case flags&zoneMark != 0:
		save = append(save, option+" mark")
	case zone != 0:
		save = append(save, fmt.Sprintf("%s %d", option, zone))
	}
	return plainXT(strings.Join(save, " ")), x.revision <= 2
}

func xtTProxy(x *xtInfo) (xtWords, bool) {
	mask, mark, port, addr := x.u32(0), x.u32(4), 24, x.addr(8)
	if x.revision == 0 {
		port = 12
	}
	words := fmt.Sprintf("--on-port %d --on-ip %s", x.port(port), addrText(addr))
	if mark != 0 || mask != 0 {
		words += fmt.Sprintf(" --tproxy-mark 0x%x/0x%x", mark, mask)
	}
	return plainXT(words), x.revision <= 1
}

func xtClassify(x *xtInfo) (xtWords, bool) {
	n := x.u32(0)
	return both(fmt.Sprintf("--set-class %04x:%04x", n>>16, n&0xffff), fmt.Sprintf("meta priority set %x:%x", n>>16, n&0xffff)), true
}

func xtChecksum(x *xtInfo) (xtWords, bool) { return plainXT("--checksum-fill"), x.u8(0) == 1 }

func xtSetTOS(x *xtInfo) (xtWords, bool) {
	return plainXT(fmt.Sprintf("--set-tos 0x%02x/0x%02x", x.u8(0), x.u8(1))), x.revision == 1
}

func xtSetDSCP(x *xtInfo) (xtWords, bool) {
	family := "ip"
	if x.ip6 {
		family = "ip6"
	}
	return both(fmt.Sprintf("--set-dscp 0x%02x", x.u8(0)), fmt.Sprintf("%s dscp set 0x%02x", family, x.u8(0))), true
}

func xtSetTTL(name string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		mode := x.u8(0)
		if mode > 2 {
			return xtWords{}, false
		}
		return plainXT(fmt.Sprintf("--%s-%s %d", name, []string{"set", "inc", "dec"}[mode], x.u8(1))), true
	}
}

func xtNFQueue(x *xtInfo) (xtWords, bool) {
	const bypass, fanout = 1, 2
	num, total, flags := x.u16(0), uint16(1), uint16(0)
	if x.revision > 0 {
		total = x.u16(2)
	}
	if x.revision > 1 {
		flags = x.u16(4)
	}
	save, nft := fmt.Sprintf("--queue-num %d", num), fmt.Sprint(num)
	if total > 1 {
		save, nft = fmt.Sprintf("--queue-balance %d:%d", num, num+total-1), fmt.Sprintf("%d-%d", num, num+total-1)
	}
	words := []string{}
	if flags&bypass != 0 {
		save, words = save+" --queue-bypass", append(words, "bypass")
	}
	if flags&fanout != 0 {
		save, words = save+" --queue-cpu-fanout", append(words, "fanout")
	}
	return both(save, joined("queue num "+nft, strings.Join(words, ","))), x.revision <= 3
}

func xtTrace(*xtInfo) (xtWords, bool) { return both("", "nftrace set 1"), true }

func xtNoTrack(*xtInfo) (xtWords, bool) { return both("", "notrack"), true }
