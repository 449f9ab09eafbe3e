package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

func openWatch(t *testing.T) *Watch {
	t.Helper()
	nstest.RequireInside(t)
	w, err := OpenWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// news reads changes until one tells of what is asked for, and returns all of
// them as one.
func news(t *testing.T, w *Watch, enough func(Change) bool) Change {
	t.Helper()
	var all Change
	timer := time.AfterFunc(answerTimeout, func() { _ = w.Close() })
	defer timer.Stop()
	for !enough(all) {
		c, err := w.Next()
		if err != nil {
			t.Fatalf("%v, after %+v", err, all)
		}
		all.Overrun = all.Overrun || c.Overrun
		all.Links, all.Addresses, all.Parameters = all.Links || c.Links, all.Addresses || c.Addresses, all.Parameters || c.Parameters
		all.Gone = append(all.Gone, c.Gone...)
		all.Came, all.Went = append(all.Came, c.Came...), append(all.Went, c.Went...)
		all.By = append(all.By, c.By...)
	}
	return all
}

func isGone(name string) func(Change) bool {
	return func(c Change) bool { return slices.ContainsFunc(c.Gone, func(g Gone) bool { return g.Name == name }) }
}

// TestWatchGone names the links that lost their name, and what became of them.
func TestWatchGone(t *testing.T) {
	ns := nstest.NewNS(t, "elsewhere")
	for _, row := range []struct {
		name string
		do   []string
		want string
	}{
		{"deleted", []string{"link del nft-w"}, ""},
		{"renamed", []string{"link set nft-w name foo0"}, "foo0"},
		{"renamed twice", []string{"link set nft-w name foo1", "link set foo1 name foo0"}, "foo0"},
		{"renamed and deleted", []string{"link set nft-w name foo1", "link del foo1"}, ""},
		{"made anew", []string{"link del nft-w", "link add nft-w type veth peer name foo0"}, ""},
		{"moved", []string{"link set nft-w netns " + ns.Name()}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			nstest.RequireInside(t)
			run(t, "ip", "link", "add", "nft-w", "type", "veth", "peer", "name", "foo2")
			t.Cleanup(removeFoo)
			t.Cleanup(func() { _ = deleteLink("foo2", kindVeth) })
			w := openWatch(t)
			run(t, "ip", "link", "set", "nft-w", "up")
			for _, line := range row.do {
				command(t, line)
			}
			got := news(t, w, isGone("nft-w"))
			if i := slices.IndexFunc(got.Gone, func(g Gone) bool { return g.Name == "nft-w" }); !got.Links || got.Gone[i].NewName != row.want {
				t.Errorf("%+v, want new name %q", got, row.want)
			}
		})
	}
}

