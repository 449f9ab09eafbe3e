package link

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

const (
	allForwarding = "net.ipv6.conf.all.forwarding"
	wanRA         = "net.ipv6.conf.wan.accept_ra"
	defaultRA     = "net.ipv6.conf.default.accept_ra"
)

// remembered is a ForwardingMemory, and the log beside it.
type remembered struct {
	mu   sync.Mutex
	text []byte
	log  bytes.Buffer
}

func (m *remembered) Forwarding() ([]byte, error) { return m.text, nil }

func (m *remembered) SaveForwarding(text []byte) error {
	m.text = text
	return nil
}

func (m *remembered) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.Write(p)
}

func (m *remembered) open(t *testing.T) *Forwarding {
	t.Helper()
	f, err := OpenForwarding(slog.New(slog.NewTextHandler(m, nil)), m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func get(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "sysctl", "-n", name))
}

func set(t *testing.T, name, value string) {
	t.Helper()
	run(t, "sysctl", "-qw", name+"="+value)
}

// wan makes the host's uplink as it is on a fresh host, and returns the
// namespace of its router, whose interface is lan.
func wan(t *testing.T) *nstest.NS {
	t.Helper()
	nstest.RequireInside(t)
	router := nstest.NewNS(t, "router")
	fresh := func() {
		set(t, allForwarding, "0")
		set(t, defaultRA, "1")
		_ = exec.Command("ip", "link", "del", "wan").Run()
	}
	fresh()
	t.Cleanup(fresh)
	// No line of this machine's own counts.
	files := sysctlFiles
	sysctlFiles = nil
	t.Cleanup(func() { sysctlFiles = files })
	addWAN(t, router, "wan")
	return router
}

func addWAN(t *testing.T, router *nstest.NS, name string) {
	t.Helper()
	run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "to-"+name, "netns", router.Name())
	router.Exec(t, "sysctl", "-qw", "net.ipv6.conf.to-"+name+".accept_dad=0")
	set(t, "net.ipv6.conf."+name+".accept_dad", "0")
	router.Exec(t, "ip", "link", "set", "to-"+name, "up")
	run(t, "ip", "link", "set", name, "up")
	eventually(t, "link-local addresses of both ends", func() bool {
		ready := func(text string) bool {
			return strings.Contains(text, "scope link") && !strings.Contains(text, "tentative")
		}
		return ready(run(t, "ip", "-6", "addr", "show", "dev", name)) && ready(router.Exec(t, "ip", "-6", "addr", "show", "dev", "to-"+name))
	})
}

var expires = regexp.MustCompile(`default via fe80\S+ dev (\S+) .*expires (\d+)sec`)

// lifetime is how long the default route of router advertisements by an
// interface lasts still; 0 where there is none.
func lifetime(t *testing.T, dev string) time.Duration {
	t.Helper()
	for line := range strings.Lines(run(t, "ip", "-6", "route", "show", "default")) {
		if m := expires.FindStringSubmatch(line); m != nil && m[1] == dev {
			n, _ := strconv.Atoi(m[2])
			return time.Duration(n) * time.Second
		}
	}
	return 0
}

// advertised sends advertisements until the host has a default route that lasts
// as long as they say.
func advertised(t *testing.T, router *nstest.NS, dev string, life time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("a default route by %s for %v", dev, life), func() bool {
		router.Advertise(t, "to-"+dev, netip.MustParsePrefix("2001:db8:77::/64"), life)
		left := lifetime(t, dev)
		return left > life-time.Minute && left <= life
	})
}

func (m *remembered) need(t *testing.T, f *Forwarding) {
	t.Helper()
	if err := f.Need(network(), desired.New); err != nil {
		t.Fatal(err)
	}
}

func (m *remembered) release(t *testing.T, f *Forwarding) {
	t.Helper()
	if err := f.Release(network().ID, desired.New); err != nil {
		t.Fatal(err)
	}
}

// has asserts parameters, given in turn with their values.
func has(t *testing.T, when string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := get(t, pairs[i]); got != pairs[i+1] {
			t.Errorf("%s: %s is %s, want %s", when, pairs[i], got, pairs[i+1])
		}
	}
}

