package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/nstest"
	"nftnet/plugin/libnetwork"
)

// engine is a Docker that remembers the calls of the test, and answers from them.
type engine struct {
	mu        sync.Mutex
	down      bool
	networks  map[string]libnetwork.CreateNetworkRequest
	endpoints map[string]EndpointCalls
	// again is what Follow was given.
	again func()
	asked int
	// slow is called with each answer before it is given.
	slow func()
}

func newEngine() *engine {
	return &engine{networks: map[string]libnetwork.CreateNetworkRequest{}, endpoints: map[string]EndpointCalls{}}
}

func (e *engine) ContainerName(context.Context, string) string { return "the-owner" }

func (e *engine) Believes(context.Context) (Belief, error) {
	b, err := e.believes()
	if e.slow != nil {
		e.slow()
	}
	return b, err
}

func (e *engine) believes() (Belief, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.down {
		return Belief{}, errors.New("the engine is down")
	}
	networks, endpoints := maps.Clone(e.networks), maps.Clone(e.endpoints)
	standing := func(known bool) Standing {
		if known {
			return Known
		}
		return Unknown
	}
	b := Belief{
		Network:  func(id string) Standing { _, ok := networks[id]; return standing(ok) },
		Endpoint: func(_, id string) Standing { _, ok := endpoints[id]; return standing(ok) },
	}
	for _, id := range slices.Sorted(maps.Keys(networks)) {
		b.Networks = append(b.Networks, BelievedNetwork{Name: "net-" + id[:8], Create: networks[id]})
	}
	for _, id := range slices.Sorted(maps.Keys(endpoints)) {
		b.Endpoints = append(b.Endpoints, BelievedEndpoint{
			ID: id, NetworkID: endpoints[id].Create.NetworkID, Network: "net-" + endpoints[id].Create.NetworkID[:8],
			ContainerID: id, Container: "c-" + id[:8], Running: true,
		})
	}
	return b, nil
}

func (e *engine) Calls(_ context.Context, b BelievedEndpoint) (EndpointCalls, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls, ok := e.endpoints[b.ID]
	if !ok {
		return calls, errors.New("no such endpoint")
	}
	return calls, nil
}

func (e *engine) Follow(ctx context.Context, fn func()) {
	e.mu.Lock()
	e.again = fn
	e.mu.Unlock()
	fn()
	<-ctx.Done()
}

// set changes what the engine knows.
func (e *engine) set(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fn()
}

// tell tells the driver that the engine can be asked again.
func (e *engine) tell(t *testing.T) {
	t.Helper()
	eventually(t, "the driver follows the engine", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.again != nil
	})
	e.again()
}

func networkCall(n int) libnetwork.CreateNetworkRequest {
	return libnetwork.CreateNetworkRequest{
		NetworkID: id(n), Options: libnetwork.NetworkOptions{libnetwork.Generic: []byte("{}")},
		IPv4Data: []libnetwork.IPAMData{{Pool: fmt.Sprintf("10.%d.0.0/24", n), Gateway: fmt.Sprintf("10.%d.0.1/24", n)}},
	}
}

func endpointCalls(n, e int, ports ...libnetwork.PortBinding) EndpointCalls {
	var c EndpointCalls
	c.Create = libnetwork.CreateEndpointRequest{
		NetworkID: id(n), EndpointID: id(1000 + e), Interface: &libnetwork.EndpointInterface{Address: fmt.Sprintf("10.%d.0.%d/24", n, e+2)},
	}
	c.Join = libnetwork.JoinRequest{NetworkID: id(n), EndpointID: id(1000 + e), SandboxKey: fmt.Sprintf("/nowhere/netns/%012x", n<<32+e)}
	c.Join.Options.PortMap = ports
	c.Program = &libnetwork.ConnectivityRequest{NetworkID: id(n), EndpointID: id(1000 + e)}
	c.Program.Options.PortMap = ports
	return c
}

func binding(host, container uint16) libnetwork.PortBinding {
	return libnetwork.PortBinding{Proto: 6, Port: container, HostPort: host, HostPortEnd: host}
}

// network creates a network as the engine does, which knows it then.
func (e *engine) network(t *testing.T, r *rig, n int) {
	t.Helper()
	r.ok(t, "CreateNetwork", networkCall(n))
	e.set(func() { e.networks[id(n)] = networkCall(n) })
}

