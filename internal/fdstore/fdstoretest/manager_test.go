package fdstoretest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/fdstore/fdstoretest"
	"nftnet/internal/nstest"
)

// notify sends a notification as a service does, and waits until it is read:
// the manager answers a barrier by closing its end of a pipe.
func notify(t *testing.T, m *fdstoretest.Manager, text string, files ...syscall.Conn) {
	t.Helper()
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(out)
	send := func(text string, files ...syscall.Conn) {
		var fds []int
		for _, f := range files {
			raw, err := f.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			// It stays valid afterwards: the file is open until the test ends.
			if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Sendmsg(out, []byte(text), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: m.Socket}, 0); err != nil {
			t.Fatal(err)
		}
	}
	send(text, files...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	send("BARRIER=1", w)
	_ = w.Close()
	_ = r.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("the barrier is not answered: %v", err)
	}
}

func wantNames(t *testing.T, m *fdstoretest.Manager, names ...string) {
	t.Helper()
	if got := m.Names(); !slices.Equal(got, names) {
		t.Fatalf("stored: %q, want %q", got, names)
	}
}

// wantRefused asserts what was refused since the last call, by a part of each
// text.
func wantRefused(t *testing.T, m *fdstoretest.Manager, words ...string) {
	t.Helper()
	got := m.Refused()
	if !slices.EqualFunc(got, words, strings.Contains) {
		t.Errorf("refused %q, want %q", got, words)
	}
}

// socket returns a socket that is not bound.
func socket(t *testing.T, kind int) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestServiceInSandbox: what is stored stays open while no process of the
// service runs, and each of its processes gets it.
func TestServiceInSandbox(t *testing.T) {
	sb := nstest.NewSandbox(t)
	m := fdstoretest.At(t, filepath.Join(sb.Dir, "notify"), 2)
	listen := func(addr string) *net.TCPListener {
		return sb.Host.Listen(t, "tcp", addr).(*net.TCPListener)
	}
	a, b, c := listen("127.0.0.1:7001"), listen("127.0.0.1:7002"), listen("127.0.0.1:7003")
	notify(t, m, "FDSTORE=1\nFDNAME=it's a", a)
	notify(t, m, "FDSTORE=1\nFDNAME=b", b)
	notify(t, m, "FDSTORE=1\nFDNAME=c", c)
	wantNames(t, m, "b", "it's a")
	wantRefused(t, m, "FileDescriptorStoreMax=2")
	for _, l := range []net.Listener{a, b, c} {
		_ = l.Close()
	}
	if _, err := sb.Host.TCP("127.0.0.1:7003", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that is not stored: %v", err)
	}
	held, err := sb.Host.Dial(t.Context(), "tcp", "127.0.0.1:7001")
	if err != nil {
		t.Fatalf("a stored port: %v", err)
	}
	defer held.Close()

	p := sb.StartWith(t, "service", m.Pass, "sh", "-c", `echo "pid $$ $LISTEN_PID fds $LISTEN_FDS names $LISTEN_FDNAMES"
		readlink /proc/$$/fd/3 /proc/$$/fd/4 /proc/$$/fd/5
		[ -S "$NOTIFY_SOCKET" ] && echo "net $(readlink /proc/$$/ns/net)"`)
	ended := func(names string, sockets int) {
		t.Helper()
		if err := p.Wait(t, 20*time.Second); err != nil {
			t.Errorf("%v: %s", err, p.Log())
		}
		first := fmt.Sprintf("pid %d %[1]d fds %d names %s\n", p.Pid(), sockets, names)
		last := fmt.Sprintf("net %s\n", sb.Exec(t, "readlink", "/proc/self/ns/net"))
		if log := p.Log(); !strings.HasPrefix(log, first) || strings.Count(log, "socket:[") != sockets || !strings.HasSuffix(log, last) {
			t.Errorf("the service got:\n%swant %q first, %d sockets, %q last", log, first, sockets, last)
		}
	}
	ended("it's a:b", 2)

	notify(t, m, "FDSTOREREMOVE=1\nFDNAME=it's a")
	if _, err := sb.Host.TCP("127.0.0.1:7001", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that was removed from the store: %v", err)
	}
	p.Restart(t)
	ended("b", 1)
}

// TestStart: a process gets what is stored under its own number, and nothing
// where nothing is stored.
func TestStart(t *testing.T) {
	m := fdstoretest.New(t)
	command := func() *exec.Cmd {
		return exec.Command("sh", "-c", `[ "$LISTEN_PID" = $$ ] && echo own; echo "$LISTEN_FDS $LISTEN_FDNAMES $NOTIFY_SOCKET"`)
	}
	for _, want := range []string{"  " + m.Socket + "\n", "own\n2 a:b " + m.Socket + "\n"} {
		if out, err := m.Output(command()); err != nil || out != want {
			t.Errorf("the process says %q, %v; want %q", out, err, want)
		}
		notify(t, m, "FDSTORE=1\nFDNAME=a", socket(t, unix.SOCK_DGRAM))
		notify(t, m, "FDSTORE=1\nFDNAME=b", socket(t, unix.SOCK_DGRAM))
	}
}

