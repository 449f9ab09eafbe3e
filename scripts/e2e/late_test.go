package e2e

import (
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// Flags of a TCP segment.
const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
)

// segment is a TCP segment.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	payload  string
}

func (s segment) bytes() []byte {
	b := wire.BigEndian.AppendUint16(nil, s.from.Port())
	b = wire.BigEndian.AppendUint16(b, s.to.Port())
	b = wire.BigEndian.AppendUint32(b, s.seq)
	b = wire.BigEndian.AppendUint32(b, s.ack)
	b = append(b, 5<<4, s.flags, 0x20, 0, 0, 0, 0, 0)
	b = append(b, s.payload...)
	pseudo := append(s.from.Addr().AsSlice(), s.to.Addr().AsSlice()...)
	if s.from.Addr().Is4() {
		pseudo = append(pseudo, 0, unix.IPPROTO_TCP, byte(len(b)>>8), byte(len(b)))
	} else {
		pseudo = append(wire.BigEndian.AppendUint32(pseudo, uint32(len(b))), 0, 0, 0, unix.IPPROTO_TCP)
	}
	wire.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// inject sends a segment from a namespace that has its source.
func (s segment) inject(t *testing.T, ns *nstest.NS) {
	t.Helper()
	err := ns.Do(func() error {
		family := unix.AF_INET6
		var to unix.Sockaddr = &unix.SockaddrInet6{Addr: s.to.Addr().As16()}
		if s.to.Addr().Is4() {
			family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: s.to.Addr().As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		return errors.Join(unix.Sendto(fd, s.bytes(), 0, to), unix.Close(fd))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// numbers returns what a connection sends and expects next.
func numbers(t *testing.T, c net.Conn) (seq, ack uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) {
		of := func(queue int) uint32 {
			n := 0
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
			}
			if err == nil {
				n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			}
			return uint32(n)
		}
		const receive, send, off = 1, 2, -1
		if err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return
		}
		ack, seq = of(receive), of(send)
		err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, off))
	})
	if err := errors.Join(controlErr, err); err != nil {
		t.Fatal(err)
	}
	return seq, ack
}

// sawTCP reports whether a segment with some flags came from a port to another.
func (x *tap) sawTCP(t *testing.T, from, to uint16, flags byte) bool {
	t.Helper()
	x.has(t, 0)
	return slices.ContainsFunc(x.all, func(frame []byte) bool {
		at := 14
		switch {
		case len(frame) < 54:
			return false
		case frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_TCP:
			at += int(frame[14]&15) * 4
		case frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == unix.IPPROTO_TCP:
			at += 40
		default:
			return false
		}
		return len(frame) >= at+20 && wire.BigEndian.Uint16(frame[at:]) == from && wire.BigEndian.Uint16(frame[at+2:]) == to && frame[at+13]&flags == flags
	})
}

// echoes answers each connection of a listener with what it sends, and hands
// out the connections.
func echoes(t *testing.T, ns *nstest.NS, addr string) <-chan net.Conn {
	t.Helper()
	l := ns.Listen(t, "tcp", addr)
	out := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			out <- c
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	return out
}

// spoken is a connection whose two ends the test has.
type spoken struct {
	client, server net.Conn
}