// run takes a container through the calls of a start.
func (e *engine) run(t *testing.T, r *rig, n, number int, ports ...libnetwork.PortBinding) {
	t.Helper()
	calls := endpointCalls(n, number, ports...)
	r.ok(t, "CreateEndpoint", calls.Create)
	e.set(func() { e.endpoints[id(1000+number)] = calls })
	r.ok(t, "Join", calls.Join)
	r.ok(t, "ProgramExternalConnectivity", calls.Program)
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	const patience = 30 * time.Second
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// soon shortens the pause between two answers of Docker.
func soon(t *testing.T) {
	before := confirmPause
	confirmPause = 20 * time.Millisecond
	t.Cleanup(func() { confirmPause = before })
}

func (r *rig) problems(t *testing.T) []control.Problem {
	t.Helper()
	return r.driver.Problems(t.Context())
}

// codes are the codes of the problems, each with its command.
func codes(list []control.Problem) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Code)
	}
	return out
}

// TestGhosts: what Docker does not know is a problem with a command that removes
// it, is pruned as far as it was asked for, and never while Docker is not there.
func TestGhosts(t *testing.T) {
	soon(t)
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	for n := range 3 {
		e.network(t, r, 1+n)
	}
	e.run(t, r, 1, 1, binding(8080, 80))
	e.run(t, r, 1, 2, binding(8081, 80))
	if g, err := r.driver.Ghosts(t.Context()); err != nil || len(g) != 0 {
		t.Fatalf("at first: %v, %v", g, err)
	}
	if p := r.problems(t); len(p) != 0 {
		t.Errorf("problems at first: %v", p)
	}
	e.set(func() {
		delete(e.networks, id(2))
		delete(e.networks, id(3))
		delete(e.endpoints, id(1001))
		e.down = true
	})
	if _, err := r.driver.Ghosts(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot ask Docker") {
		t.Errorf("ghosts while the engine is down: %v", err)
	}
	if _, err := r.driver.Prune(t.Context(), control.Prune{IDs: []string{id(2)}}); err == nil {
		t.Error("something is pruned while the engine is down")
	}
	if p := r.problems(t); !slices.Equal(codes(p), []string{"docker-unknown"}) || p[0].Command == "" {
		t.Errorf("problems while the engine is down: %v", p)
	}
	e.set(func() { e.down = false })
	ghosts, err := r.driver.Ghosts(t.Context())
	if err != nil || len(ghosts) != 3 {
		t.Fatalf("ghosts: %v, %v", ghosts, err)
	}
	p := r.problems(t)
	if got := codes(p); !slices.Equal(got, []string{"ghost-network", "ghost-network", "ghost-endpoint"}) {
		t.Errorf("problems: %v", p)
	}
	for _, x := range p {
		if x.Command != "nftnet prune" || x.Level != "error" {
			t.Errorf("problem %+v", x)
		}
	}
	pruned, err := r.driver.Prune(t.Context(), control.Prune{IDs: []string{id(2), id(1001), id(1), "none"}})
	if err != nil || len(pruned.Removed) != 2 {
		t.Errorf("pruned: %+v, %v", pruned, err)
	}
	if s := r.state(); len(s.Networks) != 2 || len(s.Endpoints) != 1 || r.held() != 2 {
		t.Errorf("%d networks, %d endpoints and %d held ports are left", len(s.Networks), len(s.Endpoints), r.held())
	}
	r.consistent(t)
}

// TestYoungIsNoGhost: what Docker does not know yet, because the driver makes it
// first, is no ghost.
func TestYoungIsNoGhost(t *testing.T) {
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	r.ok(t, "CreateNetwork", networkCall(2))
	time.AfterFunc(confirmPause/2, func() { e.set(func() { e.networks[id(2)] = networkCall(2) }) })
	if g, err := r.driver.Ghosts(t.Context()); err != nil || len(g) != 0 {
		t.Errorf("ghosts: %v, %v", g, err)
	}
}

