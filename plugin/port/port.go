// Package port holds the host ports that are published: one socket of the
// daemon for each, bound and listening, so that no other program can take it.
//
// The kernel translates what comes to a published port before any socket sees
// it, so a socket has nothing to do but be there, behind a filter that keeps it
// silent. What the kernel cannot translate the same socket serves: clients of
// [::1], clients by a link-local address, and clients of the family that the
// container does not have.
//
// Clients of a socket are bounded, for each port and for each client, so that no
// number of them takes from the process what it needs for anything else.
//
// Sockets on a [Shelf] outlive the process: the next one inherits them, with
// the clients that wait in their queues.
package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

const (
	// closeTimeout bounds how long Close waits, for connections to end and for
	// the shelf.
	closeTimeout = 500 * time.Millisecond
	// shelveTimeout is the part of it that is the shelf's.
	shelveTimeout = 400 * time.Millisecond
	// shelfTimeout bounds how long Hold waits for the shelf to let go of a
	// port.
	shelfTimeout = 500 * time.Millisecond
	// dialTimeout bounds how long a client waits for its container: until a second
	// after the third time that TCP asks again.
	dialTimeout = 8 * time.Second
)

// InUseError says that a host port cannot be had.
type InUseError struct {
	Port desired.Port
	// Owner is who holds the port, or one that overlaps with it, in the words of
	// [Holder.Hold]; empty where it is no owner of this Holder.
	Owner string
	Err   error
}

func (e *InUseError) Error() string {
	verb := "publish"
	if e.Port.Kind() == desired.Redirected {
		verb = "redirect"
	}
	return fmt.Sprintf("cannot %s host port %s: %s", verb, e.Port.Key(), e.reason())
}

func (e *InUseError) reason() string {
	switch {
	case e.Owner != "":
		return fmt.Sprintf("%s has it: %v", e.Owner, e.Err)
	case errors.Is(e.Err, unix.EADDRINUSE):
		return fmt.Sprintf("another program on this host has it: %v", unix.EADDRINUSE)
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		return "the host has no such address"
	case errors.Is(e.Err, unix.EMFILE):
		return fmt.Sprintf("nftnet has no file descriptor left (LimitNOFILE of its service): %v", e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns the system's error.
func (e *InUseError) Unwrap() error { return e.Err }

// IsTaken reports whether err means that another has the port, so that another
// port may be free.
func IsTaken(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

// IsMissingAddress reports whether err means that the host lacks the address.
func IsMissingAddress(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }

// HasIPv6 reports whether the kernel has IPv6 sockets at all. The sysctl
// disable_ipv6 does not matter: a socket on [::] gets its clients as soon as
// there is an address.
var HasIPv6 = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
})

// Holder holds port sockets, each for one owner. Its methods may be called from
// several goroutines. None waits for a client or a container.
type Holder struct {
	log   *slog.Logger
	shelf Shelf
	// dial reaches containers.
	dial net.Dialer
	// account bounds what clients take.
	account *account
	// work counts the goroutines that serve.
	work sync.WaitGroup

	// mu protects what follows. Nothing but memory, and the system calls that
	// make and close a socket, is used while it is held.
	mu     sync.Mutex
	closed bool
	held   map[slot]map[netip.Addr]holding
}

// slot is where ports can stand in each other's way.
type slot struct {
	proto uint8
	v6    bool
	port  uint16
}

func slotOf(p desired.Port) slot {
	return slot{p.Proto, p.Host.Addr().Is6(), p.Host.Port()}
}

// holding is a held port.
type holding struct {
	owner  string
	socket socket
}

// socket is a bound socket of one protocol.
type socket interface {
	syscall.Conn
	// serve leads clients to a container, instead of where it led them before.
	serve(to netip.AddrPort, sources desired.Sources)
	// hush makes the socket silent and ends what it serves.
	hush()
	// settle hushes an inherited socket that does not serve.
	settle()
	// close ends what the socket serves and closes it. Its duplicates stay as
	// they are.
	close() error
	// retire takes the socket from its duplicates as well, as far as the
	// protocol allows it. close follows.
	retire()
}

// NewHolder makes a Holder that holds nothing yet. The shelf may be nil.
func NewHolder(log *slog.Logger, shelf Shelf) *Holder {
	return &Holder{log: log, shelf: shelf, dial: net.Dialer{Timeout: dialTimeout},
		account: newAccount(limitsOf(openFiles())), held: map[slot]map[netip.Addr]holding{}}
}

// Hold binds the port's socket for an owner, silent; where it was inherited from
// the shelf, it goes on as it was until [Holder.Serve]. To hold again what the
// same owner has is no error, wherever the port leads now. All errors are of
// type [*InUseError].
//
// Where the shelf has not yet let go of a port that was released, Hold waits for
// it, half a second at most.
func (h *Holder) Hold(p desired.Port, owner string) error {
	err := h.hold(p, owner)
	var taken *InUseError
	if !IsTaken(err) || errors.As(err, &taken) && taken.Owner != "" || h.shelf == nil || !h.shelf.Dropping(slotName(p)) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), shelfTimeout)
	defer cancel()
	if h.shelf.Barrier(ctx) != nil {
		return err
	}
	return h.hold(p, owner)
}

