package port

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/fdstore/fdstoretest"
)

// few are limits that a test can reach.
var few = limits{
	files: 400, connections: 60, perPort: 40, perPrefix: 50, perClient: 20, dials: 12, dialsPerClient: 8,
	associations: 20, associationsPerClient: 8,
}

func limited(t *testing.T) *Holder {
	t.Helper()
	h := holder(t)
	h.account.max = few
	return h
}

// serveAt is a port of the host on every address, which leads to a container of
// the other family.
func serveAt(t *testing.T, h *Holder, proto uint8, number int, container string) desired.Port {
	t.Helper()
	p := published(proto, fmt.Sprintf("0.0.0.0:%d", number), container)
	hold(t, h, p)
	h.Serve(p, Clients{})
	return p
}

// knock connects to a port from an address, and returns the connection where it
// is served.
func knock(t *testing.T, from, to string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp4", to)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err = c.Write([]byte("x")); err == nil {
		_, err = readByte(c)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// knocks connects often, and returns those that are served.
func knocks(t *testing.T, n int, from, to string) []net.Conn {
	t.Helper()
	var mu sync.Mutex
	var out []net.Conn
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if c, err := knock(t, from, to); err == nil {
				mu.Lock()
				defer mu.Unlock()
				out = append(out, c)
			}
		})
	}
	all.Wait()
	return out
}

func closeAll(list []net.Conn) {
	for _, c := range list {
		_ = c.Close()
	}
}

func (a *account) counts() (connections, associations int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connections, a.associations
}

func isIdle(h *Holder) bool {
	connections, associations := h.account.counts()
	h.account.mu.Lock()
	defer h.account.mu.Unlock()
	return connections == 0 && associations == 0 && len(h.account.clients) == 0 && len(h.account.prefixes) == 0
}

func TestLimitsOf(t *testing.T) {
	for _, nofile := range []int{0, 64, 256, 1024, 20000, 524288, 1 << 30} {
		l := limitsOf(nofile)
		if l.files > nofile-minReserve || 2*l.connections > max(l.files, 2) || l.perClient < 1 || l.perPort > l.connections || l.connections > maxConnections {
			t.Errorf("%d files: %+v", nofile, l)
		}
	}
}

// TestA72Connections: one client takes no more than its share of the connections,
// many clients no more than the port's; others go on, and all comes back.
func TestA72Connections(t *testing.T) {
	h := limited(t)
	// The container answers at once, or soon, where the machine is busy.
	h.account.max.dials, h.account.max.dialsPerClient = few.connections, few.connections
	echoTCP(t, "[::1]:8000")
	serveAt(t, h, unix.IPPROTO_TCP, 8080, "[::1]:8000")
	serveAt(t, h, unix.IPPROTO_TCP, 8081, "[::1]:8000")
	one := knocks(t, 300, "127.0.0.2", "127.0.0.1:8080")
	if len(one) != few.perClient {
		t.Errorf("one client has %d connections, its limit is %d", len(one), few.perClient)
	}
	if c, err := knock(t, "127.0.0.2", "127.0.0.1:8081"); err == nil {
		t.Error("the client has more by another port")
		_ = c.Close()
	}
	another := knocks(t, 5, "127.0.0.3", "127.0.0.1:8080")
	if len(another) != 5 {
		t.Errorf("another client has %d of 5 connections", len(another))
	}
	var many []net.Conn
	for i := range 30 {
		many = append(many, knocks(t, 3, fmt.Sprintf("127.0.1.%d", i+1), "127.0.0.1:8080")...)
	}
	if n := len(one) + len(another) + len(many); n != few.perPort {
		t.Errorf("the port has %d connections, its limit is %d", n, few.perPort)
	}
	other := knocks(t, 5, "127.0.0.4", "127.0.0.1:8081")
	if len(other) != 5 {
		t.Errorf("the other port serves %d of 5 clients", len(other))
	}
	for _, list := range [][]net.Conn{one, another, many, other} {
		closeAll(list)
	}
	fdstoretest.WaitFor(t, "everything is given back", func() bool { return isIdle(h) })
	if got := knocks(t, 5, "127.0.0.2", "127.0.0.1:8080"); len(got) != 5 {
		t.Errorf("%d of 5 clients are served afterwards", len(got))
	} else {
		closeAll(got)
	}
}