// TestMessages goes through what systemd takes and what it refuses, in order.
func TestMessages(t *testing.T) {
	m := fdstoretest.At(t, fmt.Sprintf("@nftnet-test-manager-%d", os.Getpid()), 3)
	a, b, c, d := socket(t, unix.SOCK_DGRAM), socket(t, unix.SOCK_DGRAM), socket(t, unix.SOCK_DGRAM), socket(t, unix.SOCK_DGRAM)
	for _, step := range []struct {
		text    string
		files   []syscall.Conn
		names   string
		refused []string
	}{
		{"FDSTORE=1\nFDNAME=a", []syscall.Conn{a}, "a", nil},
		{"FDSTORE=1\nFDNAME=again", []syscall.Conn{a}, "a", nil},
		{"READY=1\nSTATUS=well\n", nil, "a", nil},
		{"READY=1", []syscall.Conn{b}, "a", []string{"1 descriptors without FDSTORE=1"}},
		{"FDSTORE=1\nFDNAME=b", nil, "a", []string{"without a descriptor"}},
		{"FDSTORE=1\nFDNAME=tcp:7002", []syscall.Conn{b}, "a stored", []string{`FDNAME="tcp:7002"`}},
		{"FDSTORE=1\nFDNAME=c", []syscall.Conn{c, d}, "a c stored", []string{"FileDescriptorStoreMax=3"}},
		{"FDSTOREREMOVE=1\nFDNAME=nothing", nil, "a c stored", nil},
		{"FDSTOREREMOVE=1", nil, "a c stored", []string{"without a name"}},
		{"FDSTOREREMOVE=1\nFDNAME=ä", nil, "a c stored", []string{`FDNAME="ä"`, "without a name"}},
		{"FDSTOREREMOVE=1\nFDNAME=" + strings.Repeat("x", 256), nil, "a c stored", []string{"at most 255", "without a name"}},
		{"FDSTOREREMOVE=1\nFDNAME=c\nBARRIER=1", []syscall.Conn{d}, "a c stored", []string{"beside other assignments"}},
		{"BARRIER=1", nil, "a c stored", []string{"with 0 descriptors"}},
		{"FDSTOREREMOVE=1\nFDNAME=c\n" + strings.Repeat("x", 4096), nil, "a c stored", []string{"more than 4096 bytes"}},
		{"FDSTOREREMOVE=1\nFDNAME=c\x00c", nil, "a c stored", []string{"zero byte"}},
		{"FDSTOREREMOVE=1\nFDNAME=c\n" + strings.Repeat("x", 4096-len("FDSTOREREMOVE=1\nFDNAME=c\n")), nil, "a stored", nil},
		{"FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=a", []syscall.Conn{c}, "a stored", nil},
	} {
		notify(t, m, step.text, step.files...)
		if got := strings.Join(m.Names(), " "); got != step.names {
			t.Fatalf("after %.60q: %q, want %q", step.text, got, step.names)
		}
		if got := m.Refused(); !slices.EqualFunc(got, step.refused, strings.Contains) {
			t.Errorf("%.60q: refused %q, want %q", step.text, got, step.refused)
		}
	}
	if got := m.Messages(); got[0] != "FDSTORE=1\nFDNAME=a" || got[1] != "BARRIER=1" {
		t.Errorf("messages %q, want all that was sent", got)
	}
}

// TestHungUp: a socket that is bound and does not listen has hung up for
// poll(2).
func TestHungUp(t *testing.T) {
	m := fdstoretest.New(t)
	notify(t, m, "FDSTORE=1\nFDNAME=polled", socket(t, unix.SOCK_STREAM))
	notify(t, m, "FDSTORE=1\nFDNAME=left\nFDPOLL=0", socket(t, unix.SOCK_STREAM))
	wantNames(t, m, "left")
	wantRefused(t, m, `"polled" has hung up`)
}

func TestStoreSize(t *testing.T) {
	for unit, want := range map[string]int{
		"[Service]\nType=notify\n":                                  0,
		"[Service]\nFileDescriptorStoreMax=65536\nRestart=always\n": 65536,
	} {
		if got := fdstoretest.StoreSize(unit); got != want {
			t.Errorf("%q: %d, want %d", unit, got, want)
		}
	}
}
