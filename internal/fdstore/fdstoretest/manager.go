// Package fdstoretest plays the part of a service manager towards the programs
// that keep descriptors in its store: with a real socket, real descriptors and
// real processes, and as strict as systemd.
package fdstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

	info os.FileInfo
	// unpolled is set for FDPOLL=0.
	unpolled bool
}

// Manager is a service manager with a file descriptor store, for one service.
// It reads its socket until the test ends. What it keeps stays open while no
// process of the service runs.
type Manager struct {
	// Socket is what its service has in NOTIFY_SOCKET.
	Socket string

	conn *net.UnixConn
	size int

	mu       sync.Mutex
	kept     []Kept
	messages []string
	refused  []string
	// gate is closed while messages are read.
	gate chan struct{}
}

// New starts a service manager whose store has no bound. It fails the test for
// what systemd would refuse, unless the test asks for it by [Manager.Refused].
func New(t testing.TB) *Manager {
	t.Helper()
	return At(t, filepath.Join(t.TempDir(), "notify"), math.MaxInt)
}

// At is [New] with a socket at a path, or with an abstract one that begins with
// "@", and with room for size descriptors, the service's
// FileDescriptorStoreMax=.
func At(t testing.TB, socket string, size int) *Manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{Socket: socket, conn: conn, size: size, gate: make(chan struct{})}
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
		for _, r := range m.Refused() {
			t.Errorf("systemd would refuse: %s", r)
		}
		for _, k := range m.kept {
			_ = k.File.Close()
		}
	})
	return m
}

// Pause has the manager act on no message until Resume.
func (m *Manager) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.paused() {
		m.gate = make(chan struct{})
	}
}

// Resume ends a Pause.
func (m *Manager) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused() {
		close(m.gate)
	}
}

func (m *Manager) paused() bool {
	select {
	case <-m.gate:
		return false
	default:
		return true
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
	m.dropHungUp()
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

// Refused says in words what systemd would not have taken since the last call.
func (m *Manager) Refused() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.refused
	m.refused = nil
	return out
}

// Pass gives a command what a service gets at its start: the manager's socket
// and the descriptors in the store (sd_listen_fds(3)). These are duplicates in
// ExtraFiles, which the caller closes after the start, and after an error too.
func (m *Manager) Pass(cmd *exec.Cmd) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropHungUp()
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+m.Socket)
	if len(m.kept) == 0 {
		return nil
	}
	var names []string
	cmd.ExtraFiles = nil
	for _, k := range m.kept {
		f, err := duplicate(k.File)
		if err != nil {
			return fmt.Errorf("pass descriptor %q: %w", k.Name, err)
		}
		names = append(names, k.Name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	// The shell has the number of the process that it becomes.
	shell := []string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}
	cmd.Path, cmd.Args = shell[0], append(shell, cmd.Args[1:]...)
	return nil
}

// Start starts a command with what Pass gives it.
func (m *Manager) Start(cmd *exec.Cmd) error {
	err := m.Pass(cmd)
	if err == nil {
		err = cmd.Start()
	}
	closeAll(cmd.ExtraFiles)
	return err
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
func duplicate(f *os.File) (*os.File, error) {
	fd := -1
	err := onFD(f, func(own int) (err error) {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// onFD calls fn with the number of an open file's descriptor, which stays valid
// for that long.
func onFD(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = fn(int(fd)) })
	return errors.Join(err, inner)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// StoreSize reads FileDescriptorStoreMax= from the text of a unit file; 0 where
// it is missing, as in systemd.
func StoreSize(unit string) int {
	size := 0
	for line := range strings.Lines(unit) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "FileDescriptorStoreMax="); ok {
			size, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return size
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
