package realise

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

var down = link.Fault{Kind: link.BridgeDown, Object: "nft-test", Was: "down", Want: "up"}

// undo repairs a fault whenever it may be, until a time has passed, and returns
// after how long each repair was made.
func undo(r *repairs, f link.Fault, d time.Duration) []time.Duration {
	var at []time.Duration
	for start := time.Now(); time.Since(start) < d; time.Sleep(100 * time.Millisecond) {
		if r.allowed(f, slog.New(slog.DiscardHandler)) {
			at = append(at, time.Since(start).Round(time.Second))
		}
	}
	return at
}

// TestBackOff: the first five repairs are made at once, the next ones after 1, 2,
// 4 … 60 s.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repairs
		got := undo(&r, down, 4*time.Minute)
		want := []time.Duration{0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 123, 183}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(got, want) {
			t.Errorf("repairs after %v, want %v", got, want)
		}
		code, text := r.note(down)
		if code != ProblemUndone || !strings.Contains(text, "bridge nft-test was down: another program undid the repair 13 times, nftnet tries again every 1m0s") {
			t.Errorf("note: %s, %s", code, text)
		}
		// Another fault is not held up by this one.
		other := down
		other.Object = "nft-other"
		if !r.allowed(other, slog.New(slog.DiscardHandler)) {
			t.Error("a repair of another bridge waits, too")
		}
		// Quiet for long, it is repaired at once again.
		time.Sleep(3 * time.Minute)
		if got := undo(&r, down, time.Second); len(got) != 5 {
			t.Errorf("after a quiet time %d repairs were made at once", len(got))
		}
	})
}

// TestSlowDriftIsRepairedAlways: what breaks once in a while is not undone by
// anybody.
func TestSlowDriftIsRepairedAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repairs
		for i := range 50 {
			if !r.allowed(down, slog.New(slog.DiscardHandler)) {
				t.Fatalf("repair %d is put off", i)
			}
			time.Sleep(repairWindow + time.Second)
		}
		if code, text := r.note(down); code != string(link.BridgeDown) || text != down.String() {
			t.Errorf("note: %s, %s", code, text)
		}
	})
}

// TestRefusedRepair: what the kernel refuses is tried again after a second, and
// said; one that worked then is not said to be refused.
func TestRefusedRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repairs
		log := slog.New(slog.DiscardHandler)
		if !r.allowed(down, log) {
			t.Fatal("the first repair is put off")
		}
		r.failed(down, errors.New("no buffer space"))
		if code, text := r.note(down); code != string(link.BridgeDown) || !strings.Contains(text, "the kernel refuses the repair: no buffer space") {
			t.Errorf("note: %s, %s", code, text)
		}
		if r.due() || r.allowed(down, log) {
			t.Error("it is tried again at once")
		}
		time.Sleep(firstBackOff)
		if !r.due() || !r.allowed(down, log) {
			t.Error("it is not tried again")
		}
		if r.due() {
			t.Error("a repair that was made is due")
		}
		if _, text := r.note(down); strings.Contains(text, "refuses") {
			t.Errorf("after a repair that worked: %s", text)
		}
	})
}

// TestRefusedRepairsBackOff: a repair that the kernel refuses again and again
// backs off as one that is undone.
func TestRefusedRepairsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repairs
		tries := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			if r.allowed(down, slog.New(slog.DiscardHandler)) {
				tries++
				r.failed(down, errors.New("no buffer space"))
			}
		}
		if tries > 25 {
			t.Errorf("%d tries in ten minutes", tries)
		}
	})
}

// TestStuck: what cannot be repaired is logged once.
func TestStuck(t *testing.T) {
	var r repairs
	l := &logged{}
	for range 3 {
		r.stuck(down, slog.New(slog.NewTextHandler(l, nil)))
	}
	if n := strings.Count(l.String(), "cannot repair"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, l)
	}
}

