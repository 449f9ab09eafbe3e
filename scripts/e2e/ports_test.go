package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/control"
	"nftnet/internal/kernel"
)

// published asks the driver what is published.
func (w *world) published(t *testing.T) []control.Port {
	t.Helper()
	var out []control.Port
	if err := json.Unmarshal([]byte(w.nftnet(t, "ports", "--format", "json")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestA23SamePortOnTwoAddresses(t *testing.T) {
	w := newWorld(t)
	w.Host.Exec(t, "ip", "addr", "add", "192.0.2.11/24", "dev", "eth0")
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "192.0.2.1:8080:80")
	w.run(t, "c2", "web", "-p", "192.0.2.11:8080:80")
	for host, name := range map[string]string{"192.0.2.1": "c1", "192.0.2.11": "c2"} {
		r := reaches(t, w.LAN, "LAN", "http://"+host+":8080/")
		if want := w.engine.Docker(t, "inspect", "-f", "{{.Config.Hostname}}", name); r.Host != want {
			t.Errorf("%s answers from %s, want %s", host, r.Host, want)
		}
	}
}

func TestA24OneContainerPortTwice(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "8081:80", "-p", "127.0.0.1:8082:80", "-p", "192.0.2.1:8082:80")
	for _, u := range []string{"192.0.2.1:8080", "192.0.2.1:8081", "192.0.2.1:8082", "[fd00:192::1]:8081"} {
		reaches(t, w.LAN, "LAN", "http://"+u+"/")
	}
	reaches(t, w.Host, "host", "http://127.0.0.1:8082/")
	w.engine.Docker(t, "rm", "-f", "c1")
	if lines := w.ownedLines(t); strings.Contains(strings.Join(lines, "\n"), "ep=") {
		t.Errorf("the table still speaks of the container:\n%s", strings.Join(lines, "\n"))
	}
}

func TestA27RangeWithABusyPort(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.Host.Listen(t, "tcp6", "[::]:9100") // IPv6 alone: the next port must be free for both
	w.run(t, "c1", "web", "-p", "9100-9102:80")
	w.run(t, "c2", "web", "-p", "9100-9102:80")
	ports := map[int]bool{}
	for _, p := range w.published(t) {
		ports[int(netip.MustParseAddrPort(p.Host).Port())] = true
	}
	if len(ports) != 2 || !ports[9101] || !ports[9102] {
		t.Errorf("published on %v, want 9101 and 9102, the same for both families", ports)
	}
	w.refused(t, []string{"no host port from 9100 to 9102 is free"},
		"run", "-d", "--name", "c3", "--network", "web", "-p", "9100-9102:80", w.image, "/peer", "serve", "-http", ":80")
	reaches(t, w.LAN, "LAN", url(w.HostAddr6, 9101))
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 9102))
}

func TestA28EphemeralPort(t *testing.T) {
	w := newWorld(t)
	w.Host.Exec(t, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009", "net.ipv4.ip_local_reserved_ports=40000-40006")
	w.dual(t, "web", 81)
	seen := map[int]bool{}
	for i := range 3 {
		name := "c" + strconv.Itoa(i)
		w.run(t, name, "web", "-p", "80")
	}
	for _, p := range w.published(t) {
		port := int(netip.MustParseAddrPort(p.Host).Port())
		if port < 40007 || port > 40009 {
			t.Errorf("port %d is outside of the range, or reserved", port)
		}
		seen[port] = true
	}
	if len(seen) != 3 {
		t.Errorf("three containers got the ports %v", seen)
	}
	w.refused(t, []string{"no host port"}, "run", "-d", "--name", "c9", "--network", "web", "-p", "80", w.image, "/peer", "serve", "-http", ":80")
}

func TestA29ThousandPorts(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	rules := strings.Count(w.tableText(t), "\n\t\t")
	generation := w.generation(t)
	w.run(t, "c1", "web", "-p", "20000-20999:20000-20999", "-p", "8080:80")
	if n := len(w.published(t)); n != 2002 {
		t.Errorf("%d ports are published, want 2002", n)
	}
	if g := w.generation(t) - generation; g != 3 {
		t.Errorf("the ruleset changed in %d steps, want three: for the container, its link, and all its ports", g)
	}
	if after := strings.Count(w.tableText(t), "\n\t\t"); after-rules > 12 {
		t.Errorf("the table grew from %d to %d lines beside its elements", rules, after)
	}
	if children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.driver.Pid(), w.driver.Pid())); err != nil || len(children) > 0 {
		t.Errorf("the driver has children: %s, %v", children, err)
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(w.driver.Pid()), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the driver has %d descriptors for 2002 port sockets", len(fds))
	w.engine.Docker(t, "rm", "-f", "c1")
	if n := len(w.published(t)); n != 0 {
		t.Errorf("%d ports are left", n)
	}
}