// TestMakeRoom: a subnet that a network has which Docker does not know is free for
// another, and only then.
func TestMakeRoom(t *testing.T) {
	soon(t)
	overlapping := networkCall(9)
	overlapping.IPv4Data = networkCall(1).IPv4Data
	for name, row := range map[string]struct {
		change func(*engine)
		made   bool
	}{
		"known":              {func(*engine) {}, false},
		"unknown":            {func(e *engine) { delete(e.networks, id(1)) }, true},
		"engine down":        {func(e *engine) { delete(e.networks, id(1)); e.down = true }, false},
		"of another engine":  {func(e *engine) { clear(e.networks) }, false},
		"unknown, container": {func(e *engine) { delete(e.networks, id(1)); clear(e.endpoints) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine()
			state := filepath.Join(t.TempDir(), "state.db")
			r := newRigWith(t, Config{State: state, Docker: e})
			e.network(t, r, 1)
			e.network(t, r, 2)
			e.run(t, r, 1, 1, binding(8080, 80))
			// A driver that starts anew does not know yet whose engine answers.
			r.stop()
			e.set(func() { row.change(e) })
			r = newRigWith(t, Config{State: state, Docker: e})
			errText, _ := r.call(t, "CreateNetwork", overlapping)
			_, there := r.state().Networks[id(1)]
			if made := errText == ""; made != row.made || there == row.made {
				t.Errorf("error %q, the other network is there: %t", errText, there)
			}
			if !row.made && !strings.Contains(errText, "overlaps subnet 10.1.0.0/24 of network "+id(1)[:12]) {
				t.Errorf("error: %q", errText)
			}
			r.consistent(t)
		})
	}
}

