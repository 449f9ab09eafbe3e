package port

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

const (
	// A client that is silent for this long is forgotten, as docker-proxy does.
	udpIdle = 90 * time.Second
	// The largest payload of a UDP datagram in bytes.
	udpMax = 65535
	// How many clients one port serves at a time: each costs a descriptor.
	udpClients = 1024
)

// udpSocket is the socket of a published UDP port.
type udpSocket struct {
	life
	conn *net.UDPConn
}

// udpClient is a client together with the address of the host that it asked:
// the answer must come from there.
type udpClient struct {
	from netip.AddrPort
	// asked is the control message that names the address, to be sent back as it
	// came (struct in_pktinfo, in6_pktinfo).
	asked string
}

// host returns the address that the client asked; the zero Addr where the
// control message does not say.
func (c udpClient) host() netip.Addr {
	list, err := unix.ParseSocketControlMessage([]byte(c.asked))
	if err != nil || len(list) != 1 {
		return netip.Addr{}
	}
	switch data := list[0].Data; {
	case len(data) >= unix.SizeofInet6Pktinfo:
		a, _ := netip.AddrFromSlice(data[:16])
		return a
	case len(data) >= unix.SizeofInet4Pktinfo:
		// The header's destination, behind the interface and the local address.
		a, _ := netip.AddrFromSlice(data[8:12])
		return a
	}
	return netip.Addr{}
}

func (h *Holder) listenUDP(p desired.Port) (socket, error) {
	c, err := listenConfig(p).ListenPacket(context.Background(), network("udp", p.Host.Addr()), p.Host.String())
	if err != nil {
		return nil, err
	}
	s, err := h.udp(c.(*net.UDPConn), p)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s.muted = true
	return s, nil
}

func (h *Holder) udp(conn *net.UDPConn, p desired.Port) (*udpSocket, error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			if p.Host.Addr().Is4() {
				return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		})
	}
	if err != nil {
		return nil, err
	}
	s := &udpSocket{conn: conn}
	s.life = life{log: h.log.With("port", p.Key()), work: &h.work, host: p.Host.Addr(), raw: raw, run: s.receive, drain: discardAll}
	return s, nil
}

func (s *udpSocket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

func (s *udpSocket) receive() {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for awaitDatagram(s.raw) == nil {
		buf := datagrams.Get().(*datagram)
		s.forward(buf[:], oob)
		datagrams.Put(buf)
	}
}

// forward carries one datagram of a client to the container.
func (s *udpSocket) forward(buf, oob []byte) {
	n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return // an ICMP error for an earlier answer: the port goes on
	}
	container, err := s.associate(udpClient{from, string(oob[:oobn])})
	if err != nil {
		s.log.Debug("reach container", "client", from, "error", err)
		return
	}
	// A container that refuses a datagram is silent to its client, as UDP is.
	_, _ = container.Write(buf[:n])
}

// datagram is the room for one. An idle port or client has none.
type datagram [udpMax]byte

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// awaitDatagram waits until a socket has something to read. It returns an error
// where the socket is closed or its deadline is past.
func awaitDatagram(c syscall.RawConn) error {
	return c.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil
	})
}

// discardAll empties the queue of datagrams.
func discardAll(fd int) {
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

var (
	errTooManyClients = errors.New("too many clients")
	errNotServed      = errors.New("the port does not serve this client")
)

// associate returns the socket that speaks to the container for a client.
func (s *udpSocket) associate(c udpClient) (*net.UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil {
		return nil, errNotServed
	}
	if conn, ok := l.associations[c]; ok {
		return conn, nil
	}
	if !s.admits(c.from.Addr(), c.host()) {
		return nil, errNotServed
	}
	if len(l.associations) >= udpClients {
		return nil, errTooManyClients
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.to))
	if err != nil {
		return nil, err
	}
	l.associations[c] = conn
	s.work.Go(func() { s.answer(c, conn, l) })
	return conn, nil
}

// answer carries the container's datagrams to the client until both are silent,
// or the socket leads elsewhere.
func (s *udpSocket) answer(c udpClient, container *net.UDPConn, l *lead) {
	stop := context.AfterFunc(l.ctx, func() { _ = container.Close() })
	defer func() {
		stop()
		s.mu.Lock()
		delete(l.associations, c)
		s.mu.Unlock()
		_ = container.Close()
	}()
	raw, err := container.SyscallConn()
	if err != nil {
		return
	}
	for container.SetReadDeadline(time.Now().Add(udpIdle)) == nil && awaitDatagram(raw) == nil {
		buf := datagrams.Get().(*datagram)
		err := s.back(c, container, buf[:])
		datagrams.Put(buf)
		if err != nil {
			return
		}
	}
}

// back carries one datagram of the container to a client.
func (s *udpSocket) back(c udpClient, container *net.UDPConn, buf []byte) error {
	n, err := container.Read(buf)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil // nobody listens in the container, yet
	}
	if err == nil {
		_, _, err = s.conn.WriteMsgUDPAddrPort(buf[:n], []byte(c.asked), c.from)
	}
	return err
}

func (s *udpSocket) close() error {
	s.shut()
	return s.conn.Close()
}

// retire has duplicates collect no more datagrams. They stay bound.
func (s *udpSocket) retire() { s.hush() }
