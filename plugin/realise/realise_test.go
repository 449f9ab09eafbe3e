package realise

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	"nftnet/internal/nstest"
	"nftnet/internal/nstest/wire"
	rs "nftnet/internal/ruleset"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestComesAndGoes: a network with a container is there as the state asks for,
// and is gone without a trace.
func TestComesAndGoes(t *testing.T) {
	r := started(t, desired.New())
	s := web()
	e := endpoint(1, 2)
	r.hold(t, s)
	r.add(t, s)
	r.isWhole(t, s)
	if got := master(e.HostLink); got != network(1).Bridge {
		t.Errorf("the container's link is on %q", got)
	}
	if r.Held() != 2 || free("0.0.0.0:8080") || free("[::]:8080") {
		t.Errorf("%d ports are held", r.Held())
	}
	if p := r.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
	if err := r.Realise(s, desired.New()); err != nil {
		t.Fatal(err)
	}
	r.isWhole(t, desired.New())
	if r.Held() != 0 || !free("0.0.0.0:8080") || !free("[::]:8080") {
		t.Errorf("%d ports are held still", r.Held())
	}
	if kind(t, e.HostLink) != "" || kind(t, network(1).Bridge) != "" {
		t.Errorf("links are left:\n%s", run(t, "ip", "-br", "link"))
	}
}

// hold takes the ports of a state, as the driver does before it realises it.
func (r *rig) hold(t *testing.T, s desired.State) {
	t.Helper()
	for _, h := range hostPorts(s) {
		if err := r.Hold(h.port, h.owner); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFound: the next process finds what an earlier one left, and a state that is
// realised already changes nothing.
func TestFound(t *testing.T) {
	s := web()
	first := started(t, desired.New())
	if !first.Found().Empty() {
		t.Errorf("an empty namespace has %+v", first.Found())
	}
	first.hold(t, s)
	first.add(t, s)
	first.close()
	if !free("0.0.0.0:8080") {
		t.Error("the port is held after the end")
	}
	before := run(t, "nft", "-s", "list", "table", "inet", "nftnet") + run(t, "ip", "addr")
	second := open(t, Config{})
	found := second.Found()
	want := endpoint(1, 2, tcp("0.0.0.0:8080", "10.1.0.2:80"), tcp("[::]:8080", "[fd00:1::2]:80")).Published
	if diff := cmp.Diff(want, found.Ports, cmpopts.EquateComparable(want[0].Host)); diff != "" {
		t.Errorf("ports (-want +found):\n%s", diff)
	}
	if !slices.Equal(found.Bridges, []string{network(1).Bridge}) {
		t.Errorf("bridges: %v", found.Bridges)
	}
	second.restore(t, s)
	if second.Held() != 2 || free("0.0.0.0:8080") {
		t.Errorf("%d ports are held after the next start", second.Held())
	}
	if after := run(t, "nft", "-s", "list", "table", "inet", "nftnet") + run(t, "ip", "addr"); after != before {
		t.Errorf("the next start changed the kernel (-before +after):\n%s", cmp.Diff(before, after))
	}
}

// TestRestoreMakesAll: after a restart of the host the kernel has nothing, and
// gets all but the links of containers.
func TestRestoreMakesAll(t *testing.T) {
	s := web()
	e := endpoint(1, 2)
	r := started(t, s)
	r.isWhole(t, s)
	if kind(t, network(1).Bridge) != "bridge" || kind(t, e.HostLink) != "" || r.Held() != 2 {
		t.Errorf("%d ports are held; links:\n%s", r.Held(), run(t, "ip", "-br", "link"))
	}
}

// TestOneBadNetwork: a network whose bridge somebody else's interface keeps from
// it does not take the others down, and Problems says what to do.
func TestOneBadNetwork(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", network(1).Bridge, "type", "veth")
	s := stateOf([]desired.Network{network(1), network(2)})
	r := started(t, s)
	r.isWhole(t, s)
	if kind(t, network(2).Bridge) != "bridge" || kind(t, network(1).Bridge) != "veth" {
		t.Errorf("links:\n%s", run(t, "ip", "-br", "link"))
	}
	problems := r.Problems()
	if len(problems) != 1 || problems[0].Code != "bridge-name-taken" || problems[0].Fix == "" || !problems[0].Severe || problems[0].Network != network(1).ID {
		t.Errorf("problems: %+v", problems)
	}
}

// TestRefused: what the kernel refuses leaves nothing, and takes nothing of
// somebody else's.
func TestRefused(t *testing.T) {
	for _, row := range []struct {
		name string
		// spoil makes the kernel refuse.
		spoil func(*testing.T)
		after func() desired.State
		words string
	}{
		{"a bridge's name is taken", func(t *testing.T) {
			run(t, "ip", "link", "add", network(1).Bridge, "type", "veth")
		}, web, "is a veth, not a bridge"},
		{"a link's name is taken", func(t *testing.T) {
			run(t, "ip", "link", "add", endpoint(1, 2).HostLink, "type", "bridge")
		}, web, "file exists"},
		{"a MAC address is none", func(*testing.T) {}, func() desired.State {
			s := web()
			e := endpoint(1, 2)
			e.MAC = "none"
			s.Endpoints[e.ID] = e
			return s
		}, "none"},
		{"another has the table", ownTable, web, "operation not permitted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := stateOf([]desired.Network{network(2)})
			r := started(t, before)
			row.spoil(t)
			r.hold(t, row.after())
			links := run(t, "ip", "-br", "link")
			err := r.Realise(desired.New(), row.after())
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), row.words) {
				t.Fatalf("error %v, want %q", err, row.words)
			}
			if got := run(t, "ip", "-br", "link"); got != links {
				t.Errorf("the links changed:\n%s\nthey were:\n%s", got, links)
			}
			if diff := cmp.Diff(before, r.snapshot(), cmpopts.EquateComparable(network(1).IPv4.Prefix, network(1).HostBinding)); diff != "" {
				t.Errorf("the state changed:\n%s", diff)
			}
		})
	}
}

