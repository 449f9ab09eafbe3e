package e2e

import (
	wire "encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// end is what a frame says of one of its ends.
type end struct {
	mac  net.HardwareAddr
	addr netip.Addr
}

// ethernet is a frame from one link address to another.
func ethernet(from, to net.HardwareAddr, etherType uint16, payload []byte) []byte {
	b := append(append([]byte{}, to...), from...)
	return append(wire.BigEndian.AppendUint16(b, etherType), payload...)
}

// arpReply says to a victim that an address is at a link address.
func arpReply(sender net.HardwareAddr, claim end, victim end) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, claim.mac...), claim.addr.AsSlice()...)
	b = append(append(b, victim.mac...), victim.addr.AsSlice()...)
	return ethernet(sender, victim.mac, 0x0806, b)
}

// advertisement is the same in IPv6, from the sender's own address.
func advertisement(sender end, claim end, victim end) []byte {
	b := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, claim.addr.AsSlice()...)
	b = append(append(b, 2, 1), claim.mac...)
	return ethernet(sender.mac, victim.mac, 0x86dd, ipv6(sender.addr, victim.addr, 58, 2, b))
}

// ipv6 is a packet with the checksum of its payload at a place in it.
func ipv6(from, to netip.Addr, proto byte, checksumAt int, payload []byte) []byte {
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = append(wire.BigEndian.AppendUint32(pseudo, uint32(len(payload))), 0, 0, 0, proto)
	wire.BigEndian.PutUint16(payload[checksumAt:], checksum(append(pseudo, payload...)))
	b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), proto, 255}
	return append(append(append(b, from.AsSlice()...), to.AsSlice()...), payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(wire.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// datagram is a UDP packet to port 53 from one end to another.
func datagram(sender net.HardwareAddr, from, to end) []byte {
	udp := []byte{0x30, 0x39, 0, 53, 0, 12, 0, 0, 'e', 'v', 'i', 'l'}
	if from.addr.Is6() {
		return ethernet(sender, to.mac, 0x86dd, ipv6(from.addr, to.addr, 17, 6, udp))
	}
	ip := append([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}, from.addr.AsSlice()...)
	ip = append(ip, to.addr.AsSlice()...)
	wire.BigEndian.PutUint16(ip[10:], checksum(ip))
	return ethernet(sender, to.mac, 0x0800, append(ip, udp...))
}

func (w *world) end(t *testing.T, container, network string, v6 bool) end {
	t.Helper()
	mac, err := net.ParseMAC(w.engine.Docker(t, "exec", container, "cat", "/sys/class/net/eth0/address"))
	if err != nil {
		t.Fatal(err)
	}
	return end{mac, w.address(t, container, network, v6)}
}

func (w *world) sendFrame(t *testing.T, container string, frame []byte) {
	t.Helper()
	w.engine.Docker(t, "exec", container, "/peer", "frame", "eth0", hex.EncodeToString(frame))
}

// neighbour is the link address that a container believes an address to have.
func (w *world) neighbour(t *testing.T, container string, a netip.Addr) string {
	t.Helper()
	fields := strings.Fields(w.engine.Docker(t, "exec", container, "ip", "neigh", "show", a.String()))
	for i, f := range fields {
		if f == "lladdr" && i+1 < len(fields) {
			return fields[i+1]
		}
	}
	return ""
}

// TestA54Spoofing: a hostile container speaks with addresses of others. The
// same frames go through where nobody looks, so that the test can fail.
func TestA54Spoofing(t *testing.T) {
	for _, level := range []string{"off", "on", "strict"} {
		t.Run(level, func(t *testing.T) {
			w := newWorld(t)
			args := []string{"-o", "nftnet.antispoof=" + level}
			if level == "on" {
				args = nil // the default
			}
			w.dual(t, "web", 81, args...)
			for _, c := range []string{"victim", "friend", "evil"} {
				w.run(t, c, "web")
			}
			for _, v6 := range []bool{false, true} {
				w.spoof(t, v6, level == "off")
			}
			// Who behaves is not harmed.
			for _, v6 := range []bool{false, true} {
				if level != "off" {
					w.from(t, "friend", "friend to victim", w.address(t, "victim", "web", v6), 80)
				}
				w.from(t, "evil", "evil to victim, by its own addresses", w.address(t, "victim", "web", v6), 80)
			}
			nothingElse := strings.Contains(w.Exec(t, "nft", "list", "table", "bridge", "nftnet"), "spoof-")
			if nothingElse != (level != "off") {
				t.Errorf("chains that check frames are there: %v", nothingElse)
			}
		})
	}
}

func (w *world) spoof(t *testing.T, v6, goesThrough bool) {
	t.Helper()
	victim, friend, evil := w.end(t, "victim", "web", v6), w.end(t, "friend", "web", v6), w.end(t, "evil", "web", v6)
	w.from(t, "victim", "victim to friend", friend.addr, 80)
	received := w.count(t, "victim", friend.addr)
	w.sendFrame(t, "evil", datagram(evil.mac, friend, victim))
	if got := received() != "0"; got != goesThrough {
		t.Errorf("%v: a datagram from the friend's address arrives: %v", friend.addr, got)
	}

	// The victim believes a reply a second after the last one only (locktime).
	for range 12 {
		if v6 {
			w.sendFrame(t, "evil", advertisement(evil, end{evil.mac, friend.addr}, victim))
		} else {
			w.sendFrame(t, "evil", arpReply(evil.mac, end{evil.mac, friend.addr}, victim))
		}
		if w.neighbour(t, "victim", friend.addr) == evil.mac.String() {
			break
		}
		time.Sleep(150 * time.Millisecond)
	}
	if got := w.neighbour(t, "victim", friend.addr) == evil.mac.String(); got != goesThrough {
		t.Errorf("%v: the victim believes that the friend is at the hostile container: %v", friend.addr, got)
	}
}

// TestA54LinkAddress: a container with another's link address would get the
// other's packets.
func TestA54LinkAddress(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "friend", "web")
	w.run(t, "evil", "web")
	friend, evil := w.end(t, "friend", "web", false), w.end(t, "evil", "web", false)
	reaches(t, w.Host, "host", url(friend.addr, 80))
	port := func() string {
		for line := range strings.Lines(w.Exec(t, "bridge", "fdb", "show")) {
			if strings.HasPrefix(line, friend.mac.String()) && strings.Contains(line, "master nft-") && !strings.Contains(line, "permanent") {
				return strings.Fields(line)[2]
			}
		}
		return ""
	}
	before := port()
	row := func(t *testing.T) {
		for range 3 {
			w.sendFrame(t, "evil", datagram(friend.mac, friend, end{evil.mac, netip.MustParseAddr("10.81.0.1")}))
		}
		if after := port(); before == "" || after != before {
			t.Errorf("the bridge looks for the friend at %q, it was %q", after, before)
		}
		reaches(t, w.Host, "host", url(friend.addr, 80))
	}
	t.Run("at first", row)
	w.Exec(t, "nft", "flush", "ruleset")
	holdsSoon(t, "the chains that check frames are back after a flush", func() bool {
		out, err := w.Try("nft", "list", "table", "bridge", "nftnet")
		return err == nil && strings.Count(out, "chain spoof-") == 2
	})
	t.Run("after a flush", row)
}
