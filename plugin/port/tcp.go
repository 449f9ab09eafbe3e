package port

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
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
	s := &tcpSocket{listener: l, dial: &h.dial}
	s.life = life{log: h.log.With("port", p.Key()), work: &h.work, host: p.Host.Addr(), raw: raw, run: s.accept, drain: refuseAll}
	return s, nil
}

func (s *tcpSocket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

func (s *tcpSocket) accept() {
	for {
		client, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) || err != nil && s.isClosed() {
			return
		}
		if err != nil {
			// Out of descriptors, or a client that left: neither ends the port.
			s.log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.work.Go(func() {
			if container, l := s.reach(client); container != nil {
				relay(client, container, l)
			}
		})
	}
}

// reach connects to the container for a client. Where the socket leads to
// another one meanwhile, the client goes there. A client that cannot be served
// learns so at once.
func (s *tcpSocket) reach(client *net.TCPConn) (*net.TCPConn, *lead) {
	for {
		l := s.leadFor(addrOfNet(client.RemoteAddr()), addrOfNet(client.LocalAddr()))
		if l == nil {
			break
		}
		c, err := s.dial.DialContext(l.ctx, "tcp", l.to.String())
		if err == nil {
			return c.(*net.TCPConn), l
		}
		if l.ctx.Err() == nil {
			s.log.Debug("reach container", "address", l.to, "error", err)
			break
		}
	}
	reset(client)
	return nil, nil
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

// relay carries a client's connection to the container, each direction until
// its sender closes it, and ends it when the socket leads elsewhere.
func relay(client, container *net.TCPConn, l *lead) {
	// What the container has sent to its end, the client may still get; a
	// transfer that was cut must not look like one that is complete.
	var complete atomic.Bool
	stop := context.AfterFunc(l.ctx, func() {
		if complete.Load() {
			_ = client.Close()
		} else {
			reset(client)
		}
		reset(container)
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(container, client) })
	both.Go(func() { complete.Store(copyHalf(client, container)) })
	both.Wait()
	_ = client.Close()
	_ = container.Close()
}

// copyHalf carries one direction and reports whether it came to its end. An
// error on the way resets both ends, so that neither waits for the other.
func copyHalf(dst, src *net.TCPConn) bool {
	if _, err := io.Copy(dst, src); err != nil {
		reset(dst)
		_ = src.Close()
		return false
	}
	_ = dst.CloseWrite()
	return true
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