// TestForwardingKeepsRoutes: the default route of a router advertisement
// survives that forwarding is switched on and off, and is renewed all the time.
func TestForwardingKeepsRoutes(t *testing.T) {
	router := wan(t)
	advertised(t, router, "wan", 10*time.Minute)
	// The control: whoever just switches forwarding on loses the route.
	set(t, allForwarding, "1")
	if left := lifetime(t, "wan"); left != 0 {
		t.Fatalf("the kernel keeps the route for %v by itself", left)
	}
	set(t, allForwarding, "0")
	advertised(t, router, "wan", 10*time.Minute)

	m := &remembered{}
	f := m.open(t)
	m.need(t, f)
	has(t, "forwarding", allForwarding, "1", wanRA, "2", defaultRA, "2")
	if lifetime(t, "wan") == 0 {
		t.Error("the default route went when forwarding was switched on")
	}
	advertised(t, router, "wan", 20*time.Minute)
	if log := m.log.String(); strings.Count(log, "interfaces=") != 1 || !strings.Contains(log, "accept_ra") || !strings.Contains(log, "wan") {
		t.Errorf("the log does not name the interface once:\n%s", log)
	}
	// A second network, and a second time, change nothing.
	other := network()
	other.ID = "other"
	if err := f.Need(other, desired.New); err != nil {
		t.Fatal(err)
	}
	m.need(t, f)
	m.release(t, f)
	has(t, "one of two networks is there", allForwarding, "1", wanRA, "2")
	if err := f.Release(other.ID, desired.New); err != nil {
		t.Fatal(err)
	}
	has(t, "without networks", allForwarding, "0", wanRA, "1", defaultRA, "1")
	if lifetime(t, "wan") == 0 {
		t.Error("the default route went when forwarding was switched off")
	}
	advertised(t, router, "wan", 30*time.Minute)
	if len(m.text) != 0 {
		t.Errorf("remembered still: %s", m.text)
	}
}

// TestForwardingTouchesNothing: where forwarding was on, and of interfaces that
// listen to no advertisements, or always do, all stays.
func TestForwardingTouchesNothing(t *testing.T) {
	for _, row := range []struct {
		name   string
		before []string
		during []string
		after  []string
	}{
		{"forwarding was on", []string{allForwarding, "1"}, []string{allForwarding, "1", wanRA, "1", defaultRA, "1"}, []string{allForwarding, "1", wanRA, "1"}},
		{"accept_ra 0", []string{wanRA, "0", defaultRA, "0"}, []string{allForwarding, "1", wanRA, "0", defaultRA, "0"}, []string{allForwarding, "0", wanRA, "0", defaultRA, "0"}},
		{"accept_ra 2", []string{wanRA, "2", defaultRA, "2"}, []string{allForwarding, "1", wanRA, "2", defaultRA, "2"}, []string{allForwarding, "0", wanRA, "2", defaultRA, "2"}},
		{"an interface that forwards", []string{"net.ipv6.conf.wan.forwarding", "1"}, []string{allForwarding, "1", wanRA, "1", defaultRA, "2"},
			[]string{allForwarding, "0", wanRA, "1", "net.ipv6.conf.wan.forwarding", "1", "net.ipv6.conf.default.forwarding", "0"}},
		{"new interfaces forward", []string{"net.ipv6.conf.default.forwarding", "1"}, []string{wanRA, "2", defaultRA, "1"},
			[]string{wanRA, "1", defaultRA, "1", "net.ipv6.conf.wan.forwarding", "0", "net.ipv6.conf.default.forwarding", "1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			wan(t)
			t.Cleanup(func() { set(t, "net.ipv6.conf.default.forwarding", "0") })
			for i := 0; i < len(row.before); i += 2 {
				set(t, row.before[i], row.before[i+1])
			}
			m := &remembered{}
			f := m.open(t)
			internal := network()
			internal.Internal = true
			if err := f.Need(internal, desired.New); err != nil {
				t.Fatal(err)
			}
			has(t, "with an internal network alone", row.before...)
			m.need(t, f)
			has(t, "forwarding", row.during...)
			m.release(t, f)
			has(t, "afterwards", row.after...)
		})
	}
}

// TestForwardingLater: an interface that comes later listens, too, and so does
// one that somebody sets back; the driver's own never do.
func TestForwardingLater(t *testing.T) {
	router := wan(t)
	n := network()
	n.IPv6 = desired.Subnet{}
	n.Bridge = "mine0"
	makeBridge(t, n)
	has(t, "an IPv4 network", "net.ipv6.conf.mine0.accept_ra", "0")
	m := &remembered{}
	f := m.open(t)
	m.need(t, f)
	addWAN(t, router, "wan2")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "wan2").Run() })
	advertised(t, router, "wan2", 10*time.Minute)

	st := desired.New()
	st.Networks[n.ID] = n
	for _, name := range []string{"wan", "wan2", "mine0"} {
		set(t, "net.ipv6.conf."+name+".accept_ra", "1")
	}
	if !f.Drifted() {
		t.Error("it is not noticed that an interface listens no more")
	}
	survey, err := Look()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Follow(survey, func() desired.State { return st }); err != nil {
		t.Fatal(err)
	}
	has(t, "followed", wanRA, "2", "net.ipv6.conf.wan2.accept_ra", "2", "net.ipv6.conf.mine0.accept_ra", "1")
	if f.Drifted() {
		t.Error("it drifts still")
	}
	// Whoever wants no advertisements says so by 0.
	set(t, wanRA, "0")
	if f.Drifted() {
		t.Error("accept_ra 0 is a fault")
	}
	run(t, "ip", "link", "del", "wan2")
	m.release(t, f)
	has(t, "afterwards", allForwarding, "0", wanRA, "0", defaultRA, "1")
}

