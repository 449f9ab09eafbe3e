package ruleset

import (
	"fmt"
	"math"
	"strings"
)

// xtPortRange writes the ports of a match, where they are not all.
func xtPortRange(option string, lo, hi uint16, inverted bool) string {
	if lo == 0 && hi == math.MaxUint16 && !inverted {
		return ""
	}
	return not(inverted, option+" "+ranged(lo, hi, ":"))
}

func xtNftPorts(field string, lo, hi uint16, inverted bool) string {
	if lo == 0 && hi == math.MaxUint16 && !inverted {
		return ""
	}
	return field + " " + notEqual(inverted) + ranged(lo, hi, "-")
}

// xtPorts reads the ranges of source and destination ports, and behind them, at
// flags, which of them are inverted.
func xtPorts(proto string, flags int) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		inverted := x.u8(flags)
		return both(
			joined(xtPortRange("--sport", x.u16(0), x.u16(2), inverted&1 != 0), xtPortRange("--dport", x.u16(4), x.u16(6), inverted&2 != 0)),
			joined(xtNftPorts(proto+" sport", x.u16(0), x.u16(2), inverted&1 != 0), xtNftPorts(proto+" dport", x.u16(4), x.u16(6), inverted&2 != 0)),
		), true
	}
}

func xtTCP(x *xtInfo) (xtWords, bool) {
	const notFlags, notOption = 4, 8
	w, _ := xtPorts("tcp", 11)(x)
	option, mask, set, inverted := x.u8(8), x.u8(9), x.u8(10), x.u8(11)
	flags := func(n uint8) string {
		if n == 0 {
			return "NONE"
		}
		return strings.ToUpper(Value{Type: TypeTCPFlag, Data: string([]byte{n})}.String())
	}
	if option != 0 {
		// libxtables knows no other word for an option that must not be there.
		exists := "exists"
		if inverted&notOption != 0 {
			exists = "missing"
		}
		w.save = joined(w.save, not(inverted&notOption != 0, fmt.Sprintf("--tcp-option %d", option)))
		w.nft = joined(w.nft, fmt.Sprintf("tcp option %d %s", option, exists))
	}
	if mask != 0 || set != 0 {
		w.save = joined(w.save, not(inverted&notFlags != 0, "--tcp-flags "+flags(mask)+" "+flags(set)))
		op := "=="
		if inverted&notFlags != 0 {
			op = "!="
		}
		w.nft = joined(w.nft, fmt.Sprintf("tcp flags & (%s) %s %s", strings.ToLower(strings.ReplaceAll(flags(mask), ",", "|")), op,
			strings.ToLower(strings.ReplaceAll(flags(set), ",", " | "))))
	}
	return w, inverted&^15 == 0
}

// xtSCTP reads ports and chunk types; the types are shown only as far as none
// are asked for.
func xtSCTP(x *xtInfo) (xtWords, bool) {
	const source, dest, chunks = 1, 2, 4
	flags, inverted := x.u32(284), x.u32(288)
	var save, nft []string
	if flags&source != 0 {
		save = append(save, xtPortRange("--sport", x.u16(4), x.u16(6), inverted&source != 0))
		nft = append(nft, xtNftPorts("sctp sport", x.u16(4), x.u16(6), inverted&source != 0))
	}
	if flags&dest != 0 {
		save = append(save, xtPortRange("--dport", x.u16(0), x.u16(2), inverted&dest != 0))
		nft = append(nft, xtNftPorts("sctp dport", x.u16(0), x.u16(2), inverted&dest != 0))
	}
	return both(joined(save...), joined(nft...)), flags&chunks == 0 && flags&^7 == 0
}

func xtICMP(name, proto string) func(*xtInfo) (xtWords, bool) {
	return func(x *xtInfo) (xtWords, bool) {
		typ, lo, hi, inverted := x.u8(0), x.u8(1), x.u8(2), x.u8(3)&1 != 0
		if typ == 0xff && proto == "icmp" {
			return plainXT("--icmp-type any"), !inverted
		}
		option := "--" + proto + "-type "
		save := fmt.Sprint(typ)
		if lo == hi {
			save = fmt.Sprintf("%d/%d", typ, lo)
		}
		types := map[string]Type{"icmp": TypeICMPType, "icmpv6": TypeICMPv6Type}[proto]
		nft := proto + " type " + notEqual(inverted) + Value{Type: types, Data: string([]byte{typ})}.String()
		if lo == hi {
			nft = fmt.Sprintf("%s %s code %s%d", nft, proto, notEqual(inverted), lo)
		}
		return both(not(inverted, option+save), nft), name != ""
	}
}

