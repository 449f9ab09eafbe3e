package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// transfer reads from a server that sends without end, and notes the longest
// time in which nothing came.
type transfer struct {
	name  string
	conn  net.Conn
	bytes atomic.Int64
	gap   time.Duration
	err   error
	done  chan struct{}
}

func startTransfer(t *testing.T, from *nstest.NS, name, addr string) *transfer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	tr := &transfer{name: name, conn: conn, done: make(chan struct{})}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		defer close(tr.done)
		buf := make([]byte, 16<<10)
		last := time.Now()
		for {
			n, err := conn.Read(buf)
			now := time.Now()
			tr.gap = max(tr.gap, now.Sub(last))
			last = now
			tr.bytes.Add(int64(n))
			if err != nil {
				tr.err = err
				return
			}
		}
	}()
	return tr
}

// stop ends the transfer, which must be running still, and go on.
func (tr *transfer) stop(t *testing.T) {
	t.Helper()
	before := tr.bytes.Load()
	for range 500 {
		if tr.bytes.Load() > before {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case <-tr.done:
		t.Errorf("%s broke after %d bytes: %v", tr.name, tr.bytes.Load(), tr.err)
		return
	default:
	}
	if tr.bytes.Load() == before {
		t.Errorf("%s stands still after %d bytes", tr.name, before)
	}
	_ = tr.conn.Close()
	<-tr.done
	t.Logf("%s: %d bytes, longest pause %v", tr.name, tr.bytes.Load(), tr.gap)
}

// flushes are the ways in which somebody takes the table away.
var flushes = map[string][]string{
	"flush ruleset":   {"nft", "flush", "ruleset"},
	"delete table":    {"nft", "delete", "table", "inet", "nftnet"},
	"flush the table": {"nft", "flush", "table", "inet", "nftnet"},
	"nftables.conf":   {"nft", "-f", "/run/nftables.conf"},
}

func TestA34Flush(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.engine.Docker(t, "run", "-d", "--name", "c1", "--network", "web", "-p", "8080:80", "-p", "9000:9000", w.image,
		"/peer", "serve", "-http", ":80", "-stream", ":9000")
	w.engine.WaitLog(t, "c1", "ready")
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "{ 198.51.100.1, 198.51.100.7 }", "counter", "drop", "comment", `"mine"`)
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "tcp", "dport", "vmap", "{ 8123 : drop, 8124 : return }")
	want := w.tableText(t)
	w.Exec(t, "sh", "-c", "printf 'flush ruleset\\ntable inet filter { chain input { type filter hook input priority 0; }\\n}\\n' > /run/nftables.conf")
	for name, flush := range flushes {
		t.Run(name, func(t *testing.T) {
			running := []*transfer{
				startTransfer(t, w.LAN, "LAN to the port", netip.AddrPortFrom(w.HostAddr4, 9000).String()),
				startTransfer(t, w.LAN, "LAN to the port by IPv6", netip.AddrPortFrom(w.HostAddr6, 9000).String()),
				startTransfer(t, w.Host, "host to 127.0.0.1", "127.0.0.1:9000"),
				startTransfer(t, w.Host, "host to [::1]", "[::1]:9000"),
			}
			for range 5 {
				w.Exec(t, flush...)
				eventually(t, "a new connection", func() error {
					_, err := w.LAN.TryGet(url(w.HostAddr4, 8080), 500*time.Millisecond)
					return err
				})
			}
			for _, tr := range running {
				tr.stop(t)
			}
			if after := w.tableText(t); after != want {
				t.Errorf("the table is not as it was:\n%s\nit was:\n%s", after, want)
			}
		})
	}
	if log := w.driver.Log(); !strings.Contains(log, "made it whole") || !strings.Contains(log, `by="nft (pid`) {
		t.Errorf("the log does not say who flushed:\n%s", log)
	}
}

// eventually tries until a thing works, within a bound that only a broken
// driver needs.
func eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	var err error
	for range 20 {
		if err = fn(); err == nil {
			return
		}
	}
	t.Errorf("%s does not work: %v", what, err)
}

// TestA34OutgoingTransfer: what a container fetches from outside goes on.
func TestA34OutgoingTransfer(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	l := w.LAN.Listen(t, "tcp", ":7000")
	var sent int64
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		sent, _ = io.CopyN(c, endless{}, 64<<20)
	}()
	w.engine.Docker(t, "run", "-d", "--name", "c1", "--network", "web", w.image,
		"sh", "-c", fmt.Sprintf("nc %s 7000 | busybox wc -c", w.LANAddr4))
	for range 10 {
		w.Exec(t, "nft", "flush", "ruleset")
	}
	<-closed
	if out := w.engine.Docker(t, "wait", "c1"); out != "0" {
		t.Errorf("the container's transfer ended with %s", out)
	}
	if got := w.engine.Docker(t, "logs", "c1"); got != fmt.Sprint(64<<20) {
		t.Errorf("the container got %s bytes, %d were sent", got, sent)
	}
}

// endless is a source of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestA61FlushWhileDown: the daemon is down, somebody flushes, it starts again.
func TestA61FlushWhileDown(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world){
		"stopped": func(t *testing.T, w *world) { w.driver.Stop(t) },
		"killed":  func(t *testing.T, w *world) { w.driver.Kill(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := web(t)
			w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "198.51.100.1", "drop")
			before := w.tableText(t)
			if name == "killed" {
				w.driver.WaitFor(t, "kept a copy of the user's rules", 5*time.Second)
			}
			end(t, w)
			w.Exec(t, "nft", "flush", "ruleset")
			w.startDriver(t)
			if after := w.tableText(t); after != before {
				t.Errorf("the table is not as it was:\n%s\nit was:\n%s", after, before)
			}
			reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
			reaches(t, w.Host, "host", "http://127.0.0.1:8080/")
		})
	}
}

// TestDockerUserIsTheUsers: what they delete stays deleted, what they flush
// stays empty.
func TestDockerUserIsTheUsers(t *testing.T) {
	w := web(t)
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "198.51.100.1", "drop")
	w.Exec(t, "nft", "flush", "chain", "inet", "nftnet", "DOCKER-USER")
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "198.51.100.2", "drop")
	want := w.tableText(t)
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	w.Exec(t, "nft", "flush", "ruleset")
	eventually(t, "the table", func() error {
		_, err := w.LAN.TryGet(url(w.HostAddr4, 8080), 500*time.Millisecond)
		return err
	})
	if after := w.tableText(t); after != want {
		t.Errorf("the table is not as the user left it:\n%s\nit was:\n%s", after, want)
	}
}
