package ruleset

import (
	"fmt"
	"math"
	"net"
	"strings"
	"time"
)

// xtMatches put the matches of iptables into words, by name. The layouts are
// those of linux/netfilter/xt_NAME.h and linux/netfilter_ipv4/ipt_NAME.h.
var xtMatches = map[string]func(*xtInfo) (xtWords, bool){
	"addrtype": xtAddrtype, "comment": xtComment, "conntrack": xtConntrack, "state": xtState, "cpu": xtCPU,
	"connlimit": xtConnlimit, "helper": xtHelper, "length": xtLength, "limit": xtLimit, "mac": xtMAC,
	"multiport": xtMultiport, "mark": xtMark("mark"), "connmark": xtMark("ct mark"), "owner": xtOwner,
	"physdev": xtPhysdev, "pkttype": xtPkttype, "quota": xtQuota, "iprange": xtIPRange, "statistic": xtStatistic,
	"string": xtString, "time": xtTime, "ttl": xtTTL("ttl", "ip ttl"), "hl": xtTTL("hl", "ip6 hoplimit"), "tos": xtTOS,
	"dscp": xtDSCP, "cgroup": xtCGroup, "socket": xtSocket, "tcp": xtTCP, "udp": xtPorts("udp", 8), "sctp": xtSCTP,
	"icmp": xtICMP("icmp", "icmp"), "icmp6": xtICMP("icmp6", "icmpv6"), "recent": xtRecent,
	"bpf": xtBPF, "rpfilter": xtRPFilter, "u32": xtU32,
}