// TestWatchKnowsWho names the process that changed an address, and not this one.
func TestWatchKnowsWho(t *testing.T) {
	n := network()
	makeBridge(t, n)
	w := openWatch(t)
	cmd := exec.Command("ip", "-batch", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := fmt.Fprintln(in, "addr del 10.1.0.1/24 dev nft-test"); err != nil {
		t.Fatal(err)
	}
	gateway := n.IPv4.Gateway
	got := news(t, w, func(c Change) bool { return slices.Contains(c.Went, gateway) })
	if want := (Process{PID: cmd.Process.Pid, Name: "ip"}); !slices.Equal(got.By, []Process{want}) || want.String() != fmt.Sprintf("ip (pid %d)", want.PID) {
		t.Errorf("by %v, want %v", got.By, want)
	}
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	if got := news(t, w, func(c Change) bool { return slices.Contains(c.Came, gateway) }); len(got.By) != 0 {
		t.Errorf("what this process did is said to be by %v", got.By)
	}
}

// TestWatchAddresses tells of addresses that can be used, and no longer.
func TestWatchAddresses(t *testing.T) {
	w := openWatch(t)
	run(t, "ip", "link", "add", "foo0", "type", "bridge")
	t.Cleanup(removeFoo)
	a4, a6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	run(t, "ip", "addr", "add", a4.String()+"/24", "dev", "foo0")
	run(t, "ip", "addr", "add", a6.String()+"/64", "dev", "foo0", "nodad")
	got := news(t, w, func(c Change) bool { return slices.Contains(c.Came, a4) && slices.Contains(c.Came, a6) })
	if !got.Addresses || len(got.Went) != 0 {
		t.Errorf("%+v", got)
	}
	run(t, "ip", "addr", "flush", "dev", "foo0")
	got = news(t, w, func(c Change) bool { return slices.Contains(c.Went, a4) && slices.Contains(c.Went, a6) })
	if slices.Contains(got.Came, a4) {
		t.Errorf("%+v", got)
	}
}

// TestWatchTentative: an IPv6 address that is being probed has not come yet.
func TestWatchTentative(t *testing.T) {
	ns := nstest.NewNS(t, "peer")
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "foo0", "type", "veth", "peer", "name", "eth0", "netns", ns.Name())
	t.Cleanup(removeFoo)
	run(t, "ip", "link", "set", "foo0", "up")
	ns.Exec(t, "ip", "link", "set", "eth0", "up")
	w := openWatch(t)
	a := netip.MustParseAddr("2001:db8::1")
	run(t, "ip", "addr", "add", a.String()+"/64", "dev", "foo0")
	usable := func() bool {
		return !strings.Contains(run(t, "ip", "addr", "show", "dev", "foo0", "to", a.String()), "tentative")
	}
	if usable() {
		t.Fatal("the address is not being probed")
	}
	news(t, w, func(c Change) bool { return slices.Contains(c.Came, a) })
	if !usable() {
		t.Error("the address came while it was being probed")
	}
}

func TestWatchParameters(t *testing.T) {
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		run(t, "sysctl", "-qw", name+"=1")
		w := openWatch(t)
		run(t, "sysctl", "-qw", name+"=0")
		news(t, w, func(c Change) bool { return c.Parameters })
	}
}

// TestWatchIsQuiet: a port that leaves its bridge is no link that is gone; once
// the driver's own changes are read there is no more news.
func TestWatchIsQuiet(t *testing.T) {
	n := network()
	makeBridge(t, n)
	w := openWatch(t)
	e := numbered(n, 2)
	if err := Attach(n, e); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "set", e.HostLink, "nomaster")
	if err := plug(n, e); err != nil {
		t.Fatal(err)
	}
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "add", "foo0", "type", "bridge")
	run(t, "ip", "link", "del", "foo0")
	got := news(t, w, isGone("foo0"))
	if len(got.Gone) != 1 {
		t.Errorf("%+v", got)
	}
	if err := EnsureBridge(n); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(); err != nil {
		t.Fatal(err)
	}
	if messages, err := w.socket.read(false); err != nil || len(messages) != 0 {
		t.Errorf("nothing changed, and there is news: %v, %v", messages, err)
	}
}

// TestWatchOverrun: where news was lost, the links that went are found all the
// same.
func TestWatchOverrun(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "nft-w", "type", "bridge")
	run(t, "ip", "link", "add", "foo0", "type", "bridge")
	t.Cleanup(removeFoo)
	w := openWatch(t)
	var err error
	if e := w.socket.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4096)
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	for range 50 {
		run(t, "ip", "link", "set", "foo0", "up")
		run(t, "ip", "link", "set", "foo0", "down")
	}
	run(t, "ip", "link", "del", "nft-w")
	got := news(t, w, isGone("nft-w"))
	if !got.Overrun || !got.Links || !got.Addresses || !got.Parameters {
		t.Errorf("%+v", got)
	}
	// It goes on after that.
	run(t, "ip", "link", "del", "foo0")
	news(t, w, isGone("foo0"))
}

// TestWatchClose: Close ends a Next that waits, and every later one.
func TestWatchClose(t *testing.T) {
	w := openWatch(t)
	ended := make(chan error, 1)
	go func() {
		_, err := w.Next()
		ended <- err
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(answerTimeout):
		t.Fatal("Next waits still")
	}
	if _, err := w.Next(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
