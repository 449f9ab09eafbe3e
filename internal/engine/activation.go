package engine

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// activator is a process that listens on sockets for programs that do not run
// yet, and starts them when somebody connects.
type activator struct {
	pid  int
	name string
}

// systemd holds the engine's socket where docker.socket is active, as it is on
// most distributions. Of a user's own systemd nothing is known here.
var systemd = activator{pid: 1, name: "systemd"}

// errAsleep is the error of a connection that would start an engine. An engine
// that stops gives its socket back at once, and tells of its containers' ends for
// as long as they take: whoever asked it then would undo "systemctl stop docker".
var errAsleep = errors.New("it is stopped: systemd waits for somebody to use its socket")

// dialer connects to an engine's socket, if there is an engine.
func (a activator) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if a.holdsAlone(address) {
			return nil, errAsleep
		}
		return d.DialContext(ctx, network, address)
	}
}

// holdsAlone reports whether nobody but the activator listens on a socket: a
// connection would start the program. It is false where that cannot be seen, as
// without the right to look at other processes, or in another namespace.
func (a activator) holdsAlone(path string) bool {
	comm, err := os.ReadFile(processFile(a.pid, "comm"))
	if err != nil || strings.TrimSpace(string(comm)) != a.name {
		return false
	}
	link, ok := listener(path)
	if !ok || !holds(a.pid, link) {
		return false
	}
	own := program(a.pid)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		// A child that does not run its own program yet has copies of all of the
		// activator's descriptors.
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && holds(pid, link) && program(pid) != own {
			return false
		}
	}
	return true
}

// program returns the path of the program that a process runs.
func program(pid int) string {
	path, _ := os.Readlink(processFile(pid, "exe"))
	return path
}

func processFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// listener returns what a descriptor of the socket that listens at path reads as
// in /proc: "socket:[1234]".
func listener(path string) (link string, ok bool) {
	file, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	list, err := os.Open("/proc/net/unix")
	if err != nil {
		return "", false
	}
	defer func() { _ = list.Close() }()
	for lines := bufio.NewScanner(list); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[3] != acceptsConnections || filepath.Base(f[7]) != filepath.Base(path) {
			continue
		}
		// The name is the one by which it was made: /run and /var/run are one.
		if other, err := os.Stat(f[7]); err == nil && os.SameFile(file, other) {
			return "socket:[" + f[6] + "]", true
		}
	}
	return "", false
}

// acceptsConnections are the flags of a listening socket in /proc/net/unix
// (__SO_ACCEPTCON).
const acceptsConnections = "00010000"

// holds reports whether a process has a descriptor that reads as link.
func holds(pid int, link string) bool {
	dir, err := os.Open(processFile(pid, "fd"))
	if err != nil {
		return false
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if l, err := os.Readlink(filepath.Join(dir.Name(), name)); err == nil && l == link {
			return true
		}
	}
	return false
}
