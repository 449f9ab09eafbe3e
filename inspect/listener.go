package inspect

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/ruleset"
)

// Listening is who waits for clients on this host: all sockets of TCP and UDP
// that do.
type Listening struct{ Sockets []Listener }

// Listener is a socket that waits for clients.
type Listener struct {
	// Proto is tcp or udp.
	Proto string
	Addr  netip.AddrPort
	// Process is the zero value where it cannot be seen whose the socket is.
	Process Process
}

// door is a port of this host to which a rule lets packets.
type door struct {
	proto string
	port  uint16
	// to is the only address that packets go to, zero for any of this host's.
	to netip.Addr
}

// listeners says who answers where the rule sends packets to a port of this
// host, or lets them to one.
func (s *scope) listeners() []Note {
	if s.m.names.listening == nil {
		return nil
	}
	var out []Note
	for _, d := range s.doors() {
		out = append(out, Note{Level: Info, Topic: TopicListener, Sentence: s.m.answers(d, s.in.Family)})
	}
	return out
}

// doors are the ports of this host that the rule leads to; none where that is
// not sure, and no more than are read with pleasure.
func (s *scope) doors() []door {
	proto, ports := s.asked()
	if proto == "" || len(s.rule.Parts) == 0 {
		return nil
	}
	var out []door
	switch last := s.rule.Parts[len(s.rule.Parts)-1].(type) {
	case ruleset.Redirect:
		if last.PortEnd.Data != "" || last.To != nil {
			return nil
		}
		if p, ok := last.Port.Uint(); ok {
			ports = []uint16{uint16(p)}
		}
		for _, p := range ports {
			out = append(out, door{proto: proto, port: p})
		}
	case ruleset.NAT:
		to, ok := last.Addr.Addr()
		p, given := last.Port.Uint()
		if !ok || !to.IsLoopback() || last.Kind != ruleset.DNAT || last.AddrEnd.Data != "" || last.PortEnd.Data != "" || last.Key != nil || last.To != nil {
			return nil
		}
		if given {
			ports = []uint16{uint16(p)}
		}
		for _, p := range ports {
			out = append(out, door{proto, p, to})
		}
	case ruleset.Compat:
		// What iptables redirects it stores as an extension of its own.
		words, _ := last.IPTables()
		to, ok := strings.CutPrefix(words, "-j REDIRECT --to-ports ")
		if p, err := strconv.ParseUint(to, 10, 16); ok && err == nil {
			out = append(out, door{proto: proto, port: uint16(p)})
		}
	case ruleset.Verdict:
		if last.Kind != ruleset.Accept || !s.atInput() {
			return nil
		}
		for _, p := range ports {
			out = append(out, door{proto: proto, port: p})
		}
	}
	if len(out) > listed {
		return nil
	}
	return out
}

// asked is the protocol that the rule asks for, tcp or udp, and the destination
// ports, where it names them one by one.
func (s *scope) asked() (proto string, ports []uint16) {
	for _, part := range s.rule.Parts {
		switch p := part.(type) {
		case ruleset.Compare:
			if p.Op != ruleset.Equal {
				continue
			}
			if to, ok := destinationPort(p.Left); ok {
				if n, ok := p.Right.Uint(); ok {
					proto, ports = to, []uint16{uint16(n)}
				}
			}
			if p.Right.Type == ruleset.TypeInetProto {
				if name := p.Right.String(); name == "tcp" || name == "udp" {
					proto = name
				}
			}
		case ruleset.Lookup:
			if to, ok := destinationPort(p.Left); ok && p.Op == ruleset.Equal {
				proto, ports = to, members(p.Anonymous)
			}
		}
	}
	return proto, ports
}

// destinationPort says whether a match reads the destination port of tcp or
// udp.
func destinationPort(x ruleset.Expr) (proto string, ok bool) {
	for _, proto := range []string{"tcp", "udp"} {
		if field, known := ruleset.Field(proto, "dport"); known && x == ruleset.Expr(field) {
			return proto, true
		}
	}
	return "", false
}

// members are the ports of a set without a name; none where there are ranges.
func members(set *ruleset.Set) []uint16 {
	if set == nil {
		return nil
	}
	var out []uint16
	for _, e := range set.Elements {
		n, ok := e.Key.Uint()
		if !ok || e.End.Data != "" || e.CatchAll {
			return nil
		}
		out = append(out, uint16(n))
	}
	return out
}

// atInput says whether all packets that the rule sees are for this host.
func (s *scope) atInput() bool {
	return len(s.info.from) > 0 && !s.info.guessed && !slices.ContainsFunc(s.info.from, func(b *BaseChain) bool {
		return b.Hook.Layer != LayerIP || b.Hook.Hook != ruleset.HookInput
	})
}

// answers says who listens behind a door.
func (m *Model) answers(d door, family ruleset.Family) string {
	port := strconv.Itoa(int(d.port)) + "/" + d.proto
	var programs []string
	for _, l := range m.names.listening.Sockets {
		if l.Proto != d.proto || l.Addr.Port() != d.port || !hears(l.Addr.Addr(), d.to, family) {
			continue
		}
		words := m.say.Say("listen.unseen")
		if l.Process.PID != 0 {
			words = m.say.Say("listen.program", "process", l.Process.Name, "pid", strconv.Itoa(l.Process.PID))
		}
		if !l.Addr.Addr().IsUnspecified() {
			words = m.say.Say("listen.at", "program", words, "addr", l.Addr.Addr().String())
		}
		programs = append(programs, words)
	}
	if len(programs) == 0 {
		return m.say.Say("listen.nothing", "port", port)
	}
	return m.say.Say("listen.by", "port", port, "programs", m.say.And(m.shortened(unique(programs))))
}

// hears says whether a socket at an address may take packets of a family of
// tables, to an address where there is only one. A socket of every IPv6 address
// takes IPv4, too.
func hears(own, to netip.Addr, family ruleset.Family) bool {
	switch {
	case own == netip.IPv6Unspecified():
		return true
	case to.IsValid():
		return own == to || own.IsUnspecified() && own.Is4() == to.Is4()
	}
	return family != ruleset.FamilyIP && family != ruleset.FamilyIP6 || own.Is4() == (family == ruleset.FamilyIP)
}