// xtRecent reads lists of addresses seen (linux/netfilter/xt_recent.h).
func xtRecent(x *xtInfo) (xtWords, bool) {
	const ttl, reap = 16, 32
	flags, inverted := x.u8(8), x.flag(9)
	var save []string
	for i, option := range []string{"--rcheck", "--set", "--update", "--remove"} {
		if flags&(1<<i) != 0 {
			save = append(save, not(inverted, option))
		}
	}
	if n := x.u32(0); n != 0 {
		save = append(save, fmt.Sprintf("--seconds %d", n))
	}
	if flags&reap != 0 {
		save = append(save, "--reap")
	}
	if n := x.u32(4); n != 0 {
		save = append(save, fmt.Sprintf("--hitcount %d", n))
	}
	if flags&ttl != 0 {
		save = append(save, "--rttl")
	}
	save = append(save, "--name "+xtQuote(x.text(10, 200)))
	if x.revision == 1 {
		save = append(save, "--mask "+x.addr(212).String())
	}
	side := "--rsource"
	if x.flag(210) {
		side = "--rdest"
	}
	return plainXT(strings.Join(append(save, side), " ")), x.revision <= 1 && flags&^63 == 0
}

// xtBPF reads a program for sockets: from an object that is pinned to a path, or
// its instructions (linux/netfilter/xt_bpf.h).
func xtBPF(x *xtInfo) (xtWords, bool) {
	const bytecode, pinned, pathSize = 0, 1, 512
	mode, at := uint16(bytecode), 2
	if x.revision == 1 {
		mode, at = x.u16(0), 8
	}
	if mode == pinned {
		return plainXT("--object-pinned " + xtQuote(x.text(at, pathSize))), true
	}
	n := int(x.u16(x.bpfCount()))
	if mode != bytecode || n > 64 {
		return xtWords{}, false
	}
	words := []string{fmt.Sprint(n)}
	for i := range n {
		p := at + 8*i
		if x.revision == 0 {
			p += 2
		}
		words = append(words, fmt.Sprintf("%d %d %d %d", x.u16(p), x.u8(p+2), x.u8(p+3), x.u32(p+4)))
	}
	return plainXT("--bytecode \"" + strings.Join(words, ",") + "\""), true
}

// bpfCount is where the number of a program's instructions stands.
func (x *xtInfo) bpfCount() int {
	if x.revision == 1 {
		return 2
	}
	return 0
}

// xtRPFilter asks whether answers would go back the way that the packet came
// (linux/netfilter/xt_rpfilter.h).
func xtRPFilter(x *xtInfo) (xtWords, bool) {
	flags := x.u8(0)
	var save []string
	for i, option := range []string{"--loose", "--validmark", "--accept-local", "--invert"} {
		if flags&(1<<i) != 0 {
			save = append(save, option)
		}
	}
	return plainXT(strings.Join(save, " ")), flags&^15 == 0
}

// xtU32 reads tests of numbers in the packet (linux/netfilter/xt_u32.h).
func xtU32(x *xtInfo) (xtWords, bool) {
	const most, locations, ranges, testSize = 10, 0, 88, 180
	const tests = testSize * (most + 1)
	ops := []string{"&", "<<", ">>", "@"}
	var all []string
	for t := range int(x.u8(tests)) {
		at := t * testSize
		nums, values := int(x.u8(at+176)), int(x.u8(at+177))
		if t > most || nums == 0 || nums > most+1 || values > most+1 {
			return xtWords{}, false
		}
		text := fmt.Sprintf("0x%x", x.u32(at+locations))
		for i := 1; i < nums; i++ {
			op := x.u8(at + locations + 8*i + 4)
			if int(op) >= len(ops) {
				return xtWords{}, false
			}
			text += fmt.Sprintf("%s0x%x", ops[op], x.u32(at+locations+8*i))
		}
		var spans []string
		for i := range values {
			lo, hi := x.u32(at+ranges+8*i), x.u32(at+ranges+8*i+4)
			span := fmt.Sprintf("0x%x", lo)
			if hi != lo {
				span += fmt.Sprintf(":0x%x", hi)
			}
			spans = append(spans, span)
		}
		all = append(all, text+"="+strings.Join(spans, ","))
	}
	return plainXT(not(x.flag(tests+1), "--u32 \""+strings.Join(all, "&&")+"\"")), len(all) > 0
}
