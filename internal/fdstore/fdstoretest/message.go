package fdstoretest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage is the longest message in bytes that systemd reads
	// (NOTIFY_BUFFER_MAX in its src/core/manager.c).
	maxMessage = 4096
	// maxDescriptors is the most that one message carries (SCM_MAX_FD).
	maxDescriptors = 253
	// maxName is the longest name of a descriptor in bytes (FDNAME_MAX).
	maxName = 255
)

// read takes messages until the socket is closed.
func (m *Manager) read() {
	text, control := make([]byte, maxMessage+1), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for {
		// The descriptors are closed on exec: a child of another test that
		// inherited them would keep the ports.
		n, c, flags, _, err := m.conn.ReadMsgUnix(text, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		<-m.open()
		var files []*os.File
		if err == nil {
			files, err = received(control[:c])
		}
		m.take(string(text[:n]), files, flags, err)
		if err != nil {
			return
		}
	}
}

// received returns the descriptors in a message.
func received(control []byte) ([]*os.File, error) {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, c := range list {
		fds, err := unix.ParseUnixRights(&c)
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

// take handles what was read, or what came of it. It owns files.
func (m *Manager) take(text string, files []*os.File, flags int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.refuse("read a message: %v", err)
	} else {
		m.messages = append(m.messages, text)
		m.dropHungUp()
		files = m.obey(text, files, flags)
	}
	// Closing its descriptor is the answer to a barrier: all before it is done.
	closeAll(files)
}

func (m *Manager) refuse(format string, args ...any) {
	m.refused = append(m.refused, fmt.Sprintf(format, args...))
}

// obey does what systemd does with a message (manager_dispatch_notify_fd and
// service_notify_message in its src/core; sd_notify(3)), and returns the
// descriptors that the store does not keep.
func (m *Manager) obey(text string, files []*os.File, flags int) []*os.File {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	has := func(line string) bool { return slices.Contains(lines, line) }
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		m.refuse("a message with more descriptors than could be received: %.60q", text)
	case len(text) > maxMessage || flags&unix.MSG_TRUNC != 0:
		m.refuse("a message of more than %d bytes: %.60q…", maxMessage, text)
	case strings.Contains(strings.TrimSuffix(text, "\x00"), "\x00"):
		m.refuse("a message with a zero byte: %.60q", text)
	case has("BARRIER=1"):
		if len(lines) != 1 {
			m.refuse("BARRIER=1 beside other assignments, which are ignored: %.60q", text)
		} else if len(files) != 1 {
			m.refuse("BARRIER=1 with %d descriptors, it takes one", len(files))
		}
	default:
		if has("FDSTOREREMOVE=1") {
			m.remove(lines)
		}
		if has("FDSTORE=1") {
			return m.store(lines, files, has("FDPOLL=0"))
		}
		if len(files) > 0 {
			m.refuse("%d descriptors without FDSTORE=1: %.60q", len(files), text)
		}
	}
	return files
}

// fdName returns the name in a message. It reports false where there is none,
// or one that systemd ignores (fdname_is_valid()).
func (m *Manager) fdName(lines []string) (string, bool) {
	bad := func(r rune) bool { return r < ' ' || r >= 127 || r == ':' }
	for _, l := range lines {
		name, ok := strings.CutPrefix(l, "FDNAME=")
		if !ok {
			continue
		}
		if len(name) > maxName || strings.ContainsFunc(name, bad) {
			m.refuse("FDNAME=%q is not a name: at most %d ASCII characters without control characters and colons", name, maxName)
			return "", false
		}
		return name, true
	}
	return "", false
}

func (m *Manager) remove(lines []string) {
	name, ok := m.fdName(lines)
	if !ok {
		m.refuse("FDSTOREREMOVE=1 without a name")
		return
	}
	m.drop(func(k Kept) bool { return k.Name == name })
}

// store returns the descriptors that it does not keep.
func (m *Manager) store(lines []string, files []*os.File, unpolled bool) (rest []*os.File) {
	if len(files) == 0 {
		m.refuse("FDSTORE=1 without a descriptor")
	}
	name, ok := m.fdName(lines)
	if !ok {
		name = "stored"
	}
	for i, f := range files {
		if len(m.kept) >= m.size {
			m.refuse("no room for %q: FileDescriptorStoreMax=%d", name, m.size)
			return append(rest, files[i:]...)
		}
		info, err := f.Stat()
		if err != nil {
			m.refuse("%q: %v", name, err)
		}
		if err != nil || m.has(info) {
			rest = append(rest, f)
			continue
		}
		m.kept = append(m.kept, Kept{name, f, info, unpolled})
	}
	return rest
}

// has reports whether a file is in the store already, whatever its name:
// systemd does not store it again, without a word. Sockets, all that a test
// stores, have an inode each.
func (m *Manager) has(file os.FileInfo) bool {
	return slices.ContainsFunc(m.kept, func(k Kept) bool { return os.SameFile(k.info, file) })
}

func (m *Manager) drop(which func(Kept) bool) {
	m.kept = slices.DeleteFunc(m.kept, func(k Kept) bool {
		if !which(k) {
			return false
		}
		_ = k.File.Close()
		return true
	})
}

// dropHungUp drops the descriptors with an error or a hang-up, as systemd does
// when the kernel reports one: a socket that is bound and does not listen has
// hung up, for example.
func (m *Manager) dropHungUp() {
	m.drop(func(k Kept) bool {
		if k.unpolled || !hungUp(k.File) {
			return false
		}
		m.refuse("%q has hung up or has an error, and FDPOLL=0 was not sent", k.Name)
		return true
	})
}

func hungUp(f *os.File) bool {
	var got int16
	_ = onFD(f, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		got = fds[0].Revents
		return err
	})
	return got&(unix.POLLHUP|unix.POLLERR) != 0
}
