package ruleset

import (
	"fmt"
	"strings"
)

// xtStates are the words of conntrack's states by their bits
// (linux/netfilter/xt_conntrack.h).
var xtStates = []struct {
	bit  uint32
	word string
}{
	{1, "INVALID"}, {8, "NEW"}, {4, "RELATED"}, {2, "ESTABLISHED"}, {256, "UNTRACKED"}, {64, "SNAT"}, {128, "DNAT"},
}

func xtStateWords(mask uint32) (string, bool) {
	var out []string
	for _, s := range xtStates {
		if mask&s.bit != 0 {
			out = append(out, s.word)
			mask &^= s.bit
		}
	}
	return strings.Join(out, ","), mask == 0 && len(out) > 0
}

func xtState(x *xtInfo) (xtWords, bool) {
	words, ok := xtStateWords(x.u32(0))
	return both("--state "+words, "ct state "+strings.ToLower(words)), ok
}

// xtConntrack reads revisions 1 to 3: addresses and masks of both directions,
// then numbers (struct xt_conntrack_mtinfo3).
func xtConntrack(x *xtInfo) (xtWords, bool) {
	const addrs, ports, matches, states, highs = 128, 138, 146, 150, 154
	flags, inverted := x.u16(matches), x.u16(matches+2)
	state, status := uint32(x.u16(states)), uint32(x.u16(states+2))
	if x.revision == 1 {
		state, status = uint32(x.u8(states)), uint32(x.u8(states+1))
	}
	var save, nft []string
	ok := x.revision >= 1 && x.revision <= 3
	add := func(bit uint16, option, words string) {
		if flags&bit != 0 {
			save = append(save, not(inverted&bit != 0, option))
			nft = append(nft, strings.Replace(words, "?", notEqual(inverted&bit != 0), 1))
		}
	}
	const bitState, bitProto, bitStatus, bitExpires, bitDirection, bitAlias = 1, 2, 64, 128, 4096, 8192
	if flags&bitDirection != 0 {
		dir := []string{"ORIGINAL", "REPLY"}
		i := 0
		if inverted&bitDirection != 0 {
			i = 1
		}
		nft = append(nft, "ct direction "+strings.ToLower(dir[i]))
	}
	if flags&bitState != 0 {
		words, known := xtStateWords(state)
		option := "--ctstate "
		if flags&bitAlias != 0 {
			option = "--state "
		}
		ok = ok && known
		add(bitState, option+words, "ct state ?"+strings.ToLower(words))
	}
	proto := x.u16(addrs + 8)
	add(bitProto, fmt.Sprintf("--ctproto %d", proto), "ct protocol ?"+ProtoName(uint8(proto)))
	for i, name := range []string{"origsrc", "origdst", "replsrc", "repldst"} {
		words := []string{"original saddr", "original daddr", "reply saddr", "reply daddr"}[i]
		if bit := uint16(4 << i); flags&bit != 0 {
			n := x.network(32*i, 32*i+16)
			add(bit, "--ct"+name+" "+n, "ct "+words+" ?"+nftNetwork(n))
		}
	}
	for i, name := range []string{"origsrcport", "origdstport", "replsrcport", "repldstport"} {
		words := []string{"original proto-src", "original proto-dst", "reply proto-src", "reply proto-dst"}[i]
		if bit := uint16(256 << i); flags&bit != 0 {
			lo := x.u16(ports + 2*i)
			hi := lo
			if x.revision == 3 {
				hi = x.u16(highs + 2*i)
			} else {
				lo = x.port(ports + 2*i)
				hi = lo
			}
			add(bit, "--ct"+name+" "+ranged(lo, hi, ":"), "ct "+words+" ?"+ranged(lo, hi, "-"))
		}
	}
	if flags&bitStatus != 0 {
		words := Value{Type: TypeCtStatus, Data: HostUint32(TypeCtStatus, status).Data}.String()
		add(bitStatus, "--ctstatus "+strings.ToUpper(strings.ReplaceAll(words, "seen-reply", "SEEN_REPLY")), "ct status ?"+words)
	}
	if flags&bitExpires != 0 {
		lo, hi := x.u32(addrs), x.u32(addrs+4)
		add(bitExpires, "--ctexpire "+ranged(lo, hi, ":"), "ct expiration ?"+ranged(lo, hi, "-"))
	}
	if flags&bitDirection != 0 {
		dir := "ORIGINAL"
		if inverted&bitDirection != 0 {
			dir = "REPLY"
		}
		save = append(save, "--ctdir "+dir)
	}
	return both(strings.Join(save, " "), strings.Join(nft, " ")), ok
}