func converse(t *testing.T, from *nstest.NS, to netip.AddrPort, accepted <-chan net.Conn) spoken {
	t.Helper()
	c, err := from.Dial(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	s := spoken{client: c}
	t.Cleanup(func() { _ = c.Close() })
	select {
	case s.server = <-accepted:
		t.Cleanup(func() { _ = s.server.Close() })
	case <-time.After(5 * time.Second):
		t.Fatal("nobody accepts the connection to", to)
	}
	if err := s.alive(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s spoken) alive() error {
	const word = "still here"
	if err := s.client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(s.client, word); err != nil {
		return err
	}
	buf := make([]byte, len(word))
	if _, err := io.ReadFull(s.client, buf); err != nil {
		return err
	}
	if string(buf) != word {
		return fmt.Errorf("%q came back", buf)
	}
	return nil
}

// late is a segment that one end of a connection might have sent long ago, or
// will.
func late(t *testing.T, c net.Conn, offset int32) segment {
	t.Helper()
	seq, ack := numbers(t, c)
	plain := func(a net.Addr) netip.AddrPort {
		p := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return segment{plain(c.LocalAddr()), plain(c.RemoteAddr()), seq + uint32(offset), ack, flagPSH | flagACK, "late"}
}

// lateRow is a connection that the kernel translates.
type lateRow struct {
	name     string
	from     *nstest.NS
	to       netip.AddrPort
	accepted <-chan net.Conn
	// Where the two ends' late segments come from; nil for none.
	server, client *nstest.NS
}

// TestA76LateSegments: segments outside the window of translated connections, in
// both directions, do not make the host reset them.
func TestA76LateSegments(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "server", "web", "-p", "9009:9")
	c := w.engine.NS(t, "server")
	w.dual(t, "apart", 82, "-o", "com.docker.network.bridge.enable_icc=false")
	w.run(t, "alone", "apart", "-p", "9010:9")
	alone := w.engine.NS(t, "alone")
	servedAlone := echoes(t, alone, ":9")
	servedByContainer, servedByLAN := echoes(t, c, ":9"), echoes(t, w.LAN, ":7000")
	for _, v6 := range []bool{false, true} {
		host, lan, gateway := w.HostAddr4, w.LANAddr4, netip.MustParseAddr("10.81.0.1")
		if v6 {
			host, lan, gateway = w.HostAddr6, w.LANAddr6, netip.MustParseAddr("fd00:81::1")
		}
		published := netip.AddrPortFrom(host, 9009)
		rows := []lateRow{
			{"container to the outside", c, netip.AddrPortFrom(lan, 7000), servedByLAN, w.LAN, c},
			{"LAN to the published port", w.LAN, published, servedByContainer, c, w.LAN},
			{"LAN to the port of a network without ICC", w.LAN, netip.AddrPortFrom(host, 9010), servedAlone, alone, w.LAN},
			{"host to the published port", w.Host, published, servedByContainer, c, nil},
			{"container to its own published port", c, published, servedByContainer, c, c},
			{"container to the gateway's published port", c, netip.AddrPortFrom(gateway, 9009), servedByContainer, c, c},
		}
		if !v6 {
			rows = append(rows, lateRow{"host to 127.0.0.1", w.Host, netip.MustParseAddrPort("127.0.0.1:9009"), servedByContainer, c, nil})
		}
		for _, row := range rows {
			for _, offset := range []int32{-2_000_000, 2_000_000} {
				s := converse(t, row.from, row.to, row.accepted)
				late(t, s.server, offset).inject(t, row.server)
				if err := s.alive(); err != nil {
					t.Errorf("%s (IPv6 %v), the server's segment at %d: %v", row.name, v6, offset, err)
					continue
				}
				if row.client == nil {
					continue
				}
				late(t, s.client, offset).inject(t, row.client)
				if err := s.alive(); err != nil {
					t.Errorf("%s (IPv6 %v), the client's segment at %d: %v", row.name, v6, offset, err)
				}
			}
		}
	}
}

// TestA76HostsOwn: what is not of our networks meets the host as before.
func TestA76HostsOwn(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "server", "web", "-p", "9009:9")
	accepted := echoes(t, w.Host, ":7777")
	seen := listen(t, w.LAN, "eth0")
	for _, v6 := range []bool{false, true} {
		host, lan := w.HostAddr4, w.LANAddr4
		if v6 {
			host, lan = w.HostAddr6, w.LANAddr6
		}
		s := converse(t, w.LAN, netip.AddrPortFrom(host, 7777), accepted)
		seen.all = nil
		x := late(t, s.client, -2_000_000)
		x.inject(t, w.LAN)
		holdsSoon(t, "the host answers a late segment of its own connection", func() bool {
			return seen.sawTCP(t, 7777, x.from.Port(), flagACK)
		})
		if err := s.alive(); err != nil || seen.sawTCP(t, 7777, x.from.Port(), flagRST) {
			t.Errorf("the host's own connection (IPv6 %v): %v", v6, err)
		}
		for i, flags := range []byte{flagSYN, flagACK, flagFIN, flagSYN | flagACK, flagFIN | flagACK, 0, flagFIN | flagPSH | 32} {
			seen.all = nil
			from := netip.AddrPortFrom(lan, uint16(20000+i))
			segment{from: from, to: netip.AddrPortFrom(host, 4444), seq: 1, ack: 1, flags: flags}.inject(t, w.LAN)
			holdsSoon(t, fmt.Sprintf("a closed port of the host refuses flags %#x (IPv6 %v)", flags, v6), func() bool {
				return seen.sawTCP(t, 4444, from.Port(), flagRST)
			})
		}
	}
}
