package inspect

import (
	"net/netip"
	"slices"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// Flow is a kind of connection that a network lives by.
type Flow string

// The flows.
const (
	// FlowPublished is from outside to a published port.
	FlowPublished Flow = "published"
	// FlowOutgoing is from a container to the outside.
	FlowOutgoing Flow = "outgoing"
	// FlowNeighbours is between two containers of one network. The IP hooks see it
	// only where bridged frames are sent there.
	FlowNeighbours Flow = "neighbours"
)

var flows = []Flow{FlowPublished, FlowOutgoing, FlowNeighbours}

// stage is one kind of packet of a flow.
type stage struct {
	// inward packets go to the container, others come from it.
	inward, reply bool
	state         uint32
}

// stages are the packets that have to pass for a flow to work.
var stages = map[Flow][]stage{
	FlowPublished: {
		{true, false, ruleset.StateNew},
		{true, false, ruleset.StateEstablished},
		{false, true, ruleset.StateEstablished},
	},
	FlowOutgoing: {
		{false, false, ruleset.StateNew},
		{false, false, ruleset.StateEstablished},
		{true, true, ruleset.StateEstablished},
	},
	FlowNeighbours: {
		{true, false, ruleset.StateNew},
		{true, false, ruleset.StateEstablished},
	},
}

// asked says whether a network has such connections of a family.
func (f Flow) asked(h Host, site Site, v6 bool) bool {
	if !site.has(v6) {
		return false
	}
	if f == FlowNeighbours {
		return h.sysctls(v6).Bridged && !site.Isolated
	}
	return !site.Internal
}

// Packets below this priority at prerouting are not tracked yet
// (NF_IP_PRI_CONNTRACK in linux/netfilter_ipv4.h).
const priorityConntrack int32 = -200

// tracked says whether connections are known where a chain is called, and
// translated whether destinations are translated there.
func tracked(b *BaseChain) bool {
	return b.Chain.Base.Hook != ruleset.HookPrerouting || b.At > priorityConntrack
}

func translated(b *BaseChain) bool {
	return b.Chain.Base.Hook != ruleset.HookPrerouting || b.At > ruleset.PriorityDstNAT
}

// question is a flow of one network and one family. Where it is to published
// ports it is about those; where there are none, about any.
type question struct {
	around *around
	site   Site
	flow   Flow
	v6     bool
	ports  []Port
}

// questions are those that are put to every chain: by family, network and flow.
func questions(h Host) []question {
	a := newAround(h)
	var out []question
	for _, v6 := range []bool{false, true} {
		for _, site := range h.Sites {
			for _, f := range flows {
				if f.asked(h, site, v6) {
					out = append(out, newQuestion(a, site, f, v6))
				}
			}
		}
	}
	return out
}

func newQuestion(a *around, site Site, f Flow, v6 bool) question {
	q := question{around: a, site: site, flow: f, v6: v6}
	if f != FlowPublished {
		return q
	}
	for _, p := range site.Ports {
		if p.Container.Addr().Is6() == v6 {
			q.ports = append(q.ports, p)
		}
	}
	return q
}

// perPort splits a question up: what cannot be said of all ports together may
// be clear for each.
func (q question) perPort() []question {
	var out []question
	for i := range q.ports {
		one := q
		one.ports = q.ports[i : i+1]
		out = append(out, one)
	}
	return out
}

// each is what is known of something that each port has.
func (q question) each(of func(Port) ruleset.Value) known {
	var values []ruleset.Value
	seen := map[ruleset.Value]bool{}
	for _, p := range q.ports {
		if v := of(p); !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
	}
	return exactly(values...)
}

// meets says whether a base chain sees the question's packets, and enough is
// known of them there: a port that nobody has published yet has no number
// before it is translated.
func (q question) meets(b *BaseChain) bool {
	if q.v6 && !b.IPv6 || !q.v6 && !b.IPv4 {
		return false
	}
	return q.flow != FlowPublished || len(q.ports) > 0 || translated(b)
}

// staged is a question about one stage of its flow.
type staged struct {
	question
	stage
}

// packet is what is known of a stage's packet where a base chain meets it.
func (q question) packet(s stage, b *BaseChain) packet {
	return staged{q, s}.packet(b)
}

func (q staged) packet(b *BaseChain) packet {
	p := packet{}
	q.addInterfaces(p, b.Chain.Base.Hook)
	q.addProtocol(p)
	q.addAddresses(p, translated(b))
	q.addConnection(p, tracked(b), translated(b))
	return p
}

func (q staged) addInterfaces(p packet, h ruleset.Hook) {
	bridge, outside := exactly(ruleset.Iface(q.site.Network.Bridge)), q.around.links
	in, out := bridge, bridge
	switch {
	case q.flow == FlowNeighbours:
	case q.inward:
		in = outside
	default:
		out = outside
	}
	if h == ruleset.HookPrerouting {
		out = exactly(ruleset.Iface(""))
	}
	p[iifname], p[oifname] = in, out
}

func (q staged) addProtocol(p packet) {
	family, ether := ruleset.NFProtoIPv4, uint16(0x0800)
	if q.v6 {
		family, ether = ruleset.NFProtoIPv6, 0x86dd
	}
	p[nfproto] = exactly(ruleset.NFProto(family))
	p[ruleset.Meta{Key: ruleset.MetaProtocol}] = exactly(
		ruleset.Value{Type: ruleset.TypeEtherType, Data: ruleset.Port(ether).Data})
	// The link layer gave it to this host: packets for others are not forwarded.
	p[ruleset.Meta{Key: ruleset.MetaPktType}] = exactly(ruleset.Value{Type: ruleset.TypePktType, Data: "\x00"})
	// Where nothing says what the connection is, it is one of TCP.
	proto := exactly(ruleset.Proto(ruleset.ProtoTCP))
	if len(q.ports) > 0 {
		proto = q.each(func(p Port) ruleset.Value { return ruleset.Proto(p.Proto) })
	}
	for _, x := range []ruleset.Expr{l4proto, ruleset.IPProtocol, ruleset.IP6NextHdr, ruleset.Ct{Key: ruleset.CtProtocol},
		ruleset.Ct{Key: ruleset.CtProtocol, Dir: ruleset.Original}} {
		p[x] = proto
	}
}

func (q staged) addAddresses(p packet, translated bool) {
	container, outside := q.container(), q.around.addrs[q.v6]
	src, dst := ruleset.Expr(ruleset.IPSaddr), ruleset.Expr(ruleset.IPDaddr)
	original := ruleset.CtIPSaddr
	if q.v6 {
		src, dst, original = ruleset.IP6Saddr, ruleset.IP6Daddr, ruleset.CtIP6Saddr
	}
	p[src], p[dst] = container, outside
	if q.inward {
		p[src], p[dst] = outside, container
	}
	if q.inward && !translated {
		// Before it is translated, it is for an address of the host.
		p[dst] = known{}
	}
	if q.flow == FlowNeighbours {
		p[src], p[dst] = container, container
	}
	p[ruleset.Ct{Key: original, Dir: ruleset.Original}] = outside
	if q.flow != FlowPublished {
		p[ruleset.Ct{Key: original, Dir: ruleset.Original}] = container
	}
	q.addPorts(p, translated)
}

func (q staged) addPorts(p packet, translated bool) {
	if len(q.ports) == 0 {
		return
	}
	host := q.each(func(p Port) ruleset.Value { return ruleset.Port(p.Host.Port()) })
	container := q.each(func(p Port) ruleset.Value { return ruleset.Port(p.Container.Port()) })
	p[ruleset.Ct{Key: ruleset.CtProtoDst, Dir: ruleset.Original}] = host
	switch {
	case q.reply:
		p[ruleset.THSport] = container
	case translated:
		p[ruleset.THDport] = container
	default:
		p[ruleset.THDport] = host
	}
}

func (q staged) addConnection(p packet, tracked, translated bool) {
	if !tracked {
		// The kernel calls a packet invalid that it does not know.
		p[ruleset.Ct{Key: ruleset.CtState}] = flags(allFlags, ruleset.StateInvalid)
		return
	}
	p[ruleset.Ct{Key: ruleset.CtState}] = flags(allFlags, q.state)
	status := uint32(0)
	// The first packet becomes one of a translated connection only by then.
	if q.flow == FlowPublished && (translated || q.state != ruleset.StateNew) {
		status = ruleset.StatusDNAT
	}
	p[ruleset.Ct{Key: ruleset.CtStatus}] = flags(ruleset.StatusDNAT, status)
	direction := "\x00"
	if q.reply {
		direction = "\x01"
	}
	p[ruleset.Ct{Key: ruleset.CtDirection}] = exactly(ruleset.Value{Type: ruleset.TypeCtDir, Data: direction})
}

// container is what is known of the container's address.
func (q question) container() known {
	if len(q.ports) > 0 {
		return q.each(func(p Port) ruleset.Value { return ruleset.Addr(p.Container.Addr()) })
	}
	var k known
	for _, s := range q.site.Network.Subnets {
		if s.Prefix.Addr().Is6() == q.v6 {
			k.in = append(k.in, spanOfPrefix(s.Prefix))
		}
	}
	return k
}

// around is what is known of what is no container: by which interfaces it comes
// and goes, and of which addresses it is.
type around struct {
	links known
	addrs map[bool]known
}

func newAround(h Host) *around {
	// Whatever has a name of the driver's kind is no way out, either.
	inside := []ruleset.Value{ruleset.Iface("lo"), {Type: ruleset.TypeIfname, Data: layout.BridgePrefix}}
	subnets := slices.Clone(h.Subnets)
	for _, s := range h.Sites {
		inside = append(inside, ruleset.Iface(s.Network.Bridge))
		for _, n := range s.Network.Subnets {
			subnets = append(subnets, n.Prefix)
		}
	}
	for _, name := range h.Inside {
		inside = append(inside, ruleset.Iface(name))
	}
	a := &around{links: noneOf(inside...), addrs: map[bool]known{}}
	for _, p := range subnets {
		v6 := p.Addr().Is6()
		a.addrs[v6] = known{out: append(a.addrs[v6].out, spanOfPrefix(p))}
	}
	for v6, k := range a.addrs {
		a.addrs[v6] = known{out: merged(k.out)}
	}
	return a
}

func spanOfPrefix(p netip.Prefix) span {
	p = p.Masked()
	return spanOf(ruleset.Addr(p.Addr()), ruleset.Addr(ruleset.LastAddr(p)))
}
