package ruleset

import "slices"

// Native is the rule with the extensions of iptables that say what nftables can
// say itself as nftables' own parts: what they do, not how they are stored. The
// rule itself stays as it is.
func (r Rule) Native() Rule {
	if !slices.ContainsFunc(r.Parts, func(p Part) bool { _, ok := p.(Compat); return ok }) {
		return r
	}
	parts := make([]Part, 0, len(r.Parts))
	for _, p := range r.Parts {
		c, ok := p.(Compat)
		if !ok {
			parts = append(parts, p)
			continue
		}
		if native, ok := c.native(); ok {
			parts = append(parts, native...)
			continue
		}
		parts = append(parts, p)
	}
	r.Parts = parts
	return r
}

// natives turn extensions into parts, by name; those that say more than these
// cases stay what they are.
var natives = map[string]func(*xtInfo) ([]Part, bool){
	"addrtype": nativeAddrtype, "conntrack": nativeConntrack, "state": nativeState, "mark": nativeMark,
	"comment": func(*xtInfo) ([]Part, bool) { return nil, true },
	"DNAT":    nativeNAT(DNAT), "SNAT": nativeNAT(SNAT),
	"MASQUERADE": nativeToHost(func(Value) Part { return Masquerade{} }),
	"REDIRECT":   nativeToHost(func(port Value) Part { return Redirect{Port: port} }),
	"REJECT":     nativeReject,
}

func (c Compat) native() ([]Part, bool) {
	read, ok := natives[c.Name]
	if _, known := c.words(); !ok || !known {
		return nil, false
	}
	x := &xtInfo{data: c.Info, revision: c.Revision, ip6: c.Family == FamilyIP6, proto: c.Proto}
	parts, ok := read(x)
	return parts, ok && !x.short
}

// nativeAddrtype reads one kind of address on one side (struct
// xt_addrtype_info_v1; linux/netfilter/xt_addrtype.h): the kinds are bits, fib
// has their numbers.
func nativeAddrtype(x *xtInfo) ([]Part, bool) {
	const invertSource, invertDest = 1, 2
	var parts []Part
	add := func(flags string, mask uint16, inverted bool) bool {
		if mask == 0 {
			return true
		}
		if mask&(mask-1) != 0 {
			return false
		}
		kind := uint32(0)
		for mask > 1 {
			mask >>= 1
			kind++
		}
		c := Is(Fib{Flags: flags, Result: "type"}, HostUint32(TypeFibAddrType, kind))
		if inverted {
			c.Op = NotEqual
		}
		parts = append(parts, c)
		return true
	}
	flags := x.u32(4)
	invertedSource, invertedDest := flags&invertSource != 0, flags&invertDest != 0
	if x.revision == 0 {
		invertedSource, invertedDest = flags != 0, x.u32(8) != 0
	} else if flags&^(invertSource|invertDest) != 0 {
		return nil, false
	}
	ok := add("saddr", x.u16(0), invertedSource) && add("daddr", x.u16(2), invertedDest)
	return parts, ok && len(parts) > 0
}

// nativeStates turns xt's bits of a connection into nft's (linux/netfilter/
// xt_conntrack.h, nf_conntrack_common.h): those of the states are the same, the
// translations are bits of the status.
func nativeStates(bits uint32) ([]Part, bool) {
	const known, snat, dnat = 1 | 2 | 4 | 8, 64, 128
	switch {
	case bits&^known == 0 && bits != 0:
		return []Part{Has(Ct{Key: CtState}, HostUint32(TypeCtState, bits))}, true
	case bits == snat:
		return []Part{Has(Ct{Key: CtStatus}, HostUint32(TypeCtStatus, 16))}, true
	case bits == dnat:
		return []Part{Has(Ct{Key: CtStatus}, HostUint32(TypeCtStatus, 32))}, true
	}
	return nil, false
}

func nativeState(x *xtInfo) ([]Part, bool) { return nativeStates(x.u32(0)) }

// nativeConntrack reads a match of the state alone.
func nativeConntrack(x *xtInfo) ([]Part, bool) {
	const matches, states = 146, 150
	const bitState, bitAlias = 1, 8192
	if x.u16(matches)&^bitAlias != bitState || x.u16(matches+2)&bitState != 0 {
		return nil, false
	}
	bits := uint32(x.u16(states))
	if x.revision == 1 {
		bits = uint32(x.u8(states))
	}
	return nativeStates(bits)
}

// nativeMark reads struct xt_mark_mtinfo1 (linux/netfilter/xt_mark.h).
func nativeMark(x *xtInfo) ([]Part, bool) {
	mark, mask := HostUint32(TypeMark, x.u32(0)), x.u32(4)
	var left Expr = Meta{Key: MetaMark}
	if mask != 0xffffffff {
		left = Masked{Expr: left, Mask: HostUint32(TypeMark, mask)}
	}
	c := Is(left, mark)
	if x.flag(8) {
		c.Op = NotEqual
	}
	return []Part{c}, x.revision == 1
}

func nativeNAT(kind NATKind) func(*xtInfo) ([]Part, bool) {
	return func(x *xtInfo) ([]Part, bool) {
		compat := x.revision == 0 && !x.ip6
		n, ok := x.natRange(compat)
		if n.flags&^(xtNATAddr|xtNATPort) != 0 || n.lo != n.hi || n.flags&xtNATPort != 0 && n.min != n.max {
			return nil, false
		}
		out := NAT{Kind: kind, Family: "ip"}
		at := 4
		if compat {
			at = 8
		}
		if x.ip6 {
			out.Family = "ip6"
		}
		if n.flags&xtNATAddr != 0 {
			out.Addr = Addr(x.addr(at))
		}
		if n.flags&xtNATPort != 0 {
			out.Port = Port(n.min)
		}
		return []Part{out}, ok && n.flags != 0
	}
}

// nativeToHost reads a translation to an address of the host's own.
func nativeToHost(part func(port Value) Part) func(*xtInfo) ([]Part, bool) {
	return func(x *xtInfo) ([]Part, bool) {
		n, ok := x.natRange(!x.ip6)
		if n.flags&^xtNATPort != 0 || n.flags&xtNATPort != 0 && n.min != n.max {
			return nil, false
		}
		var port Value
		if n.flags&xtNATPort != 0 {
			port = Port(n.min)
		}
		_, redirect := part(port).(Redirect)
		return []Part{part(port)}, ok && (redirect || n.flags == 0)
	}
}

func nativeReject(x *xtInfo) ([]Part, bool) {
	table := xtRejects
	if x.ip6 {
		table = xtRejects6
	}
	n := x.u32(0)
	if int64(n) >= int64(len(table)) {
		return nil, false
	}
	return []Part{Reject{With: table[n].nft}}, true
}
