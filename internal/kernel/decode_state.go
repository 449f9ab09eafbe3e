package kernel

import (
	"slices"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

func (d *ruleDecoder) quota(as attrs, _ rs.Opaque) bool {
	q, ok := decodeQuota(as)
	if ok {
		d.add(q)
	}
	return ok
}

func decodeQuota(as attrs) (rs.Quota, bool) {
	const bytes, flags, consumed, invert = 1, 2, 4, 1
	const depleted = 2 // NFT_QUOTA_F_DEPLETED, which the kernel sets by itself
	f := as.u32(flags)
	return rs.Quota{Bytes: as.u64(bytes), Used: as.u64(consumed), Over: f&invert != 0}, f&^(invert|depleted) == 0
}

func (d *ruleDecoder) connlimit(as attrs, _ rs.Opaque) bool {
	const count, flags, invert = 1, 2, 1
	f := as.u32(flags)
	if f&^invert != 0 {
		return false
	}
	d.add(rs.ConnLimit{Count: as.u32(count), Over: f != 0})
	return true
}

func (d *ruleDecoder) last(as attrs, _ rs.Opaque) bool {
	const set, msecs = 1, 2
	d.add(rs.Last{Used: as.u32(set) != 0, Ago: as.u64(msecs)})
	return true
}

// The options of synproxy (linux/netfilter/nf_synproxy.h).
const (
	synproxyMSS       = 1
	synproxyWScale    = 2
	synproxySack      = 4
	synproxyTimestamp = 8
)

func (d *ruleDecoder) synproxy(as attrs, _ rs.Opaque) bool {
	s, ok := decodeSynproxy(as)
	if ok {
		d.add(s)
	}
	return ok
}

func decodeSynproxy(as attrs) (rs.SynProxy, bool) {
	const mss, wscale, flags = 1, 2, 3
	m, _ := as.get(mss)
	w, _ := as.get(wscale)
	f := as.u32(flags)
	return rs.SynProxy{
		MSS: m.u16(), WScale: w.u8(), HasMSS: f&synproxyMSS != 0, HasWScale: f&synproxyWScale != 0,
		SackPerm: f&synproxySack != 0, Timestamp: f&synproxyTimestamp != 0,
	}, f&^(synproxyMSS|synproxyWScale|synproxySack|synproxyTimestamp) == 0
}

func (d *ruleDecoder) objref(as attrs, _ rs.Opaque) bool {
	const kind, name, sreg, setName = 1, 2, 3, 4
	if !as.has(setName) {
		o := rs.ObjectRef{Kind: string(objectTypes[as.u32(kind)]), Name: as.str(name)}
		if o.Kind == "" || as.has(sreg) {
			return false
		}
		d.add(o)
		return true
	}
	set, ok := d.sets[as.str(setName)]
	if !ok || as.has(name) {
		return false
	}
	key, ok := d.key(as.u32(sreg), set.keyLen, slices.Contains(set.Flags, "interval"))
	if !ok {
		return false
	}
	anonymous, _ := d.anonymous(set, &key)
	d.use(key)
	d.needs(key.expr)
	d.add(rs.ObjectRef{Kind: string(set.Data), Key: key.expr, Map: set.Name, Anonymous: anonymous})
	return true
}

// updateWords are nft's words for what a rule does with a set (enum
// nft_dynset_ops).
var updateWords = []string{"add", "update", "delete"}

func (d *ruleDecoder) dynset(as attrs, _ rs.Opaque) bool {
	const flags, several = 9, 2
	op := as.u32(unix.NFTA_DYNSET_OP)
	set, ok := d.sets[as.str(unix.NFTA_DYNSET_SET_NAME)]
	if !ok || int(op) >= len(updateWords) || as.u32(flags)&^several != 0 {
		return false
	}
	key, ok := d.key(as.u32(unix.NFTA_DYNSET_SREG_KEY), set.keyLen, slices.Contains(set.Flags, "interval"))
	if !ok {
		return false
	}
	u := rs.SetUpdate{Op: updateWords[op], Set: set.Name, Key: typedParts(key.expr, set.Key), Timeout: as.u64(unix.NFTA_DYNSET_TIMEOUT)}
	if set.Anonymous {
		u.Meter, u.Size = true, set.Size
	}
	if as.has(unix.NFTA_DYNSET_SREG_DATA) {
		data, ok := d.dataOf(as.u32(unix.NFTA_DYNSET_SREG_DATA), set)
		if !ok {
			return false
		}
		u.Data = typedParts(data.expr, set.Data)
		key.parts = append(slices.Clone(key.parts), data.parts...)
	}
	for _, x := range statefulExprs(as, unix.NFTA_DYNSET_EXPR, nftaDynsetExpressions) {
		u.Parts = append(u.Parts, decodeRule(d.family, nil, []attr{x})...)
	}
	d.use(key)
	d.needs(u.Key)
	if u.Data != nil {
		d.needs(u.Data)
	}
	d.add(u)
	return true
}

// dataOf gathers what a rule puts into a map.
func (d *ruleDecoder) dataOf(reg uint32, set knownSet) (loaded, bool) {
	if l, ok := d.regs[word(reg)]; ok && l.value == nil && l.expr != nil && l.size == set.dataLen {
		l.expr = d.whole(l)
		return l, true
	}
	return d.key(reg, set.dataLen, false)
}

// typedParts gives constants of a key the types that the set has for them.
func typedParts(x rs.Expr, t rs.Type) rs.Expr {
	typed := func(x rs.Expr, t rs.Type) rs.Expr {
		if c, ok := x.(rs.Const); ok {
			c.Value.Type = t
			return c
		}
		return x
	}
	parts := t.Parts()
	switch c := x.(type) {
	case rs.ConcatExpr:
		if len(parts) != len(c.Parts) {
			return x
		}
		out := slices.Clone(c.Parts)
		for i := range out {
			out[i] = typed(out[i], parts[i])
		}
		return rs.ConcatOf(out...)
	case rs.Const:
		return typed(c, t)
	}
	return x
}

func (d *ruleDecoder) queue(as attrs, _ rs.Opaque) bool {
	num, _ := as.get(unix.NFTA_QUEUE_NUM)
	total, _ := as.get(unix.NFTA_QUEUE_TOTAL)
	flags, _ := as.get(unix.NFTA_QUEUE_FLAGS)
	q := rs.Enqueue{From: num.u16(), To: num.u16() + max(total.u16(), 1) - 1}
	for i, w := range []string{"bypass", "fanout"} {
		if flags.u16()&(1<<i) != 0 {
			q.Flags = append(q.Flags, w)
		}
	}
	if flags.u16()&^unix.NFT_QUEUE_FLAG_MASK != 0 {
		return false
	}
	if as.has(unix.NFTA_QUEUE_SREG_QNUM) {
		l, ok := d.register(as, unix.NFTA_QUEUE_SREG_QNUM)
		if !ok || l.expr == nil {
			return false
		}
		q.By = d.whole(l)
		d.use(l)
		d.needs(q.By)
	}
	d.add(q)
	return true
}

func (d *ruleDecoder) flow(as attrs, _ rs.Opaque) bool {
	d.add(rs.FlowAdd{Table: as.str(1)})
	return true
}
