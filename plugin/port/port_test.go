package port

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

func holder(t *testing.T) *Holder {
	t.Helper()
	nstest.RequireInside(t)
	return holderOn(t, nil)
}

func holderOn(t *testing.T, shelf Shelf) *Holder {
	t.Helper()
	h := NewHolder(slog.New(slog.DiscardHandler), shelf)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// published is a port of the host that leads to a container; here all is lo.
func published(proto uint8, host, container string) desired.Port {
	return desired.Port{Proto: proto, Host: netip.MustParseAddrPort(host), Container: netip.MustParseAddrPort(container)}
}

// echoTCP is a container that sends back what it gets, until its client is done.
func echoTCP(t *testing.T, addr string) {
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
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// refusesTCP says whether somebody else can have a port.
func refusesTCP(network, addr string) bool {
	l, err := net.Listen(network, addr)
	if err != nil {
		return true
	}
	_ = l.Close()
	return false
}

func TestHeldPortIsTaken(t *testing.T) {
	h := holder(t)
	for _, p := range []desired.Port{
		published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80"), published(unix.IPPROTO_TCP, "[::]:8080", "[fd00::2]:80"),
	} {
		if err := h.Hold(p, "a"); err != nil {
			t.Fatal(err)
		}
		if err := h.Hold(p, "a"); err != nil {
			t.Errorf("a port cannot be held twice by the same: %v", err)
		}
	}
	if !refusesTCP("tcp4", "127.0.0.1:8080") || !refusesTCP("tcp6", "[::1]:8080") {
		t.Error("another program can listen on a held port")
	}
	h.Release(published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80"), "a")
	if refusesTCP("tcp4", "0.0.0.0:8080") {
		t.Error("a released port is still taken")
	}
}

func TestPortOfAnotherProgram(t *testing.T) {
	h := holder(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:9100")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp6", "[::]:9102")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, p := range []desired.Port{
		published(unix.IPPROTO_TCP, "0.0.0.0:9100", "10.1.0.2:80"), published(unix.IPPROTO_TCP, "127.0.0.1:9100", "10.1.0.2:80"),
		published(unix.IPPROTO_UDP, "[::]:9102", "[fd00::2]:80"),
	} {
		err := h.Hold(p, "a")
		var inUse *InUseError
		if !errors.As(err, &inUse) || !IsTaken(err) || inUse.Owner != "" || !strings.Contains(err.Error(), p.Key()+": another program on this host has it") {
			t.Errorf("%s: %v", p.Key(), err)
		}
	}
	if err := h.Hold(published(unix.IPPROTO_UDP, "0.0.0.0:9100", "10.1.0.2:80"), "a"); err != nil {
		t.Errorf("the same number of another protocol: %v", err)
	}
	err = h.Hold(published(unix.IPPROTO_TCP, "198.51.100.1:80", "10.1.0.2:80"), "a")
	if !IsMissingAddress(err) || !strings.Contains(err.Error(), "the host has no such address") {
		t.Errorf("an address that the host lacks: %v", err)
	}
	if err := h.Hold(published(47, "0.0.0.0:80", "10.1.0.2:80"), "a"); err == nil || !strings.Contains(err.Error(), "use tcp, udp or sctp") {
		t.Errorf("an unknown protocol: %v", err)
	}
}

// TestSilentUntilServed: a client gets no answer, not even a refusal, before
// the port is served.
func TestSilentUntilServed(t *testing.T) {
	h := holder(t)
	echoTCP(t, "127.0.0.1:8000")
	p := published(unix.IPPROTO_TCP, "[::]:8080", "127.0.0.1:8000")
	if err := h.Hold(p, "a"); err != nil {
		t.Fatal(err)
	}
	_, err := net.DialTimeout("tcp6", "[::1]:8080", 300*time.Millisecond)
	var netErr net.Error
	if !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("before it is served: %v, want a time-out", err)
	}
	h.Serve(p, Clients{})
	c := dial(t, "tcp6", "[::1]:8080")
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "hello" {
		t.Errorf("answer %q, %v", answer, err)
	}
}

// TestTranslatedPortStaysSilent: what the kernel translates is never served
// twice, and a redirect's port never at all.
func TestTranslatedPortStaysSilent(t *testing.T) {
	h := holder(t)
	for client, p := range map[string]desired.Port{
		"127.0.0.1:8080": published(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.1.0.2:80"),
		"127.0.0.1:8081": published(unix.IPPROTO_TCP, "0.0.0.0:8081", "0.0.0.0:3000"),
		"[::1]:8081":     published(unix.IPPROTO_TCP, "[::]:8081", "[::]:3000"),
		"[::1]:8082":     published(unix.IPPROTO_TCP, "[::1]:8082", "[::]:3000"),
	} {
		if err := h.Hold(p, "a"); err != nil {
			t.Fatal(err)
		}
		h.Serve(p, Clients{})
		if c, err := net.DialTimeout("tcp", client, 300*time.Millisecond); err == nil {
			_ = c.Close()
			t.Errorf("port %s, which the kernel translates, is served", p)
		} else if !os.IsTimeout(err) {
			t.Errorf("port %s is not silent: %v", p, err)
		}
	}
}

// TestHalfClose: the client is done sending, and still gets all that the
// container sends.
func TestHalfClose(t *testing.T) {
	h := holder(t)
	echoTCP(t, "127.0.0.1:8000")
	p := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000")
	if err := h.Hold(p, "a"); err != nil {
		t.Fatal(err)
	}
	h.Serve(p, Clients{})
	payload := make([]byte, 4<<20)
	_, _ = rand.Read(payload)
	c := dial(t, "tcp6", "[::1]:8080").(*net.TCPConn)
	var sent sync.WaitGroup
	sent.Go(func() {
		_, _ = c.Write(payload)
		_ = c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	sent.Wait()
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(payload), err)
	}
}

// TestContainerRefuses: the client learns at once that nobody listens.
func TestContainerRefuses(t *testing.T) {
	h := holder(t)
	p := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8009")
	if err := h.Hold(p, "a"); err != nil {
		t.Fatal(err)
	}
	h.Serve(p, Clients{})
	c, err := net.DialTimeout("tcp6", "[::1]:8080", 5*time.Second)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
}

// TestReleaseEndsConnections: the container is gone, and so are its clients.
func TestReleaseEndsConnections(t *testing.T) {
	h := holder(t)
	echoTCP(t, "127.0.0.1:8000")
	p := published(unix.IPPROTO_TCP, "[::1]:8080", "127.0.0.1:8000")
	if err := h.Hold(p, "a"); err != nil {
		t.Fatal(err)
	}
	h.Serve(p, Clients{})
	c := dial(t, "tcp6", "[::1]:8080")
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	h.Release(p, "a")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on after the release")
	}
}

// TestUDPClients: each client gets the answers to its own datagrams, from the
// address that it asked.
func TestUDPClients(t *testing.T) {
	h := holder(t)
	for network, hosts := range map[string][]string{
		"udp6": {"[::]:5353", "[::1]:5353"},
		"udp4": {"0.0.0.0:5354", "127.0.0.7:5354"},
	} {
		container := "127.0.0.1:5300"
		if network == "udp4" {
			container = "[::1]:5300"
		}
		server, err := net.ListenPacket("udp", container)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			buf := make([]byte, 65535)
			for {
				n, from, err := server.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = server.WriteTo(append([]byte("re: "), buf[:n]...), from)
			}
		}()
		p := published(unix.IPPROTO_UDP, hosts[0], container)
		if err := h.Hold(p, "a"); err != nil {
			t.Fatal(err)
		}
		h.Serve(p, Clients{})
		var all sync.WaitGroup
		for _, text := range []string{"a", "b", "c", strings.Repeat("x", 9000)} {
			all.Go(func() {
				// A connected socket takes answers from the asked address only.
				c := dial(t, network, hosts[1])
				buf := make([]byte, 65535)
				for range 3 {
					if _, err := c.Write([]byte(text)); err != nil {
						t.Error(err)
						return
					}
					n, err := c.Read(buf)
					if err != nil || string(buf[:n]) != "re: "+text {
						t.Errorf("%s: answer of %d bytes to %d, %v", network, n, len(text), err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}