// ownTable makes the table another process's own, as a firewall would that is
// named like this, until the test ends.
func ownTable(t *testing.T) {
	conn := takeTable(t)
	t.Cleanup(func() { _ = conn.Close() })
}

func takeTable(t *testing.T) *kernel.Conn {
	t.Helper()
	conn, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the table is another's", func() bool {
		return conn.Apply(rs.Batch{
			{Verb: rs.Delete, Family: rs.FamilyInet, Table: layout.Table},
			{Verb: rs.Add, Family: rs.FamilyInet, Table: layout.Table, Flags: []string{"owner"}},
		}) == nil
	})
	return conn
}

// TestTableOfAnother: while another process has the table, changes are refused;
// when it lets go, the table is whole.
func TestTableOfAnother(t *testing.T) {
	s := web()
	r := started(t, s)
	conn := takeTable(t)
	eventually(t, "the log says that the table cannot be had", func() bool {
		return strings.Contains(r.log.String(), "make the table whole")
	})
	if err := r.Adopt(desired.New(), stateOf([]desired.Network{network(2)})); err == nil {
		t.Error("a change of another's table is no error")
	}
	// The kernel tells nobody of a table that goes with its owner's socket: the
	// other deletes it.
	if err := conn.Apply(rs.Batch{{Verb: rs.Delete, Family: rs.FamilyInet, Table: layout.Table}}); err != nil {
		t.Fatal(err)
	}
	r.isWhole(t, s)
	_ = conn.Close()
}

// TestAdopt: the links of what is new are there already, and stay as they are.
func TestAdopt(t *testing.T) {
	s := web()
	first := started(t, desired.New())
	first.add(t, s)
	first.close()
	before := run(t, "ip", "-o", "link")
	run(t, "nft", "flush", "ruleset")
	r := started(t, stateOf([]desired.Network{network(1)}))
	r.hold(t, s)
	if err := r.Adopt(stateOf([]desired.Network{network(1)}), s); err != nil {
		t.Fatal(err)
	}
	r.isWhole(t, s)
	if after := run(t, "ip", "-o", "link"); after != before {
		t.Errorf("the links changed:\n%s\nthey were:\n%s", after, before)
	}
	if r.Held() != 2 {
		t.Errorf("%d ports are held", r.Held())
	}
}

