package port

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// limits bound what clients can take of the process. All follow from how many
// files it may have open (RLIMIT_NOFILE).
type limits struct {
	// files is what port sockets and clients may have together. The rest is for
	// Docker's calls, the control socket, the state and the kernel's sockets.
	files int
	// connections bounds those of all ports: a connection is two files, one to the
	// client, one to the container.
	connections int
	// perPort, perPrefix and perClient bound the connections to one port, from one
	// /64 of IPv6 to all ports, and from one address to all ports.
	perPort, perPrefix, perClient int
	// dials and dialsPerClient bound, for each port, the connections for which the
	// container has not answered yet.
	dials, dialsPerClient int
	// associations and associationsPerClient bound the clients of a UDP port, and
	// those at one address.
	associations, associationsPerClient int
}

// Bounds of the reserve of files, and of the connections, however many files
// there may be: each costs about 20 KiB of memory, or 50 while data wait.
const (
	minReserve     = 64
	maxReserve     = 1024
	maxConnections = 32768
)

func limitsOf(nofile int) limits {
	l := limits{files: nofile - min(max(nofile/8, minReserve), maxReserve), associations: 1024, associationsPerClient: 256}
	// A quarter is left to UDP.
	l.connections = min(max(l.files*3/8, 1), maxConnections)
	l.perPort, l.perPrefix = max(l.connections/4, 1), max(l.connections/4, 1)
	l.perClient = max(l.connections/8, 1)
	// A burst of clients, on a machine that is busy, waits for a short time.
	l.dials, l.dialsPerClient = max(l.perPort/2, 1), max(l.perClient/2, 1)
	return l
}

func openFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 1 << 20
	}
	return int(r.Cur)
}

var (
	errBusyClient = errors.New("the client has too many connections")
	errBusyPort   = errors.New("the port has too many connections")
	errBusy       = errors.New("too many connections")
)

// account counts what clients of all ports have.
type account struct {
	mu  sync.Mutex
	max limits
	// held is the number of port sockets, associations those of UDP clients.
	held, connections, associations int
	clients                         map[netip.Addr]int
	prefixes                        map[netip.Prefix]int
	// open are the connections, for the janitor, which runs while there are any.
	open map[*connection]bool
}

func newAccount(max limits) *account {
	return &account{max: max, clients: map[netip.Addr]int{}, prefixes: map[netip.Prefix]int{}, open: map[*connection]bool{}}
}

// hold counts port sockets.
func (a *account) hold(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held += n
}

// free is how many more files clients may have; mu is held.
func (a *account) free() int { return a.max.files - a.held - 2*a.connections - a.associations }

// room reports whether another connection may be accepted: otherwise it waits
// in the kernel's queue.
func (a *account) room() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connections < a.max.connections && a.free() >= 2
}

// wide is the network whose addresses one host may have in any number.
func wide(client netip.Addr) (netip.Prefix, bool) {
	if !client.Is6() || client.IsLinkLocalUnicast() || client.IsLoopback() {
		return netip.Prefix{}, false
	}
	p, err := client.Prefix(64)
	return p, err == nil
}

// begin counts a connection from its client on. It is an error where the client
// or its port has too many.
func (a *account) begin(c *connection, port *int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	prefix, isWide := wide(c.from)
	switch {
	case a.free() < 2:
		return errBusy
	case a.clients[c.from] >= a.max.perClient, isWide && a.prefixes[prefix] >= a.max.perPrefix:
		return errBusyClient
	case *port >= a.max.perPort:
		return errBusyPort
	}
	*port++
	a.connections++
	a.clients[c.from]++
	if isWide {
		a.prefixes[prefix]++
	}
	if len(a.open) == 0 {
		go a.clean()
	}
	a.open[c] = true
	return nil
}

// end gives back what begin counted.
func (a *account) end(c *connection, port *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
	*port--
	a.connections--
	forget(a.clients, c.from)
	if prefix, isWide := wide(c.from); isWide {
		forget(a.prefixes, prefix)
	}
}

func forget[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}

// associate counts a UDP client; false where there are too many files.
func (a *account) associate() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.free() < 1 {
		return false
	}
	a.associations++
	return true
}

func (a *account) dissociate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.associations--
}

// janitorPause is how often connections are looked at whose client may have left
// while nothing reads from it.
const janitorPause = 2 * time.Second

// clean ends connections whose clients are gone, as long as there are any
// connections.
func (a *account) clean() {
	for {
		time.Sleep(janitorPause)
		a.mu.Lock()
		all := make([]*connection, 0, len(a.open))
		for c := range a.open {
			all = append(all, c)
		}
		if len(all) == 0 {
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		idle := halfIdle
		if len(all) > a.max.perClient/4 {
			idle = halfIdleOfMany
		}
		for _, c := range all {
			c.endIfGone(idle)
		}
	}
}

// dials are the connections of one port that wait for their container, the
// oldest first.
type dials struct {
	mu      sync.Mutex
	waiting list.List
}

type waiting struct {
	from   netip.Addr
	cancel context.CancelCauseFunc
}

// errReplaced ends a dial for the sake of a later one.
var errReplaced = errors.New("later clients wait for the container as well")

// begin counts a dial, and cancels the oldest one of the same client, or of all,
// where there are too many. end must be called.
func (d *dials) begin(ctx context.Context, from netip.Addr, max limits) (dial context.Context, end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := 0
	var oldest *list.Element
	for e := d.waiting.Front(); e != nil; e = e.Next() {
		if e.Value.(*waiting).from == from {
			if same++; oldest == nil {
				oldest = e
			}
		}
	}
	if same < max.dialsPerClient {
		oldest = nil
	}
	if oldest == nil && d.waiting.Len() >= max.dials {
		oldest = d.waiting.Front()
	}
	if oldest != nil {
		d.waiting.Remove(oldest).(*waiting).cancel(errReplaced)
	}
	dial, cancel := context.WithCancelCause(ctx)
	e := d.waiting.PushBack(&waiting{from, cancel})
	return dial, func() {
		d.mu.Lock()
		d.waiting.Remove(e) // of another list, or of none: nothing happens
		d.mu.Unlock()
		cancel(nil)
	}
}

// seldom lets something be logged once in a while.
type seldom struct {
	mu   sync.Mutex
	next time.Time
}

const seldomPause = time.Minute

func (s *seldom) now() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.next) {
		return false
	}
	s.next = time.Now().Add(seldomPause)
	return true
}
