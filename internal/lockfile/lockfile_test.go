package lockfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// envChild marks a process that a test started.
const envChild = "NFTNET_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		os.Exit(childServe(os.Args[1]))
	}
	os.Exit(m.Run())
}

// childServe serves a socket from each line of its input to the next one, and
// answers every client with its process id.
func childServe(path string) int {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for in.Scan() {
		l, lock, err := ListenUnix(path, 0o660)
		if err != nil {
			fmt.Println(err)
			in.Scan()
			continue
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprint(c, os.Getpid())
				_ = c.Close()
			}
		}()
		fmt.Println("serves")
		in.Scan()
		if err := errors.Join(l.Close(), lock.Close()); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// child is a process that a test started.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func start(t *testing.T, path string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe, path)}
	c.cmd.Env = append(os.Environ(), envChild+"=1")
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	if got := c.line(t); got != "ready" {
		t.Fatal(got)
	}
	return c
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the process wrote nothing more: %v", c.lines.Err())
	}
	return c.lines.Text()
}

func (c *child) enter(t *testing.T) {
	t.Helper()
	if _, err := fmt.Fprintln(c.in); err != nil {
		t.Fatal(err)
	}
}

// answer is the process that serves a socket.
func answer(t *testing.T, path string) string {
	t.Helper()
	c, err := net.DialTimeout("unix", path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	pid, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(pid)
}

// TestTwoAtOnce starts two at the same moment, again and again: one serves, the
// other says who does. Every third time the one before was killed.
func TestTwoAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins", "nftnet.sock")
	both := []*child{start(t, path), start(t, path)}
	won := map[int]int{}
	for round := range 60 {
		for _, c := range both {
			c.enter(t)
		}
		winner := -1
		said := []string{both[0].line(t), both[1].line(t)}
		for i, text := range said {
			if text == "serves" {
				if winner >= 0 {
					t.Fatalf("round %d: both serve", round)
				}
				winner = i
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: none serves: %q", round, said)
		}
		won[winner]++
		pid := both[winner].cmd.Process.Pid
		if want := fmt.Sprintf("socket %s belongs to another process (pid %d, ", path, pid); !strings.HasPrefix(said[1-winner], want) {
			t.Errorf("round %d: the other says %q, want %q", round, said[1-winner], want)
		}
		if got := answer(t, path); got != fmt.Sprint(pid) {
			t.Errorf("round %d: process %s serves, not %d", round, got, pid)
		}
		if inside, err := os.ReadFile(path + Suffix); err != nil || string(inside) != fmt.Sprintln(pid) {
			t.Errorf("round %d: the lock file says %q, %v", round, inside, err)
		}
		if round%3 == 2 {
			both[winner].kill()
			both[winner] = start(t, path)
			both[1-winner].enter(t)
			continue
		}
		for _, c := range both {
			c.enter(t)
		}
		// Served again only once it was let go.
		waitGone(t, path+Suffix)
	}
	t.Logf("won: %v", won)
}

// waitGone waits until a path is gone.
func waitGone(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", path)
		}
	}
}

// TestMode is what was asked for, whatever the umask is.
func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nftnet.sock")
	l, lock, err := ListenUnix(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o666 | os.ModeSocket, path + Suffix: 0o600} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
	if err := errors.Join(l.Close(), lock.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestNoSocket stays as it is, and is an error that says what it is.
func TestNoSocket(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"file":         {func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) }, "a regular file is there"},
		"folder":       {func(p string) error { return os.Mkdir(p, 0o700) }, "a folder is there"},
		"pipe":         {func(p string) error { return run("mkfifo", p) }, "a named pipe is there"},
		"device":       {func(p string) error { nstest.RequireRoot(t); return run("mknod", p, "c", "1", "3") }, "a character device is there"},
		"disk":         {func(p string) error { nstest.RequireRoot(t); return run("mknod", p, "b", "7", "200") }, "a block device is there"},
		"link":         {func(p string) error { return os.Symlink("/etc/passwd", p) }, "a symbolic link to /etc/passwd is there"},
		"link to none": {func(p string) error { return os.Symlink("none", p) }, "a symbolic link to none is there"},
		"link to a dead socket": {func(p string) error {
			return errors.Join(deadSocket(p+".real", "unix"), os.Symlink(p+".real", p))
		}, "a symbolic link to"},
		"datagrams": {func(p string) error { return deadSocket(p, "unixgram") }, ""},
		"datagrams, served": {func(p string) error {
			_, err := net.ListenPacket("unixgram", p)
			return err
		}, "a socket of another type is there"},
		"lock is a link": {func(p string) error { return os.Symlink("/etc/passwd", p+Suffix) }, "too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nftnet.sock")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before := listing(t, filepath.Dir(path))
			l, lock, err := ListenUnix(path, 0o660)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_, _ = l.Close(), lock.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if after := listing(t, filepath.Dir(path)); after != before {
				t.Errorf("the folder was\n%sand is\n%s", before, after)
			}
		})
	}
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// deadSocket makes a socket that nobody serves.
func deadSocket(path, network string) error {
	if network == "unixgram" {
		c, err := net.ListenUnixgram(network, &net.UnixAddr{Name: path, Net: network})
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&out, e.Name(), info.Mode(), info.ModTime(), info.Size())
	}
	return out.String()
}

// TestServedWithoutLock is a socket of a program that takes no lock, such as an
// earlier nftnet.
func TestServedWithoutLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nftnet.sock")
	first, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	_, _, err = ListenUnix(path, 0o660)
	if want := fmt.Sprintf("socket %s is served by another process (pid %d, ", path, os.Getpid()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	if _, err := os.Lstat(path + Suffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock stays: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket is gone: %v", err)
	}
	_ = c.Close()
}

func TestPathTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if _, _, err := ListenUnix(path, 0o660); err == nil || !strings.Contains(err.Error(), "may have 107") {
		t.Error(err)
	}
}

// TestTake waits for nobody, and needs no file that stays.
func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(path)
	var held *HeldError
	if !errors.As(err, &held) || held.Pid != os.Getpid() || held.Name == "" || held.Path != path {
		t.Errorf("error %#v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file stays: %v", err)
	}
	// One that a dead process left is taken.
	if err := os.WriteFile(path, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