// TestPortNeverFree: a port whose container, or whose container's gateway,
// changes is held all the time: another program that tries all the while never
// gets it. Clients of [::1] are led to the new one.
func TestPortNeverFree(t *testing.T) {
	r := started(t, desired.New())
	networks := []desired.Network{network(1), network(2)}
	// Two endpoints of one container: the ports are one owner's.
	a, b := endpoint(1, 2), endpoint(2, 2)
	b.Sandbox = a.Sandbox
	leads := func(to byte) desired.State {
		a, b := a, b
		if to == 1 {
			a.Published = endpoint(1, 2, tcp("0.0.0.0:8080", "10.1.0.2:80"), tcp("[::]:8080", "[fd00:1::2]:80")).Published
		} else {
			b.Published = endpoint(2, 2, tcp("0.0.0.0:8080", "10.2.0.2:80"), tcp("[::]:8080", "[fd00:2::2]:80")).Published
		}
		return stateOf(networks, a, b)
	}
	r.hold(t, leads(1))
	r.add(t, leads(1))
	for x, e := range map[byte]desired.Endpoint{1: a, 2: b} {
		connect(t, x, e)
	}
	stop := make(chan struct{})
	var thieves sync.WaitGroup
	for _, addr := range []string{"0.0.0.0:8080", "[::]:8080"} {
		thieves.Go(func() {
			for tries := 0; ; tries++ {
				select {
				case <-stop:
					if tries < 100 {
						t.Errorf("only %d tries at %s", tries, addr)
					}
					return
				default:
				}
				if free(addr) {
					t.Errorf("%s was free", addr)
					return
				}
			}
		})
	}
	for i := range 40 {
		from, to := byte(1+i%2), byte(2-i%2)
		if err := r.Realise(leads(from), leads(to)); err != nil {
			t.Fatal(err)
		}
		if got := asked(t, "http://[::1]:8080/"); got != fmt.Sprintf("[fd00:%d::2]:80", to) {
			t.Fatalf("after the change to network %d, [::1] leads to %s", to, got)
		}
	}
	close(stop)
	thieves.Wait()
	r.isWhole(t, leads(1))
	if err := r.Realise(leads(1), stateOf(networks)); err != nil {
		t.Fatal(err)
	}
	if r.Held() != 0 || !free("0.0.0.0:8080") {
		t.Errorf("%d ports are held at the end", r.Held())
	}
}

// connect gives an endpoint a namespace as its container, which answers on port
// 80 with its own address.
func connect(t *testing.T, x byte, e desired.Endpoint) *nstest.NS {
	t.Helper()
	ns := nstest.NewNS(t, fmt.Sprintf("c%d", x))
	run(t, "ip", "link", "set", "nfc"+e.ID[:12], "netns", ns.Name())
	dev := fmt.Sprintf("eth%d", x)
	ns.Exec(t, "ip", "link", "set", "nfc"+e.ID[:12], "name", dev)
	ns.Exec(t, "sysctl", "-qw", "net.ipv6.conf."+dev+".accept_dad=0")
	ns.Exec(t, "ip", "addr", "add", e.IPv4.String()+"/24", "dev", dev)
	ns.Exec(t, "ip", "addr", "add", e.IPv6.String()+"/64", "dev", dev, "nodad")
	ns.Exec(t, "ip", "link", "set", dev, "up")
	ns.Exec(t, "ip", "route", "add", "default", "via", network(x).IPv4.Gateway.String())
	ns.Exec(t, "ip", "route", "add", "default", "via", network(x).IPv6.Gateway.String())
	nstest.Serve(t, ns, "[::]:80", "")
	return ns
}

// asked is which address answers a URL.
func asked(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	line, err := wire.Get(t.Context(), &client, url)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := wire.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	return reply.Local
}

