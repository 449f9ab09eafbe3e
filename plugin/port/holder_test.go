package port

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/fdstore/fdstoretest"
	"nftnet/internal/nstest"
)

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// silentContainer is an address of which no packet comes back.
func silentContainer(t *testing.T) netip.Addr {
	t.Helper()
	ip(t, "link", "add", "void0", "type", "veth", "peer", "name", "void1")
	t.Cleanup(func() { ip(t, "link", "del", "void0") })
	ip(t, "addr", "add", "192.0.2.1/24", "dev", "void0")
	ip(t, "link", "set", "void0", "up")
	ip(t, "link", "set", "void1", "up")
	ip(t, "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "void0", "nud", "permanent")
	return netip.MustParseAddr("192.0.2.9")
}

// dialing reports whether a connection to 192.0.2.9:80 waits for the answer to
// its SYN.
func dialing(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), " 090200C0:0050 02 ")
}

// returns fails the test if a function does not return.
func returns(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not return", what)
	}
}

func hold(t *testing.T, h *Holder, p desired.Port) {
	t.Helper()
	if err := h.Hold(p, "a"); err != nil {
		t.Fatal(err)
	}
}

// greeter is a container that says its name to each client and then waits for
// the client to go.
func greeter(t *testing.T, addr, name string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Write([]byte(name))
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
}

// answererUDP is a container that answers each datagram with its name before
// what it got. It returns its socket.
func answererUDP(t *testing.T, addr, name string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name+string(buf[:n])), from)
		}
	}()
	return c
}

func readByte(c net.Conn) (string, error) {
	b := make([]byte, 1)
	_, err := io.ReadFull(c, b)
	return string(b), err
}

func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("answer to %q: %v", text, err)
	}
	return string(buf[:n])
}

func TestOneOwner(t *testing.T) {
	h := holder(t)
	p := published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80")
	moved := published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.2.0.2:80")
	part := published(unix.IPPROTO_TCP, "127.0.0.1:8080", "10.1.0.2:80")
	hold(t, h, p)
	if err := h.Hold(moved, "a"); err != nil {
		t.Errorf("the owner moves the port to another address: %v", err)
	}
	for _, q := range []desired.Port{p, moved, part} {
		err := h.Hold(q, "b")
		var inUse *InUseError
		if !errors.As(err, &inUse) || !IsTaken(err) || inUse.Owner != "a" || inUse.Port != q {
			t.Errorf("%s for another owner: %#v", q, err)
		}
	}
	h.Release(p, "b")
	h.Release(part, "a")
	if !refusesTCP("tcp4", "127.0.0.1:8080") || h.Len() != 1 {
		t.Error("a port was released by somebody who does not hold it")
	}
	h.Release(moved, "a")
	if refusesTCP("tcp4", "0.0.0.0:8080") || h.Len() != 0 {
		t.Error("the owner cannot release the port")
	}
	if err := h.Hold(part, "b"); err != nil {
		t.Errorf("after the release: %v", err)
	}
	err := h.Hold(p, "a")
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.Owner != "b" || !strings.Contains(err.Error(), "0.0.0.0:8080/tcp: b has it") {
		t.Errorf("every address, of which another owner has one: %v", err)
	}
}

// TestNothingWaitsForASilentContainer: D1.5. A container does not answer the
// driver's SYN; its port and all others are released, and the driver ends, all
// the same, and the client hears of it.
func TestNothingWaitsForASilentContainer(t *testing.T) {
	for what, end := range map[string]func(*Holder, desired.Port){
		"release": func(h *Holder, p desired.Port) { h.Release(p, "a") },
		"close":   func(h *Holder, _ desired.Port) { _ = h.Close() },
		"hush":    func(h *Holder, p desired.Port) { h.Hush(p) },
		"serve": func(h *Holder, p desired.Port) {
			p.Container = netip.MustParseAddrPort("127.0.0.1:8000")
			h.Serve(p, Clients{})
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := holder(t)
			// Nothing but the driver itself ends the dial.
			h.dial.Timeout = time.Hour
			greeter(t, "127.0.0.1:8000", "A")
			p := published(unix.IPPROTO_TCP, "[::1]:8080", netip.AddrPortFrom(silentContainer(t), 80).String())
			other := published(unix.IPPROTO_TCP, "[::1]:8081", "127.0.0.1:8000")
			hold(t, h, p)
			h.Serve(p, Clients{})
			c := dial(t, "tcp6", "[::1]:8080")
			fdstoretest.WaitFor(t, "the driver dials the container", func() bool { return dialing(t) })

			hold(t, h, other)
			h.Serve(other, Clients{})
			if name, err := readByte(dial(t, "tcp6", "[::1]:8081")); name != "A" {
				t.Errorf("another port answers %q, %v", name, err)
			}
			h.Release(other, "a")
			if !dialing(t) {
				t.Fatal("the dial has ended by itself")
			}
			returns(t, what, func() { end(h, p) })
			name, err := readByte(c)
			if what == "serve" && name != "A" {
				t.Errorf("the client gets %q of the new container, %v", name, err)
			}
			if what != "serve" && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the client sees %v, want a reset", err)
			}
			fdstoretest.WaitFor(t, "the dial ends", func() bool { return !dialing(t) })
			if what == "release" && refusesTCP("tcp6", "[::1]:8080") {
				t.Error("a released port is still taken")
			}
		})
	}
}

