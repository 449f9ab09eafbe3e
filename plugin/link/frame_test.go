package link

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var testMAC = net.HardwareAddr{0x02, 0x42, 0x0a, 0x01, 0x00, 0x02}

// TestAnnouncement holds the frames against the layouts of RFC 826 and 5227,
// and of RFC 8200 and 4861, written out by hand.
func TestAnnouncement(t *testing.T) {
	for _, row := range []struct {
		addr string
		want []string
	}{
		{"10.1.0.2", []string{
			"ffffffffffff", "02420a010002", "0806", // to everybody, from the container: ARP
			"0001", "0800", "06", "04", "0001", // Ethernet, IPv4, lengths, a request
			"02420a010002", "0a010002", // sender
			"000000000000", "0a010002", // target
		}},
		{"fd00:1::2", []string{
			"333300000001", "02420a010002", "86dd", // to all nodes, from the container: IPv6
			"60000000", "0020", "3a", "ff", // version 6, 32 bytes, ICMPv6, hop limit 255
			"fd000001000000000000000000000002", "ff020000000000000000000000000001",
			"88", "00", "5053", "20000000", // advertisement, checksum, override alone
			"fd000001000000000000000000000002",
			"02", "01", "02420a010002", // target link-layer address
		}},
	} {
		want, err := hex.DecodeString(strings.Join(row.want, ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := announcement(testMAC, netip.MustParseAddr(row.addr)); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", row.addr, got, want)
		}
	}
}

// TestChecksum6 checks what a receiver checks: all 16-bit words of a packet and
// its pseudo-header add up to ffff. The packets are even and odd in length.
func TestChecksum6(t *testing.T) {
	from, to := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")
	for _, packet := range [][]byte{
		{136, 0, 0, 0, 1, 2, 3, 4}, {136, 0, 0, 0, 1, 2, 3}, bytes.Repeat([]byte{0xff}, 1280), {0, 0, 0, 0},
	} {
		copy(packet[2:4], []byte{0, 0})
		sum := checksum6(from, to, unix.IPPROTO_ICMPV6, packet)
		packet[2], packet[3] = byte(sum>>8), byte(sum)
		if rest := checksum6(from, to, unix.IPPROTO_ICMPV6, packet); rest != 0 {
			t.Errorf("packet of %d bytes with checksum %04x: %04x is left, want 0", len(packet), sum, rest)
		}
	}
}
