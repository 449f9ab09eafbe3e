package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nftnet/internal/control"
	"nftnet/internal/nstest"
)

// TestA73TwoEngines: a container of an engine that the driver does not ask is not
// removed for one of the other's, whatever that wants.
func TestA73TwoEngines(t *testing.T) {
	soon(t)
	e := newEngine()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	calls := endpointCalls(2, 2, binding(8080, 80))
	r.ok(t, "CreateNetwork", networkCall(2))
	r.ok(t, "CreateEndpoint", calls.Create)
	r.ok(t, "Join", calls.Join)
	r.ok(t, "ProgramExternalConnectivity", calls.Program)
	moveLink(t, nstest.NewNS(t, "c1"), r.containerLink(t, 2), "10.2.0.4/24")
	eventually(t, "the endpoint is not young", func() bool { return !r.driver.isYoung(id(1002)) })

	e.run(t, r, 1, 1)
	if text, _ := r.call(t, "ProgramExternalConnectivity", endpointCalls(1, 1, binding(8080, 80)).Program); !strings.Contains(text, "publishes it already") {
		t.Errorf("its port: %q", text)
	}
	overlapping := networkCall(3)
	overlapping.IPv4Data = networkCall(2).IPv4Data
	if text, _ := r.call(t, "CreateNetwork", overlapping); !strings.Contains(text, "overlaps") {
		t.Errorf("its subnet: %q", text)
	}
	// After a call that cannot be read, what has no container goes.
	r.ok(t, "CreateNetwork", networkCall(4))
	r.post(t, "NetworkDriver.DeleteNetwork", []byte("{"))
	eventually(t, "the network without a container is gone", func() bool { _, there := r.state().Networks[id(4)]; return !there })
	if _, there := r.state().Endpoints[id(1002)]; !there {
		t.Error("the other engine's container is gone")
	}
	r.ended(id(4))
	r.consistent(t)
}

// ended waits for changes under way of networks or endpoints.
func (r *rig) ended(ids ...string) {
	for _, id := range ids {
		r.driver.calls.Lock(id)()
	}
}

// during returns where a test puts what is to happen while the engine answers. It
// is called before the driver starts.
func (e *engine) during() *atomic.Pointer[func()] {
	var fn atomic.Pointer[func()]
	e.slow = func() {
		if f := fn.Load(); f != nil {
			(*f)()
		}
	}
	return &fn
}

// TestUnreadCallsInARow: a call that cannot be read while Docker is asked about an
// earlier one is not forgotten.
func TestUnreadCallsInARow(t *testing.T) {
	soon(t)
	e := newEngine()
	during := e.during()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	for n := 1; n <= 2; n++ {
		e.network(t, r, n)
	}
	d := r.driver
	d.compare.mu.Lock()
	d.compare.unread = true
	d.compare.mu.Unlock()
	// The second call comes when the first comparison has its answer.
	var answers atomic.Int64
	second := func() {
		if answers.Add(1) == 1 {
			e.set(func() { delete(e.networks, id(2)) })
			d.unreadCall()
		}
	}
	during.Store(&second)
	d.compareNow()
	eventually(t, "the network of the second call is gone", func() bool { return len(r.state().Networks) == 1 })
}

// TestStoppingIsNotCutOff: a container that stops while Docker answers is no
// problem.
func TestStoppingIsNotCutOff(t *testing.T) {
	soon(t)
	e := newEngine()
	during := e.during()
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: e})
	e.network(t, r, 1)
	e.run(t, r, 1, 1)
	stop := func() {
		during.Store(nil)
		e.set(func() { delete(e.endpoints, id(1001)) })
		r.ok(t, "DeleteEndpoint", ids(1, 1))
	}
	during.Store(&stop)
	if p := r.problems(t); len(p) != 0 {
		t.Errorf("problems: %+v", p)
	}
}

// deaf is an engine that takes questions and never answers.
type deaf struct{ silentDocker }

func (deaf) Believes(ctx context.Context) (Belief, error) {
	<-ctx.Done()
	return Belief{}, ctx.Err()
}

// TestA73DeafEngine: the command line has an answer from the driver though Docker
// gives none.
func TestA73DeafEngine(t *testing.T) {
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: deaf{}})
	socket := filepath.Join(t.TempDir(), "nftnet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = NewServer(r.driver, slog.New(slog.DiscardHandler)).Serve(t.Context(), l) }()
	client := control.Client{Socket: socket}
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := client.Ghosts(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot ask Docker") {
			t.Errorf("ghosts: %v", err)
		}
	})
	both.Go(func() {
		problems, err := client.Problems(t.Context())
		if err != nil || len(problems) != 1 || problems[0].Code != "docker-unknown" {
			t.Errorf("problems: %v, %v", problems, err)
		}
	})
	both.Wait()
}

// detailed is an engine that calls a function when it is asked for an endpoint.
type detailed struct {
	*engine
	asked func(endpointID string)
}

func (d *detailed) Calls(ctx context.Context, b BelievedEndpoint) (EndpointCalls, error) {
	d.asked(b.ID)
	return d.engine.Calls(ctx, b)
}

// TestA62CallsWithoutState: a container that goes while the driver rebuilds its
// state does not come back with it.
func TestA62CallsWithoutState(t *testing.T) {
	soon(t)
	state := filepath.Join(t.TempDir(), "state.db")
	e := newEngine()
	r := newRigWith(t, Config{State: state, Docker: e})
	e.network(t, r, 1)
	e.run(t, r, 1, 1, binding(8080, 80))
	e.run(t, r, 1, 2, binding(8081, 80))
	r.stop()
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	e.set(func() { e.down, e.again = true, nil })
	var second atomic.Pointer[rig]
	var refused atomic.Value
	second.Store(newRigWith(t, Config{State: state, Docker: &detailed{e, func(endpoint string) {
		if endpoint == id(1002) {
			e.set(func() { delete(e.endpoints, id(1001)) })
			text, _ := second.Load().call(t, "DeleteEndpoint", ids(1, 1))
			refused.CompareAndSwap(nil, text)
		}
	}}}))
	r = second.Load()
	e.set(func() { e.down = false })
	e.tell(t)
	eventually(t, "the state is that of Docker", func() bool {
		s := r.state()
		_, stays := s.Endpoints[id(1002)]
		return stays && len(s.Endpoints) == 1 && r.driver.ready() == nil
	})
	r.ended(id(1001), id(1002))
	if text := fmt.Sprint(refused.Load()); !strings.Contains(text, "state file was lost") {
		t.Errorf("DeleteEndpoint: %q", text)
	}
	r.consistent(t)
}
