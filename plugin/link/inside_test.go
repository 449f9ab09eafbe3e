package link

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

// told collects what a watch told of.
type told struct {
	mu   sync.Mutex
	last map[netip.Addr]bool
	// calls are all of them, in order.
	calls []string
}

func (o *told) fn(a netip.Addr, present bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last = map[netip.Addr]bool{}
	}
	o.last[a] = present
	o.calls = append(o.calls, a.String()+map[bool]string{true: " there", false: " gone"}[present])
}

func (o *told) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.calls)
}

// is waits until the last that was told of an address is so.
func (o *told) is(t *testing.T, a netip.Addr, present bool) {
	t.Helper()
	eventually(t, "told of "+a.String(), func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		last, known := o.last[a]
		return known && last == present
	})
}

func openInside(t *testing.T) *Inside {
	t.Helper()
	nstest.RequireInside(t)
	i, err := OpenInside()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// TestInside follows a container's addresses from before it has any: it gets
// them, IPv6 is switched off and on, an address goes and comes.
func TestInside(t *testing.T) {
	n := network()
	makeBridge(t, n)
	i := openInside(t)
	e := numbered(n, 2)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	var o, other told
	stop, err := i.Watch(e, o.fn)
	if err != nil {
		t.Fatal(err)
	}
	o.is(t, e.IPv4, false)
	o.is(t, e.IPv6, false)

	c := startContainer(t, n, e)
	o.is(t, e.IPv4, true)
	o.is(t, e.IPv6, true)
	neighbour := startContainer(t, n, numbered(n, 3))
	stopOther, err := i.Watch(neighbour.Endpoint, other.fn)
	if err != nil {
		t.Fatal(err)
	}
	other.is(t, neighbour.IPv6, true)
	before := other.count()

	c.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
	o.is(t, e.IPv6, false)
	c.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
	c.Exec(t, "ip", "addr", "add", e.IPv6.String()+"/64", "dev", "eth0", "nodad")
	o.is(t, e.IPv6, true)
	c.Exec(t, "ip", "addr", "del", e.IPv4.String()+"/24", "dev", "eth0")
	o.is(t, e.IPv4, false)
	if have, err := i.Addresses(e); err != nil || have[e.IPv4] || !have[e.IPv6] || len(have) != 2 {
		t.Errorf("%v, %v", have, err)
	}
	if n := other.count(); n != before {
		t.Errorf("the other container's watch was told %v", other.calls)
	}

	stop()
	calls := o.count()
	c.Exec(t, "ip", "addr", "add", e.IPv4.String()+"/24", "dev", "eth0")
	// The other watch's news comes after what the stopped one would have had.
	neighbour.Exec(t, "ip", "addr", "del", neighbour.IPv4.String()+"/24", "dev", "eth0")
	other.is(t, neighbour.IPv4, false)
	if o.count() != calls {
		t.Errorf("told after stop: %v", o.calls)
	}
	stopOther()
}

// TestInsideConflict: an address that somebody else has cannot be used.
func TestInsideConflict(t *testing.T) {
	n := network()
	makeBridge(t, n)
	i := openInside(t)
	c := startContainer(t, n, numbered(n, 2))
	other := startContainer(t, n, numbered(n, 3))
	other.Exec(t, "ip", "addr", "add", c.IPv6.String()+"/64", "dev", "eth0", "nodad")
	c.Exec(t, "ip", "addr", "del", c.IPv6.String()+"/64", "dev", "eth0")
	var o told
	if _, err := i.Watch(c.Endpoint, o.fn); err != nil {
		t.Fatal(err)
	}
	o.is(t, c.IPv6, false)
	c.Exec(t, "ip", "addr", "add", c.IPv6.String()+"/64", "dev", "eth0")
	eventually(t, "the address is found to be in use", func() bool {
		return strings.Contains(c.Exec(t, "ip", "-6", "addr", "show", "dev", "eth0"), "dadfailed")
	})
	o.is(t, c.IPv6, false)
	if have, err := i.Addresses(c.Endpoint); err != nil || have[c.IPv6] || !have[c.IPv4] {
		t.Errorf("%v, %v", have, err)
	}
}

// TestInsideLetsGo: the watch holds nothing of a container that ends: its links
// go with its network namespace, and that is told.
func TestInsideLetsGo(t *testing.T) {
	n := network()
	makeBridge(t, n)
	i := openInside(t)
	e := numbered(n, 2)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "netns", "add", "nftt-ends")
	alive := true
	t.Cleanup(func() {
		if alive {
			run(t, "ip", "netns", "del", "nftt-ends")
		}
	})
	run(t, "ip", "link", "set", ContainerName(e.ID), "netns", "nftt-ends", "name", "eth0")
	run(t, "ip", "-n", "nftt-ends", "link", "set", "eth0", "up")
	run(t, "ip", "-n", "nftt-ends", "addr", "add", "10.1.0.2/24", "dev", "eth0")
	var o told
	if _, err := i.Watch(e, o.fn); err != nil {
		t.Fatal(err)
	}
	o.is(t, e.IPv4, true)
	if there, err := Attached(e); err != nil || !there {
		t.Errorf("attached: %t, %v", there, err)
	}
	if life := SandboxAlive("/run/netns/nftt-ends"); life != Alive {
		t.Errorf("sandbox: %s", life)
	}

	run(t, "ip", "netns", "del", "nftt-ends")
	alive = false
	if life := SandboxAlive("/run/netns/nftt-ends"); life != Dead {
		t.Errorf("sandbox: %s", life)
	}
	eventually(t, "the kernel deletes the veth pair", func() bool {
		there, err := Attached(e)
		return err == nil && !there
	})
	o.is(t, e.IPv4, false)
	if have, err := i.Addresses(e); err != nil || have[e.IPv4] {
		t.Errorf("%v, %v", have, err)
	}
	if _, err := i.Watch(e, o.fn); !isMissing(err) {
		t.Errorf("watch of an endpoint without a link: %v", err)
	}
}

// TestInsideWithoutCapability: the error names what is missing.
func TestInsideWithoutCapability(t *testing.T) {
	nstest.RequireInside(t)
	errs := make(chan error)
	go func() {
		// The thread ends with the goroutine, and its lack of capabilities with it.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			errs <- err
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_BROADCAST
		if err := unix.Capset(&header, &data[0]); err != nil {
			errs <- err
			return
		}
		_, err := OpenInside()
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_BROADCAST") {
		t.Error(err)
	}
}

func TestSandboxAlive(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]Life{
		"/proc/self/ns/net": Alive, filepath.Join(dir, "gone"): Dead,
		file: Unknown, filepath.Join(dir, "folder", "gone"): Unknown, filepath.Join(file, "gone"): Unknown, "": Unknown, "1234abcd": Unknown,
	} {
		if got := SandboxAlive(key); got != want {
			t.Errorf("%q: %s, want %s", key, got, want)
		}
	}
	if there, err := Attached(desired.Endpoint{}); there || err != nil {
		t.Errorf("an endpoint that has not joined: %t, %v", there, err)
	}
}
