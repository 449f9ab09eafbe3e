// Package port holds the host ports that are published: one socket of the
// daemon for each, bound and listening, so that no other program can take it.
//
// The kernel translates what comes to a published port before any socket sees
// it, so a socket has nothing to do but be there, behind a filter that keeps it
// silent. What the kernel cannot translate the same socket serves: clients of
// [::1], clients by a link-local address, and clients of the family that the
// container does not have.
package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// InUseError says that a host port cannot be had.
type InUseError struct {
	Port desired.Port
	Err  error
}

func (e *InUseError) Error() string {
	verb := "publish"
	if e.Port.ToHost() {
		verb = "redirect"
	}
	return fmt.Sprintf("cannot %s host port %s: %s", verb, e.Port.Key(), e.reason())
}

func (e *InUseError) reason() string {
	if errors.Is(e.Err, unix.EADDRNOTAVAIL) {
		return "the host has no such address"
	}
	if errors.Is(e.Err, unix.EMFILE) {
		return fmt.Sprintf("nftnet has no file descriptor left (LimitNOFILE of its service): %v", e.Err)
	}
	return e.Err.Error()
}

// Unwrap is the system's error.
func (e *InUseError) Unwrap() error { return e.Err }

// errInUse replaces the system's text, which does not say who could have the
// port.
var errInUse = fmt.Errorf("another program on this host has it: %w", unix.EADDRINUSE)

// Holder holds port sockets. Its methods may be called from several goroutines.
type Holder struct {
	log *slog.Logger

	mu   sync.Mutex
	held map[string]holding
}

// holding is a held port.
type holding struct {
	port   desired.Port
	socket socket
}

// socket is a bound socket of one protocol.
type socket interface {
	io.Closer
	// serve begins to serve clients.
	serve(to netip.AddrPort, clients Clients)
}

// NewHolder is a Holder that holds nothing yet.
func NewHolder(log *slog.Logger) *Holder { return &Holder{log: log, held: map[string]holding{}} }

// Hold binds the port's socket, silent. It is no error that the same port is
// held already.
func (h *Holder) Hold(p desired.Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have, ok := h.held[p.Key()]; ok {
		if have.port == p {
			return nil
		}
		return &InUseError{Port: p, Err: unix.EADDRINUSE}
	}
	s, err := open(p, h.log)
	if errors.Is(err, unix.EADDRINUSE) {
		err = errInUse
	}
	if err != nil {
		return &InUseError{Port: p, Err: err}
	}
	h.held[p.Key()] = holding{p, s}
	return nil
}

// Clients are those that a port's socket serves.
type Clients struct {
	// Neighbours says that the rules leave clients to the socket whom the kernel
	// could translate.
	Neighbours bool
	// Sources bounds who is served.
	Sources desired.Sources
}

// Serve begins to serve a held port, as far as the kernel cannot translate it
// or the rules leave clients to it.
func (h *Holder) Serve(p desired.Port, clients Clients) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have, ok := h.held[p.Key()]; ok && (clients.Neighbours || served(p)) {
		have.socket.serve(p.Container, clients)
	}
}

// served says whether a port has clients that the kernel cannot translate.
func served(p desired.Port) bool {
	return !p.ToHost() && (!p.Translated() || (p.Host.Addr().Is6() && p.Any()) || p.Host.Addr().IsLinkLocalUnicast())
}

// Release closes the port's socket and the connections that it serves.
func (h *Holder) Release(p desired.Port) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, ok := h.held[p.Key()]
	if !ok || have.port != p {
		return
	}
	delete(h.held, p.Key())
	if err := have.socket.Close(); err != nil {
		h.log.Warn("close port socket", "port", p.Key(), "error", err)
	}
}

// Len is how many ports are held.
func (h *Holder) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

// Close releases every port.
func (h *Holder) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for key, have := range h.held {
		errs = append(errs, have.socket.Close())
		delete(h.held, key)
	}
	return errors.Join(errs...)
}