// TestForwardingOfLaterInterfaces: those that got accept_ra 2 as the default get
// back to 1.
func TestForwardingOfLaterInterfaces(t *testing.T) {
	router := wan(t)
	m := &remembered{}
	f := m.open(t)
	m.need(t, f)
	addWAN(t, router, "wan2")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "wan2").Run() })
	has(t, "while forwarding", "net.ipv6.conf.wan2.accept_ra", "2")
	m.release(t, f)
	has(t, "afterwards", allForwarding, "0", "net.ipv6.conf.wan2.accept_ra", "1")
}

// TestForwardingSurvives: whatever the driver had done when it was killed, the
// next one goes on from there, and gives back what the host had.
func TestForwardingSurvives(t *testing.T) {
	for _, row := range []struct {
		name string
		undo func(t *testing.T)
	}{
		{"killed when all was done", func(*testing.T) {}},
		{"killed before forwarding was on", func(t *testing.T) { set(t, allForwarding, "0") }},
		{"killed before accept_ra was set", func(t *testing.T) {
			set(t, allForwarding, "0")
			set(t, wanRA, "1")
			set(t, defaultRA, "1")
		}},
	} {
		for _, needed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, needed %t", row.name, needed), func(t *testing.T) {
				router := wan(t)
				m := &remembered{}
				m.need(t, m.open(t))
				row.undo(t)
				advertised(t, router, "wan", 10*time.Minute)
				next := m.open(t)
				if needed {
					m.need(t, next)
				}
				if err := next.Settle(desired.New); err != nil {
					t.Fatal(err)
				}
				if needed {
					has(t, "the network is there", allForwarding, "1", wanRA, "2", defaultRA, "2")
					m.release(t, next)
				}
				has(t, "without networks", allForwarding, "0", wanRA, "1", defaultRA, "1")
				if lifetime(t, "wan") == 0 {
					t.Error("the default route is gone")
				}
			})
		}
	}
	t.Run("another boot", func(t *testing.T) {
		wan(t)
		m := &remembered{}
		m.need(t, m.open(t))
		var was map[string]any
		if err := json.Unmarshal(m.text, &was); err != nil {
			t.Fatal(err)
		}
		was["boot"] = "an earlier one"
		m.text, _ = json.Marshal(was)
		next := m.open(t)
		if err := next.Settle(desired.New); err != nil {
			t.Fatal(err)
		}
		has(t, "after a boot that switched forwarding on", allForwarding, "1")
	})
}