// generation counts the changes to the ruleset of the docker host.
func (w *world) generation(t *testing.T) uint32 {
	t.Helper()
	conn, err := kernel.OpenAt(int(w.Host.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g.ID
}

// knock sends a datagram from a fixed port, and waits for an answer.
func knock(t *testing.T, conn net.Conn, wait time.Duration) (string, error) {
	t.Helper()
	if _, err := conn.Write([]byte("knock")); err != nil {
		// An ICMP refusal of the knock before.
		if _, err = conn.Write([]byte("knock")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 1024)
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func TestA30A31UDPFlows(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c0", "web", "-p", "6000:80") // conntrack is at work before the port is published
	dial := func(from, to string) net.Conn {
		c, err := w.LAN.DialFrom(context.Background(), "udp", from, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	early := dial("192.0.2.2:40000", "192.0.2.1:5353")
	// Somebody swallows the knocks without a word, as a slow host would.
	deaf := w.Host.ListenPacket(t, "udp4", "192.0.2.1:5353")
	if _, err := knock(t, early, 100*time.Millisecond); err == nil {
		t.Fatal("somebody answers before the port is published")
	}
	_ = deaf.Close()
	// The host's own flow to a server's port 53, the container's port number.
	outside := w.LAN.ListenPacket(t, "udp4", "192.0.2.2:53")
	own, err := w.Host.DialFrom(context.Background(), "udp", "192.0.2.1:40010", "192.0.2.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Write([]byte("query")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := outside.ReadFrom(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	before := w.Exec(t, "conntrack", "-L", "-p", "udp", "--dport", "53")

	w.run(t, "c1", "web", "-p", "5353:53/udp")
	eventually(t, "the flow that was there before", func() error {
		_, err := knock(t, early, 300*time.Millisecond)
		return err
	})
	after := w.Exec(t, "conntrack", "-L", "-p", "udp", "--dport", "53")
	if !strings.Contains(before, "sport=40010") || !strings.Contains(after, "sport=40010") {
		t.Errorf("A31: the host's own flow to a server's port 53: before %q, after %q", before, after)
	}

	// A32: the container goes, another takes its port: the same flow reaches it.
	first := w.engine.Docker(t, "inspect", "-f", "{{.Config.Hostname}}", "c1")
	w.run(t, "spare", "web") // takes the next address
	w.engine.Docker(t, "rm", "-f", "c1")
	w.engine.Docker(t, "run", "-d", "--name", "other", "--network", "web", w.image, "/peer", "serve", "-http", ":80") // takes c1's address
	w.engine.WaitLog(t, "other", "ready")
	w.run(t, "c2", "web", "-p", "5353:53/udp")
	second := w.engine.Docker(t, "inspect", "-f", "{{.Config.Hostname}}", "c2")
	eventually(t, "A32: the new container", func() error {
		answer, err := knock(t, early, 300*time.Millisecond)
		if err == nil && !strings.Contains(answer, second) {
			err = fmt.Errorf("%s answers, not %s (the first was %s)", answer, second, first)
		}
		return err
	})
}

// TestA30TCPKnock: a client's SYN is under way before the port is published; its
// next retransmission, after a second, must reach the container.
func TestA30TCPKnock(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c0", "web", "-p", "6000:80")
	deaf := w.deafListener(t, "192.0.2.1:8080")
	type result struct {
		err  error
		took time.Duration
	}
	done := make(chan result, 1)
	go func() {
		start := time.Now()
		_, err := w.LAN.TryGet(url(w.HostAddr4, 8080), 10*time.Second)
		done <- result{err, time.Since(start)}
	}()
	eventually(t, "the knock", func() error {
		if !strings.Contains(w.Exec(t, "conntrack", "-L", "-p", "tcp", "--dport", "8080"), "SYN_SENT") {
			return fmt.Errorf("no flow yet")
		}
		return nil
	})
	_ = deaf.Close()
	w.run(t, "c1", "web", "-p", "8080:80")
	if r := <-done; r.err != nil {
		t.Errorf("the client that knocked early: %v", r.err)
	} else {
		t.Logf("the early client was answered after %v", r.took)
	}
}

// deafListener listens on the docker host behind a filter that drops all: its
// clients wait, and conntrack knows of them.
func (w *world) deafListener(t *testing.T, addr string) net.Listener {
	t.Helper()
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		ctrl := c.Control(func(fd uintptr) {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
		})
		return errors.Join(ctrl, err)
	}}
	var l net.Listener
	err := w.Host.Do(func() error {
		var err error
		l, err = config.Listen(context.Background(), "tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestA43EngineKilled: the engine is killed with its containers; what it never
// takes back is given free.
func TestA43EngineKilled(t *testing.T) {
	w := web(t)
	old := w.address(t, "c1", "web", false)
	w.engine.Kill(t)
	w.engine.Start(t)
	w.engine.Docker(t, "rm", "-f", "c1")
	w.run(t, "c2", "web", "-p", "8080:80")
	if a := w.address(t, "c2", "web", false); a != old {
		t.Errorf("the new container has %v, want the address that is free again, %v", a, old)
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	if n := strings.Count(w.links(t), "nfv"); n != 1 {
		t.Errorf("%d links, want one: %s", n, w.links(t))
	}
}

// TestNoDescriptorLeft: a start that needs more sockets than the driver may
// have is refused, says so, and leaves nothing.
func TestNoDescriptorLeft(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.driver.Stop(t)
	w.driver = w.Start(t, "nftnet", "sh", "-c", "ulimit -n 200; exec "+binary+" serve --state "+w.state)
	w.driver.WaitFor(t, "msg=serving", 10*time.Second)
	before := w.tableText(t)
	w.refused(t, []string{"no file descriptor left", "LimitNOFILE"},
		"run", "-d", "--name", "c1", "--network", "web", "-p", "20000-20499:20000-20499", w.image, "/peer", "serve", "-http", ":80")
	w.engine.Docker(t, "rm", "-f", "c1")
	if after := w.tableText(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
	w.run(t, "c2", "web", "-p", "8080:80")
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}
