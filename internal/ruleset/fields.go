package ruleset

// The fields that the vocabulary names.
var (
	IPSaddr    = named("ip", "saddr", NetworkHeader, 12, 4, TypeIPv4Addr)
	IPDaddr    = named("ip", "daddr", NetworkHeader, 16, 4, TypeIPv4Addr)
	IPProtocol = named("ip", "protocol", NetworkHeader, 9, 1, TypeInetProto)
	IPLength   = named("ip", "length", NetworkHeader, 2, 2, TypeInteger)
	IPTTL      = named("ip", "ttl", NetworkHeader, 8, 1, TypeInteger)

	IP6Saddr    = named("ip6", "saddr", NetworkHeader, 8, 16, TypeIPv6Addr)
	IP6Daddr    = named("ip6", "daddr", NetworkHeader, 24, 16, TypeIPv6Addr)
	IP6NextHdr  = named("ip6", "nexthdr", NetworkHeader, 6, 1, TypeInetProto)
	IP6HopLimit = named("ip6", "hoplimit", NetworkHeader, 7, 1, TypeInteger)

	THSport = named("th", "sport", TransportHeader, 0, 2, TypeInetService)
	THDport = named("th", "dport", TransportHeader, 2, 2, TypeInetService)

	EtherSaddr = named("ether", "saddr", LinkHeader, 6, 6, TypeEtherAddr)
	EtherDaddr = named("ether", "daddr", LinkHeader, 0, 6, TypeEtherAddr)
	VlanType   = named("vlan", "type", LinkHeader, 2, 2, TypeEtherType)
	EtherType  = named("ether", "type", LinkHeader, 12, 2, TypeEtherType)
)

// fields lists the named places of each header, by the protocol whose header
// it is, in the order in which nft numbers them (its include/proto.h).
var fields = map[string][]Payload{
	"ether": {EtherDaddr, EtherSaddr, EtherType},
	"vlan": {
		bits("vlan", "pcp", LinkHeader, 0, 3, TypeInteger), bits("vlan", "dei", LinkHeader, 3, 1, TypeInteger),
		bits("vlan", "id", LinkHeader, 4, 12, TypeInteger), VlanType,
	},
	"ip": {
		bits("ip", "version", NetworkHeader, 0, 4, TypeInteger), bits("ip", "hdrlength", NetworkHeader, 4, 4, TypeInteger),
		bits("ip", "dscp", NetworkHeader, 8, 6, TypeDSCP), bits("ip", "ecn", NetworkHeader, 14, 2, TypeECN), IPLength,
		network("ip", "id", 4, 2, TypeInteger), network("ip", "frag-off", 6, 2, TypeInteger), IPTTL, IPProtocol,
		network("ip", "checksum", 10, 2, TypeInteger), IPSaddr, IPDaddr,
	},
	"ip6": {
		bits("ip6", "version", NetworkHeader, 0, 4, TypeInteger), bits("ip6", "dscp", NetworkHeader, 4, 6, TypeDSCP),
		bits("ip6", "ecn", NetworkHeader, 10, 2, TypeECN), bits("ip6", "flowlabel", NetworkHeader, 12, 20, TypeInteger),
		network("ip6", "length", 4, 2, TypeInteger), IP6NextHdr, IP6HopLimit, IP6Saddr, IP6Daddr,
	},
	"arp": {
		network("arp", "htype", 0, 2, TypeInteger), network("arp", "ptype", 2, 2, TypeEtherType),
		network("arp", "hlen", 4, 1, TypeInteger), network("arp", "plen", 5, 1, TypeInteger),
		network("arp", "operation", 6, 2, TypeARPOp),
		network("arp", "saddr ether", 8, 6, TypeEtherAddr), network("arp", "daddr ether", 18, 6, TypeEtherAddr),
		network("arp", "saddr ip", 14, 4, TypeIPv4Addr), network("arp", "daddr ip", 24, 4, TypeIPv4Addr),
	},
	"th": {THSport, THDport},
	"tcp": {
		port("tcp", "sport", 0), port("tcp", "dport", 2),
		transport("tcp", "sequence", 4, 4, TypeInteger), transport("tcp", "ackseq", 8, 4, TypeInteger),
		bits("tcp", "doff", TransportHeader, 96, 4, TypeInteger), bits("tcp", "reserved", TransportHeader, 100, 4, TypeInteger),
		transport("tcp", "flags", 13, 1, TypeTCPFlag), transport("tcp", "window", 14, 2, TypeInteger),
		transport("tcp", "checksum", 16, 2, TypeInteger), transport("tcp", "urgptr", 18, 2, TypeInteger),
	},
	"udp": {
		port("udp", "sport", 0), port("udp", "dport", 2),
		transport("udp", "length", 4, 2, TypeInteger), transport("udp", "checksum", 6, 2, TypeInteger),
	},
	"udplite": {
		port("udplite", "sport", 0), port("udplite", "dport", 2),
		transport("udplite", "csumcov", 4, 2, TypeInteger), transport("udplite", "checksum", 6, 2, TypeInteger),
	},
	"sctp": {
		port("sctp", "sport", 0), port("sctp", "dport", 2),
		transport("sctp", "vtag", 4, 4, TypeInteger), transport("sctp", "checksum", 8, 4, TypeInteger),
	},
	"dccp": {port("dccp", "sport", 0), port("dccp", "dport", 2), bits("dccp", "type", TransportHeader, 67, 4, TypeDCCPType)},
	"icmp": {
		transport("icmp", "type", 0, 1, TypeICMPType), transport("icmp", "code", 1, 1, TypeICMPCode),
		transport("icmp", "checksum", 2, 2, TypeInteger), transport("icmp", "id", 4, 2, TypeInteger),
		transport("icmp", "sequence", 6, 2, TypeInteger), transport("icmp", "gateway", 4, 4, TypeInteger),
		transport("icmp", "mtu", 6, 2, TypeInteger),
	},
	"icmpv6": {
		transport("icmpv6", "type", 0, 1, TypeICMPv6Type), transport("icmpv6", "code", 1, 1, TypeICMPv6Code),
		transport("icmpv6", "checksum", 2, 2, TypeInteger), transport("icmpv6", "parameter-problem", 4, 4, TypeInteger),
		transport("icmpv6", "mtu", 4, 4, TypeInteger), transport("icmpv6", "id", 4, 2, TypeInteger),
		transport("icmpv6", "sequence", 6, 2, TypeInteger), transport("icmpv6", "max-delay", 4, 2, TypeInteger),
	},
	"igmp": {
		transport("igmp", "type", 0, 1, TypeIGMPType), transport("igmp", "mrt", 1, 1, TypeInteger),
		transport("igmp", "checksum", 2, 2, TypeInteger), transport("igmp", "group", 4, 4, TypeInteger),
	},
	"ah": {
		transport("ah", "nexthdr", 0, 1, TypeInetProto), transport("ah", "hdrlength", 1, 1, TypeInteger),
		transport("ah", "reserved", 2, 2, TypeInteger), transport("ah", "spi", 4, 4, TypeInteger),
		transport("ah", "sequence", 8, 4, TypeInteger),
	},
	"esp": {
		transport("esp", "spi", 0, 4, TypeInteger), transport("esp", "sequence", 4, 4, TypeInteger),
	},
	"comp": {
		transport("comp", "nexthdr", 0, 1, TypeInetProto), transport("comp", "flags", 1, 1, TypeBitmask), transport("comp", "cpi", 2, 2, TypeInteger),
	},
}

