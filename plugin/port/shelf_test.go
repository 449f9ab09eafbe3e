package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/fdstore"
	"nftnet/internal/fdstore/fdstoretest"
	"nftnet/internal/nstest"
)

var _ Shelf = (*fdstore.Store)(nil)

func TestSocketNames(t *testing.T) {
	for name, p := range map[string]desired.Port{
		"t1f90":                         {Proto: unix.IPPROTO_TCP, Host: netip.MustParseAddrPort("0.0.0.0:8080")},
		"T1f90":                         {Proto: unix.IPPROTO_TCP, Host: netip.MustParseAddrPort("[::]:8080")},
		"u0035@192.0.2.1":               {Proto: unix.IPPROTO_UDP, Host: netip.MustParseAddrPort("192.0.2.1:53")},
		"U0035@2001-db8--1":             {Proto: unix.IPPROTO_UDP, Host: netip.MustParseAddrPort("[2001:db8::1]:53")},
		"Sffff@--1":                     {Proto: unix.IPPROTO_SCTP, Host: netip.MustParseAddrPort("[::1]:65535")},
		"T0001@1-2-3-4-5-6-7-8":         {Proto: unix.IPPROTO_TCP, Host: netip.MustParseAddrPort("[1:2:3:4:5:6:7:8]:1")},
		"T0001@fe80--42-acff-fe11-4444": {Proto: unix.IPPROTO_TCP, Host: netip.MustParseAddrPort("[fe80::42:acff:fe11:4444]:1")},
	} {
		if got := socketName(p); got != name {
			t.Errorf("%s has the name %q, want %q", p.Key(), got, name)
		}
		if got, ok := portOf(name); !ok || got != p {
			t.Errorf("name %q is of %v, want %s", name, got, p.Key())
		}
	}
	for _, name := range []string{"", "plugin", "stored", "t1f9", "t1F90", "x1f90", "t1f90@", "t1f90@--1", "T1f90@192.0.2.1", "t1f90@0.0.0.0"} {
		if got, ok := portOf(name); ok {
			t.Errorf("name %q is that of %s", name, got.Key())
		}
	}
}