// TestServeAnotherContainer: the port moves; nobody is refused and nobody else
// gets the port on the way, and the former container's clients end.
func TestServeAnotherContainer(t *testing.T) {
	h := holder(t)
	greeter(t, "127.0.0.1:8000", "A")
	greeter(t, "127.0.0.1:8001", "B")
	targets := map[string]desired.Port{
		"A": published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000"),
		"B": published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8001"),
	}
	hold(t, h, targets["A"])
	h.Serve(targets["A"], Clients{})

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var answered atomic.Int32
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A reset is the end of a connection to the former container. It may
				// come before the dial is done on this side.
				c, err := net.DialTimeout("tcp6", "[::1]:8080", 10*time.Second)
				if errors.Is(err, unix.ECONNRESET) {
					continue
				}
				if err != nil {
					t.Errorf("a client while the port moves: %v", err)
					return
				}
				if name, err := readByte(c); err == nil && (name == "A" || name == "B") {
					answered.Add(1)
				} else if !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("a client while the port moves gets %q, %v", name, err)
				}
				_ = c.Close()
			}
		})
	}
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !refusesTCP("tcp6", "[::]:8080") || !refusesTCP("tcp6", "[::1]:8080") {
				t.Error("another program gets the port while it moves")
				return
			}
		}
	})
	for range 50 {
		for _, name := range []string{"B", "A"} {
			before := dial(t, "tcp6", "[::1]:8080")
			if _, err := readByte(before); err != nil {
				t.Fatal(err)
			}
			h.Serve(targets[name], Clients{})
			if got, err := readByte(dial(t, "tcp6", "[::1]:8080")); got != name {
				t.Errorf("after the move to %s a new client gets %q, %v", name, got, err)
			}
			if _, err := readByte(before); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a client of the former container sees %v, want a reset", err)
			}
		}
	}
	close(stop)
	clients.Wait()
	if answered.Load() == 0 {
		t.Error("no client was answered while the port moved")
	}
}

// TestServeTheSameAgain: what does not change does not disturb.
func TestServeTheSameAgain(t *testing.T) {
	h := holder(t)
	echoTCP(t, "127.0.0.1:8000")
	answererUDP(t, "127.0.0.1:5300", "A")
	tcp := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000")
	udp := published(unix.IPPROTO_UDP, "[::1]:5353", "127.0.0.1:5300")
	hold(t, h, tcp)
	hold(t, h, udp)
	var sources desired.Sources
	h.Serve(tcp, Clients{})
	h.Serve(udp, Clients{})
	c, d := dial(t, "tcp6", "[::1]:8080"), dial(t, "udp6", "[::1]:5353")
	var from net.Addr
	for i := range 3 {
		if got := ask(t, c, "x"); got != "x" {
			t.Errorf("round %d: the connection answers %q", i, got)
		}
		if got := ask(t, d, "x"); got != "Ax" {
			t.Errorf("round %d: the association answers %q", i, got)
		}
		if now := c.LocalAddr(); from != nil && now != from {
			t.Error("the client has another connection")
		}
		from = c.LocalAddr()
		// The host is always a source: the clients here do not change.
		sources.Limited = true
		sources.Prefixes = append(sources.Prefixes, netip.PrefixFrom(netip.MustParseAddr("2001:db8::"), 64+i))
		h.Serve(tcp, Clients{Sources: sources})
		h.Serve(udp, Clients{Sources: sources})
	}
}

