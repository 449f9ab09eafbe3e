package port

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

const (
	// A client that is silent for this long is forgotten, as docker-proxy does.
	udpIdle = 90 * time.Second
	// The largest payload of a UDP datagram.
	udpMax = 65535
	// How many clients one port serves at a time: each costs a descriptor.
	udpClients = 1024
)

// udpSocket is the socket of a published UDP port.
type udpSocket struct {
	life
	host netip.Addr
	conn *net.UDPConn
	// clients have a socket each that speaks to the container for them.
	clients map[udpClient]*net.UDPConn
}

// udpClient is a client together with the address of the host that it asked:
// the answer must come from there.
type udpClient struct {
	from netip.AddrPort
	// asked is the control message that names the address, to be sent back as it
	// came (struct in_pktinfo, in6_pktinfo).
	asked string
}

func listenUDP(p desired.Port, log *slog.Logger) (socket, error) {
	c, err := listenConfig(p).ListenPacket(background, network("udp", p.Host.Addr()), p.Host.String())
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
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
		return nil, errors.Join(err, conn.Close())
	}
	return &udpSocket{life: life{log: log.With("port", p.Key())}, host: p.Host.Addr(), conn: conn, clients: map[udpClient]*net.UDPConn{}}, nil
}

func (s *udpSocket) serve(to netip.AddrPort, clients Clients) {
	s.begin(s.conn, s.host, clients, func() { s.receive(to) })
}

func (s *udpSocket) receive(to netip.AddrPort) {
	buf, oob := make([]byte, udpMax), make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// An ICMP error for an earlier answer: the port goes on.
			continue
		}
		container, err := s.client(udpClient{from, string(oob[:oobn])}, to)
		if err != nil {
			s.log.Debug("reach container", "address", to, "error", err)
			continue
		}
		// A container that refuses a datagram is silent to its client, as UDP is.
		_, _ = container.Write(buf[:n])
	}
}

var errTooManyClients = errors.New("too many clients")

// client is the socket that speaks to the container for a client.
func (s *udpSocket) client(c udpClient, to netip.AddrPort) (*net.UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn, ok := s.clients[c]; ok {
		return conn, nil
	}
	if s.closed {
		return nil, net.ErrClosed
	}
	if len(s.clients) >= udpClients {
		return nil, errTooManyClients
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	s.clients[c] = conn
	s.done.Go(func() { s.answer(c, conn) })
	return conn, nil
}

// answer carries the container's datagrams to the client until both are silent.
func (s *udpSocket) answer(c udpClient, container *net.UDPConn) {
	defer func() {
		s.mu.Lock()
		delete(s.clients, c)
		s.mu.Unlock()
		_ = container.Close()
	}()
	buf := make([]byte, udpMax)
	for {
		if container.SetReadDeadline(time.Now().Add(udpIdle)) != nil {
			return
		}
		n, err := container.Read(buf)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return
		}
		if _, _, err := s.conn.WriteMsgUDPAddrPort(buf[:n], []byte(c.asked), c.from); err != nil {
			return
		}
	}
}

// Close ends the port and forgets its clients.
func (s *udpSocket) Close() error {
	err := s.conn.Close()
	s.mu.Lock()
	s.closed = true
	for _, c := range s.clients {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}