func xtAddrtype(x *xtInfo) (xtWords, bool) {
	const notSource, notDest, limitIn, limitOut = 1, 2, 4, 8
	flags := x.u32(4)
	if x.revision == 0 {
		flags = 0
		if x.u32(4) != 0 {
			flags |= notSource
		}
		if x.u32(8) != 0 {
			flags |= notDest
		}
	}
	iface, limit := "", ""
	if flags&limitIn != 0 {
		iface, limit = " . iif", "--limit-iface-in"
	}
	if flags&limitOut != 0 {
		iface, limit = " . oif", "--limit-iface-out"
	}
	var save, nft []string
	for i, side := range []string{"src", "dst"} {
		types := Type(TypeFibAddrType)
		var names []string
		for n := range uint64(12) {
			if x.u16(2*i)&(1<<n) != 0 {
				name, _ := types.symbol(n)
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		inverted := flags&(notSource<<i) != 0
		list := strings.Join(names, ", ")
		if len(names) > 1 {
			list = "{ " + list + " }"
		}
		save = append(save, not(inverted, "--"+side+"-type "+strings.ToUpper(strings.Join(names, ","))))
		nft = append(nft, "fib "+side[:1]+"addr"+iface+" type "+notEqual(inverted)+list)
	}
	return both(joined(strings.Join(save, " "), limit), strings.Join(nft, " ")), flags&^15 == 0
}

func xtComment(x *xtInfo) (xtWords, bool) {
	// nft leaves comments of this kind out.
	return both("--comment "+xtQuote(x.text(0, 256)), ""), true
}

func xtCPU(x *xtInfo) (xtWords, bool) {
	n, inverted := x.u32(0), x.u32(4) != 0
	return both(not(inverted, fmt.Sprintf("--cpu %d", n)), fmt.Sprintf("cpu %s%d", notEqual(inverted), n)), true
}

func xtConnlimit(x *xtInfo) (xtWords, bool) {
	const invert, byDestination = 1, 2
	side, option, flags := "--connlimit-saddr", "above", x.u32(20)
	if flags&byDestination != 0 {
		side = "--connlimit-daddr"
	}
	if flags&invert != 0 {
		option = "upto"
	}
	bits := 0
	for _, b := range x.addr(0).AsSlice() {
		for i := 7; i >= 0 && b&(1<<i) != 0; i-- {
			bits++
		}
	}
	return plainXT(fmt.Sprintf("--connlimit-%s %d --connlimit-mask %d %s", option, x.u32(16), bits, side)), flags&^3 == 0
}

func xtHelper(x *xtInfo) (xtWords, bool) {
	name, inverted := x.text(4, 30), x.u32(0) != 0
	return both(not(inverted, "--helper "+xtQuote(name)), "ct helper "+notEqual(inverted)+quote(name)), true
}

func xtLength(x *xtInfo) (xtWords, bool) {
	lo, hi, inverted := x.u16(0), x.u16(2), x.flag(4)
	return both(not(inverted, "--length "+ranged(lo, hi, ":")), "meta length "+notEqual(inverted)+ranged(lo, hi, "-")), true
}

// xtRates are the units of limit, which the kernel counts in ten thousandths of
// a second (XT_LIMIT_SCALE).
var xtRates = []struct {
	word  string
	scale uint32
}{{"day", 10000 * 86400}, {"hour", 10000 * 3600}, {"minute", 10000 * 60}, {"second", 10000}}

func xtRate(period uint32) string {
	if period == 0 {
		return "inf"
	}
	at := 1
	for at < len(xtRates) && period <= xtRates[at].scale && xtRates[at].scale/period >= 1 && xtRates[at].scale%period == 0 {
		at++
	}
	u := xtRates[at-1]
	return fmt.Sprintf("%d/%s", u.scale/period, u.word)
}

func xtLimit(x *xtInfo) (xtWords, bool) {
	rate, burst := xtRate(x.u32(0)), x.u32(4)
	return both(limitWords(rate, burst),
		fmt.Sprintf("limit rate %s burst %d packets", rate, burst)), x.u32(0) != 0
}

func xtMAC(x *xtInfo) (xtWords, bool) {
	mac, inverted := net.HardwareAddr(x.bytes(0, 6)).String(), x.u32(8) != 0
	return both(not(inverted, "--mac-source "+mac), "ether saddr "+notEqual(inverted)+mac), true
}

func xtMultiport(x *xtInfo) (xtWords, bool) {
	kind, count := x.u8(0), int(x.u8(1))
	var save, nft []string
	for i := 0; i < count && i < 15; i++ {
		lo := x.u16(2 + 2*i)
		hi := lo
		if x.revision == 1 && x.u8(32+i) != 0 {
			i++
			hi = x.u16(2 + 2*i)
		}
		save, nft = append(save, ranged(lo, hi, ":")), append(nft, ranged(lo, hi, "-"))
	}
	inverted := x.revision == 1 && x.u8(47) != 0
	if kind > 2 || len(save) == 0 || x.revision > 1 {
		return xtWords{}, false
	}
	w := plainXT(not(inverted, "--"+[]string{"sports", "dports", "ports"}[kind]+" "+strings.Join(save, ",")))
	if kind < 2 {
		list := strings.Join(nft, ", ")
		if len(nft) > 1 {
			list = "{ " + list + " }"
		}
		w.nft = x.proto + []string{" sport ", " dport "}[kind] + notEqual(inverted) + list
		w.translated = x.proto != ""
	}
	return w, true
}

func xtMark(name string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		value, mask, inverted := x.u32(0), x.u32(4), x.flag(8)
		save, nft := fmt.Sprintf("0x%x", value), fmt.Sprintf("%s %s0x%x", name, notEqual(inverted), value)
		if mask != math.MaxUint32 {
			op := "=="
			if inverted {
				op = "!="
			}
			save, nft = fmt.Sprintf("0x%x/0x%x", value, mask), fmt.Sprintf("%s and 0x%x %s 0x%x", name, mask, op, value)
		}
		return both(not(inverted, "--mark "+save), nft), x.revision == 1
	}
}

func xtOwner(x *xtInfo) (xtWords, bool) {
	const uid, gid, socket, suppl = 1, 2, 4, 8
	given, inverted := x.u8(16), x.u8(17)
	var save []string
	for i, name := range []string{"uid", "gid"} {
		if given&(uid<<i) != 0 {
			save = append(save, not(inverted&(uid<<i) != 0, fmt.Sprintf("--%s-owner %s", name, ranged(x.u32(8*i), x.u32(8*i+4), "-"))))
		}
	}
	if given&socket != 0 {
		save = append(save, not(inverted&socket != 0, "--socket-exists"))
	}
	if given&suppl != 0 {
		save = append(save, "--suppl-groups")
	}
	w := plainXT(strings.Join(save, " "))
	if given == uid || given == gid {
		name, at := "skuid", 0
		if given == gid {
			name, at = "skgid", 8
		}
		w.nft, w.translated = fmt.Sprintf("meta %s %s%s", name, notEqual(inverted&given != 0), ranged(x.u32(at), x.u32(at+4), "-")), true
	}
	return w, x.revision == 1 && given&^(uid|gid|socket|suppl) == 0
}

func xtPhysdev(x *xtInfo) (xtWords, bool) {
	inverted, given := x.u8(64), x.u8(65)
	var save []string
	for i, option := range []string{"--physdev-in", "--physdev-out", "--physdev-is-bridged", "--physdev-is-in", "--physdev-is-out"} {
		bit := uint8([]int{1, 2, 4, 8, 16}[i])
		if given&bit == 0 {
			continue
		}
		if i < 2 {
			name := x.text(32*i, 16)
			if mask := x.bytes(32*i+16, 16); len(name) < 15 && mask[len(name)] == 0 && !strings.HasSuffix(name, "+") {
				name += "+"
			}
			option += " " + name
		}
		save = append(save, not(inverted&bit != 0, option))
	}
	return plainXT(strings.Join(save, " ")), given&^31 == 0
}

func xtPkttype(x *xtInfo) (xtWords, bool) {
	names := map[uint32]string{0: "unicast", 1: "broadcast", 2: "multicast"}
	name, ok := names[x.u32(0)]
	inverted := x.u32(4) != 0
	return both(not(inverted, "--pkt-type "+name), "pkttype "+notEqual(inverted)+name), ok
}

func xtQuota(x *xtInfo) (xtWords, bool) {
	inverted, n := x.u32(0)&1 != 0, x.u64(8)
	over := ""
	if inverted {
		over = "over "
	}
	return both(not(inverted, fmt.Sprintf("--quota %d", n)), fmt.Sprintf("quota %s%d bytes", over, n)), true
}

func xtIPRange(x *xtInfo) (xtWords, bool) {
	const source, dest, notSource, notDest = 1, 2, 16, 32
	flags, family := x.u8(64), "ip"
	if x.ip6 {
		family = "ip6"
	}
	var save, nft []string
	for i, side := range []string{"src", "dst"} {
		if flags&(source<<i) == 0 {
			continue
		}
		inverted := flags&(notSource<<i) != 0
		span := x.addr(32*i).String() + "-" + x.addr(32*i+16).String()
		save = append(save, not(inverted, "--"+side+"-range "+span))
		nft = append(nft, family+" "+side[:1]+"addr "+notEqual(inverted)+span)
	}
	return both(strings.Join(save, " "), strings.Join(nft, " ")), x.revision == 1 && flags&^(source|dest|notSource|notDest) == 0
}

func xtStatistic(x *xtInfo) (xtWords, bool) {
	mode, inverted := x.u16(0), x.u16(2)&1 != 0
	switch mode {
	case 0:
		op := "<"
		if inverted {
			op = ">="
		}
		return both("--mode random "+not(inverted, fmt.Sprintf("--probability %.11f", float64(x.u32(4))/0x80000000)),
			fmt.Sprintf("meta random & %d %s %d", math.MaxInt32, op, x.u32(4))), true
	case 1:
		every, packet := x.u32(4), x.u32(8)
		return both("--mode nth "+not(inverted, fmt.Sprintf("--every %d --packet %d", every+1, packet)),
			fmt.Sprintf("numgen inc mod %d %s%d", every+1, notEqual(inverted), packet)), true
	}
	return xtWords{}, false
}

func xtString(x *xtInfo) (xtWords, bool) {
	const invert, ignoreCase = 1, 2
	flags := x.u8(149)
	n := int(x.u8(148))
	if n > 128 || x.revision != 1 {
		return xtWords{}, false
	}
	pattern := string(x.bytes(20, n))
	option := "--string " + xtQuote(pattern)
	if strings.ContainsFunc(pattern, func(r rune) bool { return r < ' ' || r > '~' }) {
		option = fmt.Sprintf("--hex-string \"|%x|\"", pattern)
	}
	words := []string{not(flags&invert != 0, option), "--algo " + x.text(4, 16)}
	if from := x.u16(0); from != 0 {
		words = append(words, fmt.Sprintf("--from %d", from))
	}
	if to := x.u16(2); to != 0 && to != math.MaxUint16 {
		words = append(words, fmt.Sprintf("--to %d", to))
	}
	if flags&ignoreCase != 0 {
		words = append(words, "--icase")
	}
	return plainXT(strings.Join(words, " ")), true
}

// Bounds of xt_time.h that say that nothing is asked.
const xtLastSecond, xtAllDays, xtAllWeekdays = 86399, 0xfffffffe, 0xfe

func xtClock(n uint32) string {
	return time.Unix(int64(n), 0).UTC().Format(time.TimeOnly)
}

func xtTime(x *xtInfo) (xtWords, bool) {
	start, stop, weekdays, flags := x.u32(8), x.u32(12), x.u8(20), x.u8(21)
	var save, nft []string
	if start != 0 || stop != xtLastSecond {
		save = append(save, "--timestart "+xtClock(start), "--timestop "+xtClock(stop))
		nft = append(nft, fmt.Sprintf("meta hour \"%s\"-\"%s\"", xtClock(start), xtClock(stop)))
	}
	if days := x.u32(16); days != xtAllDays && days != math.MaxUint32 {
		var list []string
		for d := 1; d < 32; d++ {
			if days&(1<<d) != 0 {
				list = append(list, fmt.Sprint(d))
			}
		}
		save = append(save, "--monthdays "+strings.Join(list, ","))
	}
	if weekdays != xtAllWeekdays && weekdays != 0xff {
		var names, numbers []string
		for d := 1; d <= 7; d++ {
			if weekdays&(1<<d) != 0 {
				names = append(names, time.Weekday(d % 7).String()[:3])
				numbers = append(numbers, fmt.Sprint(d%7))
			}
		}
		save = append(save, "--weekdays "+strings.Join(names, ","))
		list := strings.Join(numbers, ", ")
		if len(numbers) > 1 {
			list = "{ " + list + " }"
		}
		nft = append(nft, "meta day "+list)
	}
	const layout, never = "2006-01-02T15:04:05", math.MaxInt32
	if n := x.u32(0); n != 0 {
		save = append(save, "--datestart "+time.Unix(int64(n), 0).UTC().Format(layout))
	}
	if n := x.u32(4); n != math.MaxUint32 {
		save = append(save, "--datestop "+time.Unix(int64(n), 0).UTC().Format(layout))
	}
	for i, option := range []string{"--kerneltz", "--contiguous"} {
		if flags&(1<<i) != 0 {
			save = append(save, option)
		}
	}
	// libxtables begins each condition with a blank.
	w := both(strings.Join(save, " "), " "+strings.Join(nft, " "))
	w.translated = x.u32(0) == 0 && (x.u32(4) == never || x.u32(4) == math.MaxUint32)
	return w, true
}

func xtTTL(name, field string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		mode, n := x.u8(0), x.u8(1)
		if mode > 3 {
			return xtWords{}, false
		}
		save := []string{"--%s-eq %d", "! --%s-eq %d", "--%s-lt %d", "--%s-gt %d"}[mode]
		return both(fmt.Sprintf(save, name, n), fmt.Sprintf("%s %s%d", field, []string{"", "!= ", "< ", "> "}[mode], n)), true
	}
}

