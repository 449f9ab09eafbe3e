package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// linkTimeout bounds the wait for a new link to be ready.
const linkTimeout = 5 * time.Second

// links counts the pairs that Connect made and numbers their interfaces. The
// kernel takes up to a second to notice that a veth link is up where its two
// ends have the same number, as those of two fresh namespaces do.
var links atomic.Int32

// NS is a network namespace. It has a name that "ip netns" lists, its loopback
// interface is up, and it is removed when its test ends.
type NS struct {
	name string

	// mu keeps the handle open while a thread enters: a dial that nobody waits
	// for any more may still begin when the test ends.
	mu     sync.RWMutex
	handle netns.NsHandle
}

// NewNS makes a network namespace. The label, letters and digits, becomes part
// of its name. It requires root.
func NewNS(t testing.TB, label string) *NS {
	t.Helper()
	RequireRoot(t)
	sweepOnce(t)
	ns := &NS{name: newName(label), handle: netns.None()}
	t.Cleanup(func() {
		if err := ns.remove(); err != nil {
			t.Errorf("remove namespace: %v", err)
		}
	})
	if err := ns.create(); err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	return ns
}

func (ns *NS) create() error {
	if err := ip("netns", "add", ns.name); err != nil {
		return err
	}
	handle, err := netns.GetFromPath(ns.Path())
	if err != nil {
		return fmt.Errorf("open %s: %w", ns.Path(), err)
	}
	ns.handle = handle
	return ip("-n", ns.name, "link", "set", "lo", "up")
}

// remove deletes the namespace's name and gives up our hold on it: the kernel
// destroys it, and what is in it, once no process is left inside.
func (ns *NS) remove() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.handle.IsOpen() {
		if err := ns.handle.Close(); err != nil {
			return fmt.Errorf("close %s: %w", ns.Path(), err)
		}
	}
	if _, err := os.Stat(ns.Path()); os.IsNotExist(err) {
		return nil
	}
	return ip("netns", "del", ns.name)
}

// Name returns the name by which "ip netns" knows the namespace.
func (ns *NS) Name() string { return ns.name }

// Path returns the file that names the namespace.
func (ns *NS) Path() string { return filepath.Join("/run/netns", ns.name) }

// Handle returns an open handle of the namespace. It is the namespace's own:
// it must not be closed, and ends with the test.
func (ns *NS) Handle() netns.NsHandle { return ns.handle }

// Exec runs a command in the namespace and returns its standard output without
// the last newline. It fails the test when the command fails.
func (ns *NS) Exec(t testing.TB, args ...string) string {
	t.Helper()
	out, err := ns.Try(args...)
	if err != nil {
		t.Fatalf("in namespace %s: %v", ns.name, err)
	}
	return out
}

// Try is Exec that returns the error. It holds what the command printed on
// standard error.
func (ns *NS) Try(args ...string) (string, error) {
	return run(exec.Command("ip", append([]string{"netns", "exec", ns.name}, args...)...), args)
}

// Do calls f on a thread inside the namespace: sockets that f opens belong to
// it. Since f runs on a goroutine of its own it must not end the test, and
// goroutines that f starts are outside the namespace.
func (ns *NS) Do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("function did not return")
		defer func() { result <- err }()
		runtime.LockOSThread()
		home, e := netns.Get()
		if e != nil {
			err = fmt.Errorf("open the thread's own namespace: %w", e)
			return
		}
		defer home.Close()
		defer func() {
			// A goroutine that ends while locked takes its thread with it, so
			// one that could not go back runs nothing else.
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}()
		if e := ns.enter(); e != nil {
			err = fmt.Errorf("enter namespace %s: %w", ns.name, e)
			return
		}
		err = f()
	}()
	return <-result
}

// enter moves the calling thread into the namespace.
func (ns *NS) enter() error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return netns.Set(ns.handle)
}

// Connect joins two namespaces by a veth pair, with ifA in a and ifB in b, and
// gives each end its addresses, in CIDR notation. The addresses, also those of
// IPv6, can be used at once.
func Connect(t testing.TB, a *NS, ifA string, addrsA []string, b *NS, ifB string, addrsB []string) {
	t.Helper()
	// The pair is made where it belongs: it never passes through the
	// namespace of the machine.
	index := strconv.Itoa(1000 + int(links.Add(1)))
	err := ip("-n", a.name, "link", "add", ifA, "index", index, "type", "veth", "peer", "name", ifB, "netns", b.name)
	if err == nil {
		err = a.setUp(ifA, addrsA)
	}
	if err == nil {
		err = b.setUp(ifB, addrsB)
	}
	if err == nil {
		err = errors.Join(a.waitReady(ifA), b.waitReady(ifB))
	}
	if err != nil {
		t.Fatalf("connect %s of %s to %s of %s: %v", ifA, a.name, ifB, b.name, err)
	}
}

// setUp gives an interface its addresses and sets it up, without the second
// that duplicate address detection takes.
func (ns *NS) setUp(link string, addrs []string) error {
	if err := ns.setSysctl("net/ipv6/conf/"+link+"/accept_dad", "0"); err != nil {
		return err
	}
	var batch bytes.Buffer
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			return fmt.Errorf("parse address: %w", err)
		}
		fmt.Fprintf(&batch, "addr add %s dev %s", a, link)
		if prefix.Addr().Is6() {
			batch.WriteString(" nodad")
		}
		batch.WriteByte('\n')
	}
	fmt.Fprintf(&batch, "link set %s up\n", link)
	return ns.ipBatch(batch.String())
}

// waitReady waits until IPv6 works on an interface: until it has its link-local
// address, which the kernel adds some time after the link is up, and none of
// its addresses is tentative.
func (ns *NS) waitReady(link string) error {
	var table []byte
	var err error
	ready := poll(linkTimeout, func() bool {
		err = ns.Do(func() (err error) {
			table, err = os.ReadFile("/proc/thread-self/net/if_inet6")
			return err
		})
		return err != nil || settled(table, link)
	})
	if err != nil {
		return err
	}
	if !ready {
		return fmt.Errorf("no IPv6 on %s of %s after %v; its addresses:\n%s", link, ns.name, linkTimeout, table)
	}
	return nil
}

// settled reads a table of addresses: address, interface index, prefix length,
// scope, flags and interface, numbers in hexadecimal.
func settled(table []byte, link string) bool {
	const linkScope, tentative = "20", 0x40
	local := false
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != link {
			continue
		}
		if flags, err := strconv.ParseUint(f[4], 16, 32); err != nil || flags&tentative != 0 {
			return false
		}
		local = local || f[3] == linkScope
	}
	return local
}

// ipBatch runs lines of ip's commands in one process.
func (ns *NS) ipBatch(lines string) error {
	args := []string{"ip", "-n", ns.name, "-batch", "-"}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(lines)
	if _, err := run(cmd, args); err != nil {
		return fmt.Errorf("%w, of:\n%s", err, lines)
	}
	return nil
}

// setSysctl writes a file under /proc/sys/net, which shows each thread the
// settings of its own namespace.
func (ns *NS) setSysctl(key, value string) error {
	return ns.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
}

func ip(args ...string) error {
	_, err := run(exec.Command("ip", args...), append([]string{"ip"}, args...))
	return err
}