// shelf is a store of a service manager, with what it inherited.
func shelf(t *testing.T, m *fdstoretest.Manager) *fdstore.Store {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", m.Socket)
	s, err := fdstore.Take(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// threeAddresses gives lo three more addresses: of the host, of a client that it
// knows, and of one that it does not know.
func threeAddresses(t *testing.T) {
	t.Helper()
	for _, a := range []string{"2001:db8::1/128", "2001:db8:1::2/128", "2001:db8:2::3/128"} {
		ip(t, "addr", "add", a, "dev", "lo", "nodad")
		t.Cleanup(func() { ip(t, "addr", "del", a, "dev", "lo") })
		routed(t, netip.MustParsePrefix(a).Addr())
	}
}

// routed waits until the kernel has a route to an address of its own: it makes it
// a moment after the address.
func routed(t *testing.T, a netip.Addr) {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9))
	for range 500 {
		c, err := net.DialUDP("udp6", to, to)
		if err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the host has no route to its address %s", a)
}

func dialFrom(t *testing.T, network, from, to string) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	switch addr := netip.AddrPortFrom(netip.MustParseAddr(from), 0); network {
	case "tcp6":
		d.LocalAddr = net.TCPAddrFromAddrPort(addr)
	default:
		d.LocalAddr = net.UDPAddrFromAddrPort(addr)
	}
	c, err := d.Dial(network, to)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// TestClientsWaitForTheNextDriver: A78. While no driver runs, whether it was
// stopped or killed, a client of a served port is not refused: the next driver
// answers it. Those outside the sources stay out.
func TestClientsWaitForTheNextDriver(t *testing.T) {
	nstest.RequireInside(t)
	threeAddresses(t)
	greeter(t, "127.0.0.1:8000", "A")
	answererUDP(t, "127.0.0.1:5300", "A")
	limited := Clients{Sources: sourcesOf("2001:db8:1::/48")}
	ports := []servedPort{
		{published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000"), Clients{}},
		{published(unix.IPPROTO_UDP, "[::]:5353", "127.0.0.1:5300"), Clients{}},
		{published(unix.IPPROTO_TCP, "[::]:8081", "127.0.0.1:8000"), limited},
		{published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80"), Clients{}},
	}
	m := fdstoretest.New(t)
	for _, end := range []string{"stop", "kill", "kill"} {
		d := startDriver(t, m, nil, ports...)
		if name, err := readByte(dial(t, "tcp6", "[::1]:8080")); name != "A" {
			t.Fatalf("the driver serves %q, %v", name, err)
		}
		if end == "stop" {
			d.stop(t)
		} else {
			d.kill()
		}
		if got, want := m.Names(), []string{"T1f90", "T1f91", "U14e9", "t1f90"}; !slices.Equal(got, want) {
			t.Fatalf("after %s the service manager has %v, want %v", end, got, want)
		}

		c := dial(t, "tcp6", "[::1]:8080")
		u := dial(t, "udp6", "[::1]:5353")
		if _, err := u.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		known, err := dialFrom(t, "tcp6", "2001:db8:1::2", "[2001:db8::1]:8081")
		if err != nil {
			t.Fatalf("a client that is one of the sources: %v", err)
		}
		stranger := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8:2::3")}}
		if c, err := stranger.Dial("tcp6", "[2001:db8::1]:8081"); err == nil {
			_ = c.Close()
			t.Error("a client outside the sources gets in while no driver runs")
		} else if !os.IsTimeout(err) {
			t.Errorf("a client outside the sources is refused: %v", err)
		}
		if !refusesTCP("tcp4", "0.0.0.0:8080") {
			t.Error("another program can have a held port while no driver runs")
		}

		next := startDriver(t, m, nil, ports...)
		if name, err := readByte(c); name != "A" {
			t.Errorf("after %s the client of [::1] gets %q, %v", end, name, err)
		}
		if name, err := readByte(known); name != "A" {
			t.Errorf("after %s the client that is one of the sources gets %q, %v", end, name, err)
		}
		buf := make([]byte, 9)
		if n, err := u.Read(buf); string(buf[:n]) != "Ax" {
			t.Errorf("after %s the client of [::1] by UDP gets %q, %v", end, buf[:n], err)
		}
		next.kill()
	}
}

// TestSourcesOfTheNextDriver: the next driver has other sources. Whom they
// leave out, and who waits already, is not led to the container.
func TestSourcesOfTheNextDriver(t *testing.T) {
	nstest.RequireInside(t)
	threeAddresses(t)
	greeter(t, "127.0.0.1:8000", "A")
	answererUDP(t, "127.0.0.1:5300", "A")
	tcp, udp := published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000"), published(unix.IPPROTO_UDP, "[::]:5353", "127.0.0.1:5300")
	m := fdstoretest.New(t)
	startDriver(t, m, nil, servedPort{tcp, Clients{}}, servedPort{udp, Clients{}}).kill()

	waiting := map[string]net.Conn{}
	for _, network := range []string{"tcp6", "udp6"} {
		for _, from := range []string{"2001:db8:2::3", "2001:db8:1::2"} {
			to := "[2001:db8::1]:8080"
			if network == "udp6" {
				to = "[2001:db8::1]:5353"
			}
			c, err := dialFrom(t, network, from, to)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			waiting[network+from] = c
		}
	}
	limited := Clients{Sources: sourcesOf("2001:db8:1::/48")}
	startDriver(t, m, nil, servedPort{tcp, limited}, servedPort{udp, limited})
	if name, err := readByte(waiting["tcp6"+"2001:db8:1::2"]); name != "A" {
		t.Errorf("one of the sources gets %q, %v", name, err)
	}
	if name, err := readByte(waiting["tcp6"+"2001:db8:2::3"]); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a client that is no source any more gets %q, %v; want a reset", name, err)
	}
	if name, err := readByte(waiting["udp6"+"2001:db8:1::2"]); name != "A" {
		t.Errorf("one of the sources gets %q by UDP, %v", name, err)
	}
	// Its datagram came before the other's, which is answered.
	stranger := waiting["udp6"+"2001:db8:2::3"]
	if err := stranger.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if name, err := readByte(stranger); !os.IsTimeout(err) {
		t.Errorf("a client that is no source any more gets %q by UDP, %v", name, err)
	}
}

// TestInheritedPortThatIsNotServed: clients that waited for a port whose kind
// of client the kernel serves now do not wait for ever.
func TestInheritedPortThatIsNotServed(t *testing.T) {
	nstest.RequireInside(t)
	greeter(t, "127.0.0.1:8000", "A")
	across := published(unix.IPPROTO_TCP, "0.0.0.0:8080", "[::1]:8000")
	translated := published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80")
	m := fdstoretest.New(t)
	startDriver(t, m, nil, servedPort{across, Clients{}}).kill()
	c := dial(t, "tcp4", "127.0.0.1:8080")
	startDriver(t, m, nil, servedPort{translated, Clients{}})
	if _, err := readByte(c); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
	if c, err := net.DialTimeout("tcp4", "127.0.0.1:8080", 300*time.Millisecond); err == nil {
		_ = c.Close()
		t.Error("the port is not silent")
	} else if !os.IsTimeout(err) {
		t.Errorf("the port is not silent: %v", err)
	}
}

// TestUnclaimedPortsAreFree: what the next driver does not want, others can
// have.
func TestUnclaimedPortsAreFree(t *testing.T) {
	nstest.RequireInside(t)
	kept := published(unix.IPPROTO_TCP, "[::]:8080", "[fd00::2]:80")
	m := fdstoretest.New(t)
	startDriver(t, m, nil, servedPort{kept, Clients{}},
		servedPort{published(unix.IPPROTO_TCP, "[::]:8081", "[fd00::2]:80"), Clients{}},
		servedPort{published(unix.IPPROTO_UDP, "0.0.0.0:8081", "10.1.0.2:80"), Clients{}}).stop(t)
	startDriver(t, m, nil, servedPort{kept, Clients{}})
	if got := m.Names(); !slices.Equal(got, []string{"T1f90"}) {
		t.Errorf("the service manager has %v, want the port that is wanted", got)
	}
	if refusesTCP("tcp6", "[::]:8081") {
		t.Error("a port that nobody wants is still taken")
	}
	if c, err := net.ListenPacket("udp4", "0.0.0.0:8081"); err != nil {
		t.Errorf("a port that nobody wants: %v", err)
	} else {
		_ = c.Close()
	}
}

// TestReleasedBeforeTheShelfLetsGo: the service manager is slow to close its
// duplicates; the same ports can be had again at once.
func TestReleasedBeforeTheShelfLetsGo(t *testing.T) {
	m := fdstoretest.New(t)
	s := shelf(t, m)
	nstest.RequireInside(t)
	h := holderOn(t, s)
	greeter(t, "127.0.0.1:8000", "A")
	tcp, udp := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000"), published(unix.IPPROTO_UDP, "[::]:8080", "127.0.0.1:8000")
	part := published(unix.IPPROTO_UDP, "[::1]:8080", "127.0.0.1:8000")
	hold(t, h, tcp)
	hold(t, h, udp)
	if err := s.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Pause()
	h.Release(tcp, "a")
	h.Release(udp, "a")
	if refusesTCP("tcp6", "[::1]:8080") {
		t.Error("another program cannot have a released port until the service manager lets go")
	}
	if err := h.Hold(tcp, "b"); err != nil {
		t.Errorf("a released TCP port: %v", err)
	}
	// No service manager that answers, no port: but an error soon.
	if err := h.Hold(part, "b"); !IsTaken(err) {
		t.Errorf("a UDP port that the service manager has: %v", err)
	}
	m.Resume()
	if err := h.Hold(part, "b"); err != nil {
		t.Errorf("a released UDP port: %v", err)
	}
	h.Serve(tcp, Clients{})
	if name, err := readByte(dial(t, "tcp6", "[::1]:8080")); name != "A" {
		t.Errorf("the port answers %q, %v", name, err)
	}
	if err := s.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Names(); !slices.Equal(got, []string{"T1f90@--1", "U1f90@--1"}) {
		t.Errorf("the service manager has %v", got)
	}
}

// TestCloseWithABusyShelf: a service manager that does nothing does not keep
// the driver from ending.
func TestCloseWithABusyShelf(t *testing.T) {
	nstest.RequireInside(t)
	m := fdstoretest.New(t)
	h := NewHolder(slog.New(slog.DiscardHandler), shelf(t, m))
	m.Pause()
	hold(t, h, published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000"))
	returns(t, "close", func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.Hold(published(unix.IPPROTO_TCP, "[::1]:8081", "127.0.0.1:8000"), "a"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("hold after close: %v", err)
	}
}

// plank is a shelf that hands out what a test puts on it.
type plank struct {
	files   map[string][]*os.File
	dropped []string
	put     []string
}

func (s *plank) Files(name string) []*os.File {
	files := s.files[name]
	delete(s.files, name)
	return files
}
func (s *plank) DropUnclaimed() []string         { return nil }
func (s *plank) Put(name string, _ syscall.Conn) { s.put = append(s.put, name) }
func (s *plank) Drop(name string)                { s.dropped = append(s.dropped, name) }
func (s *plank) Dropping(string) bool            { return false }
func (s *plank) Barrier(context.Context) error   { return nil }

// TestInheritedMustSuit: a name alone makes no descriptor a port's socket.
func TestInheritedMustSuit(t *testing.T) {
	nstest.RequireInside(t)
	p := published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000")
	makers := map[string]func(t *testing.T) syscall.Conn{
		"another port": func(t *testing.T) syscall.Conn {
			return listenRaw(t, unix.AF_INET6, unix.SOCK_STREAM, 8081, true, true)
		},
		"both families": func(t *testing.T) syscall.Conn {
			return listenRaw(t, unix.AF_INET6, unix.SOCK_STREAM, 8080, false, true)
		},
		"another family": func(t *testing.T) syscall.Conn { return listenRaw(t, unix.AF_INET, unix.SOCK_STREAM, 8080, true, true) },
		"does not listen": func(t *testing.T) syscall.Conn {
			return listenRaw(t, unix.AF_INET6, unix.SOCK_STREAM, 8080, true, false)
		},
		"another type": func(t *testing.T) syscall.Conn {
			return listenRaw(t, unix.AF_INET6, unix.SOCK_DGRAM, 8080, true, false)
		},
		"no socket": func(t *testing.T) syscall.Conn {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			return f
		},
	}
	for what, make := range makers {
		t.Run(what, func(t *testing.T) {
			s := &plank{files: map[string][]*os.File{socketName(p): {fileOf(t, make(t))}}}
			h := holderOn(t, s)
			// Where the descriptor has the port, the error says so.
			if err := h.Hold(p, "a"); err != nil && !IsTaken(err) {
				t.Fatal(err)
			} else if err == nil && !slices.Equal(s.put, []string{socketName(p)}) {
				t.Errorf("the inherited descriptor is used: put %v", s.put)
			}
			if !slices.Equal(s.dropped, []string{socketName(p)}) {
				t.Errorf("dropped %v, want the name of the useless descriptor", s.dropped)
			}
		})
	}
	t.Run("beside the right one", func(t *testing.T) {
		right := listenRaw(t, unix.AF_INET6, unix.SOCK_STREAM, 8080, true, true)
		s := &plank{files: map[string][]*os.File{socketName(p): {fileOf(t, makers["no socket"](t)), fileOf(t, right)}}}
		h := holderOn(t, s)
		hold(t, h, p)
		if !slices.Equal(s.put, []string{socketName(p)}) || len(s.dropped) != 0 {
			t.Errorf("put %v, dropped %v, want the right one to take the name", s.put, s.dropped)
		}
	})
}

// listenRaw makes a socket on every address.
func listenRaw(t *testing.T, family, kind, port int, only6, listen bool) *os.File {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprint(port))
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: port}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: port}
		if only6 {
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && listen {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fileOf duplicates a descriptor, as passing it on does.
func fileOf(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := control(raw, func(own int) (err error) {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "inherited")
}

// TestManyOnTheShelf: the same ports come and go while a service manager keeps
// up as it can; in the end both agree.
func TestManyOnTheShelf(t *testing.T) {
	nstest.RequireInside(t)
	m := fdstoretest.New(t)
	s := shelf(t, m)
	h := holderOn(t, s)
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			p := published(unix.IPPROTO_TCP, fmt.Sprintf("[::]:%d", 9000+n), "127.0.0.1:8000")
			for i := range 30 {
				if err := h.Hold(p, "a"); err != nil {
					t.Error(err)
					return
				}
				h.Serve(p, Clients{})
				if i < 29 || n%2 == 0 {
					h.Release(p, "a")
				}
			}
		})
	}
	returns(t, "the crowd", all.Wait)
	if err := s.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Names(); len(got) != 10 || h.Len() != 10 {
		t.Errorf("the service manager has %v, the holder %d ports; want 10", got, h.Len())
	}
}
