package port

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// network returns Go's name for a protocol in the family of an address.
func network(proto string, a netip.Addr) string {
	if a.Is4() {
		return proto + "4"
	}
	return proto + "6"
}

// silent is a socket filter that drops every packet.
var silent = func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{dropPacket})
	if err != nil {
		panic(err)
	}
	return raw
}()

// attach replaces the socket's filter in one step: no packet meets a socket
// without one in between.
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
	err := control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // an inherited socket that was open already
	}
	return err
}

func control(c syscall.RawConn, fn func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// listenConfig is how the sockets of a port are made. The filter is attached
// before the socket is bound: no client gets an answer until the port is
// served.
func listenConfig(p desired.Port) *net.ListenConfig {
	lc := &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if err := attach(c, silent); err != nil || !p.FreeBind {
			return err
		}
		return control(c, func(fd int) error { return freeBind(fd, p.Host.Addr()) })
	}}
	// A socket of MPTCP, which Go tries first, takes no filter.
	lc.SetMultipathTCP(false)
	return lc
}

// freeBind lets a socket have an address that the host does not have yet
// (ip(7), IP_FREEBIND; ipv6(7) has it since Linux 4.15).
func freeBind(fd int, a netip.Addr) error {
	if a.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
}

// lead is where a socket leads its clients.
type lead struct {
	to netip.AddrPort
	// ctx ends when the socket leads elsewhere, or nowhere.
	ctx context.Context
	end context.CancelFunc
	// associations are the clients of a UDP socket. The mu of its life protects
	// them.
	associations associations
}

func newLead(to netip.AddrPort) *lead {
	l := &lead{to: to, associations: newAssociations()}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

// life is what sockets of TCP and UDP have in common: they are silent, lead to
// a container, lead to another one, are closed.
type life struct {
	log  *slog.Logger
	work *sync.WaitGroup
	host netip.Addr
	raw  syscall.RawConn
	// run takes clients until the socket is closed.
	run func()
	// drain empties the queue of a socket that does not run.
	drain func(fd int)

	// mu protects what follows, and keeps it together with the filter.
	mu sync.Mutex
	// lead is nil while the socket does not serve, sources bounds whom.
	lead    *lead
	sources desired.Sources
	// muted says that the filter drops everything.
	muted           bool
	running, closed bool
}

func (l *life) serve(to netip.AddrPort, sources desired.Sources) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.lead == nil || !sameSources(l.sources, sources) {
		if err := l.admit(sources); err != nil {
			l.log.Error("serve port", "error", err)
			l.quiet()
			return
		}
	}
	if l.lead == nil || l.lead.to != to {
		l.leave()
		l.lead = newLead(to)
	}
	l.sources = sources
	if !l.running {
		l.running = true
		l.work.Go(l.run)
	}
}

// admit changes the filter; mu is held.
func (l *life) admit(s desired.Sources) error {
	err := speak(l.raw, l.host, s)
	if errors.Is(err, unix.ENOMEM) {
		// Two long filters together are beyond net.core.optmem_max.
		if err = attach(l.raw, silent); err == nil {
			err = speak(l.raw, l.host, s)
		}
	}
	if err == nil {
		l.muted = false
	}
	return err
}

func sameSources(a, b desired.Sources) bool {
	return a.Limited == b.Limited && slices.Equal(a.Prefixes, b.Prefixes)
}

// leave ends what the socket serves; mu is held.
func (l *life) leave() {
	if l.lead != nil {
		l.lead.end()
		l.lead = nil
	}
}

func (l *life) hush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.quiet()
	}
}

func (l *life) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && l.lead == nil {
		l.quiet()
	}
}

// quiet makes the socket silent; mu is held.
func (l *life) quiet() {
	l.leave()
	if l.muted {
		return
	}
	if err := attach(l.raw, silent); err != nil {
		l.log.Error("silence port", "error", err)
		return
	}
	l.muted = true
	if !l.running {
		_ = control(l.raw, func(fd int) error {
			l.drain(fd)
			return nil
		})
	}
}

// leadFor returns where a client is led to that asked an address of the host;
// nil for nowhere.
func (l *life) leadFor(client, asked netip.Addr) *lead {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admits(client, asked) {
		return l.lead
	}
	return nil
}

// admits reports whether a client is one of the sources or the host itself, as
// the filter has it. It is asked of those that were in the socket's queue
// before the filter became what it is. mu is held.
func (l *life) admits(client, asked netip.Addr) bool {
	client, asked = client.Unmap().WithZone(""), asked.Unmap().WithZone("")
	return l.sources.Allows(client) || client == asked || client.Is4() && client.IsLoopback()
}

// shut marks the socket as closed and ends what it serves.
func (l *life) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.leave()
}

func (l *life) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
