// Package lockfile keeps two processes from having the same thing: a file, or
// a Unix socket and its path.
//
// The locks are those of flock(2): the kernel ends them with the process, so
// that a file that a dead process left behind locks nothing.
package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// retryEvery is the time between two tries of a wait for a lock.
const retryEvery = 20 * time.Millisecond

// takeTries bounds how often Take begins again because the file was removed.
const takeTries = 100

// A HeldError says that another process has the lock of a file.
type HeldError struct {
	Path string
	// Pid is the process that has the lock; 0 where the kernel does not tell.
	Pid int
	// Name is the name of its program; empty where Pid is 0.
	Name string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is locked by %s", e.Path, e.Holder())
}

// Holder names the process that has the lock, for people.
func (e *HeldError) Holder() string { return describe(e.Pid, e.Name) }

// describe names a process other than this one for people.
func describe(pid int, name string) string {
	switch {
	case pid == 0:
		return "another process"
	case name == "":
		return fmt.Sprintf("another process (pid %d)", pid)
	}
	return fmt.Sprintf("another process (pid %d, %s)", pid, name)
}

// Acquire locks an open file for this process, and waits for another one that
// has the lock up to the time given. The error is a *HeldError where that one
// keeps it. The lock ends when all descriptors of f are closed.
func Acquire(f *os.File, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; time.Sleep(retryEvery) {
		err := control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case !time.Now().Before(deadline):
			pid := holder(f)
			return &HeldError{Path: f.Name(), Pid: pid, Name: programOf(pid)}
		}
	}
}

func control(f *os.File, fn func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// IsAt reports whether path still leads to the open file f: another process may
// have moved the file away, or removed it, before f was locked.
func IsAt(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(have, there), nil
}

// holder is the process that has the lock of f, by the kernel's list of locks
// (proc_locks(5)); 0 where it is not there, as that of another pid namespace.
func holder(f *os.File) int {
	var st syscall.Stat_t
	if err := control(f, func(fd int) error { return syscall.Fstat(fd, &st) }); err != nil {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	file := fmt.Sprintf("%02x:%02x:%d", major(st.Dev), minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF
		w := strings.Fields(line)
		if len(w) < 6 || w[1] != "FLOCK" || w[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(w[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// major and minor are the halves of a device's number (makedev(3)).
func major(dev uint64) uint64 { return dev>>8&0xfff | dev>>32&^0xfff }
func minor(dev uint64) uint64 { return dev&0xff | dev>>12&^0xff }

// programOf is the name of a process's program; empty where there is none.
func programOf(pid int) string {
	if pid <= 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// A Lock is a locked file of its own.
type Lock struct{ file *os.File }

// Take makes the file at path, locks it and writes the process's id into it.
// It does not wait: the error is a *HeldError where another process has it.
func Take(path string) (*Lock, error) {
	for range takeTries {
		// Who can open the file can lock it: root alone.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock file: %w", err)
		}
		l := &Lock{f}
		there, err := l.hold(path)
		if err == nil && there {
			return l, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		// Its owner removed it, and this lock is one of nothing.
	}
	return nil, fmt.Errorf("lock file %s: it was removed %d times while it was locked", path, takeTries)
}

// hold locks the file, and reports whether path still leads to it.
func (l *Lock) hold(path string) (bool, error) {
	if err := Acquire(l.file, 0); err != nil {
		return false, pidInside(l.file, err)
	}
	if there, err := IsAt(l.file, path); err != nil || !there {
		return false, err
	}
	if err := l.file.Truncate(0); err != nil {
		return false, fmt.Errorf("lock file: %w", err)
	}
	// The lock holds without the number too: on a full disk it is missing.
	_, _ = l.file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return true, nil
}

// pidInside adds to an error the process that wrote its id into the file, where
// the kernel did not tell it.
func pidInside(f *os.File, err error) error {
	var held *HeldError
	if !errors.As(err, &held) || held.Pid != 0 {
		return err
	}
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil && pid > 0 {
		held.Pid, held.Name = pid, programOf(pid)
	}
	return held
}

// Close ends the lock and removes its file.
func (l *Lock) Close() error {
	// Removed while it is locked: who waits for it sees that it is gone.
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}