func named(proto, field string, base Header, offset, length int, t Type) Payload {
	return Payload{Proto: proto, Field: field, Base: base, Offset: offset, Length: length, Typ: t}
}

// bits is a field that lies between bytes: offset and length are in bits, as
// RFCs draw headers. It reads the bytes that it touches.
func bits(proto, field string, base Header, offset, length int, t Type) Payload {
	first, last := offset/8, (offset+length-1)/8
	p := named(proto, field, base, first, last-first+1, t)
	p.Shift, p.Bits = (last+1)*8-offset-length, length
	return p
}

func network(proto, field string, offset, length int, t Type) Payload {
	return named(proto, field, NetworkHeader, offset, length, t)
}

func transport(proto, field string, offset, length int, t Type) Payload {
	return named(proto, field, TransportHeader, offset, length, t)
}

func port(proto, field string, offset int) Payload {
	return transport(proto, field, offset, 2, TypeInetService)
}

// place is where a field lies in its header, in bits.
func (p Payload) place() (offset, length int) {
	offset, length = p.Offset*8, p.Length*8
	if p.Bits != 0 {
		return offset + length - p.Shift - p.Bits, p.Bits
	}
	return offset, length
}

// FieldsFrom lists the named fields of protocol proto that begin at an offset of
// its header, in bits, in nft's order.
func FieldsFrom(proto string, base Header, offset int) []Payload {
	var out []Payload
	for _, f := range fields[proto] {
		if at, _ := f.place(); f.Base == base && at == offset {
			out = append(out, f)
		}
	}
	return out
}

// FieldNumber is the field that nft numbers so, beginning with 1.
func FieldNumber(proto string, n int) (Payload, bool) {
	if proto == "vlan" && n > 2 {
		n-- // The bit behind the priority has two names.
	}
	if n < 1 || n > len(fields[proto]) {
		return Payload{}, false
	}
	return fields[proto][n-1], true
}

// Field finds a field by its names in nft ("tcp", "dport").
func Field(proto, name string) (Payload, bool) {
	for _, f := range fields[proto] {
		if f.Field == name {
			return f, true
		}
	}
	return Payload{}, false
}

// RawPayload reads length bytes at a place that has no name.
func RawPayload(base Header, offset, length int) Payload {
	return Payload{Base: base, Offset: offset, Length: length, Typ: TypeInteger}
}

// BitLength is how many bits p reads.
func (p Payload) BitLength() int {
	_, n := p.place()
	return n
}