// TestForwardingNeededByOthers: forwarding stays on for whoever needs it.
func TestForwardingNeededByOthers(t *testing.T) {
	for _, row := range []struct {
		name string
		// before and during are done before the driver switches forwarding on, and
		// while it is on.
		before, during func(t *testing.T)
		stays          bool
	}{
		{"nobody", nil, nil, false},
		{"the uplink has an address", func(t *testing.T) {
			run(t, "ip", "addr", "add", "2001:db8:1::1/64", "dev", "wan", "nodad")
		}, nil, false},
		{"a bridge that is the uplink", func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
			run(t, "ip", "link", "add", "other1", "up", "master", "other0", "type", "vxlan", "id", "5", "dstport", "4789", "dev", "wan")
			run(t, "ip", "addr", "add", "2001:db8:2::1/64", "dev", "other0", "nodad")
		}, nil, false},
		{"a bridge that had IPv6 without forwarding", func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
			run(t, "ip", "addr", "add", "2001:db8:2::1/64", "dev", "other0", "nodad")
		}, nil, false},
		{"a bridge that is the uplink gets IPv6", func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
			run(t, "ip", "link", "add", "other1", "up", "master", "other0", "type", "vxlan", "id", "5", "dstport", "4789", "dev", "wan")
		}, func(t *testing.T) {
			run(t, "ip", "addr", "add", "2001:db8:2::1/64", "dev", "other0", "nodad")
		}, false},
		{"a bridge of another driver", nil, func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
			run(t, "ip", "addr", "add", "fd00:9::1/64", "dev", "other0", "nodad")
		}, true},
		{"a bridge that gets IPv6", func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
		}, func(t *testing.T) {
			run(t, "ip", "addr", "add", "fd00:9::1/64", "dev", "other0", "nodad")
		}, true},
		{"a bridge without IPv6", nil, func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "bridge")
			run(t, "ip", "addr", "add", "10.99.0.1/16", "dev", "other0")
		}, false},
		{"an interface with a route", nil, func(t *testing.T) {
			run(t, "ip", "link", "add", "other0", "up", "type", "veth", "peer", "name", "other1")
			run(t, "ip", "link", "set", "other1", "up")
			run(t, "ip", "-6", "route", "add", "fd00:8::7/128", "dev", "other0")
		}, true},
		{"somebody switches it on again", nil, func(t *testing.T) { set(t, allForwarding, "1") }, true},
		{"somebody switches it off and on", nil, func(t *testing.T) {
			set(t, allForwarding, "0")
			set(t, allForwarding, "1")
		}, true},
		{"a file of the administrator's", nil, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "router.conf")
			if err := os.WriteFile(file, []byte("# mine\n-net/ipv6/conf/all/forwarding = 1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			sysctlFiles = []string{file}
		}, true},
		{"a file that says something else", nil, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "host.conf")
			if err := os.WriteFile(file, []byte("#net.ipv6.conf.all.forwarding=1\nnet.ipv6.conf.all.forwarding=0\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			sysctlFiles = []string{file}
		}, false},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", row.name, restart), func(t *testing.T) {
				wan(t)
				t.Cleanup(func() {
					_ = exec.Command("ip", "link", "del", "other0").Run()
					_ = exec.Command("ip", "link", "del", "other1").Run()
				})
				if row.before != nil {
					row.before(t)
				}
				m := &remembered{}
				f := m.open(t)
				m.need(t, f)
				if row.during != nil {
					row.during(t)
				}
				if restart {
					f.Close()
					f = m.open(t)
					m.need(t, f)
				}
				m.release(t, f)
				want := map[bool][]string{true: {allForwarding, "1", wanRA, "2"}, false: {allForwarding, "0", wanRA, "1"}}
				has(t, "without networks", want[row.stays]...)
				if row.stays && !strings.Contains(m.log.String(), "IPv6 forwarding stays on") {
					t.Errorf("the log does not say why:\n%s", m.log.String())
				}
			})
		}
	}
}

// TestForwardingAgain: what somebody switches off is switched on again as
// carefully, and is not somebody's wish to have it on.
func TestForwardingAgain(t *testing.T) {
	router := wan(t)
	m := &remembered{}
	f := m.open(t)
	m.need(t, f)
	for range 3 {
		set(t, allForwarding, "0")
		set(t, wanRA, "1")
		advertised(t, router, "wan", 10*time.Minute)
		if err := f.Again(desired.New); err != nil {
			t.Fatal(err)
		}
		has(t, "again", allForwarding, "1", wanRA, "2")
		if lifetime(t, "wan") == 0 {
			t.Error("the default route is gone")
		}
	}
	m.release(t, f)
	has(t, "afterwards", allForwarding, "0", wanRA, "1")
}

// TestForwardingByAdoptedBridge: the host's uplink is a bridge that a network
// adopts; one that nobody advertises on takes no routes from containers.
func TestForwardingByAdoptedBridge(t *testing.T) {
	router := wan(t)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "br0").Run() })
	n := network()
	n.Bridge, n.Adopted = "br0", true
	for _, advertises := range []bool{false, true} {
		run(t, "ip", "link", "add", "br0", "up", "type", "bridge")
		run(t, "ip", "link", "set", "wan", "master", "br0")
		want := "0"
		if advertises {
			want = "2"
			eventually(t, "a default route by the bridge", func() bool {
				router.Advertise(t, "to-wan", netip.MustParsePrefix("2001:db8:77::/64"), 10*time.Minute)
				return lifetime(t, "br0") > 0
			})
		}
		m := &remembered{}
		f := m.open(t)
		if err := f.Need(n, desired.New); err != nil {
			t.Fatal(err)
		}
		if err := EnsureBridge(n); err != nil {
			t.Fatal(err)
		}
		has(t, fmt.Sprintf("advertised %t", advertises), "net.ipv6.conf.br0.accept_ra", want, allForwarding, "1")
		if advertises && lifetime(t, "br0") == 0 {
			t.Error("the default route is gone")
		}
		if err := DeleteBridge(n); err != nil {
			t.Fatal(err)
		}
		m.release(t, f)
		has(t, "afterwards", allForwarding, "0")
		run(t, "ip", "link", "del", "br0")
	}
}