func xtTOS(x *xtInfo) (xtWords, bool) {
	mask, value, inverted := x.u8(0), x.u8(1), x.flag(2)
	return plainXT(not(inverted, fmt.Sprintf("--tos 0x%02x/0x%02x", value, mask))), x.revision == 1
}

func xtDSCP(x *xtInfo) (xtWords, bool) {
	n, inverted := x.u8(0), x.flag(1)
	family := "ip"
	if x.ip6 {
		family = "ip6"
	}
	return both(not(inverted, fmt.Sprintf("--dscp 0x%02x", n)), fmt.Sprintf("%s dscp %s0x%02x", family, notEqual(inverted), n)), true
}

func xtCGroup(x *xtInfo) (xtWords, bool) {
	class := 4
	if x.revision != 0 {
		hasPath, hasClass, notPath, notClass := x.flag(0), x.flag(1), x.flag(2), x.flag(3)
		size := 4096 // PATH_MAX; revision 2 has 512 (XT_CGROUP_PATH_LEN)
		if x.revision == 2 {
			size = 512
		}
		if hasPath {
			return plainXT(not(notPath, "--path "+xtQuote(x.text(4, size)))), x.revision <= 2
		}
		if x.revision == 1 {
			class += size // behind the path, not in its place
		}
		n := x.u32(class)
		return both(not(notClass, fmt.Sprintf("--cgroup %d", n)), fmt.Sprintf("meta cgroup %s%d", notEqual(notClass), n)), hasClass && x.revision <= 2
	}
	n, inverted := x.u32(0), x.u32(4) != 0
	return both(not(inverted, fmt.Sprintf("--cgroup %d", n)), fmt.Sprintf("meta cgroup %s%d", notEqual(inverted), n)), true
}

func xtSocket(x *xtInfo) (xtWords, bool) {
	var save []string
	flags := uint8(0)
	if x.revision > 0 {
		flags = x.u8(0)
	}
	for i, option := range []string{"--transparent", "--nowildcard", "--restore-skmark"} {
		if flags&(1<<i) != 0 {
			save = append(save, option)
		}
	}
	return plainXT(strings.Join(save, " ")), flags&^7 == 0
}
