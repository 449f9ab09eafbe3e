// Package fdstore keeps descriptors in the service manager's file descriptor
// store, so that sockets outlive the process that made them: their clients wait
// for the next one instead of being refused.
//
// The protocol is that of sd_notify(3), FDSTORE=1, on the way to the manager,
// and of sd_listen_fds(3) on the way back. systemd keeps nothing unless the
// unit has FileDescriptorStoreMax=, keeps it over a restart of the service, and
// closes it when the service is stopped. Without a service manager a [Store]
// does nothing.
package fdstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

const (
	// maxName is the longest name in bytes (systemd, FDNAME_MAX).
	maxName = 255
	// maxNames bounds the length of all names together, with a separator for
	// each. The manager passes them on in one variable of the environment, and
	// the kernel starts no program with one over 128 KiB (execve(2),
	// MAX_ARG_STRLEN): a service with longer names could not be started again.
	// 8 KiB are left for the sockets of socket units.
	maxNames = 120 << 10
)

// Store keeps descriptors by name. A name belongs to one descriptor, and is at
// most 255 bytes of printable ASCII without a colon. Its methods may be called
// from several goroutines, and none but Barrier waits for the service manager.
type Store struct {
	log *slog.Logger
	// manager is where the service manager listens; nil without one.
	manager *net.UnixAddr
	// failing says that the last messages did not reach it. It is that of the
	// goroutine that empties the queue.
	failing bool

	// mu protects what follows.
	mu        sync.Mutex
	inherited map[string][]*os.File
	entries   map[string]*entry
	// length is that of the names of all entries that are kept.
	length int
	// full says that the log has heard of the names being too long.
	full bool
	// queue is what the service manager is yet to get. A name stands in it once
	// at most: what it is to get is in its entry.
	queue   []item
	running bool
	// leaving counts, by name, the removals that the manager has not confirmed.
	leaving map[string]int
}

// entry is what the service manager has by a name, and what it is to do.
type entry struct {
	// sent says that the manager has, or gets soon, a descriptor by this name.
	sent bool
	// remove and then put are still to be done; put may be nil.
	remove bool
	put    syscall.Conn
	queued bool
}

// kept says whether the name is in the store once the queue is empty.
func (e *entry) kept() bool { return e.put != nil || e.sent && !e.remove }

// Take takes over the descriptors that the service manager passed to this
// process, marks them close-on-exec, and takes LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES out of the environment, so that no child believes they are its
// own. It is called once, and fails where NOTIFY_SOCKET names no unix socket.
func Take(log *slog.Logger) (*Store, error) {
	s := &Store{log: log, inherited: map[string][]*os.File{}, entries: map[string]*entry{}, leaving: map[string]int{}}
	for _, f := range activation.Files(true) {
		s.inherited[f.Name()] = append(s.inherited[f.Name()], f)
	}
	// The number of the process by another measure, since systemd 258.
	if err := os.Unsetenv("LISTEN_PIDFDID"); err != nil {
		return nil, err
	}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return s, nil
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET %q is invalid: it must be an absolute path or begin with \"@\"", path)
	}
	s.manager = &net.UnixAddr{Name: path, Net: "unixgram"}
	for name := range s.inherited {
		s.entries[name] = &entry{sent: true}
		s.length += len(name) + 1
	}
	return s, nil
}

// Files returns the inherited descriptors of a name, which are the caller's
// from then on. It returns them once.
func (s *Store) Files(name string) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.inherited[name]
	delete(s.inherited, name)
	return files
}

// Listener returns the inherited listener of a name, once. It reports false
// where none was inherited, or where clients no longer reach it: a descriptor
// that does not listen, or a unix socket whose path is gone or is another
// socket's. Closing it leaves the path of a unix socket.
func (s *Store) Listener(name string) (net.Listener, bool) {
	files := s.Files(name)
	defer closeAll(files)
	if len(files) != 1 {
		return nil, false
	}
	l, err := listener(files[0])
	if err != nil {
		s.log.Warn("an inherited socket is of no use", "name", name, "error", err)
		return nil, false
	}
	return l, true
}

