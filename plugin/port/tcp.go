package port

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// tcpSocket is the listener of a published TCP port.
type tcpSocket struct {
	life
	listener *net.TCPListener
	dial     *net.Dialer
	account  *account
	// open is the number of connections; the account's mutex protects it.
	open  int
	dials dials
	// refusals and errors are logged seldom.
	refusals, errors seldom
}

func (h *Holder) listenTCP(p desired.Port) (socket, error) {
	l, err := listenConfig(p).Listen(context.Background(), network("tcp", p.Host.Addr()), p.Host.String())
	if err != nil {
		return nil, err
	}
	s, err := h.tcp(l.(*net.TCPListener), p)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.muted = true
	return s, nil
}

func (h *Holder) tcp(l *net.TCPListener, p desired.Port) (*tcpSocket, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &tcpSocket{listener: l, dial: &h.dial, account: h.account}
	s.life = life{log: h.log.With("port", p.Key()), work: &h.work, host: p.Host.Addr(), raw: raw, run: s.accept, drain: refuseAll}
	return s, nil
}

func (s *tcpSocket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

// Pauses of the accept loop: while there is no room for another connection, and
// after an error, twice as long each time.
const (
	roomPause       = 20 * time.Millisecond
	firstErrorPause = 10 * time.Millisecond
	lastErrorPause  = time.Second
)

func (s *tcpSocket) accept() {
	pause := firstErrorPause
	for s.awaitRoom() {
		client, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) || err != nil && s.isClosed() {
			return
		}
		if err != nil {
			// Out of descriptors, or a client that left: neither ends the port.
			if s.errors.now() {
				s.log.Warn("accept", "error", err)
			}
			time.Sleep(pause)
			pause = min(2*pause, lastErrorPause)
			continue
		}
		pause = firstErrorPause
		s.admitClient(client)
	}
}

// awaitRoom waits until the process may have another connection, and reports
// whether the socket is open still.
func (s *tcpSocket) awaitRoom() bool {
	for !s.account.room() {
		if s.isClosed() {
			return false
		}
		if s.refusals.now() {
			s.log.Warn("clients wait: published ports have as many connections as this process may have (LimitNOFILE of its service)")
		}
		time.Sleep(roomPause)
	}
	return true
}

// admitClient serves a client, or resets its connection.
func (s *tcpSocket) admitClient(client *net.TCPConn) {
	c := &connection{client: client, from: addrOfNet(client.RemoteAddr()).Unmap().WithZone("")}
	if err := s.account.begin(c, &s.open); err != nil {
		if s.refusals.now() {
			s.log.Warn("refuse client", "client", c.from, "error", err)
		}
		reset(client)
		return
	}
	s.work.Go(func() {
		defer s.account.end(c, &s.open)
		if l := s.reach(c); l != nil {
			c.relay(l)
		}
	})
}

// reach connects to the container for a client. Where the socket leads to
// another one meanwhile, the client goes there. A client that cannot be served
// learns so at once.
func (s *tcpSocket) reach(c *connection) *lead {
	for {
		l := s.leadFor(addrOfNet(c.client.RemoteAddr()), addrOfNet(c.client.LocalAddr()))
		if l == nil {
			break
		}
		ctx, end := s.dials.begin(l.ctx, c.from, s.account.max)
		stop := c.onGone(end)
		container, err := s.dial.DialContext(ctx, "tcp", l.to.String())
		stop()
		end()
		if err == nil {
			c.container = container.(*net.TCPConn)
			return l
		}
		if l.ctx.Err() == nil {
			s.log.Debug("reach container", "address", l.to, "error", err)
			break
		}
	}
	reset(c.client)
	return nil
}

func addrOfNet(a net.Addr) netip.Addr { return a.(*net.TCPAddr).AddrPort().Addr() }

// refuseAll resets the connections that nobody has accepted.
func refuseAll(fd int) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		_ = unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Close(c)
	}
}

// reset closes a connection so that its peer sees an error, not an end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (s *tcpSocket) close() error {
	// In this order: whom this process accepts no more waits in the queue.
	err := s.listener.Close()
	s.shut()
	return err
}

// retire stops the listening for all duplicates. They stay bound, which keeps
// nobody off who sets SO_REUSEADDR, as servers do.
func (s *tcpSocket) retire() {
	// Before the shutdown, which ends the accept.
	s.shut()
	_ = control(s.raw, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
}
