package nstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// maxNotification is the longest notification in bytes that systemd reads
	// (NOTIFY_BUFFER_MAX in its src/core/manager.c).
	maxNotification = 4096
	// maxDescriptors is the most that one message carries (SCM_MAX_FD).
	maxDescriptors = 253
)

// FDStore plays the part of systemd for one service: it reads what the service
// notifies (sd_notify(3)), keeps the descriptors that the service stores, and
// passes them to its next start (sd_listen_fds(3)). What it keeps stays open
// while no process of the service runs.
//
// The service may use FDSTORE=1, FDNAME=, FDPOLL=0, FDSTOREREMOVE=1 and
// BARRIER=1; all other assignments are noted only. As in systemd, a descriptor
// that is stored already is not stored again, and one that has hung up is
// dropped unless FDPOLL=0 came with it.
type FDStore struct {
	sb   *Sandbox
	path string
	max  int
	conn *net.UnixConn

	mu      sync.Mutex
	stored  []storedFD
	notes   []string
	refused []string
}

type storedFD struct {
	name string
	file *os.File
	// unpolled is set for FDPOLL=0.
	unpolled bool
}

// NewFDStore returns a store for at most size descriptors, the service's
// FileDescriptorStoreMax=. It is closed when the test ends.
func NewFDStore(t testing.TB, sb *Sandbox, size int) *FDStore {
	t.Helper()
	s := &FDStore{sb: sb, path: filepath.Join(sb.Dir, "notify"), max: size}
	var err error
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.path}); err != nil {
		t.Fatalf("listen for notifications: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.read()
	}()
	t.Cleanup(func() {
		_ = s.conn.Close()
		<-done
		s.drop(func(storedFD) bool { return true })
	})
	return s
}

// Start is Sandbox.Start for the service: its first start gets what is stored
// now, and so does each Restart.
func (s *FDStore) Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return s.sb.startCommand(t, name, func() *exec.Cmd { return s.command(args) })
}

// command returns a command of the service, with the descriptors that are
// stored. The process has to know its own id, so a shell sets it and becomes the
// command.
func (s *FDStore) command(args []string) *exec.Cmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropHungUp()
	set := "NOTIFY_SOCKET=" + s.path
	cmd := s.sb.Command()
	if len(s.stored) > 0 {
		var names []string
		for _, f := range s.stored {
			names = append(names, f.name)
			cmd.ExtraFiles = append(cmd.ExtraFiles, duplicate(f.file))
		}
		set += fmt.Sprintf(" LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES='%s'",
			len(names), strings.ReplaceAll(strings.Join(names, ":"), "'", `'\''`))
	}
	cmd.Args = append(cmd.Args, "sh", "-c", set+` exec "$@"`, "service")
	cmd.Args = append(cmd.Args, args...)
	return cmd
}