// TestA72Reserve: where clients have all the files that they may have, the rest
// stays free, and who comes waits in the queue until there is room.
func TestA72Reserve(t *testing.T) {
	h := limited(t)
	h.account.max.files = 1 + 2*10
	h.account.max.dials, h.account.max.dialsPerClient = few.connections, few.connections
	echoTCP(t, "[::1]:8000")
	serveAt(t, h, unix.IPPROTO_TCP, 8080, "[::1]:8000")
	have := knocks(t, 10, "127.0.0.2", "127.0.0.1:8080")
	if len(have) != 10 {
		t.Fatalf("%d of 10 clients are served", len(have))
	}
	waits := make(chan error, 1)
	go func() {
		c, err := knock(t, "127.0.0.3", "127.0.0.1:8080")
		if err == nil {
			_ = c.Close()
		}
		waits <- err
	}()
	if n, _ := h.account.counts(); n != 10 {
		t.Errorf("%d connections, there is room for 10", n)
	}
	select {
	case err := <-waits:
		t.Errorf("a client beyond the limit does not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	closeAll(have)
	select {
	case err := <-waits:
		if err != nil {
			t.Errorf("the client that waited: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the client waits on after the others have gone")
	}
}

// TestA72Dials: clients that wait for a silent container take the place of
// earlier ones, and a client that leaves takes its dial along.
func TestA72Dials(t *testing.T) {
	h := limited(t)
	h.dial.Timeout = time.Hour
	void := silentContainer(t)
	p := published(unix.IPPROTO_TCP, "[::]:8080", netip.AddrPortFrom(void, 80).String())
	hold(t, h, p)
	h.Serve(p, Clients{})
	var clients []net.Conn
	for range few.perClient - 1 {
		c, err := net.Dial("tcp6", "[::1]:8080")
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	waiting := func() int { n, _ := h.account.counts(); return n }
	fdstoretest.WaitFor(t, "as many dials as a client may have", func() bool { return waiting() == few.dialsPerClient })
	// The first ones were told so, the last ones wait.
	_ = clients[0].SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := clients[0].Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the first client sees %v", err)
	}
	last := clients[len(clients)-1]
	_ = last.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := last.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the last client sees %v", err)
	}
	for _, c := range clients {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	fdstoretest.WaitFor(t, "the dials of clients that left end", func() bool { return isIdle(h) })
}

// TestA72Silent: a client that leaves while its container reads and says nothing
// does not keep its connection.
func TestA72Silent(t *testing.T) {
	h := limited(t)
	h.account.max.dialsPerClient = few.perClient
	h.account.max.dials = few.perClient
	l, err := net.Listen("tcp", "[::1]:8000") // and never accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serveAt(t, h, unix.IPPROTO_TCP, 8080, "[::1]:8000")
	fill := make([]byte, 1<<20)
	var clients []net.Conn
	for i := range 18 {
		c, err := net.Dial("tcp4", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		if i < 6 {
			// As much as goes in, so that nobody reads from the client any more.
			for c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
				if _, err := c.Write(fill); err != nil {
					break
				}
			}
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	}
	fdstoretest.WaitFor(t, "the clients are connected", func() bool { n, _ := h.account.counts(); return n == len(clients) })
	closeAll(clients)
	fdstoretest.WaitFor(t, "everything is given back", func() bool { return isIdle(h) })
}

// TestA72Pipes: connections that ended leave no file, also before the runtime
// collects its garbage.
func TestA72Pipes(t *testing.T) {
	h := holder(t)
	greeter(t, "[::1]:8000", "A")
	serveAt(t, h, unix.IPPROTO_TCP, 8080, "[::1]:8000")
	closeAll(knocks(t, 5, "127.0.0.2", "127.0.0.1:8080"))
	before, _ := settled(t)
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	have := knocks(t, 50, "127.0.0.2", "127.0.0.1:8080")
	// The two ends of client and container are of this process as well.
	if n := files(); n > before+4*len(have) {
		t.Errorf("%d connections take %d files", len(have), n-before)
	}
	closeAll(have)
	fdstoretest.WaitFor(t, "all files are given back", func() bool { return files() <= before })
}

// TestA72LargeTransfers: what is carried arrives whole, both ways at once.
func TestA72LargeTransfers(t *testing.T) {
	h := holder(t)
	echoTCP(t, "[::1]:8000")
	serveAt(t, h, unix.IPPROTO_TCP, 8080, "[::1]:8000")
	const size = 32 << 20
	c := dial(t, "tcp4", "127.0.0.1:8080").(*net.TCPConn)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		block := make([]byte, 1<<20)
		for i := range size >> 20 {
			for j := range block {
				block[j] = byte(i + j>>8)
			}
			if _, err := c.Write(block); err != nil {
				return
			}
		}
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || len(got) != size {
		t.Fatalf("%d bytes came back of %d: %v", len(got), size, err)
	}
	for at := 0; at < size; at += 997 {
		if want := byte(at>>20 + at&(1<<20-1)>>8); got[at] != want {
			t.Fatalf("byte %d is %d, want %d", at, got[at], want)
		}
	}
}

// TestA72Associations: clients of UDP replace their own oldest ones first, then
// the one that was silent for the longest time.
func TestA72Associations(t *testing.T) {
	h := limited(t)
	answererUDP(t, "[::1]:5300", "A")
	serveAt(t, h, unix.IPPROTO_UDP, 5353, "[::1]:5300")
	client := func(from string) net.Conn {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5353})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	quiet := client("127.0.0.9")
	_ = ask(t, quiet, "x")
	// The container's side of an association shows which one it is.
	associated := func(c net.Conn) bool {
		from := netip.MustParseAddrPort(c.LocalAddr().String())
		for _, s := range h.sockets() {
			u, ok := s.(*udpSocket)
			if !ok {
				continue
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			for known := range u.lead.associations.of {
				if netip.AddrPortFrom(known.from.Addr().Unmap(), known.from.Port()) == from {
					return true
				}
			}
		}
		return false
	}
	var flood []net.Conn
	for range 5 * few.associations {
		c := client("127.0.0.2")
		_ = ask(t, c, "x")
		flood = append(flood, c)
	}
	if _, n := h.account.counts(); n != few.associationsPerClient+1 {
		t.Errorf("%d associations, one client may have %d", n, few.associationsPerClient)
	}
	if !associated(quiet) || associated(flood[0]) || !associated(flood[len(flood)-1]) {
		t.Error("one client's flood replaces another's association, or the latest one")
	}
	for i := range 3 * few.associations {
		_ = ask(t, quiet, "x")
		_ = ask(t, client(fmt.Sprintf("127.0.2.%d", i+1)), "x")
	}
	if _, n := h.account.counts(); n != few.associations {
		t.Errorf("%d associations, the port may have %d", n, few.associations)
	}
	if !associated(quiet) {
		t.Error("an association in use was replaced by those of other clients")
	}
	h.Release(published(unix.IPPROTO_UDP, "0.0.0.0:5353", "[::1]:5300"), "a")
	fdstoretest.WaitFor(t, "everything is given back", func() bool { return isIdle(h) })
}
