package fdstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/fdstore"
	"nftnet/internal/fdstore/fdstoretest"
)

// inService is set in a process that plays the service.
const inService = "NFTNET_TEST_SERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(inService) != "" {
		if err := service(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// service is a service of one process: it answers every client of the unix
// socket that it inherits, and prints what it knows.
func service() error {
	s, err := fdstore.Take(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			fmt.Println("environment", v)
		}
	}
	if _, ok := s.Listener("missing"); ok {
		fmt.Println("listener of a missing name")
	}
	l, ok := s.Listener("control")
	if !ok {
		fmt.Println("no listener")
		return nil
	}
	raw, err := l.(*net.UnixListener).SyscallConn()
	if err != nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) {
		if flags, _ := unix.FcntlInt(fd, unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			fmt.Println("children inherit the listener")
		}
	})
	fmt.Println("unclaimed", s.DropUnclaimed())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return err
	}
	_ = c.Close()
	_ = l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.Barrier(ctx)
}

func serviceCommand() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inService+"=1")
	return cmd
}

// take is the store of a service whose manager listens on a socket.
func take(t *testing.T, socket string) *fdstore.Store {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", socket)
	s, err := fdstore.Take(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func barrier(t *testing.T, s *fdstore.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// anySocket returns a socket that has no port.
func anySocket(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// portOf is the port that a descriptor in the store is bound to.
func portOf(t *testing.T, f *os.File) int {
	t.Helper()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestPutAndDrop(t *testing.T) {
	for what, socket := range map[string]string{"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@nftnet-test-%d", os.Getpid())} {
		t.Run(what, func(t *testing.T) {
			m := fdstoretest.At(t, socket, 2)
			s := take(t, socket)
			a, b, c := listenTCP(t), listenTCP(t), listenTCP(t)
			s.Put("a", a)
			s.Put("b", b)
			barrier(t, s)
			if got := m.Names(); !slices.Equal(got, []string{"a", "b"}) {
				t.Fatalf("the service manager has %v", got)
			}
			if got := m.Messages()[0]; got != "FDSTORE=1\nFDPOLL=0\nFDNAME=a" {
				t.Errorf("message %q", got)
			}
			s.Drop("a")
			s.Drop("never there")
			s.Put("b", c)
			barrier(t, s)
			kept := m.Kept()
			if len(kept) != 1 || kept[0].Name != "b" {
				t.Fatalf("the service manager has %v, want b alone", m.Names())
			}
			if got, want := portOf(t, kept[0].File), c.Addr().(*net.TCPAddr).Port; got != want {
				t.Errorf("name b is the socket of port %d, want that of the second Put, %d", got, want)
			}
		})
	}
}

// TestDroppedBeforeSent: a port that comes and goes while the service manager
// is busy is held by nobody.
func TestDroppedBeforeSent(t *testing.T) {
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	s.Put("first", listenTCP(t))
	barrier(t, s)
	m.Pause()
	// These keep the queue from getting to the last one.
	for i := range 20 {
		s.Put(fmt.Sprint("other", i), listenTCP(t))
	}
	l := listenTCP(t)
	s.Put("a", l)
	_ = l.Close()
	s.Drop("a")
	again, err := net.Listen("tcp4", l.Addr().String())
	if err != nil {
		t.Errorf("the port is taken after the drop: %v", err)
	} else {
		_ = again.Close()
	}
	if s.Dropping("a") {
		t.Error("a descriptor that was never sent is being dropped")
	}
	s.Drop("first")
	if !s.Dropping("fir") || s.Dropping("second") {
		t.Error("the service manager is not known to have a dropped descriptor")
	}
	m.Resume()
	barrier(t, s)
	if s.Dropping("") {
		t.Error("a removal is not confirmed after a barrier")
	}
	if slices.Contains(m.Names(), "a") || slices.Contains(m.Names(), "first") {
		t.Errorf("dropped names are in the store: %v", m.Names())
	}
	for _, text := range m.Messages() {
		if strings.Contains(text, "FDNAME=a") {
			t.Errorf("message %q of a descriptor that was dropped before", text)
		}
	}
}

// TestCallersDoNotWait: a service manager that reads nothing keeps nobody
// waiting, and gets all in order when it reads again.
func TestCallersDoNotWait(t *testing.T) {
	before := runtime.NumGoroutine()
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	m.Pause()
	fill(t, m.Socket)
	var want []string
	for i := range 1000 {
		name := fmt.Sprintf("%03d", i)
		s.Put(name, anySocket(t))
		want = append(want, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a barrier before a busy service manager: %v", err)
	}
	m.Resume()
	barrier(t, s)
	var got []string
	for _, k := range m.Kept() {
		got = append(got, k.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d descriptors are in the store, or not in the order of their puts; want %d", len(got), len(want))
	}
	// The service manager of the test has one.
	fdstoretest.WaitFor(t, "the store's goroutine ends with its work", func() bool { return runtime.NumGoroutine() <= before+1 })
}

// fill sends what others send to a service manager, until its socket takes no
// more.
func fill(t *testing.T, socket string) {
	t.Helper()
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for range 100000 {
		var sent error
		_ = raw.Control(func(fd uintptr) { _, sent = unix.Write(int(fd), []byte("STATUS=another service")) })
		if errors.Is(sent, unix.EAGAIN) {
			return
		}
		if sent != nil {
			t.Fatal(sent)
		}
	}
	t.Fatal("the socket of the service manager does not fill")
}

// TestOneWindowAtATime: of a thousand descriptors the service manager has a few
// before it at any moment, so that other services come in between.
func TestOneWindowAtATime(t *testing.T) {
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	for i := range 200 {
		s.Put(fmt.Sprint(i), anySocket(t))
	}
	barrier(t, s)
	run := 0
	for _, text := range m.Messages() {
		if run++; text == "BARRIER=1" {
			run = 0
		}
		if run > 8 {
			t.Fatal("more than 8 messages follow each other without a barrier")
		}
	}
	if len(m.Names()) != 200 {
		t.Errorf("%d descriptors are in the store, want 200", len(m.Names()))
	}
}

// TestNamesFitTheEnvironment: a service whose names are longer than one
// variable of the environment could not be started again.
func TestNamesFitTheEnvironment(t *testing.T) {
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	long := strings.Repeat("x", 245)
	for i := range 700 {
		s.Put(fmt.Sprintf("%s%04d", long, i), anySocket(t))
	}
	barrier(t, s)
	names := m.Names()
	if n := len("LISTEN_FDNAMES=" + strings.Join(names, ":")); n > 128<<10-1 || n < 100<<10 {
		t.Errorf("the names of %d descriptors have %d bytes, want almost 128 KiB", len(names), n)
	}
	first := names[0]
	s.Drop(first)
	s.Put("another", anySocket(t))
	l := anySocket(t)
	s.Put("x:y", l)
	s.Put("", l)
	s.Put(strings.Repeat("x", 256), l)
	s.Put("ä", l)
	barrier(t, s)
	if got := m.Names(); !slices.Contains(got, "another") || len(got) != len(names) {
		t.Errorf("after a drop there is room for one descriptor; %d are in the store, before %d", len(got), len(names))
	}
	if out, err := m.Output(exec.Command("/bin/true")); err != nil {
		t.Errorf("a program does not start with these names: %v: %s", err, out)
	}
}

func TestWithoutServiceManager(t *testing.T) {
	s := take(t, "")
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s.Put("a", l.(*net.UnixListener))
	s.Drop("a")
	barrier(t, s)
	if s.Dropping("") || len(s.DropUnclaimed()) != 0 || len(s.Files("a")) != 0 {
		t.Error("a store without a service manager has something")
	}
	_ = l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a listener that nobody keeps leaves its path: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1")
	if _, err := fdstore.Take(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "vsock:2:1") {
		t.Errorf("a socket that is none of the family: %v", err)
	}
}

// TestServiceManagerGone: nothing waits for a service manager that is gone.
func TestServiceManagerGone(t *testing.T) {
	s := take(t, filepath.Join(t.TempDir(), "nobody"))
	s.Put("a", listenTCP(t))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Barrier(ctx); !errors.Is(err, unix.ENOENT) {
		t.Errorf("barrier: %v, want that there is no such socket", err)
	}
}

// TestListenerOutlivesItsProcess: clients of a unix socket wait for the next
// process.
func TestListenerOutlivesItsProcess(t *testing.T) {
	m := fdstoretest.New(t)
	path := filepath.Join(t.TempDir(), "socket")
	s := take(t, m.Socket)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s.Put("control", l.(*net.UnixListener))
	s.Put("left over", listenTCP(t))
	barrier(t, s)
	_ = l.Close()

	// Nobody accepts now.
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		t.Fatalf("between two processes: %v", err)
	}
	defer c.Close()
	out, err := m.Output(serviceCommand())
	if want := "unclaimed [left over]\n"; err != nil || out != want {
		t.Fatalf("the second process says %q, %v; want %q", out, err, want)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		t.Errorf("the client gets %q, %v", line, err)
	}
	if got := m.Names(); !slices.Equal(got, []string{"control"}) {
		t.Errorf("the store has %v, want what was claimed", got)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path of the kept socket: %v", err)
	}

	// A path that leads elsewhere makes the socket useless.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, prepare := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(path, nil, 0o600) },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		out, err := m.Output(serviceCommand())
		if err != nil || out != "no listener\n" {
			t.Errorf("with another file at the path the process says %q, %v", out, err)
		}
	}
}

// TestNotForThisProcess: what a parent was passed is none of its children's.
func TestNotForThisProcess(t *testing.T) {
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	s.Put("control", listenTCP(t))
	barrier(t, s)
	child := exec.Command("sh", "-c", `"$0"; exit $?`, os.Args[0])
	child.Env = append(os.Environ(), inService+"=1")
	out, err := m.Output(child)
	if err != nil || out != "no listener\n" {
		t.Errorf("a child of the service says %q, %v; want no listener", out, err)
	}
}

func TestDescriptorThatDoesNotListen(t *testing.T) {
	m := fdstoretest.New(t)
	s := take(t, m.Socket)
	l := listenTCP(t)
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Put("control", c.(*net.TCPConn))
	barrier(t, s)
	stdout, err := m.Output(serviceCommand())
	if err != nil || stdout != "no listener\n" {
		t.Errorf("the process says %q, %v", stdout, err)
	}
}
