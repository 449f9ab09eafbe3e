// Package fdstoretest plays the part of a service manager towards the programs
// that keep descriptors in its store: with a real socket, real descriptors and
// real processes.
package fdstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kept is a descriptor in the store.
type Kept struct {
	Name string
	File *os.File
}

// Manager is a service manager with a file descriptor store. It reads its
// socket until the test ends.
type Manager struct {
	// Socket is what its services have in NOTIFY_SOCKET.
	Socket string

	conn *net.UnixConn

	mu       sync.Mutex
	kept     []Kept
	messages []string
	// gate is closed while messages are read.
	gate chan struct{}
}

// New starts a service manager.
func New(t testing.TB) *Manager { return At(t, filepath.Join(t.TempDir(), "notify")) }

// At is [New] with a socket at a path, or with an abstract one that begins with
// "@".
func At(t testing.TB, socket string) *Manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{Socket: socket, conn: conn, gate: make(chan struct{})}
	close(m.gate)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.read()
	}()
	t.Cleanup(func() {
		m.Resume()
		_ = conn.Close()
		<-done
		for _, k := range m.Kept() {
			_ = k.File.Close()
		}
	})
	return m
}

// Pause has the manager act on no message until Resume.
func (m *Manager) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = make(chan struct{})
}

// Resume ends a Pause.
func (m *Manager) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.gate:
	default:
		close(m.gate)
	}
}

func (m *Manager) open() chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gate
}

// Kept lists what is in the store, in the order in which it came.
func (m *Manager) Kept() []Kept {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.kept)
}

// Names lists the names in the store, sorted.
func (m *Manager) Names() []string {
	out := []string{}
	for _, k := range m.Kept() {
		out = append(out, k.Name)
	}
	slices.Sort(out)
	return out
}

// Messages lists the text of all messages that were read.
func (m *Manager) Messages() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

func (m *Manager) read() {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		<-m.open()
		if err == nil {
			m.handle(string(buf[:n]), descriptors(oob[:oobn]))
		}
	}
}

func descriptors(oob []byte) []int {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var out []int
	for _, c := range list {
		if fds, err := unix.ParseUnixRights(&c); err == nil {
			out = append(out, fds...)
		}
	}
	return out
}

// handle does what systemd does with a message: see sd_notify(3).
func (m *Manager) handle(text string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, text)
	lines := strings.Split(text, "\n")
	name := "stored"
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = v
		}
	}
	if slices.Contains(lines, "FDSTOREREMOVE=1") {
		m.kept = slices.DeleteFunc(m.kept, func(k Kept) bool {
			if k.Name == name {
				_ = k.File.Close()
			}
			return k.Name == name
		})
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if slices.Contains(lines, "FDSTORE=1") {
			m.kept = append(m.kept, Kept{name, os.NewFile(uintptr(fd), name)})
			continue
		}
		_ = unix.Close(fd)
	}
}

// Start starts a command that gets the store's descriptors as a service does
// at its start (sd_listen_fds(3)).
func (m *Manager) Start(cmd *exec.Cmd) error {
	var names []string
	for _, k := range m.Kept() {
		f, err := duplicate(k)
		if err != nil {
			return err
		}
		defer f.Close()
		names = append(names, k.Name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	// The shell has the number of the process that it becomes.
	shell := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path)
	cmd.Path, cmd.Args = shell.Path, append(shell.Args, cmd.Args[1:]...)
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+m.Socket, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	return cmd.Start()
}

// Output runs a command as Start does, and returns what it prints.
func (m *Manager) Output(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// duplicate makes a file that nobody else closes.
func duplicate(k Kept) (*os.File, error) {
	raw, err := k.File.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if err := raw.Control(func(own uintptr) { fd, _ = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), k.Name), nil
}

// WaitFor waits until a condition holds, half a minute at most.
func WaitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("this does not come true: %s", what)
		}
	}
}
