package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftnet/internal/fdstore/fdstoretest"
	"nftnet/internal/nstest"
)

// supervise starts the driver under a store of descriptors as large as the unit
// file asks for. The test fails for what systemd would refuse.
func (w *world) supervise(t *testing.T) *fdstoretest.Manager {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join("..", "nftnet.service"))
	if err != nil {
		t.Fatal(err)
	}
	store := fdstoretest.At(t, filepath.Join(w.Dir, "notify"), fdstoretest.StoreSize(string(unit)))
	w.driver = w.StartWith(t, "nftnet", store.Pass, "env", "DOCKER_HOST=unix://"+filepath.Join(w.Dir, "docker.sock"),
		binary, "serve", "--state", w.state, "--socket", socket, "--log-level", "debug")
	w.driver.WaitFor(t, "msg=serving", 20*time.Second)
	return store
}

// visitor is a client that connects while no driver runs and asks over HTTP.
type visitor struct {
	addr   string
	conn   net.Conn
	answer chan error
}

// visit connects to a port of the host and sends a request.
func (w *world) visit(t *testing.T, from *nstest.NS, addr string) *visitor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Errorf("a client that comes while no driver runs: %v", err)
		return nil
	}
	t.Cleanup(func() { _ = c.Close() })
	v := &visitor{addr: addr, conn: c, answer: make(chan error, 1)}
	go func() { v.answer <- v.ask() }()
	return v
}

func (v *visitor) ask() error {
	if _, err := io.WriteString(v.conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_ = v.conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	text, err := io.ReadAll(v.conn)
	if err == nil && !strings.HasPrefix(string(text), "HTTP/1.0 200") {
		err = fmt.Errorf("answer %q", text)
	}
	return err
}

// TestA78Upgrade: while the driver is replaced, clients of ports that it serves
// itself wait, and so do Docker's calls; none is refused. What the kernel
// carries goes on.
func TestA78Upgrade(t *testing.T) {
	w := emptyWorld(t)
	store := w.supervise(t)
	w.startEngine(t)
	w.dual(t, "web", 81)
	w.network(t, "four", "--subnet", "10.82.0.0/24")
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "7000:7", "-p", "5353:53/udp")
	w.run(t, "c2", "four", "-p", "8081:80")
	w.mustRedirect(t, "add", "80", "8443")
	streams := []*heartbeat{
		startHeartbeat(t, w.LAN, "LAN", netip.AddrPortFrom(w.HostAddr4, 7000).String()),
		startHeartbeat(t, w.LAN, "LAN by IPv6", netip.AddrPortFrom(w.HostAddr6, 7000).String()),
		startHeartbeat(t, w.Host, "host by 127.0.0.1", "127.0.0.1:7000"),
	}
	stored := store.Names()
	t.Logf("stored: %q", stored)
	for _, step := range []struct {
		name string
		end  func()
	}{
		{"stopped", func() { w.driver.Stop(t) }},
		{"killed", func() { w.driver.Kill(t) }},
		{"stopped again", func() { w.driver.Stop(t) }},
	} {
		step.end()
		w.visitedMeanwhile(t, step.name)
		if t.Failed() {
			return
		}
		w.engine.Docker(t, "rm", "-f", "late")
	}
	for _, h := range streams {
		h.stop(t)
	}
	w.answersUDP(t, 5353)
	if now := store.Names(); len(now) != len(stored) {
		t.Errorf("%d descriptors are stored, at first there were %d; now\n%q\nat first\n%q", len(now), len(stored), now, stored)
	}
	w.engine.Docker(t, "rm", "-f", "c1", "c2")
	w.mustRedirect(t, "rm", "80")
	w.bindable(t, 80, 7000, 8080, 8081, 5353)
}