// TestUDPMovesToAnotherContainer: the same client is answered by the new
// container, and hears no more of the former one.
func TestUDPMovesToAnotherContainer(t *testing.T) {
	h := holder(t)
	var former net.Addr
	a, err := net.ListenPacket("udp4", "127.0.0.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	answererUDP(t, "127.0.0.1:5301", "B")
	p := published(unix.IPPROTO_UDP, "[::1]:5353", "127.0.0.1:5300")
	hold(t, h, p)
	h.Serve(p, Clients{})
	c := dial(t, "udp6", "[::1]:5353")
	if _, err := c.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	if _, former, err = a.ReadFrom(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := a.WriteTo([]byte("A1"), former); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "A1" {
		t.Fatalf("answer %q, %v", buf[:n], err)
	}
	p.Container = netip.MustParseAddrPort("127.0.0.1:5301")
	h.Serve(p, Clients{})
	fdstoretest.WaitFor(t, "the former container's association ends", func() bool {
		// The kernel takes the address for another socket once it is free.
		s, err := net.ListenPacket("udp4", former.String())
		if err == nil {
			_ = s.Close()
		}
		return err == nil
	})
	if _, err := a.WriteTo([]byte("late"), former); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, c, "2"); got != "B2" {
		t.Errorf("after the move the client gets %q, want B2", got)
	}
}

func TestHush(t *testing.T) {
	h := holder(t)
	greeter(t, "127.0.0.1:8000", "A")
	answererUDP(t, "127.0.0.1:5300", "A")
	tcp := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000")
	udp := published(unix.IPPROTO_UDP, "[::1]:5353", "127.0.0.1:5300")
	hold(t, h, tcp)
	hold(t, h, udp)
	h.Hush(tcp)
	for range 2 {
		h.Serve(tcp, Clients{})
		h.Serve(udp, Clients{})
		c, d := dial(t, "tcp6", "[::1]:8080"), dial(t, "udp6", "[::1]:5353")
		if name, err := readByte(c); name != "A" {
			t.Fatalf("the container answers %q, %v", name, err)
		}
		if got := ask(t, d, "x"); got != "Ax" {
			t.Fatalf("the container answers %q", got)
		}
		h.Hush(tcp)
		h.Hush(udp)
		if _, err := readByte(c); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a client of a port that became silent sees %v, want a reset", err)
		}
		if c, err := net.DialTimeout("tcp6", "[::1]:8080", 300*time.Millisecond); err == nil {
			_ = c.Close()
			t.Error("a silent port answers a client")
		} else if !os.IsTimeout(err) {
			t.Errorf("a silent port refuses a client: %v", err)
		}
		if err := d.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read(make([]byte, 9)); !os.IsTimeout(err) {
			t.Errorf("a silent port answers a datagram, or refuses it: %v", err)
		}
		if !refusesTCP("tcp6", "[::1]:8080") {
			t.Error("another program can have a silent port")
		}
	}
}

// TestNoMomentForEverybody: while the sources of a port change, one that is in
// none of the lists never gets a packet through.
func TestNoMomentForEverybody(t *testing.T) {
	h := holder(t)
	ip(t, "addr", "add", "198.51.100.1/32", "dev", "lo")
	ip(t, "addr", "add", "198.51.100.2/32", "dev", "lo")
	t.Cleanup(func() {
		ip(t, "addr", "del", "198.51.100.1/32", "dev", "lo")
		ip(t, "addr", "del", "198.51.100.2/32", "dev", "lo")
	})
	// The socket is asked itself: what is behind it checks sources, too.
	opened, err := h.listenUDP(published(unix.IPPROTO_UDP, "198.51.100.2:5353", "[::1]:5300"))
	if err != nil {
		t.Fatal(err)
	}
	s := opened.(*udpSocket)
	defer s.close()
	s.running = true // so that nothing is thrown away that has come through
	stop := make(chan struct{})
	var flood sync.WaitGroup
	defer flood.Wait()
	defer close(stop)
	sender, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1)}, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 2), Port: 5353})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	var sent atomic.Int64
	flood.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = sender.Write([]byte("x"))
				sent.Add(1)
			}
		}
	})
	steps := []func() error{
		func() error { return s.admit(sourcesOf("203.0.113.0/24")) },
		func() error { return s.admit(sourcesOf("192.0.2.0/24", "2001:db8::/32")) },
		func() error { s.hush(); return nil },
	}
	for i := 0; i < 3000 || sent.Load() < 3000; i++ {
		if err := steps[i%len(steps)](); err != nil {
			t.Fatal(err)
		}
		s.muted = false
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.Read(make([]byte, 9)); !os.IsTimeout(err) {
		t.Errorf("a datagram came through one of the changes (%v)", err)
	}
	// The same datagrams come where nobody is kept out.
	if err := s.admit(desired.Anyone); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.Read(make([]byte, 9)); err != nil {
		t.Errorf("an open port: %v", err)
	}
}