// Names returns the names of the stored descriptors, sorted.
func (s *FDStore) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropHungUp()
	names := []string{}
	for _, f := range s.stored {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

// Notes returns the assignments that the service notified, in order, but for
// those that concern the store: READY=1, for example.
func (s *FDStore) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Refused says in words what the service sent that systemd would not take.
func (s *FDStore) Refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

// read takes notifications until the socket is closed.
func (s *FDStore) read() {
	text, control := make([]byte, maxNotification+1), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for {
		// The descriptors are closed on exec: a child of another test that
		// inherited them would keep the ports.
		n, c, flags, _, err := s.conn.ReadMsgUnix(text, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			var files []*os.File
			files, err = received(control[:c])
			s.take(string(text[:n]), files, n > maxNotification || flags&unix.MSG_TRUNC != 0)
		}
		if err != nil {
			s.refuse("read a notification: %v", err)
			return
		}
	}
}

// received returns the descriptors in a message.
func received(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if errors.Is(err, unix.EINVAL) {
			continue // another kind of control message
		}
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func (s *FDStore) refuse(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, fmt.Sprintf(format, args...))
}

// take handles one notification. It owns files.
func (s *FDStore) take(text string, files []*os.File, truncated bool) {
	values := map[string]string{}
	var notes []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "BARRIER":
			values[key] = value
		default:
			notes = append(notes, line)
		}
	}
	s.mu.Lock()
	s.notes = append(s.notes, notes...)
	s.mu.Unlock()
	name := s.nameOf(values)
	switch {
	case truncated:
		s.refuse("a notification of more than %d bytes: %.60q…", maxNotification, text)
	case values["FDSTORE"] == "1":
		if len(files) == 0 {
			s.refuse("FDSTORE=1 without a descriptor")
		}
		for i, f := range files {
			if s.keep(storedFD{name, f, values["FDPOLL"] == "0"}) {
				files[i] = nil
			}
		}
	case values["FDSTOREREMOVE"] == "1":
		s.drop(func(f storedFD) bool { return f.name == name })
	case values["BARRIER"] == "1" && len(files) != 1:
		s.refuse("BARRIER=1 with %d descriptors, it takes one", len(files))
	case values["BARRIER"] != "1" && len(files) > 0:
		s.refuse("%d descriptors without FDSTORE=1: %.60q", len(files), text)
	}
	// Closing its descriptor is the answer to a barrier: all before it is done.
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// nameOf returns the name that a notification gives its descriptors.
func (s *FDStore) nameOf(values map[string]string) string {
	name, given := values["FDNAME"]
	if !given {
		return "stored"
	}
	bad := func(r rune) bool { return r < ' ' || r >= 127 || r == ':' }
	if len(name) > 255 || strings.ContainsFunc(name, bad) {
		s.refuse("FDNAME=%q is not a name: at most 255 ASCII characters without control characters and colons", name)
		return "stored"
	}
	return name
}

// keep stores a descriptor and reports whether it did.
func (s *FDStore) keep(f storedFD) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.stored, func(have storedFD) bool { return sameFile(have.file, f.file) }) {
		return false
	}
	if len(s.stored) >= s.max {
		s.refused = append(s.refused, fmt.Sprintf("no room for %q: FileDescriptorStoreMax=%d", f.name, s.max))
		return false
	}
	s.stored = append(s.stored, f)
	return true
}

// sameFile reports whether two descriptors are of one open file. Sockets, all
// that a test stores, have an inode each.
func sameFile(a, b *os.File) bool {
	x, errA := a.Stat()
	y, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// drop closes stored descriptors.
func (s *FDStore) drop(which func(storedFD) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropHeld(which)
}

// dropHeld is drop with s.mu held.
func (s *FDStore) dropHeld(which func(storedFD) bool) {
	s.stored = slices.DeleteFunc(s.stored, func(f storedFD) bool {
		if !which(f) {
			return false
		}
		_ = f.file.Close()
		return true
	})
}

// dropHungUp drops the descriptors with an error or a hang-up, as systemd does
// when the kernel reports one: a socket that is bound and does not listen has
// hung up, for example. s.mu is held.
func (s *FDStore) dropHungUp() {
	s.dropHeld(func(f storedFD) bool {
		if f.unpolled || !hungUp(f.file) {
			return false
		}
		s.refused = append(s.refused, fmt.Sprintf("%q has hung up or has an error, and FDPOLL=0 was not sent", f.name))
		return true
	})
}

func hungUp(f *os.File) bool {
	var got int16
	onFD(f, func(fd int) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(fds, 0); err == nil {
			got = fds[0].Revents
		}
	})
	return got&(unix.POLLHUP|unix.POLLERR) != 0
}

// duplicate returns another descriptor of a file: the store may close its own
// while a process starts. Where there is none left the start fails.
func duplicate(f *os.File) (dup *os.File) {
	onFD(f, func(fd int) {
		if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			dup = os.NewFile(uintptr(fd), f.Name())
		}
	})
	return dup
}

// onFD calls fn with the number of an open file's descriptor, which stays valid
// for that long.
func onFD(f *os.File, fn func(fd int)) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { fn(int(fd)) })
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