// TestPortTakenAtStart: a port that another program took while the driver was
// away is a problem until that program ends, and then held without a word from
// anybody.
func TestPortTakenAtStart(t *testing.T) {
	nstest.RequireInside(t)
	other, err := net.Listen("tcp4", "0.0.0.0:8080")
	if err != nil {
		t.Fatal(err)
	}
	r := started(t, web())
	if r.Held() != 1 {
		t.Errorf("%d ports are held beside the one that is taken", r.Held())
	}
	problems := r.Problems()
	if len(problems) == 0 || !slices.ContainsFunc(problems, func(p Problem) bool {
		return p.Code == ProblemPort && p.Object == "0.0.0.0:8080/tcp" && strings.Contains(p.Text, "another program on this host has it") && p.Fix != ""
	}) {
		t.Errorf("problems: %+v", problems)
	}
	_ = other.Close()
	eventually(t, "the port is held", func() bool { return r.Held() == 2 && len(portProblems(r)) == 0 })
	if free("0.0.0.0:8080") {
		t.Error("the port is free")
	}
}

func portProblems(r *rig) []Problem {
	return slices.DeleteFunc(r.Problems(), func(p Problem) bool { return p.Code != ProblemPort })
}

// TestPortNobodyWants: a port that could not be held, and that the state takes no
// more, is no problem and is nobody's.
func TestPortNobodyWants(t *testing.T) {
	nstest.RequireInside(t)
	other, err := net.Listen("tcp4", "0.0.0.0:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := web()
	r := started(t, s)
	bare := stateOf([]desired.Network{network(1)}, endpoint(1, 2))
	if err := r.Realise(s, bare); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the problem is gone", func() bool { return len(portProblems(r)) == 0 })
	_ = other.Close()
	// Two rounds of retries.
	r.retryPending()
	r.retryPending()
	if r.Held() != 0 || !free("0.0.0.0:8080") {
		t.Errorf("%d ports are held", r.Held())
	}
}

// TestRemovalIsRetried: links that could not be removed go later, and those of a
// network or container that was made anew meanwhile stay.
func TestRemovalIsRetried(t *testing.T) {
	r := started(t, desired.New())
	gone, back := web(), stateOf([]desired.Network{network(2)}, endpoint(2, 2))
	r.add(t, gone)
	r.add(t, back)
	// What failed is what the state has no more.
	for _, s := range []desired.State{gone, back} {
		if err := r.changeRules(s, desired.New()); err != nil {
			t.Fatal(err)
		}
		r.pending.add(s, desired.New())
	}
	if p := r.Problems(); len(p) != 2 || p[0].Code != ProblemLeftover {
		t.Errorf("problems: %+v", p)
	}
	if err := r.Adopt(desired.New(), back); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the links are gone", func() bool {
		return kind(t, network(1).Bridge) == "" && kind(t, endpoint(1, 2).HostLink) == ""
	})
	eventually(t, "no problem is left", func() bool { return len(r.Problems()) == 0 })
	if kind(t, network(2).Bridge) == "" || master(endpoint(2, 2).HostLink) != network(2).Bridge {
		t.Errorf("what was made anew is gone:\n%s", run(t, "ip", "-br", "link"))
	}
	r.isWhole(t, back)
}

// TestManyAtOnce: parts that come and go at once leave nothing.
func TestManyAtOnce(t *testing.T) {
	r := started(t, desired.New())
	r.add(t, stateOf([]desired.Network{network(1), network(2)}))
	var all sync.WaitGroup
	for i := range byte(12) {
		all.Go(func() {
			x := 1 + i%2
			n := network(x)
			e := endpoint(x, 10+i, tcp(fmt.Sprintf("0.0.0.0:%d", 9000+int(i)), fmt.Sprintf("10.%d.0.%d:80", x, 10+i)))
			bare, whole := stateOf([]desired.Network{n}), stateOf([]desired.Network{n}, e)
			for range 3 {
				if err := r.Hold(e.Published[0], e.Owner()); err != nil {
					t.Error(err)
				}
				if err := r.Realise(bare, whole); err != nil {
					t.Error(err)
				}
				if err := r.Realise(whole, bare); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r.isWhole(t, stateOf([]desired.Network{network(1), network(2)}))
	if left := run(t, "ip", "-br", "link"); strings.Contains(left, "nfv") || r.Held() != 0 {
		t.Errorf("%d ports are held; links:\n%s", r.Held(), left)
	}
}