// TestRepairs: somebody breaks a network; it is as it was soon after, and the log
// says what was wrong.
func TestRepairs(t *testing.T) {
	s := web()
	e, n := endpoint(1, 2), network(1)
	r := started(t, desired.New())
	r.hold(t, s)
	r.add(t, s)
	up := func(name string) func() bool {
		return func() bool { return strings.Contains(run(t, "ip", "-o", "link", "show", name), ",UP") }
	}
	is := func(name, value string) func() bool { return func() bool { return sysctl(t, name) == value } }
	for _, row := range []struct {
		do    []string
		right func() bool
		said  string
	}{
		// The kernel tells of these …
		{[]string{"ip", "link", "set", n.Bridge, "down"}, up(n.Bridge), "bridge " + n.Bridge + " was down"},
		{[]string{"ip", "link", "set", e.HostLink, "down"}, up(e.HostLink), "veth " + e.HostLink + " was down"},
		{[]string{"ip", "link", "set", e.HostLink, "nomaster"}, func() bool { return master(e.HostLink) == n.Bridge }, "veth " + e.HostLink + " was on no bridge"},
		{[]string{"ip", "-4", "addr", "flush", "dev", n.Bridge}, func() bool {
			return strings.Contains(run(t, "ip", "addr", "show", n.Bridge), "10.1.0.1/24")
		}, "lacked its address 10.1.0.1/24"},
		{[]string{"ip", "link", "del", n.Bridge}, func() bool { return kind(t, n.Bridge) == "bridge" && master(e.HostLink) == n.Bridge }, "bridge " + n.Bridge + " was missing"},
		{[]string{"ip", "link", "set", n.Bridge, "address", "02:00:00:00:00:42"}, func() bool {
			return strings.Contains(run(t, "ip", "link", "show", n.Bridge), link.BridgeMAC(n.ID).String())
		}, "had MAC address 02:00:00:00:00:42"},
		// … and of these it does not.
		{[]string{"sysctl", "-qw", "net.ipv4.conf." + n.Bridge + ".route_localnet=0"}, is("net.ipv4.conf."+n.Bridge+".route_localnet", "1"), "route_localnet was 0 instead of 1"},
		{[]string{"sysctl", "-qw", "net.ipv6.conf." + n.Bridge + ".accept_ra=2"}, is("net.ipv6.conf."+n.Bridge+".accept_ra", "0"), "accept_ra was 2 instead of 0"},
		{[]string{"sysctl", "-qw", "net.ipv4.ip_forward=0"}, is("net.ipv4.ip_forward", "1"), "net.ipv4.ip_forward was 0 instead of 1"},
		{[]string{"sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"}, is("net.ipv6.conf.all.forwarding", "1"), "net.ipv6.conf.all.forwarding was 0 instead of 1"},
	} {
		run(t, row.do...)
		eventually(t, strings.Join(row.do, " ")+" is undone", row.right)
		eventually(t, "the log says "+row.said, func() bool { return strings.Contains(r.log.String(), row.said) })
	}
	eventually(t, "nothing is wrong", func() bool { return len(r.Problems()) == 0 })
	r.isWhole(t, s)
}

// TestKeepsBeingUndone: a program that takes the bridge down again and again is
// left alone for a while, the status says so, and later it is repaired after all.
func TestKeepsBeingUndone(t *testing.T) {
	s := web()
	n := network(1)
	r := started(t, s)
	eventually(t, "the log says that the repair is undone", func() bool {
		run(t, "ip", "link", "set", n.Bridge, "down")
		return strings.Contains(r.log.String(), "a repair keeps being undone")
	})
	eventually(t, "Problems says so", func() bool {
		run(t, "ip", "link", "set", n.Bridge, "down")
		return slices.ContainsFunc(r.Problems(), func(p Problem) bool {
			return p.Code == ProblemUndone && p.Severe && p.Network == n.ID && strings.Contains(p.Text, "another program undid the repair")
		})
	})
	eventually(t, "the bridge is up after all", func() bool { return len(r.Problems()) == 0 })
}

// TestNothingIsDueForEver: a repair that was put off, and is not needed any more,
// is looked for no longer.
func TestNothingIsDueForEver(t *testing.T) {
	s := web()
	n := network(1)
	r := started(t, s)
	eventually(t, "the repair is put off", func() bool {
		run(t, "ip", "link", "set", n.Bridge, "down")
		return slices.ContainsFunc(r.Problems(), func(p Problem) bool { return p.Code == ProblemUndone })
	})
	run(t, "ip", "link", "set", n.Bridge, "up")
	if err := r.Realise(s, desired.New()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is due", func() bool {
		time.Sleep(2 * sysctlPause)
		return !r.repairs.due()
	})
}

// TestGone: the link of a container that somebody deletes, or that goes with its
// namespace, is told of.
func TestGone(t *testing.T) {
	s := web()
	other := endpoint(1, 3)
	s.Endpoints[other.ID] = other
	gone := make(chan string, 100)
	r := open(t, Config{Gone: func(id, _ string) { gone <- id }})
	r.restore(t, desired.New())
	r.hold(t, s)
	r.add(t, s)
	wait := func(id string) {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case got := <-gone:
				if got == id {
					return
				}
				t.Errorf("told of %s", got)
			case <-deadline:
				t.Fatalf("nothing was told of %s", id)
			}
		}
	}
	run(t, "ip", "link", "del", endpoint(1, 2).HostLink)
	wait(endpoint(1, 2).ID)
	part := stateOf([]desired.Network{network(1)}, endpoint(1, 2))
	part.Endpoints[endpoint(1, 2).ID] = s.Endpoints[endpoint(1, 2).ID]
	if err := r.Realise(part, stateOf([]desired.Network{network(1)})); err != nil {
		t.Fatal(err)
	}
	for len(gone) > 0 {
		<-gone
	}
	// With the namespace of its container the other end goes.
	run(t, "ip", "link", "del", "nfc"+other.ID[:12])
	wait(other.ID)
	// A missing link is no problem of its own: the driver drops the endpoint.
	if p := r.Problems(); len(p) != 0 {
		t.Errorf("problems: %+v", p)
	}
}
