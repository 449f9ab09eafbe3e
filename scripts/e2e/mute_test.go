package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// muteServer accepts connections, reads what comes and never answers.
type muteServer struct {
	accepted, open atomic.Int32
}

func startMute(t *testing.T, path string) *muteServer {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	m := &muteServer{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.accepted.Add(1)
			m.open.Add(1)
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
				m.open.Add(-1)
			}()
		}
	}()
	return m
}

// knockers are connections to a port of the host by [::1]: the driver has
// accepted them and dials the container, which answers nothing.
const knockers = 5

// silence makes a container drop what comes to its port 80.
func (w *world) silence(t *testing.T, container string) {
	t.Helper()
	pid := w.engine.Docker(t, "inspect", "-f", "{{.State.Pid}}", container)
	w.Exec(t, "nsenter", "-t", pid, "-n", "nft",
		"table inet silent { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }")
}

// dials counts the connections of the host to an address that wait for the first
// answer.
func (w *world) dials(t *testing.T, to string) int {
	t.Helper()
	return strings.Count(w.Host.Exec(t, "ss", "-Hnt", "state", "syn-sent"), "["+to+"]:80")
}

// knock opens connections to a port and waits until the driver dials the
// container for each.
func (w *world) knock(t *testing.T, port int, container string) []net.Conn {
	t.Helper()
	to := w.address(t, container, "web", true).String()
	before := w.dials(t, to)
	var clients []net.Conn
	for range knockers {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		c, err := w.Host.Dial(ctx, "tcp", fmt.Sprintf("[::1]:%d", port))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		clients = append(clients, c)
	}
	holdsSoon(t, "dials of a silent container", func() bool { return w.dials(t, to) >= before+knockers })
	return clients
}

// TestA73SilentContainer: nothing waits for a container that does not answer.
// Each step begins with fresh dials of container "old" and must be over before
// they are: so it has waited for none, nor for a later one.
func TestA73SilentContainer(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "well", "web", "-p", "8080:80")
	for name, port := range map[string]string{"old": "8601", "gone": "8602"} {
		w.run(t, name, "web", "-p", port+":80")
		w.silence(t, name)
	}
	old := w.address(t, "old", "web", true).String()
	step := func(what string, fn func()) {
		t.Helper()
		w.knock(t, 8601, "old")
		begin := time.Now()
		fn()
		if w.dials(t, old) == 0 {
			t.Errorf("%s is over only after %v, when the dials of another container are, too", what, time.Since(begin).Round(time.Millisecond))
		}
		t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
	}
	step("docker rm of a container that is dialled", func() {
		clients := w.knock(t, 8602, "gone")
		w.engine.Docker(t, "rm", "-f", "gone")
		for _, c := range clients {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("a client of the removed container: %v, want the end of its connection", err)
			}
		}
	})
	step("docker network create", func() { w.dual(t, "other", 82) })
	step("repair after a flush", func() { w.repaired(t, 8080) })
	step("docker run", func() { w.run(t, "late", "web", "-p", "8602:80") })
	w.knock(t, 8601, "old")
	w.ends(t, "while a container is dialled")
	w.noLongLock(t)
}

