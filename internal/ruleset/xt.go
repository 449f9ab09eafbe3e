package ruleset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// xtWords is an extension of iptables put into words.
type xtWords struct {
	// save are the words of iptables-save behind -m name or -j name.
	save string
	// nft is how nft lists the extension, which it does in its own words for some
	// (translated).
	nft        string
	translated bool
}

// both are words of iptables that nft has words of its own for.
func both(save, nft string) xtWords { return xtWords{save: save, nft: nft, translated: true} }

// plainXT are words of iptables that nft does not translate.
func plainXT(save string) xtWords { return xtWords{save: save} }

// xtInfo is an extension's own structure: C structures of the kernel's headers
// (linux/netfilter/xt_*.h), in the host's byte order. Reading behind its end
// leaves a mark: what is shorter than it should be is not understood.
type xtInfo struct {
	data     string
	revision uint32
	ip6      bool
	proto    string
	short    bool
}

func (x *xtInfo) bytes(at, n int) []byte {
	if at < 0 || at+n > len(x.data) {
		x.short = true
		return make([]byte, n)
	}
	return []byte(x.data[at : at+n])
}

func (x *xtInfo) u8(at int) uint8       { return x.bytes(at, 1)[0] }
func (x *xtInfo) u16(at int) uint16     { return binary.NativeEndian.Uint16(x.bytes(at, 2)) }
func (x *xtInfo) u32(at int) uint32     { return binary.NativeEndian.Uint32(x.bytes(at, 4)) }
func (x *xtInfo) u64(at int) uint64     { return binary.NativeEndian.Uint64(x.bytes(at, 8)) }
func (x *xtInfo) port(at int) uint16    { return binary.BigEndian.Uint16(x.bytes(at, 2)) }
func (x *xtInfo) flag(at int) bool      { return x.u8(at) != 0 }
func (x *xtInfo) ip4(at int) netip.Addr { return netip.AddrFrom4([4]byte(x.bytes(at, 4))) }

// text is a string of at most n bytes.
func (x *xtInfo) text(at, n int) string {
	s, _, _ := strings.Cut(string(x.bytes(at, n)), "\x00")
	return s
}

// addr is an address in the kernel's room for either family (nf_inet_addr).
func (x *xtInfo) addr(at int) netip.Addr {
	if x.ip6 {
		return netip.AddrFrom16([16]byte(x.bytes(at, 16)))
	}
	return x.ip4(at)
}

// network is an address with its mask, as iptables writes it.
func (x *xtInfo) network(at, mask int) string {
	bits := 0
	m := x.addr(mask).AsSlice()
	for _, b := range m {
		for i := 7; i >= 0 && b&(1<<i) != 0; i-- {
			bits++
		}
	}
	p := netip.PrefixFrom(x.addr(at), bits)
	if !slices.Equal(maskOf(p), m) {
		a, _ := netip.AddrFromSlice(m)
		return x.addr(at).String() + "/" + a.String()
	}
	return p.String()
}

// maskOf is the mask of a prefix.
func maskOf(p netip.Prefix) []byte {
	out := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		out[i/8] |= 1 << (7 - i%8)
	}
	return out
}

// nftNetwork is an address with its mask as nft writes it: without the length of
// a whole address.
func nftNetwork(s string) string {
	if p, err := netip.ParsePrefix(s); err == nil && p.Bits() == p.Addr().BitLen() {
		return p.Addr().String()
	}
	return s
}

// not puts iptables' mark for the opposite before an option.
func not(inverted bool, option string) string {
	if inverted {
		return "! " + option
	}
	return option
}

// notEqual is nft's operator for the opposite, with a blank behind it.
func notEqual(inverted bool) string {
	if inverted {
		return "!= "
	}
	return ""
}

// ranged writes numbers from lo to hi with a separator between, or one.
func ranged[N uint8 | uint16 | uint32](lo, hi N, separator string) string {
	if lo == hi {
		return fmt.Sprint(lo)
	}
	return fmt.Sprintf("%d%s%d", lo, separator, hi)
}

// xtQuote quotes text for iptables where it needs that.
func xtQuote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \"'\\\t") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// words puts an extension into words; false where it is not understood.
func (c Compat) words() (xtWords, bool) {
	table := xtMatches
	if c.Target {
		table = xtTargets
	}
	read, ok := table[c.Name]
	if !ok {
		return xtWords{}, false
	}
	x := &xtInfo{data: c.Info, revision: c.Revision, ip6: c.Family == FamilyIP6, proto: c.Proto}
	w, ok := read(x)
	return w, ok && !x.short
}

// IPTables writes the extension in the words of iptables-save ("-m multiport
// --dports 80,443"); false where it is not understood.
func (c Compat) IPTables() (string, bool) {
	w, ok := c.words()
	flag, name := "-m ", c.Name
	if c.Target {
		flag = "-j "
	}
	if c.Name == "conntrack" && strings.Contains(w.save, "--state ") {
		// One module has both names.
		name = "state"
	}
	return joined(flag+name, w.save), ok
}
