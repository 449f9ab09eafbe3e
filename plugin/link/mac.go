package link

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// BridgeMAC returns the MAC address of a network's bridge. It depends on the
// network's id alone: a bridge without an address of its own takes the lowest of
// its ports (br_stp_recalculate_bridge_id of the kernel), which changes as
// containers come and go, and with it the address of everybody's gateway.
func BridgeMAC(networkID string) net.HardwareAddr { return derivedMAC("nftnet bridge " + networkID) }

// vethMAC returns the MAC address of the host's end of an endpoint's veth pair,
// by which the driver finds the link under another name.
func vethMAC(endpointID string) net.HardwareAddr { return derivedMAC("nftnet veth " + endpointID) }

// derivedMAC returns a locally administered unicast address (IEEE 802c, bits 1
// and 0 of the first byte).
func derivedMAC(seed string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(seed))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// linkLocal returns the IPv6 link-local address that belongs to a MAC address
// (modified EUI-64, RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.AddrFrom16(a)
}