// visitedMeanwhile has clients and Docker come while no driver runs, starts it,
// and asserts that all were served.
func (w *world) visitedMeanwhile(t *testing.T, how string) {
	t.Helper()
	var visitors []*visitor
	for range 3 {
		visitors = append(visitors,
			w.visit(t, w.Host, "[::1]:8080"),
			w.visit(t, w.Host, "[::1]:8081"),
			w.visit(t, w.LAN, netip.AddrPortFrom(w.HostAddr6, 8081).String()))
	}
	ran := make(chan error, 1)
	go func() {
		_, stderr, err := w.engine.TryDocker("run", "-d", "--name", "late", "--network", "web", "-p", "8082:80",
			w.image, "/peer", "serve", "-http", ":80")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, stderr)
		}
		ran <- err
	}()
	if t.Failed() || !settles(t, 10*time.Second, "Docker's call to a driver that was "+how, func() []string {
		if n := w.waitingCalls(t); n == 0 {
			return []string{"no call waits at the driver's socket"}
		}
		return nil
	}) {
		w.restartDriver(t)
		<-ran
		return
	}
	for _, v := range visitors {
		select {
		case err := <-v.answer:
			t.Errorf("a client of %s was answered (%v) while no driver ran: the test shows nothing", v.addr, err)
		default:
		}
	}
	w.restartDriver(t)
	for _, v := range visitors {
		if err := <-v.answer; err != nil {
			t.Errorf("a client of %s that came while the driver was %s: %v", v.addr, how, err)
		}
	}
	if err := <-ran; err != nil {
		t.Errorf("docker run while the driver was %s: %v", how, err)
		return
	}
	w.engine.WaitLog(t, "late", "ready")
	settles(t, 5*time.Second, "the container that was started meanwhile", func() []string { return w.unanswered(8082) })
	if n := strings.Count(w.driverLog(t), "request body: EOF"); n > 0 {
		t.Errorf("%d calls of Docker were cut", n)
	}
}

// waitingCalls counts the connections to the driver's socket that nobody has
// accepted.
func (w *world) waitingCalls(t *testing.T) (n int) {
	t.Helper()
	for line := range strings.Lines(w.Exec(t, "ss", "-Hxl")) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == socket {
			_, _ = fmt.Sscan(f[2], &n)
		}
	}
	return n
}

// answersUDP asserts that a UDP port answers by all ways.
func (w *world) answersUDP(t *testing.T, port uint16) {
	t.Helper()
	for a, from := range map[netip.Addr]*nstest.NS{w.HostAddr4: w.LAN, w.HostAddr6: w.LAN, localhost4: w.Host, localhost6: w.Host} {
		if _, err := from.UDP(netip.AddrPortFrom(a, port).String(), 3*time.Second); err != nil {
			t.Errorf("UDP port %d by %v: %v", port, a, err)
		}
	}
}

// TestA61Whole: the driver is stopped or killed, somebody flushes, it starts:
// whole again, by all ways and for all that it holds.
func TestA61Whole(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world){
		"stopped": func(t *testing.T, w *world) { w.driver.Stop(t) },
		"killed":  func(t *testing.T, w *world) { w.driver.Kill(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.dual(t, "web", 81)
			w.network(t, "four", "--subnet", "10.82.0.0/24")
			w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp")
			w.run(t, "c2", "four", "-p", "8081:80")
			w.serveAsNobody(t, "-http", ":3000")
			w.mustRedirect(t, "add", "80", "3000")
			before, frames := w.tableText(t), w.textOf(t, "bridge", "nftnet")
			end(t, w)
			w.Exec(t, "nft", "flush", "ruleset")
			w.restartDriver(t)
			w.tableIs(t, before, "after flush and start")
			if now := w.textOf(t, "bridge", "nftnet"); now != frames {
				t.Errorf("the table of frames is not as it was:\n%s\nit was:\n%s", now, frames)
			}
			for _, port := range []int{8080, 8081, 80} {
				settles(t, 5*time.Second, fmt.Sprintf("port %d", port), func() []string { return w.unanswered(port) })
			}
			w.answersUDP(t, 5353)
			w.engine.Docker(t, "rm", "-f", "c1", "c2")
			w.mustRedirect(t, "rm", "80")
			w.bindable(t, 8080, 8081, 5353, 80)
		})
	}
}