func sourcesOf(prefixes ...string) desired.Sources {
	out := desired.Sources{Limited: true}
	for _, p := range prefixes {
		out.Prefixes = append(out.Prefixes, netip.MustParsePrefix(p))
	}
	return out
}

// TestManyAtOnce: a hundred goroutines hold, serve and release the same ports.
func TestManyAtOnce(t *testing.T) {
	h := holder(t)
	echoTCP(t, "127.0.0.1:8000")
	answererUDP(t, "127.0.0.1:8000", "A")
	var ports []desired.Port
	for i := range 5 {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			ports = append(ports, published(proto, fmt.Sprintf("[::]:%d", 9000+i), "127.0.0.1:8000"))
		}
	}
	holders := make([]atomic.Int32, len(ports))
	var all sync.WaitGroup
	for n := range 100 {
		owner := fmt.Sprint("owner ", n)
		all.Go(func() {
			for range 30 {
				i := rand.IntN(len(ports))
				p := ports[i]
				err := h.Hold(p, owner)
				var inUse *InUseError
				if errors.As(err, &inUse) && IsTaken(err) && inUse.Owner != "" && inUse.Owner != owner {
					h.Release(p, owner)
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", owner, err)
					return
				}
				if holders[i].Add(1) != 1 {
					t.Errorf("%s has two owners", p)
				}
				h.Serve(p, Clients{})
				if c, err := net.Dial(desired.ProtoName(p.Proto)+"6", fmt.Sprintf("[::1]:%d", p.Host.Port())); err == nil {
					_, _ = c.Write([]byte("x"))
					p.Container = netip.MustParseAddrPort("127.0.0.1:8009")
					h.Serve(p, Clients{Sources: sourcesOf("2001:db8::/32")})
					_ = c.Close()
				}
				h.Hush(p)
				holders[i].Add(-1)
				h.Release(p, owner)
			}
		})
	}
	returns(t, "the crowd", all.Wait)
	if h.Len() != 0 {
		t.Errorf("%d ports are held after all were released", h.Len())
	}
	for _, p := range ports {
		hold(t, h, p)
	}
}

