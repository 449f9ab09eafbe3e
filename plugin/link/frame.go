package link

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// announcement returns the Ethernet frame that tells everybody on a link which
// MAC address an IP address has.
func announcement(mac net.HardwareAddr, a netip.Addr) []byte {
	if a.Is4() {
		return gratuitousARP(mac, a)
	}
	return unsolicitedNA(mac, a)
}

var (
	everybody = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	// allNodes and allNodesMAC are the multicast addresses of every IPv6 node of a
	// link (RFC 4291, 2.7.1; RFC 2464, 7).
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

func ethernet(to, from net.HardwareAddr, protocol uint16) []byte {
	return binary.BigEndian.AppendUint16(slices.Concat(to, from), protocol)
}

// Fields of ARP (RFC 826).
const (
	arpEthernet = 1
	arpRequest  = 1
)

// gratuitousARP returns an ARP announcement: a request, with the announced
// address as sender and target (RFC 5227, 2.3 and 3).
func gratuitousARP(mac net.HardwareAddr, a netip.Addr) []byte {
	f := ethernet(everybody, mac, unix.ETH_P_ARP)
	f = binary.BigEndian.AppendUint16(f, arpEthernet)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
	f = append(f, byte(len(mac)), 4)
	f = binary.BigEndian.AppendUint16(f, arpRequest)
	nobody := make([]byte, len(mac))
	return slices.Concat(f, mac, a.AsSlice(), nobody, a.AsSlice())
}

// Fields of neighbour discovery (RFC 4861, 4.4 and 4.6.1).
const (
	neighbourAdvertisement  = 136
	flagOverride            = 0x20
	optionTargetLinkAddress = 2
	// neighbourHopLimit shows the receiver that no router forwarded the packet
	// (RFC 4861, 7.1.2).
	neighbourHopLimit = 255
)

// unsolicitedNA returns a neighbour advertisement to all nodes that overrides
// what they know (RFC 4861, 7.2.6).
func unsolicitedNA(mac net.HardwareAddr, a netip.Addr) []byte {
	na := []byte{neighbourAdvertisement, 0, 0, 0, flagOverride, 0, 0, 0}
	na = slices.Concat(na, a.AsSlice(), []byte{optionTargetLinkAddress, 1}, mac)
	binary.BigEndian.PutUint16(na[2:], checksum6(a, allNodes, unix.IPPROTO_ICMPV6, na))

	f := ethernet(allNodesMAC, mac, unix.ETH_P_IPV6)
	f = append(f, 6<<4, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(na)))
	f = append(f, unix.IPPROTO_ICMPV6, neighbourHopLimit)
	return slices.Concat(f, a.AsSlice(), allNodes.AsSlice(), na)
}

// checksum6 returns the Internet checksum of an upper-layer packet and its IPv6
// pseudo-header (RFC 8200, 8.1). The packet's own checksum field must be 0.
func checksum6(from, to netip.Addr, protocol byte, packet []byte) uint16 {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice())
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(packet)))
	pseudo = append(pseudo, 0, 0, 0, protocol)
	var sum uint32
	for _, b := range [][]byte{pseudo, packet} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