func (h *Holder) hold(p desired.Port, owner string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return &InUseError{Port: p, Err: net.ErrClosed}
	}
	if have, ok := h.held[slotOf(p)][p.Host.Addr()]; ok {
		if have.owner == owner {
			return nil
		}
		return &InUseError{Port: p, Owner: have.owner, Err: unix.EADDRINUSE}
	}
	s, err := h.open(p)
	if err != nil {
		e := &InUseError{Port: p, Err: err}
		if IsTaken(err) {
			e.Owner = h.overlapping(p)
		}
		return e
	}
	if h.held[slotOf(p)] == nil {
		h.held[slotOf(p)] = map[netip.Addr]holding{}
	}
	h.held[slotOf(p)][p.Host.Addr()] = holding{owner, s}
	h.account.hold(1)
	return nil
}

// overlapping returns the owner of a held port that answers the same packets.
func (h *Holder) overlapping(p desired.Port) string {
	for a, have := range h.held[slotOf(p)] {
		if a.IsUnspecified() || p.Any() {
			return have.owner
		}
	}
	return ""
}

// open makes the port's socket, or takes the inherited one.
func (h *Holder) open(p desired.Port) (socket, error) {
	if s := h.inherit(p); s != nil {
		return s, nil
	}
	s, err := h.bind(p)
	if err != nil {
		return nil, err
	}
	if _, err := s.SyscallConn(); err == nil && h.shelf != nil {
		h.shelf.Put(socketName(p), s)
	}
	return s, nil
}

func (h *Holder) bind(p desired.Port) (socket, error) {
	switch p.Proto {
	case unix.IPPROTO_TCP:
		return h.listenTCP(p)
	case unix.IPPROTO_UDP:
		return h.listenUDP(p)
	case unix.IPPROTO_SCTP:
		return bindSCTP(p)
	}
	return nil, fmt.Errorf("%s is not supported: use tcp, udp or sctp", desired.ProtoName(p.Proto))
}

// Clients are those that a port's socket serves.
type Clients struct {
	// Neighbours are the subnets whose containers the rules leave to the socket,
	// though the kernel could translate them.
	Neighbours []netip.Prefix
	// Sources bounds who is served.
	Sources desired.Sources
}

// Serve leads the clients of a held port to p.Container, as far as the kernel
// cannot translate them or the rules leave them to the socket; a port without
// such clients is silent. It may be called again, to lead to another container
// or to serve other clients: the socket stays bound, no client is refused
// meanwhile, and nobody outside the sources is let in. Where the container is
// another one, the connections and associations to the former one end. A port
// that is not held is left alone.
func (h *Holder) Serve(p desired.Port, clients Clients) {
	s, ok := h.find(p)
	switch {
	case !ok:
	case !served(p) && len(clients.Neighbours) == 0:
		s.hush()
	case p.Kind() == desired.Translated:
		s.serve(p.Container, clients.untranslated(p))
	default:
		s.serve(p.Container, clients.Sources)
	}
}

