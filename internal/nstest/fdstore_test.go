package nstest

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// notify sends a notification as a service does, and waits until it is read:
// the store answers a barrier by closing its end of a pipe.
func notify(t *testing.T, s *FDStore, text string, files ...syscall.Conn) {
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
		if err := unix.Sendmsg(out, []byte(text), unix.UnixRights(fds...), &unix.SockaddrUnix{Name: s.path}, 0); err != nil {
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
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("the barrier is not answered: %v", err)
	}
}

func TestFDStore(t *testing.T) {
	t.Parallel()
	sb := NewSandbox(t)
	s := NewFDStore(t, sb, 2)
	open := func(addr string) *net.TCPListener {
		return sb.Host.Listen(t, "tcp", addr).(*net.TCPListener)
	}
	a, b, c := open("127.0.0.1:7001"), open("127.0.0.1:7002"), open("127.0.0.1:7003")
	want := func(names ...string) {
		t.Helper()
		if got := s.Names(); !slices.Equal(got, names) {
			t.Fatalf("stored: %q, want %q", got, names)
		}
	}
	wantRefused := func(words string) {
		t.Helper()
		all := s.Refused()
		if len(all) == 0 || !strings.Contains(all[len(all)-1], words) {
			t.Errorf("refused %q, want %q last", all, words)
		}
	}

	notify(t, s, "FDSTORE=1\nFDNAME=a", a)
	notify(t, s, "FDSTORE=1\nFDNAME=again", a)
	notify(t, s, "READY=1\nSTATUS=well")
	want("a")
	notify(t, s, "FDSTORE=1\nFDNAME=tcp:7002", b)
	wantRefused("FDNAME=")
	want("a", "stored")
	notify(t, s, "FDSTORE=1\nFDNAME=c", c)
	wantRefused("FileDescriptorStoreMax=2")
	want("a", "stored")
	notify(t, s, "FDSTOREREMOVE=1\nFDNAME=nothing")
	want("a", "stored")
	notify(t, s, "STATUS="+strings.Repeat("x", maxNotification))
	wantRefused("more than 4096 bytes")
	if got := s.Notes(); !slices.Equal(got[:2], []string{"READY=1", "STATUS=well"}) {
		t.Errorf("notes %q", got)
	}

	// Nobody of the service holds the sockets now but the store.
	for _, l := range []net.Listener{a, b, c} {
		_ = l.Close()
	}
	if _, err := sb.Host.TCP("127.0.0.1:7003", time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a port that is not stored: %v", err)
	}
	held, err := sb.Host.Dial(t.Context(), "tcp", "127.0.0.1:7001")
	if err != nil {
		t.Fatalf("a stored port: %v", err)
	}
	defer held.Close()
	p := s.Start(t, "service", "sh", "-c", `echo "pid $$ $LISTEN_PID fds $LISTEN_FDS names $LISTEN_FDNAMES"; readlink /proc/$$/fd/3 /proc/$$/fd/4 /proc/$$/fd/5; [ -S "$NOTIFY_SOCKET" ] && echo end`)
	if err := p.Wait(t, 5*time.Second); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	first := fmt.Sprintf("pid %d %d fds 2 names a:stored\n", p.Pid(), p.Pid())
	if log := p.Log(); !strings.HasPrefix(log, first) || strings.Count(log, "socket:[") != 2 || !strings.HasSuffix(log, "end\n") {
		t.Errorf("the service got:\n%s", log)
	}

	notify(t, s, "FDSTOREREMOVE=1\nFDNAME=a")
	want("stored")
	if _, err := sb.Host.TCP("127.0.0.1:7001", time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a port that was removed from the store: %v", err)
	}
	p.Restart(t)
	if err := p.Wait(t, 5*time.Second); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	if log := p.Log(); !strings.Contains(log, " fds 1 names stored\n") {
		t.Errorf("the service got at its second start:\n%s", log)
	}
}

// TestFDStoreDropsWhatHungUp: a socket that is bound and does not listen has
// hung up for poll(2).
func TestFDStoreDropsWhatHungUp(t *testing.T) {
	t.Parallel()
	sb := NewSandbox(t)
	s := NewFDStore(t, sb, 8)
	bound := func() *os.File {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "bound")
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	notify(t, s, "FDSTORE=1\nFDNAME=polled", bound())
	notify(t, s, "FDSTORE=1\nFDNAME=left\nFDPOLL=0", bound())
	if got := s.Names(); !slices.Equal(got, []string{"left"}) {
		t.Errorf("stored %q, want the one that is not polled", got)
	}
	if r := s.Refused(); len(r) != 1 || !strings.Contains(r[0], `"polled" has hung up`) {
		t.Errorf("refused %q", r)
	}
}

func TestStoreSize(t *testing.T) {
	for unit, want := range map[string]int{
		"[Service]\nType=notify\n":                                  0,
		"[Service]\nFileDescriptorStoreMax=65536\nRestart=always\n": 65536,
	} {
		if got := StoreSize(unit); got != want {
			t.Errorf("%q: %d, want %d", unit, got, want)
		}
	}
}
