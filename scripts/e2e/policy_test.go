package e2e

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// connects tries a TCP connection from one of a namespace's addresses.
func connects(from *nstest.NS, source string, to netip.AddrPort, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := from.DialFrom(ctx, "tcp", netip.AddrPortFrom(netip.MustParseAddr(source), 0).String(), to.String())
	if err == nil {
		err = c.Close()
	}
	return err
}

// secondAddresses gives the neighbour another address of each family.
func (w *world) secondAddresses(t *testing.T) {
	t.Helper()
	w.LAN.Exec(t, "ip", "addr", "add", "192.0.2.3/24", "dev", "eth0")
	w.LAN.Exec(t, "ip", "addr", "add", "fd00:192::3/64", "dev", "eth0", "nodad")
}

// reachable asserts from which addresses of the neighbour a port is reached.
func (w *world) reachable(t *testing.T, port uint16, want map[string]bool) {
	t.Helper()
	for source, ok := range want {
		host := w.HostAddr4
		if netip.MustParseAddr(source).Is6() {
			host = w.HostAddr6
		}
		timeout := silence
		if ok {
			timeout = 3 * time.Second
		}
		err := connects(w.LAN, source, netip.AddrPortFrom(host, port), timeout)
		if (err == nil) != ok {
			t.Errorf("port %d from %s: %v, want it to be reached: %v", port, source, err, ok)
		}
		if !ok && err != nil && !isTimeout(err) {
			t.Errorf("port %d from %s: %v, a time-out must be seen", port, source, err)
		}
	}
}

func TestAllowLists(t *testing.T) {
	w := newWorld(t)
	w.secondAddresses(t)
	w.dual(t, "web", 81, "-o", "nftnet.allow=192.0.2.2,fd00:192::2/128", "-o", "nftnet.allow.81/tcp=any")
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "8081:81")
	w.reachable(t, 8080, map[string]bool{"192.0.2.2": true, "192.0.2.3": false, "fd00:192::2": true, "fd00:192::3": false})
	w.reachable(t, 8081, map[string]bool{"192.0.2.3": true, "fd00:192::3": true})
	for _, a := range hostAddrs(w) {
		reaches(t, w.Host, "host", url(a, 8080))
	}
	out := w.nftnet(t, "ports")
	if !strings.Contains(out, "192.0.2.2/32,fd00:192::2/128") || !strings.Contains(out, "everybody") {
		t.Errorf("nftnet ports does not say who may:\n%s", out)
	}
}

// TestClosedPublishing: the administrator publishes to nobody, and networks and
// containers open what they need.
func TestClosedPublishing(t *testing.T) {
	w := newWorld(t)
	w.secondAddresses(t)
	w.driver.Stop(t)
	w.startDriver(t, "--publish", "closed")
	w.dual(t, "web", 81)
	w.run(t, "closed", "web", "-p", "8080:80")
	w.engine.Docker(t, "run", "-d", "--name", "open", "--network", `"name=web","driver-opt=nftnet.allow=192.0.2.0/30 fd00:192::2"`,
		"-p", "8081:80", w.image, "/peer", "serve", "-http", ":80")
	w.network(t, "four", "--subnet", "10.82.0.0/24", "-o", "nftnet.publish=open")
	w.run(t, "public", "four", "-p", "8082:80")
	w.network(t, "half", "--subnet", "10.83.0.0/24", "-o", "nftnet.allow=fd00:192::2")
	w.run(t, "half", "half", "-p", "8083:80")
	w.engine.WaitLog(t, "open", "ready")

	w.reachable(t, 8080, map[string]bool{"192.0.2.2": false, "fd00:192::2": false})
	w.reachable(t, 8081, map[string]bool{"192.0.2.2": true, "192.0.2.3": true, "fd00:192::2": true, "fd00:192::3": false})
	w.reachable(t, 8082, map[string]bool{"192.0.2.2": true, "fd00:192::3": true})
	for _, a := range hostAddrs(w) {
		reaches(t, w.Host, "host", url(a, 8080))
	}
	// An IPv4-only container: the port socket decides, and is silent to others.
	w.reachable(t, 8083, map[string]bool{"192.0.2.2": false, "fd00:192::2": true, "fd00:192::3": false})
	reaches(t, w.Host, "host", "http://[::1]:8083/")
	reaches(t, w.Host, "host", url(w.HostAddr6, 8083))
	// accept in DOCKER-USER opens, as in Docker's own layout.
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "meta", "l4proto", "tcp", "ct", "original", "proto-dst", "8080", "accept")
	w.reachable(t, 8080, map[string]bool{"192.0.2.2": true})
}

func TestReject(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", "nftnet.unpublished=reject")
	w.dual(t, "other", 82)
	w.run(t, "c1", "web", "-p", "8080:80")
	w.run(t, "c2", "other")
	w.routes(t, 81)
	w.bothFamilies(t, "c1", "web", func(t *testing.T, a netip.Addr) {
		for _, port := range []int{80, 81} {
			if _, err := w.LAN.TryGet(url(a, port), silence); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("LAN to port %d: %v, want: connection refused", port, err)
			}
			if _, err := w.engine.Peer(t, "c2", "http", url(a, port)); err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("other network to port %d: %v, want: connection refused", port, err)
			}
		}
		c, err := w.LAN.Dial(t.Context(), "udp", netip.AddrPortFrom(a, 53).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("knock")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("LAN to UDP port 53: %v, want: connection refused", err)
		}
	})
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}

func TestA22HostBinding(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "lo", 81, "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1")
	w.dual(t, "one", 82, "-o", "com.docker.network.bridge.host_binding_ipv4="+w.HostAddr4.String())
	w.run(t, "c1", "lo", "-p", "8080:80")
	w.run(t, "c2", "one", "-p", "8081:80")
	reaches(t, w.Host, "host", "http://127.0.0.1:8080/")
	reaches(t, w.Host, "host", url(w.HostAddr4, 8081))
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8081))
	for _, u := range []string{url(w.HostAddr4, 8080), url(w.HostAddr6, 8080), url(w.HostAddr6, 8081)} {
		if r, err := w.LAN.TryGet(u, silence); err == nil {
			t.Errorf("LAN reaches %s: %+v", u, r)
		}
	}
	for _, u := range []string{"http://127.0.0.1:8081/", "http://[::1]:8080/", "http://[::1]:8081/"} {
		if r, err := w.Host.TryGet(u, silence); err == nil {
			t.Errorf("host reaches %s: %+v", u, r)
		}
	}
}