// TestNothingIsLeft: after their release, ports with clients leave no
// descriptor and no goroutine.
func TestNothingIsLeft(t *testing.T) {
	h := holder(t)
	h.dial.Timeout = time.Hour
	void := silentContainer(t)
	echoTCP(t, "127.0.0.1:8000")
	answererUDP(t, "127.0.0.1:8000", "A")
	tcp := published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000")
	udp := published(unix.IPPROTO_UDP, "[::]:8080", "127.0.0.1:8000")
	dead := published(unix.IPPROTO_TCP, "[::]:8081", netip.AddrPortFrom(void, 80).String())
	round := func() {
		for _, p := range []desired.Port{tcp, udp, dead} {
			hold(t, h, p)
			h.Serve(p, Clients{})
		}
		var clients []net.Conn
		for range 20 {
			for network, addr := range map[string]string{"tcp6": "[::1]:8080", "udp6": "[::1]:8080"} {
				c, err := net.Dial(network, addr)
				if err != nil {
					t.Fatal(err)
				}
				clients = append(clients, c)
				_ = ask(t, c, "x")
			}
			c, err := net.Dial("tcp6", "[::1]:8081")
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		fdstoretest.WaitFor(t, "the driver dials the container", func() bool { return dialing(t) })
		for _, p := range []desired.Port{tcp, udp, dead} {
			h.Release(p, "a")
		}
		for _, c := range clients {
			_ = c.Close()
		}
	}
	// The runtime keeps some for itself, from the first round on.
	round()
	settled(t)
	descriptors, goroutines := settled(t)
	round()
	fdstoretest.WaitFor(t, "descriptors and goroutines are as before", func() bool {
		d, g := settled(t)
		return d <= descriptors && g <= goroutines
	})
}

// settled counts descriptors and goroutines once they do not change any more.
func settled(t *testing.T) (descriptors, goroutines int) {
	t.Helper()
	stable := 0
	fdstoretest.WaitFor(t, "descriptors and goroutines come to rest", func() bool {
		runtime.GC() // the pipes of ended copies are closed by it
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		if d, g := len(list), runtime.NumGoroutine(); d == descriptors && g == goroutines {
			stable++
		} else {
			descriptors, goroutines, stable = d, g, 0
		}
		return stable >= 20
	})
	return descriptors, goroutines
}

// TestCompleteAnswerArrives: what a container sent before it went, a slow
// client still gets.
func TestCompleteAnswerArrives(t *testing.T) {
	h := holder(t)
	l, err := net.Listen("tcp", "127.0.0.1:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000")
	hold(t, h, p)
	h.Serve(p, Clients{})
	// It takes less at a time than there is.
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	c, err := d.Dial("tcp6", "[::1]:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	answer := strings.Repeat("all that there is to say\n", 2000)
	if _, err := server.Write([]byte(answer)); err != nil {
		t.Fatal(err)
	}
	_ = server.(*net.TCPConn).CloseWrite()
	fdstoretest.WaitFor(t, "the driver has got to the end of the answer, the client not", func() bool {
		// FIN_WAIT1: the end waits behind the rest of the answer.
		text, err := os.ReadFile("/proc/thread-self/net/tcp6")
		return err == nil && strings.Contains(string(text), ":1F90 00000000000000000000000001000000:"+fmt.Sprintf("%04X", c.LocalAddr().(*net.TCPAddr).Port)+" 04 ")
	})
	h.Release(p, "a")
	if got, err := io.ReadAll(c); string(got) != answer || err != nil {
		t.Errorf("the client gets %d of %d bytes, %v", len(got), len(answer), err)
	}
	_ = server.Close()
}

// TestIPv6SwitchedOnLater: A75. A port that is published while the host has
// IPv6 switched off answers as soon as it is on.
func TestIPv6SwitchedOnLater(t *testing.T) {
	nstest.RequireInside(t)
	ns := nstest.NewNS(t, "v6later")
	ns.Exec(t, "sh", "-c", "for i in all default lo; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
	err := ns.Do(func() error {
		if !HasIPv6() {
			return errors.New("a kernel whose IPv6 is switched off has no IPv6 sockets")
		}
		h := NewHolder(slog.New(slog.DiscardHandler), nil)
		err := h.Hold(published(unix.IPPROTO_TCP, "[2001:db8::1]:80", "10.1.0.2:80"), "a")
		if !IsMissingAddress(err) {
			return fmt.Errorf("an address that the host lacks: %w", err)
		}
		l, err := net.Listen("tcp4", "127.0.0.1:8000")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("A"))
				_ = c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	answererIn(t, ns)
	m := fdstoretest.New(t)
	// A process that has never seen an IPv6 address.
	startDriver(t, m, []string{"ip", "netns", "exec", ns.Name()},
		servedPort{published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000"), Clients{}},
		servedPort{published(unix.IPPROTO_UDP, "[::]:5353", "127.0.0.1:5300"), Clients{}})
	ns.Exec(t, "sh", "-c", "for i in all default lo; do echo 0 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
	err = ns.Do(func() error {
		c, err := net.DialTimeout("tcp6", "[::1]:8080", 10*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if name, err := readByte(c); name != "A" {
			return fmt.Errorf("[::1] answers %q: %w", name, err)
		}
		d, err := net.Dial("udp6", "[::1]:5353")
		if err != nil {
			return err
		}
		defer d.Close()
		_ = d.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := d.Write([]byte("x")); err != nil {
			return err
		}
		buf := make([]byte, 9)
		if n, err := d.Read(buf); string(buf[:n]) != "Ax" {
			return fmt.Errorf("[::1] answers %q: %w", buf[:n], err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// answererIn answers datagrams in a namespace.
func answererIn(t *testing.T, ns *nstest.NS) {
	t.Helper()
	var c net.PacketConn
	if err := ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", "127.0.0.1:5300")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte("A"+string(buf[:n])), from)
		}
	}()
}

func TestHasIPv6(t *testing.T) {
	if !HasIPv6() {
		t.Error("a kernel with IPv6 has none")
	}
}
