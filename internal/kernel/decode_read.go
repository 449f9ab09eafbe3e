package kernel

import (
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

func (d *ruleDecoder) meta(as attrs, raw rs.Opaque) bool {
	key, ok := metaByNumber[as.u32(unix.NFTA_META_KEY)]
	if !ok {
		return false
	}
	m := rs.Meta{Key: key}
	if as.has(unix.NFTA_META_SREG) {
		return !as.has(unix.NFTA_META_DREG) && d.mangle(m, loadSize(m), as.u32(unix.NFTA_META_SREG))
	}
	d.load(as.u32(unix.NFTA_META_DREG), loaded{expr: m, size: loadSize(m)}, raw)
	return true
}

var payloadByNumber = map[uint32]rs.Header{
	unix.NFT_PAYLOAD_LL_HEADER: rs.LinkHeader, unix.NFT_PAYLOAD_NETWORK_HEADER: rs.NetworkHeader,
	unix.NFT_PAYLOAD_TRANSPORT_HEADER: rs.TransportHeader, 3: rs.InnerHeader, // NFT_PAYLOAD_INNER_HEADER
}

// The bounds of what an expression may read: the size of the kernel's registers
// in bytes, and one for offsets that keeps them from overflowing.
const registerFile, maxOffset = 64, 1 << 16

func (d *ruleDecoder) payload(as attrs, raw rs.Opaque) bool {
	base, ok := payloadByNumber[as.u32(unix.NFTA_PAYLOAD_BASE)]
	offset, length := as.u32(unix.NFTA_PAYLOAD_OFFSET), as.u32(unix.NFTA_PAYLOAD_LEN)
	if !ok || length == 0 || length > registerFile || offset > maxOffset || as.has(unix.NFTA_PAYLOAD_DREG) == as.has(unix.NFTA_PAYLOAD_SREG) {
		return false
	}
	p := d.field(base, int(offset), int(length))
	if as.has(unix.NFTA_PAYLOAD_SREG) {
		// The attributes for checksums follow from the place.
		return d.setField(p, as.u32(unix.NFTA_PAYLOAD_SREG))
	}
	if as.has(unix.NFTA_PAYLOAD_CSUM_TYPE) || as.has(unix.NFTA_PAYLOAD_CSUM_OFFSET) || as.has(nftaPayloadCsumFlags) {
		return false
	}
	d.load(as.u32(unix.NFTA_PAYLOAD_DREG), loaded{expr: p, size: int(length)}, raw)
	return true
}

func isAddr(x rs.Expr) bool { return x.Type() == rs.TypeIPv4Addr || x.Type() == rs.TypeIPv6Addr }

// exthdrKinds are the kinds of options by the number of the operation that reads
// them (enum nft_exthdr_op).
var exthdrKinds = []rs.ExthdrKind{rs.ExthdrIP6, rs.ExthdrTCP, rs.ExthdrIP, rs.ExthdrSCTP, rs.ExthdrDCCP}

func (d *ruleDecoder) exthdr(as attrs, raw rs.Opaque) bool {
	op, offset, length := as.u32(unix.NFTA_EXTHDR_OP), as.u32(unix.NFTA_EXTHDR_OFFSET), as.u32(unix.NFTA_EXTHDR_LEN)
	number, _ := as.get(unix.NFTA_EXTHDR_TYPE)
	flags := as.u32(unix.NFTA_EXTHDR_FLAGS)
	if int(op) >= len(exthdrKinds) || offset > maxOffset || length > registerFile || flags&^unix.NFT_EXTHDR_F_PRESENT != 0 {
		return false
	}
	kind := exthdrKinds[op]
	switch present := flags != 0; {
	case as.has(nftaExthdrSreg):
		x, ok := optionAt(kind, number.u8(), int(offset), int(length))
		return ok && !present && !as.has(unix.NFTA_EXTHDR_DREG) && d.mangle(x, int(length), as.u32(nftaExthdrSreg))
	case !as.has(unix.NFTA_EXTHDR_DREG):
		x, ok := rs.OptionExists(kind, number.u8())
		if ok = ok && kind == rs.ExthdrTCP && !present && length == 0; ok {
			d.needs(x)
			d.add(rs.ResetOption{Option: x})
		}
		return ok
	case present:
		x, ok := rs.OptionExists(kind, number.u8())
		if ok {
			d.load(as.u32(unix.NFTA_EXTHDR_DREG), loaded{expr: x, size: 1}, raw)
		}
		return ok
	}
	x, ok := optionAt(kind, number.u8(), int(offset), int(length))
	if !ok {
		// A field of some bits of these bytes has a name perhaps.
		x = rs.Exthdr{Kind: kind, Number: number.u8(), Offset: int(offset), Length: int(length), Typ: rs.TypeInteger}
		if length == 0 {
			return false
		}
	}
	d.load(as.u32(unix.NFTA_EXTHDR_DREG), loaded{expr: x, size: int(length)}, raw)
	return true
}

// optionAt names what lies at a place of an option.
func optionAt(kind rs.ExthdrKind, number uint8, offset, length int) (rs.Exthdr, bool) {
	if x, ok := rs.OptionField(kind, number, offset*8, length*8); ok {
		return x, true
	}
	return rs.RawOption(number, offset, length), kind == rs.ExthdrTCP && length > 0
}

func (d *ruleDecoder) ct(as attrs, raw rs.Opaque) bool {
	key, ok := ctByNumber[as.u32(unix.NFTA_CT_KEY)]
	if !ok {
		return false
	}
	c := rs.Ct{Key: key}
	if dir, ok := as.get(unix.NFTA_CT_DIRECTION); ok {
		switch dir.u8() {
		case 0:
			c.Dir = rs.Original
		case 1:
			c.Dir = rs.Reply
		default:
			return false
		}
	}
	if as.has(unix.NFTA_CT_SREG) {
		return !as.has(unix.NFTA_CT_DREG) && d.mangle(c, loadSize(c), as.u32(unix.NFTA_CT_SREG))
	}
	d.load(as.u32(unix.NFTA_CT_DREG), loaded{expr: c, size: loadSize(c)}, raw)
	return true
}

// fibFlags are the flags of fib, in nft's order.
var fibFlags = []struct {
	bit  uint32
	name string
}{
	{unix.NFTA_FIB_F_SADDR, "saddr"}, {unix.NFTA_FIB_F_DADDR, "daddr"}, {unix.NFTA_FIB_F_MARK, "mark"},
	{unix.NFTA_FIB_F_IIF, "iif"}, {unix.NFTA_FIB_F_OIF, "oif"},
}

func (d *ruleDecoder) fib(as attrs, raw rs.Opaque) bool {
	x, ok := decodeFib(as.u32(unix.NFTA_FIB_RESULT), as.u32(unix.NFTA_FIB_FLAGS))
	if ok {
		d.load(as.u32(unix.NFTA_FIB_DREG), loaded{expr: x, size: loadSize(x)}, raw)
	}
	return ok
}

func decodeFib(result, bits uint32) (rs.Fib, bool) {
	present := bits&unix.NFTA_FIB_F_PRESENT != 0
	bits &^= unix.NFTA_FIB_F_PRESENT
	var flags []string
	for _, f := range fibFlags {
		if bits&f.bit != 0 {
			flags = append(flags, f.name)
			bits &^= f.bit
		}
	}
	x := rs.Fib{Flags: strings.Join(flags, " . ")}
	switch {
	case bits != 0:
		return x, false
	case result == unix.NFT_FIB_RESULT_ADDRTYPE && !present:
		x.Result = "type"
	case result == unix.NFT_FIB_RESULT_OIFNAME && !present:
		x.Result = "oifname"
	case result == unix.NFT_FIB_RESULT_OIF && present:
		x.Result = "check"
	case result == unix.NFT_FIB_RESULT_OIF:
		x.Result = "oif"
	default:
		return x, false
	}
	return x, true
}

// routeKeys are what rt reads, by number (enum nft_rt_keys).
var routeKeys = []rs.Route{
	{Key: "classid"}, {Key: "nexthop", Family: "ip"}, {Key: "nexthop", Family: "ip6"}, {Key: "mtu"}, {Key: "ipsec"},
}

// Sizes of what rt reads: nft_rt_get_eval stores the size of a segment in two
// bytes, and whether there is a transformation in one.
func routeSize(r rs.Route) int {
	switch r.Key {
	case "mtu":
		return 2
	case "ipsec":
		return 1
	}
	return loadSize(r)
}

func (d *ruleDecoder) route(as attrs, raw rs.Opaque) bool {
	const dreg, key = 1, 2
	n := as.u32(key)
	if !as.has(key) || int(n) >= len(routeKeys) {
		return false
	}
	r := routeKeys[n]
	d.load(as.u32(dreg), loaded{expr: r, size: routeSize(r)}, raw)
	return true
}

// socketKeys are what socket reads, by number (enum nft_socket_keys).
var socketKeys = []string{"transparent", "mark", "wildcard", "cgroupv2"}

func (d *ruleDecoder) socket(as attrs, raw rs.Opaque) bool {
	const key, dreg, level = 1, 2, 3
	n := as.u32(key)
	if !as.has(key) || int(n) >= len(socketKeys) {
		return false
	}
	s := rs.Socket{Key: socketKeys[n], Level: as.u32(level)}
	d.load(as.u32(dreg), loaded{expr: s, size: socketSize(s)}, raw)
	return true
}

func socketSize(s rs.Socket) int {
	return max(map[string]int{"mark": 4, "cgroupv2": 8}[s.Key], 1)
}

// osfTTL are nft's words for how osf looks at the time to live
// (linux/netfilter/nfnetlink_osf.h, NF_OSF_TTL_*).
var osfTTL = []string{"", "loose", "skip"}

// osfNameSize is NFT_OSF_MAXGENRELEN.
const osfNameSize = 16

func (d *ruleDecoder) osf(as attrs, raw rs.Opaque) bool {
	const dreg, ttl, flags = 1, 2, 3
	t, _ := as.get(ttl)
	if int(t.u8()) >= len(osfTTL) || as.u32(flags)&^1 != 0 {
		return false
	}
	d.load(as.u32(dreg), loaded{expr: rs.OSF{TTL: osfTTL[t.u8()], Version: as.u32(flags) != 0}, size: osfNameSize}, raw)
	return true
}

// ipsecKeys are what xfrm reads, by number (enum nft_xfrm_keys).
var ipsecKeys = []string{"", "ip daddr", "ip6 daddr", "ip saddr", "ip6 saddr", "reqid", "spi"}

func (d *ruleDecoder) ipsec(as attrs, raw rs.Opaque) bool {
	const dreg, key, dir, spnum = 1, 2, 3, 4
	n, way := as.u32(key), as.bytes(dir)
	if n == 0 || int(n) >= len(ipsecKeys) || len(way) != 1 || way[0] > 1 {
		return false
	}
	x := rs.IPsec{Dir: []string{"in", "out"}[way[0]], Policy: as.u32(spnum), Key: ipsecKeys[n]}
	d.load(as.u32(dreg), loaded{expr: x, size: loadSize(x)}, raw)
	return true
}

func (d *ruleDecoder) numgen(as attrs, raw rs.Opaque) bool {
	kind := as.u32(unix.NFTA_NG_TYPE)
	if kind > unix.NFT_NG_RANDOM {
		return false
	}
	n := rs.Numgen{Random: kind == unix.NFT_NG_RANDOM, Mod: as.u32(unix.NFTA_NG_MODULUS), Offset: as.u32(unix.NFTA_NG_OFFSET)}
	d.load(as.u32(unix.NFTA_NG_DREG), loaded{expr: n, size: 4}, raw)
	return true
}

func (d *ruleDecoder) hash(as attrs, raw rs.Opaque) bool {
	const symmetric = 1 // NFT_HASH_SYM
	h := rs.Hash{Mod: as.u32(unix.NFTA_HASH_MODULUS), Offset: as.u32(unix.NFTA_HASH_OFFSET)}
	l := loaded{size: 4}
	switch as.u32(nftaHashType) {
	case 0:
		key, ok := d.key(as.u32(unix.NFTA_HASH_SREG), int(as.u32(unix.NFTA_HASH_LEN)), false)
		if !ok {
			return false
		}
		h.Of, l.parts = key.expr, key.parts
		h.Seed, h.HasSeed = as.u32(unix.NFTA_HASH_SEED), as.has(unix.NFTA_HASH_SEED)
	case symmetric:
		if as.has(unix.NFTA_HASH_SREG) || as.has(unix.NFTA_HASH_SEED) {
			return false
		}
	default:
		return false
	}
	l.expr = h
	d.load(as.u32(unix.NFTA_HASH_DREG), l, raw)
	return true
}