func listener(f *os.File) (net.Listener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := control(raw, listens); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

// listens returns an error for a descriptor that no client reaches.
func listens(fd int) error {
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if accepts == 0 {
		return errors.New("it does not listen")
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if u, ok := sa.(*unix.SockaddrUnix); ok && strings.HasPrefix(u.Name, "/") {
		return isAt(fd, u.Name)
	}
	return nil
}

// siocUnixFile opens the file that a socket was bound to (linux/un.h,
// SIOCUNIXFILE).
const siocUnixFile = 0x89e0

// isAt returns an error where the file at a path is not the one that a unix
// socket was bound to.
func isAt(fd int, path string) error {
	// It requires CAP_NET_ADMIN.
	file, err := unix.IoctlRetInt(fd, siocUnixFile)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file of socket %s: %w", path, err)
	}
	defer unix.Close(file)
	var own, at unix.Stat_t
	if err := unix.Fstat(file, &own); err != nil {
		return fmt.Errorf("file of socket %s: %w", path, err)
	}
	if err := unix.Stat(path, &at); err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if own.Dev != at.Dev || own.Ino != at.Ino {
		return fmt.Errorf("socket %s: another file is at this path now", path)
	}
	return nil
}

// Put stores a duplicate of a connection's descriptor by a name, instead of
// what the name had, and logs what fails. It returns before the service manager
// has it: a connection that is closed before [Store.Barrier] may be missing. A
// unix listener keeps its path from then on when it is closed: the path leads
// to the duplicate.
func (s *Store) Put(name string, c syscall.Conn) {
	if s.manager == nil {
		return
	}
	if !validName(name) {
		s.log.Error("store descriptor", "name", name, "error", "the name is invalid: 1 to 255 printable ASCII characters without a colon are valid")
		return
	}
	if l, ok := c.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(name)
	if !e.kept() {
		if s.length+len(name)+1 > maxNames {
			s.refuse(name)
			return
		}
		s.length += len(name) + 1
	}
	if e.sent && !e.remove {
		e.remove = true
		s.leaving[name]++
	}
	e.put = c
	s.enqueue(name, e)
}

func (s *Store) refuse(name string) {
	s.forgetEmpty(name)
	if !s.full {
		s.full = true
		s.log.Warn("the service manager can keep no more sockets: those beyond are closed while nftnet restarts", "names", len(s.entries), "bytes", s.length)
	}
}

// Drop removes a name from the store and returns before the service manager
// has closed its duplicate. A name that is not stored is no error.
func (s *Store) Drop(name string) {
	if s.manager == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[name]
	if !ok || !e.kept() {
		return
	}
	s.length -= len(name) + 1
	s.full = false
	e.put = nil
	if e.sent && !e.remove {
		e.remove = true
		s.leaving[name]++
		s.enqueue(name, e)
	}
	s.forgetEmpty(name)
}

// Dropping reports whether the service manager may still have a duplicate of a
// descriptor that was dropped or replaced, by a name that begins with prefix.
func (s *Store) Dropping(prefix string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.leaving {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// DropUnclaimed closes the inherited descriptors that nobody asked for, drops
// them from the store, and returns their names in order.
func (s *Store) DropUnclaimed() []string {
	s.mu.Lock()
	unclaimed := s.inherited
	s.inherited = map[string][]*os.File{}
	s.mu.Unlock()
	var names []string
	for name, files := range unclaimed {
		closeAll(files)
		s.Drop(name)
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *Store) entry(name string) *entry {
	e, ok := s.entries[name]
	if !ok {
		e = &entry{}
		s.entries[name] = e
	}
	return e
}

// forgetEmpty bounds what the store remembers to the names that it keeps or
// has work for.
func (s *Store) forgetEmpty(name string) {
	if e, ok := s.entries[name]; ok && !e.sent && e.put == nil && !e.queued {
		delete(s.entries, name)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func duplicate(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	out := -1
	err = control(raw, func(fd int) (err error) {
		out, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return out, err
}

func control(c syscall.RawConn, fn func(fd int) error) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// validName is systemd's fdname_is_valid().
func validName(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' })
}