// TestRebuild: without its state file the driver has its networks, containers and
// ports again, from Docker and the kernel, without a change to links and rules;
// and the calls that follow find all as they left it.
func TestRebuild(t *testing.T) {
	soon(t)
	for _, row := range []struct {
		name string
		down bool
		lose func(*testing.T, string)
		how  string
	}{
		{"missing", false, remove, "missing"},
		{"missing, engine down", true, remove, "missing"},
		{"empty", false, truncate, "damaged"},
		{"empty, engine down", true, truncate, "damaged"},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			state := filepath.Join(t.TempDir(), "state.db")
			r := newRigWith(t, Config{State: state, Docker: e})
			e.network(t, r, 1)
			e.network(t, r, 2)
			// Docker's own number for one: what its clients know stays.
			e.run(t, r, 1, 1, binding(8080, 80), libnetwork.PortBinding{Proto: 6, Port: 81})
			e.run(t, r, 2, 2)
			// Docker knows nothing of it.
			r.mustRedirect(t, m{"port": 8443, "to": 3000})
			redirects := r.redirects(t)
			had, rules, all := r.driver.Published(), table(t), links(t)
			r.stop()
			row.lose(t, state)
			e.set(func() { e.down = row.down })
			r = newRigWith(t, Config{State: state, Docker: e})
			if row.down {
				if got := table(t); got != rules {
					t.Errorf("the rules changed while the driver knows nothing:\n%s\nthey were:\n%s", got, rules)
				}
				errText, _ := r.call(t, "CreateNetwork", networkCall(3))
				if !strings.Contains(errText, "the state file was lost") {
					t.Errorf("a call meanwhile: %q", errText)
				}
				if p := codes(r.problems(t)); !slices.Contains(p, "state-lost") {
					t.Errorf("problems meanwhile: %v", p)
				}
				e.set(func() { e.down = false })
				e.tell(t)
				eventually(t, "the state is rebuilt", func() bool { return r.driver.ready() == nil })
			}
			if s := r.state(); len(s.Networks) != 2 || len(s.Endpoints) != 2 {
				t.Fatalf("rebuilt: %v", s)
			}
			if got := r.driver.Published(); fmt.Sprint(got) != fmt.Sprint(had) {
				t.Errorf("ports: %v, want %v", got, had)
			}
			if got := r.redirects(t); got != redirects {
				t.Errorf("redirects: %s, want %s", got, redirects)
			}
			if got := table(t); got != rules {
				t.Errorf("the rules changed:\n%s\nthey were:\n%s", got, rules)
			}
			if got := links(t); got != all {
				t.Errorf("the links changed:\n%s\nthey were:\n%s", got, all)
			}
			r.consistent(t)
			if p := r.problems(t); len(p) != 0 {
				t.Errorf("problems: %v", p)
			}
			r.ok(t, "Leave", ids(1, 1))
			r.ok(t, "DeleteEndpoint", ids(1, 1))
			if r.held() != 2 {
				t.Errorf("%d ports are held after the container went, want the redirect's two", r.held())
			}
			r.consistent(t)
			// What was rebuilt is kept.
			before := r.state()
			r.stop()
			r = newRigWith(t, Config{State: state, Docker: e})
			if after := r.state(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("after another start: %v, want %v", after, before)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string) {
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

// TestFirstStartIsSilent: without a file and with nothing in the kernel there is
// nothing to rebuild, and nobody is asked.
func TestFirstStartIsSilent(t *testing.T) {
	e := newEngine()
	e.down = true
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	r.ok(t, "CreateNetwork", networkCall(1))
}

// TestDockerKnowsMore: a network and the endpoint of a running container that the
// state lacks are taken over when Docker can be asked; a container whose link is
// gone is cut off, and status says what to do.
func TestDockerKnowsMore(t *testing.T) {
	soon(t)
	e := newEngine()
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigWith(t, Config{State: state, Docker: e})
	e.network(t, r, 1)
	e.run(t, r, 1, 1, binding(8080, 80))
	e.set(func() {
		e.networks[id(2)] = networkCall(2)
		e.endpoints[id(1002)] = endpointCalls(1, 2, binding(8081, 80))
	})
	e.tell(t)
	eventually(t, "the network is there", func() bool { return strings.Contains(table(t), "nft-"+id(2)[:11]) })
	eventually(t, "it is on the disk", func() bool {
		s, err := r.driver.store.Load()
		return err == nil && len(s.Networks) == 2
	})
	r.consistent(t)
	p := r.problems(t)
	if !slices.Equal(codes(p), []string{"container-cut-off"}) || p[0].Container != "c-"+id(1002)[:8] ||
		!strings.Contains(p[0].Command, "docker network disconnect -f") {
		t.Errorf("problems: %+v", p)
	}
}

// TestOldAnswer: a network and a container that go while Docker's answer is on its
// way, which has them still, do not come back.
func TestOldAnswer(t *testing.T) {
	soon(t)
	e := newEngine()
	var slow atomic.Pointer[func()]
	e.slow = func() {
		if fn := slow.Load(); fn != nil {
			(*fn)()
		}
	}
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	e.network(t, r, 2)
	e.run(t, r, 1, 2)
	// A container that is cut off stays a difference between Docker and the driver.
	e.set(func() { e.endpoints[id(1001)] = endpointCalls(1, 1) })
	gone := sync.OnceFunc(func() {
		e.set(func() { delete(e.networks, id(2)); delete(e.endpoints, id(1002)) })
		r.ok(t, "DeleteNetwork", m{"NetworkID": id(2)})
		r.ok(t, "DeleteEndpoint", ids(1, 2))
	})
	answers := 0
	onSecond := func() {
		if answers++; answers == 2 {
			gone()
		}
	}
	slow.Store(&onSecond)
	r.driver.compareNow()
	if answers < 2 {
		t.Fatalf("Docker was asked %d times", answers)
	}
	if s := r.state(); len(s.Networks) != 1 || len(s.Endpoints) != 0 {
		t.Errorf("what went came back: %v", s)
	}
	r.consistent(t)
}

// TestUnreadCall: after a call whose body was cut, what Docker does not know goes
// by itself, and what it knows stays.
func TestUnreadCall(t *testing.T) {
	soon(t)
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	e.run(t, r, 1, 1, binding(8080, 80))
	e.network(t, r, 2)
	// Docker has forgotten the network before it called; the call does not arrive.
	e.set(func() { delete(e.networks, id(2)) })
	if status, text := r.post(t, "NetworkDriver.DeleteNetwork", []byte(`{"NetworkID":"`+id(2)[:20])); status != 400 || !strings.Contains(text, "request body") {
		t.Errorf("the cut call: %d %s", status, text)
	}
	// The bridge goes last.
	eventually(t, "the network is gone", func() bool { return !strings.Contains(links(t), "nft-"+id(2)[:11]) })
	if _, ok := r.state().Endpoints[id(1001)]; !ok || r.held() != 2 {
		t.Error("the container is gone, too")
	}
	r.consistent(t)
}

// TestUnreadCallWithoutDocker: nothing goes while Docker cannot be asked.
func TestUnreadCallWithoutDocker(t *testing.T) {
	soon(t)
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	e.set(func() { clear(e.networks); e.down = true; e.asked = 0 })
	r.post(t, "NetworkDriver.DeleteNetwork", []byte(`{`))
	eventually(t, "Docker was asked", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.asked > 0 })
	if len(r.state().Networks) != 1 {
		t.Error("the network is gone")
	}
}

// TestDeadOwner: a port of a container that died without a word is free at once for
// another; that of one that lives is not.
func TestDeadOwner(t *testing.T) {
	soon(t)
	sandbox := filepath.Join("/run/netns", "none")
	for _, row := range []struct {
		name string
		die  func(*testing.T, *engine)
		free bool
	}{
		{"alive", func(*testing.T, *engine) {}, false},
		{"link gone", func(t *testing.T, _ *engine) { run(t, "ip", "link", "del", "nfv"+id(1001)[:12]) }, true},
		{"sandbox gone", nil, true},
		{"unknown to Docker", func(_ *testing.T, e *engine) { e.set(func() { delete(e.endpoints, id(1001)) }) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
			e.network(t, r, 1)
			calls := endpointCalls(1, 1, binding(8080, 80))
			if row.name == "sandbox gone" {
				nstest.NewNS(t, "folder") // makes the folder of namespaces
				calls.Join.SandboxKey = sandbox
			}
			r.ok(t, "CreateEndpoint", calls.Create)
			e.set(func() { e.endpoints[id(1001)] = calls })
			r.ok(t, "Join", calls.Join)
			r.ok(t, "ProgramExternalConnectivity", calls.Program)
			r.ok(t, "CreateEndpoint", endpointCalls(1, 2).Create)
			e.set(func() { e.endpoints[id(1002)] = endpointCalls(1, 2) })
			r.ok(t, "Join", endpointCalls(1, 2).Join)
			eventually(t, "Docker has had the time to know both", func() bool { return !r.driver.isYoung(id(1002)) })
			if row.die != nil {
				row.die(t, e)
			}
			errText, _ := r.call(t, "ProgramExternalConnectivity", endpointCalls(1, 2, binding(8080, 8000)).Program)
			if free := errText == ""; free != row.free {
				t.Errorf("error: %q", errText)
			}
			if !row.free && !strings.Contains(errText, "publishes it already (container the-owner)") {
				t.Errorf("error: %q", errText)
			}
			if _, there := r.state().Endpoints[id(1001)]; there == row.free {
				t.Errorf("the first endpoint is there: %t", there)
			}
			r.consistent(t)
		})
	}
}

func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestLinkGone: the ports of a container whose link went are free soon, without a
// call, and status names the container that is cut off.
func TestLinkGone(t *testing.T) {
	soon(t)
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	e.run(t, r, 1, 1, binding(8080, 80))
	run(t, "ip", "link", "del", "nfv"+id(1001)[:12])
	eventually(t, "the port is free", func() bool { return r.held() == 0 && len(r.state().Endpoints) == 0 })
	r.consistent(t)
	eventually(t, "the container is cut off", func() bool {
		p := r.problems(t)
		return len(p) == 1 && p[0].Code == "container-cut-off"
	})
	// What Docker says of it afterwards is no error.
	for _, call := range []string{"RevokeExternalConnectivity", "Leave", "DeleteEndpoint"} {
		r.ok(t, call, ids(1, 1))
	}
}

// TestInherit: a gateway that goes without a word about the next one leaves its
// ports to the container's other endpoint; one that Docker names is not overruled.
func TestInherit(t *testing.T) {
	for _, way := range []string{"Leave", "DeleteEndpoint", "RevokeExternalConnectivity"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t)
			sandbox := "/nowhere/netns/0123456789ab"
			portmap := m{"com.docker.network.portmap": []m{published(8080, 80)}}
			for n := 1; n <= 3; n++ {
				r.network(t, n)
				r.ok(t, "CreateEndpoint", with(ids(n, n), "Interface", m{"Address": fmt.Sprintf("10.%d.0.2/24", n)}))
				r.ok(t, "Join", with(with(ids(n, n), "SandboxKey", sandbox), "Options", portmap))
			}
			leads := func() string {
				for _, p := range r.driver.Published() {
					if strings.HasPrefix(p.Host, "0.0.0.0") {
						return p.Container
					}
				}
				return ""
			}
			r.ok(t, "ProgramExternalConnectivity", with(ids(1, 1), "Options", portmap))
			r.ok(t, way, ids(1, 1))
			eventually(t, "another endpoint has the ports", func() bool { return leads() == "10.2.0.2:80" })
			// Docker names the third.
			r.ok(t, way, ids(2, 2))
			r.ok(t, "ProgramExternalConnectivity", with(ids(3, 3), "Options", portmap))
			if got := leads(); got != "10.3.0.2:80" {
				t.Errorf("the ports lead to %q", got)
			}
			// An heir would come by then.
			time.Sleep(2 * heirPause)
			if got := leads(); got != "10.3.0.2:80" {
				t.Errorf("later the ports lead to %q", got)
			}
			r.ok(t, way, ids(3, 3))
			if got := leads(); got != "" {
				t.Errorf("the ports lead to %q at once", got)
			}
			r.consistent(t)
		})
	}
}
