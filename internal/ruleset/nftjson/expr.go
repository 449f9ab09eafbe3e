package nftjson

import (
	"strings"

	"nftnet/internal/ruleset"
)

// expr is an expression: what a match or a statement reads.
func (p printer) expr(x ruleset.Expr) any {
	switch x := x.(type) {
	case ruleset.Const:
		return alternatives(x.Value)
	case ruleset.ConcatExpr:
		out := make(array, len(x.Parts))
		for i, part := range x.Parts {
			out[i] = p.expr(part)
		}
		return one("concat", out)
	case ruleset.Masked:
		return operation("&", p.expr(x.Expr), alternatives(x.Mask))
	case ruleset.Binary:
		return operation(x.Op, p.expr(x.Left), alternatives(x.Right))
	case ruleset.MapExpr:
		return one("map", p.mapping(x.Key, x.Map, x.Anonymous))
	case ruleset.Payload:
		return one("payload", payload(x))
	case ruleset.Exthdr:
		return exthdr(x)
	}
	return p.ofPacket(x)
}

// ofPacket is an expression about what the kernel knows beside the packet's
// bytes.
func (p printer) ofPacket(x ruleset.Expr) any {
	switch x := x.(type) {
	case ruleset.Meta:
		return one("meta", one("key", string(x.Key)))
	case ruleset.Ct:
		return one("ct", one("key", string(x.Key)).with(x.Dir != "", "dir", string(x.Dir)))
	case ruleset.Fib:
		return one("fib", fib(x))
	case ruleset.Socket:
		return one("socket", one("key", x.Key).with(x.Key == "cgroupv2", "level", uint64(x.Level)))
	case ruleset.Route:
		return one("rt", one("key", x.Key).with(x.Family != "" && x.Key == "nexthop", "family", x.Family))
	case ruleset.OSF:
		key := "name"
		if x.Version {
			key = "version"
		}
		return one("osf", one("key", key).with(x.TTL != "", "ttl", x.TTL))
	case ruleset.IPsec:
		return one("ipsec", ipsec(x))
	case ruleset.Numgen:
		mode := "inc"
		if x.Random {
			mode = "random"
		}
		return one("numgen", object{{"mode", mode}, {"mod", uint64(x.Mod)}, {"offset", uint64(x.Offset)}})
	case ruleset.Hash:
		return p.hash(x)
	}
	return unknown("expression", x.String())
}

func operation(op string, left, right any) object { return one(op, array{left, right}) }

// mapping is a key and where it is looked up (map_expr_json).
func (p printer) mapping(key ruleset.Expr, name string, anonymous *ruleset.Set) object {
	return object{{"key", p.expr(key)}, {"data", p.setRef(name, anonymous)}}
}

// setRef names a set, or is its elements (set_ref_expr_json).
func (p printer) setRef(name string, anonymous *ruleset.Set) any {
	if anonymous != nil {
		return one("set", p.elements(anonymous))
	}
	return "@" + name
}

func payload(x ruleset.Payload) object {
	if x.Field == "" {
		return object{{"base", string(x.Base)}, {"offset", uint64(x.Offset * 8)}, {"len", uint64(x.Length * 8)}}
	}
	return object{{"protocol", x.Proto}, {"field", x.Field}}
}

// exthdr is an optional header or option (exthdr_expr_json).
func exthdr(x ruleset.Exthdr) object {
	kind := string(x.Kind)
	if x.Kind == ruleset.ExthdrIP6 {
		kind = "exthdr"
	}
	if x.Unnamed() {
		return one(kind, object{{"base", uint64(x.Number)}, {"offset", uint64(x.Offset * 8)}, {"len", uint64(x.Length * 8)}})
	}
	return one(kind, one("name", x.Name).with(!x.Exists, "field", x.Field))
}

func fib(x ruleset.Fib) object {
	result := x.Result
	if result == "check" {
		// nft tells this from the interface by what it is compared with.
		result = "oif"
	}
	return object{{"result", result}, {"flags", texts(strings.Split(x.Flags, " . "))}}
}

// ipsec splits nft's words for an address into family and key.
func ipsec(x ruleset.IPsec) object {
	family, key, found := strings.Cut(x.Key, " ")
	if !found {
		family, key = "", x.Key
	}
	return append(one("key", key).with(family != "", "family", family),
		object{{"dir", x.Dir}, {"spnum", uint64(x.Policy)}}...)
}

func (p printer) hash(x ruleset.Hash) object {
	o := one("mod", uint64(x.Mod)).with(x.HasSeed, "seed", uint64(x.Seed)).with(x.Offset != 0, "offset", uint64(x.Offset))
	if x.Of == nil {
		return one("symhash", o)
	}
	return one("jhash", append(o, member{"expr", p.expr(x.Of)}))
}

// unknown is what has no place in nft's schema.
func unknown(name, data string) object { return one("unknown", object{{"name", name}, {"data", data}}) }
