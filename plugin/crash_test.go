package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/internal/control"
)

// believer is a Docker that knows the networks and endpoints of the test.
type believer struct {
	silentDocker
	mu    sync.Mutex
	known map[string]bool
}

func (b *believer) learn(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[id] = true
}

func (b *believer) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, id)
}

func (b *believer) Believes(context.Context) (Belief, error) {
	standing := func(id string) Standing {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.known[id] {
			return Known
		}
		return Unknown
	}
	return Belief{Network: standing, Endpoint: func(_, id string) Standing { return standing(id) }}, nil
}

// fuse ends the goroutine of a call at its nth step, as a SIGKILL ends a process
// there.
type fuse struct {
	left atomic.Int64
	at   atomic.Value
}

func (f *fuse) step(name string) {
	if f.left.Add(-1) == 0 {
		f.at.Store(name)
		runtime.Goexit()
	}
}

// crashCall is a call of a container's life, or of the administrator.
type crashCall struct {
	path string
	body m
	// after is what Docker knows once the call was answered; a call that makes
	// something is known when it was answered, one that removes it before.
	known, forgotten string
}

func crashCalls() []crashCall {
	who, sandbox := ids(1, 1), "/nowhere/netns/000000000001"
	portmap := m{"com.docker.network.portmap": []m{published(8080, 80)}}
	redirect := m{"port": 81, "to": 3000}
	driver := func(name string) string { return "NetworkDriver." + name }
	return []crashCall{
		{path: strings.TrimPrefix(control.PathRedirects, "/"), body: redirect},
		{path: driver("CreateNetwork"), known: id(1), body: m{
			"NetworkID": id(1), "Options": m{"com.docker.network.generic": m{}},
			"IPv4Data": []m{{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24"}},
			"IPv6Data": []m{{"Pool": "fd00:1::/64", "Gateway": "fd00:1::1/64"}},
		}},
		{path: driver("CreateEndpoint"), known: id(1001), body: with(who, "Interface", m{"Address": "10.1.0.2/24", "AddressIPv6": "fd00:1::2/64"})},
		{path: driver("Join"), body: with(with(who, "SandboxKey", sandbox), "Options", portmap)},
		{path: driver("ProgramExternalConnectivity"), body: with(who, "Options", portmap)},
		{path: driver("RevokeExternalConnectivity"), body: who},
		{path: driver("Leave"), body: who},
		{path: driver("DeleteEndpoint"), body: who, forgotten: id(1001)},
		{path: driver("DeleteNetwork"), body: m{"NetworkID": id(1)}, forgotten: id(1)},
		{path: strings.TrimPrefix(control.PathRemoveRedirect, "/"), body: m{"name": "81-tcp"}},
	}
}

// send makes a call; it reports whether there was an answer.
func (r *rig) send(t testing.TB, c crashCall) (string, bool) {
	t.Helper()
	body, err := json.Marshal(c.body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Post("http://driver/"+c.path, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	var answer struct{ Err string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: status %d, %v, %s", c.path, resp.StatusCode, err, answer.Err)
	}
	return answer.Err, true
}

// TestA42EveryStep ends the driver at every step of every call of a container's
// life. After the next start state, disk, links, table and sockets agree, the
// call can be made again, and nothing is left at the end.
func TestA42EveryStep(t *testing.T) {
	defer func(d time.Duration) { confirmPause = d }(confirmPause)
	confirmPause = time.Millisecond
	calls := crashCalls()
	points := map[string]int{}
	for at, c := range calls {
		for n := int64(1); ; n++ {
			f := &fuse{}
			if died := crashAt(t, calls, at, n, f); !died {
				break
			}
			points[c.path]++
			if t.Failed() {
				t.Fatalf("the driver ended at step %d of %s: %v", n, c.path, f.at.Load())
			}
		}
		if points[c.path] == 0 && !strings.HasSuffix(c.path, "RevokeExternalConnectivity") {
			t.Errorf("%s has no step at which the driver could end", c.path)
		}
	}
	t.Log("steps at which the driver ended:", points)
}

// crashAt makes the calls before one, ends the driver at the nth step of that,
// and starts it again.
func crashAt(t *testing.T, calls []crashCall, at int, n int64, f *fuse) (died bool) {
	t.Helper()
	docker := &believer{known: map[string]bool{}}
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigWith(t, Config{State: state, Docker: docker, Step: f.step})
	answered := func(c crashCall) {
		if c.known != "" {
			docker.learn(c.known)
		}
	}
	for _, c := range calls[:at] {
		docker.forget(c.forgotten)
		if text, ok := r.send(t, c); !ok || text != "" {
			t.Fatalf("%s: %q, answered %v", c.path, text, ok)
		}
		answered(c)
	}
	c := calls[at]
	docker.forget(c.forgotten)
	f.left.Store(n)
	_, ok := r.send(t, c)
	f.left.Store(0)
	if ok {
		answered(c)
		r.removeAll(t)
		r.stop()
		return false
	}
	r.stop()

	r = newRigWith(t, Config{State: state, Docker: docker})
	r.consistent(t)
	// What a call made that Docker never heard of is a ghost, and goes.
	ghosts, err := r.driver.Ghosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range ghosts {
		names = append(names, g.ID)
	}
	if _, err := r.driver.Prune(t.Context(), control.Prune{IDs: names}); err != nil {
		t.Fatal(err)
	}
	for id := range r.state().Networks {
		if !docker.known[id] {
			t.Errorf("network %s is a ghost still", id)
		}
	}
	r.consistent(t)
	for _, again := range calls[at:] {
		if !repeatable(r, again) {
			continue
		}
		docker.forget(again.forgotten)
		if text, ok := r.send(t, again); !ok || text != "" {
			t.Errorf("%s after the next start: %q, answered %v", again.path, text, ok)
		}
		answered(again)
	}
	r.consistent(t)
	if left := links(t); strings.Contains(left, "nft-") || strings.Contains(left, "nfv") {
		t.Errorf("links are left:\n%s", left)
	}
	if len(r.state().Networks)+len(r.state().Endpoints)+len(r.state().Redirects)+r.held() != 0 {
		t.Errorf("state is left: %s", fmt.Sprint(r.state()))
	}
	r.stop()
	return true
}

// repeatable reports whether a call is to be made again: not one about a
// redirect that was added or removed already, nor of an endpoint that is gone.
func repeatable(r *rig, c crashCall) bool {
	_, have := r.state().Redirects["81-tcp"]
	switch {
	case strings.HasSuffix(c.path, strings.TrimPrefix(control.PathRemoveRedirect, "/")):
		return have
	case strings.HasSuffix(c.path, strings.TrimPrefix(control.PathRedirects, "/")):
		return !have
	case strings.HasSuffix(c.path, "Join"), strings.HasSuffix(c.path, "ProgramExternalConnectivity"):
		_, there := r.state().Endpoints[id(1001)]
		return there
	}
	return true
}