// TestA73MuteEngine: nothing waits for an engine that accepts and never answers
// when the driver asks it for names.
func TestA73MuteEngine(t *testing.T) {
	w := emptyWorld(t)
	path := filepath.Join(w.Dir, "mute.sock")
	mute := startMute(t, path)
	w.startDriverWith(t, "DOCKER_HOST=unix://"+path)
	w.startEngine(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80")

	// whileAsked runs fn after a call was begun that asks the engine for a name,
	// and reports whether the driver still waits for the answer then.
	whileAsked := func(name string, words []string, fn func()) bool {
		asked := mute.accepted.Load()
		answered := make(chan struct{})
		defer func() { <-answered }()
		go func() {
			defer close(answered)
			w.refused(t, words, "run", "-d", "--name", name, "--network", "web", "-p", "8080:80",
				w.image, "/peer", "serve", "-http", ":80")
		}()
		for end := time.Now().Add(10 * time.Second); mute.accepted.Load() == asked && time.Now().Before(end); {
			select {
			case <-answered:
				t.Log("the driver refuses without asking for a name")
				return true
			default:
				time.Sleep(5 * time.Millisecond)
			}
		}
		fn()
		return mute.open.Load() > 0
	}
	// On a busy machine the driver may give the engine up before the calls are
	// over that are not to wait for it.
	waited := false
	for try := 0; try < 3 && !waited; try++ {
		waited = whileAsked("c2", []string{"8080/tcp", "publishes it already"}, func() {
			id := strings.Repeat("ab", 32)
			w.mustCall(t, "CreateNetwork", networkBody(id, 99))
			w.mustCall(t, "DeleteNetwork", map[string]any{"NetworkID": id})
		})
		w.engine.Docker(t, "rm", "-f", "c2")
	}
	if !waited {
		t.Error("calls for another network are over only when the driver no longer waits for the engine")
	}
	w.dual(t, "other", 82)
	w.repaired(t, 8080)
	w.run(t, "c3", "other", "-p", "8081:80")
	w.engine.Docker(t, "rm", "-f", "c3")
	w.engine.Docker(t, "network", "rm", "other")
	// A stop may cut the call.
	whileAsked("c4", nil, func() {
		w.ends(t, "while the engine is asked")
		// Docker tries its call for half a minute.
		w.restartDriver(t)
	})
	w.noLongLock(t)
}

// quick is far more than a call or a start of the driver takes, some
// milliseconds, and less than it waits for other programs where it does.
const quick = 2 * time.Second

// callTook is what the driver's log says of each call.
var callTook = regexp.MustCompile(`msg=call name=(\w+).* took=(\S+)`)

// noSlowCall fails the test where a call took as long as if it had waited for
// another program.
func (w *world) noSlowCall(t *testing.T) {
	t.Helper()
	calls := callTook.FindAllStringSubmatch(w.driverLog(t), -1)
	if len(calls) == 0 {
		t.Error("the driver's log has no calls")
	}
	for _, m := range calls {
		took, err := time.ParseDuration(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if took > quick {
			t.Errorf("call %s took %v", m[1], took)
		}
	}
}

// TestA73MuteBus: nothing waits for a system bus that accepts and never answers.
func TestA73MuteBus(t *testing.T) {
	w := emptyWorld(t)
	path := filepath.Join(w.Dir, "bus.sock")
	mute := startMute(t, path)
	w.startDriverWith(t, "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+path)
	w.startEngine(t)
	w.dual(t, "web", 81)
	w.dual(t, "other", 82)
	w.run(t, "c1", "web", "-p", "8080:80")
	w.run(t, "c2", "other", "-p", "8081:80")
	w.repaired(t, 8080)
	w.engine.Docker(t, "rm", "-f", "c2")
	w.engine.Docker(t, "network", "rm", "other")
	if mute.open.Load() == 0 {
		t.Error("the driver does not wait for the bus: the test shows nothing")
	}
	w.ends(t, "while the bus is waited for")
	w.driver.Restart(t)
	w.driver.WaitFor(t, "msg=serving", quick)
	w.noSlowCall(t)
	w.noLongLock(t)
}

// TestA73MuteFirewalld: nothing waits for a firewalld that hangs. The engine
// does, for its own chains: the calls come from the test.
func TestA73MuteFirewalld(t *testing.T) {
	w := emptyWorld(t)
	w.StartBus(t)
	firewalld := w.StartFirewalld(t)
	w.startDriver(t)
	if err := syscall.Kill(firewalld.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ids := []string{strings.Repeat("ab", 32), strings.Repeat("cd", 32)}
	for i, id := range ids {
		w.mustCall(t, "CreateNetwork", networkBody(id, 81+i))
	}
	w.Exec(t, "nft", "flush", "ruleset")
	holdsSoon(t, "repair after a flush", func() bool { return len(w.tableView(t)) == len(ids) })
	for _, id := range ids {
		w.mustCall(t, "DeleteNetwork", map[string]any{"NetworkID": id})
	}
	w.ends(t, "while firewalld is waited for")
	w.noSlowCall(t)
	w.noLongLock(t)
}

// TestA73HalfSentCalls: a stop does not wait for calls whose sender stopped in
// the middle.
func TestA73HalfSentCalls(t *testing.T) {
	for name, text := range map[string]string{
		"in the header": "POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: nftnet\r\nContent-",
		"in the body":   "POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: nftnet\r\nContent-Length: 1000\r\n\r\n{\"NetworkID\": ",
		"of a redirect": "POST /nftnet/redirects HTTP/1.1\r\nHost: nftnet\r\nContent-Length: 1000\r\n\r\n{\"port\": 80",
	} {
		t.Run(name, func(t *testing.T) {
			w := emptyWorld(t)
			w.startDriver(t)
			for range 5 {
				c, err := net.Dial("unix", w.Path(socket))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				holdsSoon(t, "the driver reads a half-sent call", func() bool { return unread(t, c) == 0 })
			}
			w.ends(t, "with five half-sent calls")
			w.noLongLock(t)
		})
	}
}

// unread is how many bytes the other side of a unix socket has not read yet.
func unread(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var inner error
	if err := raw.Control(func(fd uintptr) { n, inner = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return n
}

// TestA73Hangup: SIGHUP, which a terminal or logrotate sends, ends nothing.
func TestA73Hangup(t *testing.T) {
	w := emptyWorld(t)
	w.startDriver(t)
	w.serveAsNobody(t, "-http", ":3000")
	w.mustRedirect(t, "add", "80", "3000")
	for range 3 {
		if err := syscall.Kill(w.driver.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if out, err := w.redirect("ls"); err != nil || !strings.Contains(out, "80-tcp") {
			t.Fatalf("after SIGHUP nftnet redirect ls says %v, %q; the driver's log ends with\n%s", err, out, tail(w.driver, 5))
		}
	}
	if text := w.unanswered(80); len(text) > 0 {
		t.Errorf("after SIGHUP: %q", text)
	}
	w.ends(t, "after SIGHUP")
}

// tail is the end of what a process printed.
func tail(p *nstest.Process, lines int) string {
	all := bytes.Split(bytes.TrimSpace([]byte(p.Log())), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// TestA73StopUnderCalls: a driver that is asked to stop while calls come without
// end, by connections that stay, ends well.
func TestA73StopUnderCalls(t *testing.T) {
	w := emptyWorld(t)
	w.startDriver(t)
	for round := range 10 {
		var callers sync.WaitGroup
		var calls atomic.Int32
		for n := range 2 {
			client, id := w.caller(), strings.Repeat(fmt.Sprintf("%02x", 0xa0+n), 32)
			callers.Go(func() {
				defer client.CloseIdleConnections()
				for {
					_, made := callBy(client, "CreateNetwork", networkBody(id, 81+n))
					_, removed := callBy(client, "DeleteNetwork", map[string]any{"NetworkID": id})
					if made != nil && removed != nil {
						return
					}
					calls.Add(1)
				}
			})
		}
		holdsSoon(t, "calls under way", func() bool { return int(calls.Load()) > 1+round })
		w.ends(t, fmt.Sprintf("while it is called (round %d)", round))
		callers.Wait()
		if t.Failed() {
			return
		}
		w.restartDriver(t)
	}
	w.noLongLock(t)
}
