package ruleset

import "strconv"

// Numbers of the kernel that have names in nft, by data type. The values are
// those of the kernel's user-space headers (linux/in.h, nf_conntrack_common.h,
// rtnetlink.h, icmp.h, icmpv6.h).
var symbols = map[Type]map[uint64]string{
	TypeInetProto: {
		1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
		58: "ipv6-icmp", 89: "ospf", 103: "pim", 108: "comp", 132: "sctp", 136: "udplite",
	},
	TypeNFProto: {2: "ipv4", 10: "ipv6"},
	TypeCtState: {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"},
	TypeCtStatus: {
		1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying",
	},
	TypeCtDir: {0: "original", 1: "reply"},
	TypeFibAddrType: {
		0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole",
		7: "unreachable", 8: "prohibit",
	},
	TypePktType: {0: "host", 1: "broadcast", 2: "multicast", 3: "other"},
	TypeTCPFlag: {1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack", 32: "urg", 64: "ecn", 128: "cwr"},
	TypeICMPType: {
		0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request",
		9: "router-advertisement", 10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem",
		13: "timestamp-request", 14: "timestamp-reply", 15: "info-request", 16: "info-reply",
		17: "address-mask-request", 18: "address-mask-reply",
	},
	TypeICMPv6Type: {
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem",
		128: "echo-request", 129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report",
		132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit",
		136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
		142: "ind-neighbor-advert", 143: "mld2-listener-report",
	},
	TypeBoolean:   {0: "missing", 1: "exists"},
	TypeEtherType: {0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "8021q", 0x88a8: "8021ad"},
}

func symbol(t Type, n uint64) (string, bool) {
	s, ok := symbols[t][n]
	return s, ok
}

// The numbers that the vocabulary's own constructors use.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132

	// AF_INET and AF_INET6 as the kernel numbers them (linux/socket.h).
	NFProtoIPv4 uint8 = 2
	NFProtoIPv6 uint8 = 10
)

// ProtoName is the name of a transport protocol, or its number.
func ProtoName(p uint8) string {
	if s, ok := symbol(TypeInetProto, uint64(p)); ok {
		return s
	}
	return strconv.Itoa(int(p))
}

// Connection tracking states (nf_conntrack_common.h), to be or-ed.
const (
	StateInvalid     uint32 = 1
	StateEstablished uint32 = 2
	StateRelated     uint32 = 4
	StateNew         uint32 = 8
)

// StatusDNAT is the conntrack status bit of a connection whose destination was
// translated (IPS_DST_NAT).
const StatusDNAT uint32 = 32

// FibLocal is the address type of the host's own addresses (RTN_LOCAL).
const FibLocal uint32 = 2
