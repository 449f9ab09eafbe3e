package port

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"nftnet/internal/desired"
)

// dialTimeout bounds how long a client waits for its container.
const dialTimeout = 10 * time.Second

// tcpSocket is the listener of a published TCP port.
type tcpSocket struct {
	life
	host     netip.Addr
	listener *net.TCPListener
	// conns are the connections that are served, both sides of each.
	conns map[net.Conn]bool
}

func listenTCP(p desired.Port, log *slog.Logger) (socket, error) {
	l, err := listenConfig(p).Listen(background, network("tcp", p.Host.Addr()), p.Host.String())
	if err != nil {
		return nil, err
	}
	return &tcpSocket{
		life: life{log: log.With("port", p.Key())}, host: p.Host.Addr(), listener: l.(*net.TCPListener), conns: map[net.Conn]bool{},
	}, nil
}

func (s *tcpSocket) serve(to netip.AddrPort, clients Clients) {
	s.begin(s.listener, s.host, clients, func() { s.accept(to) })
}

func (s *tcpSocket) accept(to netip.AddrPort) {
	for {
		client, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, or a client that left: neither ends the port.
			s.log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.done.Go(func() { s.relay(client, to) })
	}
}

// relay carries a client's connection to the container, each direction until
// its sender closes it.
func (s *tcpSocket) relay(client *net.TCPConn, to netip.AddrPort) {
	if !s.track(client) {
		return
	}
	defer s.untrack(client)
	dialer := net.Dialer{Timeout: dialTimeout}
	upstream, err := dialer.DialContext(background, "tcp", to.String())
	if err != nil {
		s.log.Debug("reach container", "address", to, "error", err)
		// The client learns at once that nobody answers.
		_ = client.SetLinger(0)
		return
	}
	container := upstream.(*net.TCPConn)
	if !s.track(container) {
		return
	}
	defer s.untrack(container)
	var both sync.WaitGroup
	both.Go(func() { copyHalf(container, client) })
	both.Go(func() { copyHalf(client, container) })
	both.Wait()
}

// copyHalf carries one direction. An error on the way resets both ends, so that
// neither waits for the other.
func copyHalf(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = dst.SetLinger(0)
		_ = dst.Close()
		_ = src.Close()
		return
	}
	_ = dst.CloseWrite()
}

// track notes an open connection; it closes it, and says no, where the port is
// closed already.
func (s *tcpSocket) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.conns[c] = true
	return true
}

func (s *tcpSocket) untrack(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Close stops listening and ends the connections that the port serves.
func (s *tcpSocket) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}
