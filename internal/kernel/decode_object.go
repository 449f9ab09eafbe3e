package kernel

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

const (
	nftaObjHandle   = 6
	nftaObjUserdata = 8
)

// objectStates read what an object of a kind holds; they return nil for what
// they do not understand.
var objectStates = map[rs.Type]func(attrs) rs.Part{
	"counter": func(as attrs) rs.Part {
		return rs.Counter{Packets: as.u64(unix.NFTA_COUNTER_PACKETS), Bytes: as.u64(unix.NFTA_COUNTER_BYTES)}
	},
	"quota": func(as attrs) rs.Part {
		if q, ok := decodeQuota(as); ok {
			return q
		}
		return nil
	},
	"limit": func(as attrs) rs.Part {
		if l, ok := decodeLimit(as); ok {
			return l
		}
		return nil
	},
	"synproxy": func(as attrs) rs.Part {
		if s, ok := decodeSynproxy(as); ok {
			return s
		}
		return nil
	},
	"ct helper":      ctHelper,
	"ct timeout":     ctTimeout,
	"ct expectation": ctExpectation,
	"secmark":        func(as attrs) rs.Part { return rs.SecMark{Context: as.str(1)} },
}

// decodeObject reads a named object.
func decodeObject(as attrs) rs.Object {
	number := as.u32(unix.NFTA_OBJ_TYPE)
	kind, ok := objectTypes[number]
	if !ok {
		kind = rs.Type(fmt.Sprintf("object_type_%d", number))
	}
	data := as.bytes(unix.NFTA_OBJ_DATA)
	o := rs.Object{
		Kind: string(kind), Name: as.str(unix.NFTA_OBJ_NAME), Handle: as.u64(nftaObjHandle),
		Comment: readComment(as.bytes(nftaObjUserdata), udataObjectComment), State: rs.Opaque{Name: string(kind), Data: string(data)},
	}
	inside, err := parseAttrs(data)
	if read := objectStates[kind]; read != nil && err == nil {
		if state := read(inside); state != nil {
			o.State = state
		}
	}
	return o
}

// familyWords are nft's words for the families that an object is for.
func familyWord(n uint16) string {
	if n > 255 {
		return fmt.Sprint(n)
	}
	if f, ok := familyByNum[uint8(n)]; ok {
		return string(f)
	}
	return fmt.Sprint(n)
}

func ctHelper(as attrs) rs.Part {
	const name, l3, l4 = 1, 2, 3
	family, _ := as.get(l3)
	proto, _ := as.get(l4)
	return rs.HelperObject{Helper: as.str(name), Protocol: rs.ProtoName(proto.u8()), L3: familyWord(family.u16())}
}

func ctExpectation(as attrs) rs.Part {
	const l3, l4, port, timeout, size = 1, 2, 3, 4, 5
	family, _ := as.get(l3)
	proto, _ := as.get(l4)
	dport, _ := as.get(port)
	n, _ := as.get(size)
	e := rs.ExpectationObject{Protocol: rs.ProtoName(proto.u8()), L3: familyWord(family.u16()), Port: dport.u16(), Size: n.u8()}
	// The only number here that the kernel gives in its own byte order.
	if b := as.bytes(timeout); len(b) == 4 {
		e.Timeout = binary.NativeEndian.Uint32(b)
	}
	return e
}

// stateTimeout is a state of connections with the time that nft takes for its
// default (timeout_protocol in nft's rule.c).
type stateTimeout struct {
	name    string
	seconds uint32
}

// timeoutStates are the states of a protocol's connections in the kernel's order
// (linux/netfilter/nfnetlink_cttimeout.h).
var timeoutStates = map[uint8][]stateTimeout{
	rs.ProtoTCP: {
		{"syn_sent", 120}, {"syn_recv", 60}, {"established", 432000}, {"fin_wait", 120}, {"close_wait", 60}, {"last_ack", 30},
		{"time_wait", 120}, {"close", 10}, {"syn_sent2", 120}, {"retrans", 300}, {"unack", 300},
	},
	rs.ProtoUDP: {{"unreplied", 30}, {"replied", 120}},
}

func ctTimeout(as attrs) rs.Part {
	const l3, l4, data = 1, 2, 3
	family, _ := as.get(l3)
	proto, _ := as.get(l4)
	times, _ := as.get(data)
	states, known := timeoutStates[proto.u8()]
	if !known {
		return nil
	}
	c := rs.TimeoutObject{Protocol: rs.ProtoName(proto.u8()), L3: familyWord(family.u16())}
	inside := times.nested()
	for i, s := range states {
		if n, ok := inside.get(uint16(i + 1)); ok && n.u32() != s.seconds {
			c.Policy = append(c.Policy, rs.StateTimeout{State: s.name, Seconds: n.u32()})
		}
	}
	return c
}

// decodeFlowtable reads a flow table.
func decodeFlowtable(as attrs) rs.Flowtable {
	const name, hook, handle, flags = 2, 3, 5, 7
	const priority, devices = 2, 3
	h, _ := as.get(hook)
	inside := h.nested()
	t := rs.Flowtable{
		Name: as.str(name), Handle: as.u64(handle), Hook: rs.HookIngress, Priority: int32(inside.u32(priority)),
	}
	list, _ := inside.get(devices)
	for _, d := range list.nested() {
		t.Devices = append(t.Devices, d.str())
	}
	for i, w := range []string{"offload", "counter"} {
		if as.u32(flags)&(1<<i) != 0 {
			t.Flags = append(t.Flags, w)
		}
	}
	if rest := as.u32(flags) &^ 3; rest != 0 {
		t.Flags = append(t.Flags, fmt.Sprintf("0x%x", rest))
	}
	return t
}