// HasIPv6 says whether sockets of the host can have IPv6 addresses.
func HasIPv6() bool {
	l, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// IsTaken says whether err means that another has the port, so that another
// port may be free.
func IsTaken(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

// IsMissingAddress says whether err means that the host lacks the address.
func IsMissingAddress(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }

func open(p desired.Port, log *slog.Logger) (socket, error) {
	switch p.Proto {
	case unix.IPPROTO_TCP:
		return listenTCP(p, log)
	case unix.IPPROTO_UDP:
		return listenUDP(p, log)
	case unix.IPPROTO_SCTP:
		return bindSCTP(p)
	}
	return nil, fmt.Errorf("%s is not supported: tcp, udp and sctp are", desired.ProtoName(p.Proto))
}

// network is Go's name for a protocol in the family of an address.
func network(proto string, a netip.Addr) string {
	if a.Is4() {
		return proto + "4"
	}
	return proto + "6"
}

// silent is a socket filter that drops every packet.
var silent = func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		panic(err)
	}
	return raw
}()

// silence attaches the filter that drops every packet, before the socket is
// bound: no client gets an answer until the port is served.
func silence(_, _ string, c syscall.RawConn) error { return attach(c, silent) }

func attach(c syscall.RawConn, program []bpf.RawInstruction) error {
	return control(c, func(fd int) error {
		filter := make([]unix.SockFilter, len(program))
		for i, x := range program {
			filter[i] = unix.SockFilter{Code: x.Op, Jt: x.Jt, Jf: x.Jf, K: x.K}
		}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
}

// speak lets the packets of clients through: all, or those of some sources.
func speak(c syscall.RawConn, host netip.Addr, sources desired.Sources) error {
	if sources.Limited {
		program, err := fromSources(host, sources)
		if err != nil {
			return err
		}
		return attach(c, program)
	}
	return control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	})
}

func control(c syscall.RawConn, fn func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// life is what the sockets of all protocols have in common: they are silent,
// then perhaps serve, then are closed.
type life struct {
	log *slog.Logger

	// mu protects these and what the socket serves.
	mu      sync.Mutex
	serving bool
	closed  bool
	// done counts the goroutines that serve.
	done sync.WaitGroup
}

// begin lets clients to a socket on host and serves it by run, the first time
// it is called.
func (l *life) begin(c syscall.Conn, host netip.Addr, clients Clients, run func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serving || l.closed {
		return
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = speak(raw, host, clients.Sources)
	}
	if err != nil {
		l.log.Error("serve port", "error", err)
		return
	}
	l.serving = true
	l.done.Go(run)
}

// listenConfig is how the sockets of a port are made.
func listenConfig(p desired.Port) *net.ListenConfig {
	return &net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := silence(network, address, c); err != nil || !p.FreeBind {
			return err
		}
		return control(c, func(fd int) error { return freeBind(fd, p.Host.Addr()) })
	}}
}

// freeBind lets a socket have an address that the host does not have yet
// (ip(7), IP_FREEBIND; ipv6(7) has it since Linux 4.15).
func freeBind(fd int, a netip.Addr) error {
	if a.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
}

// sctpSocket holds an SCTP port. The kernel may translate SCTP without having
// sockets for it: then nobody can take the port, and fd is -1.
type sctpSocket struct{ fd int }

func bindSCTP(p desired.Port) (socket, error) {
	family := unix.AF_INET6
	if p.Host.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return sctpSocket{-1}, nil
	}
	if err != nil {
		return nil, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.Host.Port()), Addr: p.Host.Addr().Unmap().As4()}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(p.Host.Port()), Addr: p.Host.Addr().As16()}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && p.FreeBind {
		err = freeBind(fd, p.Host.Addr())
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return sctpSocket{fd}, nil
}

func (s sctpSocket) serve(netip.AddrPort, Clients) {}

func (s sctpSocket) Close() error {
	if s.fd < 0 {
		return nil
	}
	return unix.Close(s.fd)
}

// background is the context of what lives as long as its socket.
var background = context.Background()