var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// untranslated are those of the sources that the kernel does not translate to a
// port. What it translates comes to the socket only where it is of no connection
// that the kernel knows (a late segment, a table that somebody flushed): an open
// listener would reset it.
func (c Clients) untranslated(p desired.Port) desired.Sources {
	among := c.Neighbours
	if served(p) {
		among = append([]netip.Prefix{linkLocal6}, among...)
	}
	if !c.Sources.Limited {
		return desired.Sources{Limited: true, Prefixes: among}
	}
	out := desired.Sources{Limited: true}
	for _, a := range c.Sources.Prefixes {
		for _, b := range among {
			switch {
			case !a.Overlaps(b):
			case a.Bits() < b.Bits():
				out.Prefixes = append(out.Prefixes, b)
			default:
				out.Prefixes = append(out.Prefixes, a)
			}
		}
	}
	return out
}

// Hush makes a held port silent, as it was before it was served, and ends what
// it serves.
func (h *Holder) Hush(p desired.Port) {
	if s, ok := h.find(p); ok {
		s.hush()
	}
}

func (h *Holder) find(p desired.Port) (socket, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, ok := h.held[slotOf(p)][p.Host.Addr()]
	return have.socket, ok
}

// served reports whether a port has clients that the kernel cannot translate.
func served(p desired.Port) bool {
	return p.Kind() != desired.Redirected && (p.Kind() != desired.Translated || (p.Host.Addr().Is6() && p.Any()) || p.Host.Addr().IsLinkLocalUnicast())
}

// Release closes the port's socket, if this owner holds it: another program can
// have the port when Release returns. (A UDP or SCTP port that is on the shelf
// is free as soon as the shelf has let go of it, which Release does not wait
// for.) Connections that the port serves are reset, and dials to its container
// are cancelled; their goroutines end soon after.
func (h *Holder) Release(p desired.Port, owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, ok := h.held[slotOf(p)][p.Host.Addr()]
	if !ok || have.owner != owner {
		return
	}
	delete(h.held[slotOf(p)], p.Host.Addr())
	h.account.hold(-1)
	if len(h.held[slotOf(p)]) == 0 {
		delete(h.held, slotOf(p))
	}
	if h.shelf != nil {
		have.socket.retire()
		h.shelf.Drop(socketName(p))
	}
	if err := have.socket.close(); err != nil {
		h.log.Warn("close port socket", "port", p.Key(), "error", err)
	}
}

// Len returns how many ports are held.
func (h *Holder) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, at := range h.held {
		n += len(at)
	}
	return n
}

// Close closes every socket and ends what they serve. Sockets that are on a
// shelf stay there: the clients of a TCP port wait in its queue for whoever
// inherits it. Close returns within half a second, whatever clients,
// containers and the shelf do; what has not ended by then goes on by itself.
func (h *Holder) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	if h.shelf != nil {
		h.shelve()
	}
	err := h.closeAll()
	done := make(chan struct{})
	go func() {
		h.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		h.log.Warn("connections of published ports have not ended", "waited", closeTimeout)
	}
	return err
}

// shelve waits until the shelf has every socket: one that is closed before is
// lost.
func (h *Holder) shelve() {
	ctx, cancel := context.WithTimeout(context.Background(), shelveTimeout)
	defer cancel()
	if err := h.shelf.Barrier(ctx); err != nil {
		h.log.Warn("leave the port sockets to the service manager", "error", err)
	}
}

func (h *Holder) closeAll() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, at := range h.held {
		for _, have := range at {
			errs = append(errs, have.socket.close())
		}
	}
	clear(h.held)
	return errors.Join(errs...)
}
