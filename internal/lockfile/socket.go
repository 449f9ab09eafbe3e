package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Suffix is what the lock of a socket is called behind the socket's own name.
// It does not end in ".sock": Docker takes every socket with that ending in its
// plugins' folder for a plugin (moby pkg/plugins/discovery.go).
const Suffix = ".lock"

// longestPath is how long the path of a Unix socket may be, in bytes
// (sun_path of unix(7), less the zero byte behind it).
const longestPath = 107

// dialTimeout bounds the question whether somebody serves a socket.
const dialTimeout = time.Second

// ListenUnix makes a Unix socket at path with the permissions of mode, and its
// folder where that is missing. The second result is the lock of the path:
// close it after the listener. Of several processes that call it at once
// exactly one succeeds; the others get an error that names it.
//
// A socket that a dead process left behind is replaced. Anything else at path
// stays and is an error: a socket that is served, a file, a folder, a symbolic
// link whatever it leads to.
func ListenUnix(path string, mode os.FileMode) (net.Listener, io.Closer, error) {
	if len(path) > longestPath {
		return nil, nil, fmt.Errorf("socket %s: the path has %d bytes, one of a socket may have %d", path, len(path), longestPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the folder of socket %s: %w", path, err)
	}
	if err := onlySocket(path); err != nil {
		return nil, nil, err
	}
	lock, err := Take(path + Suffix)
	if err != nil {
		return nil, nil, taken(path, err)
	}
	l, err := listen(path, mode)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, lock, nil
}

func taken(path string, err error) error {
	var held *HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("socket %s belongs to %s: is nftnet running already?", path, held.Holder())
	}
	return fmt.Errorf("socket %s: %w", path, err)
}

// kinds are the things other than a socket that a path may lead to.
var kinds = map[fs.FileMode]string{
	0:                                 "a regular file",
	fs.ModeDir:                        "a folder",
	fs.ModeNamedPipe:                  "a named pipe",
	fs.ModeDevice:                     "a block device",
	fs.ModeDevice | fs.ModeCharDevice: "a character device",
}

// onlySocket returns an error where something other than a socket is at path.
func onlySocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket: %w", err)
	}
	switch kind := info.Mode().Type(); kind {
	case fs.ModeSocket:
		return nil
	case fs.ModeSymlink:
		to, _ := os.Readlink(path)
		return fmt.Errorf("socket %s: a symbolic link to %s is there, not a socket: remove it, or name another path", path, to)
	default:
		return fmt.Errorf("socket %s: %s is there, not a socket: remove it, or name another path", path, kinds[kind])
	}
}

// listen makes the socket; the lock of its path is held.
func listen(path string, mode os.FileMode) (net.Listener, error) {
	if err := removeDead(path); err != nil {
		return nil, err
	}
	// bind(2) takes the socket's mode for that of its file (unix_bind in
	// net/unix/af_unix.c): there is no moment with wider permissions.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = syscall.Fchmod(int(fd), uint32(mode.Perm())) })
		return errors.Join(err, inner)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	// The umask took some away.
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

// removeDead removes a socket that nobody serves. One that is served is an
// error: a program without a lock, such as an earlier nftnet, has it.
func removeDead(path string) error {
	// It is another thing than a moment ago only where somebody made it by hand.
	if err := onlySocket(path); err != nil {
		return err
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	switch {
	case err == nil:
		defer func() { _ = c.Close() }()
		return fmt.Errorf("socket %s is served by %s: is nftnet running already?", path, peer(c))
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the dead socket: %w", err)
		}
		return nil
	case errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("socket %s: a socket of another type is there: remove it, or name another path", path)
	default:
		return fmt.Errorf("socket %s: %w", path, err)
	}
}

// peer names the process that serves a connection's other end.
func peer(c net.Conn) string {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return describe(0, "")
	}
	cred := &syscall.Ucred{}
	err = raw.Control(func(fd uintptr) {
		// Where it fails the process stays unnamed.
		if got, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			cred = got
		}
	})
	if err != nil {
		return describe(0, "")
	}
	return describe(int(cred.Pid), programOf(int(cred.Pid)))
}
