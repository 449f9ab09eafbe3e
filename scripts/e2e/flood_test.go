package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// files is how many files the driver has open.
func (w *world) files(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/" + strconv.Itoa(w.driver.Pid()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// flood opens connections from a namespace, and returns those that were opened.
// Nobody says anything by them.
func flood(ns *nstest.NS, network, from, to string, n int) []net.Conn {
	var mu sync.Mutex
	var out []net.Conn
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range n / 32 {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				c, err := ns.DialFrom(ctx, network, from, to)
				cancel()
				if err == nil {
					mu.Lock()
					out = append(out, c)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return out
}

// TestA72Flood: the LAN opens 10,000 connections to one port that the driver
// serves, and 4,000 by UDP: other clients, other ports and Docker's calls go on,
// and everything is given back when the clients end.
func TestA72Flood(t *testing.T) {
	w := newWorld(t)
	w.network(t, "web", "--subnet", "10.81.0.0/24")
	w.run(t, "victim", "web", "-p", "8080:80", "-p", "5353:53/udp")
	w.run(t, "other", "web", "-p", "8081:80", "-p", "5354:53/udp")
	another := netip.MustParseAddr("fd00:192::77")
	w.LAN.Exec(t, "ip", "addr", "add", another.String()+"/64", "dev", "eth0", "nodad")
	at := func(port int) string { return netip.AddrPortFrom(w.HostAddr6, uint16(port)).String() }
	reaches(t, w.LAN, "LAN, before", url(w.HostAddr6, 8080))
	before := w.files(t)

	clients := flood(w.LAN, "tcp", w.LANAddr6.String(), at(8080), 10_000)
	t.Logf("%d connections opened, the driver has %d files, it had %d", len(clients), w.files(t), before)
	if n := w.files(t); n < before+200 || n > before+4000 {
		t.Errorf("the driver has %d files after a flood of connections, it had %d", n, before)
	}
	reaches(t, w.Host, "host, the same port", url(netip.IPv6Loopback(), 8080))
	reaches(t, w.LAN, "LAN by IPv4, the same port", url(w.HostAddr4, 8080))
	reaches(t, w.Host, "host, another port", url(netip.IPv6Loopback(), 8081))
	if c, err := w.LAN.DialFrom(t.Context(), "tcp", netip.AddrPortFrom(another, 0).String(), at(8080)); err != nil {
		t.Errorf("another neighbour, the same port: %v", err)
	} else {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 100)); n == 0 {
			t.Errorf("another neighbour, the same port: %v", err)
		}
		_ = c.Close()
	}
	w.run(t, "late", "web", "-p", "8082:80")
	reaches(t, w.LAN, "a container that starts meanwhile", url(w.HostAddr4, 8082))
	if out := w.nftnet(t, "ports"); !strings.Contains(out, "8082") {
		t.Errorf("nftnet ports says\n%s", out)
	}

	datagrams := flood(w.LAN, "udp", w.LANAddr6.String(), at(5353), 4000)
	for _, c := range datagrams {
		_, _ = c.Write([]byte("x"))
	}
	for _, port := range []int{5353, 5354} {
		if _, err := w.Host.UDP(netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port)).String(), 5*time.Second); err != nil {
			t.Errorf("the host asks port %d by UDP: %v", port, err)
		}
	}
	if out := w.nftnet(t, "ports"); !strings.Contains(out, "5354") {
		t.Errorf("nftnet ports says\n%s", out)
	}
	w.engine.Docker(t, "rm", "-f", "late")

	for _, c := range append(clients, datagrams...) {
		_ = c.Close()
	}
	// UDP has no end: associations stay for the silence of 90 s, bounded.
	const associations = 2*256 + 50
	within(t, 10*time.Second, "the driver gives back its files", func() error {
		if n := w.files(t); n > before+associations {
			return fmt.Errorf("%d files, there were %d", n, before)
		}
		return nil
	})
	if n := strings.Count(w.driver.Log(), "refuse client") + strings.Count(w.driver.Log(), "msg=accept"); n > 4 {
		t.Errorf("the log tells of it %d times", n)
	}
}
