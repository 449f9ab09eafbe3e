package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/versions"
	gocmp "github.com/google/go-cmp/cmp"
)

// states makes containers in every state that there is, on networks of all
// kinds, and returns on which networks of the driver they have endpoints.
func states(t *testing.T, w *world) (endpoints map[string][]string) {
	t.Helper()
	w.network(t, "auto")
	w.network(t, "dual", "--subnet", "10.50.0.0/24", "--ipv6", "--subnet", "fd00:50::/64",
		"-o", "com.docker.network.driver.mtu=1400", "-o", "nftnet.unpublished=reject", "--label", "a=b")
	w.network(t, "gateway", "--subnet", "10.51.0.0/24", "--gateway", "10.51.0.77", "--ip-range", "10.51.0.128/25",
		"--aux-address", "DefaultGatewayIPv4=10.51.0.99", "--aux-address", "x=10.51.0.5")
	w.network(t, "range", "--subnet", "10.52.0.0/24", "--ip-range", "10.52.0.128/25")
	w.network(t, "internal", "--internal", "--subnet", "10.53.0.0/24")
	w.engine.Docker(t, "network", "create", "--config-only", "--subnet", "10.54.0.0/24", "-o", "com.docker.network.driver.mtu=1300", "config")
	w.network(t, "from", "--config-from", "config")
	w.network(t, "empty", "--subnet", "10.55.0.0/24")

	w.engine.Docker(t, "create", "--name", "created", "--network", "dual", "--ip", "10.50.0.44", "-p", "8000:80", w.image, "sleep", "1000")
	w.run(t, "web", "dual", "--network-alias", "w", "-p", "8080:80", "-p", "127.0.0.1:9000-9002:90/udp", "-p", "80",
		"-p", "[::1]:8081:81", "-p", "7000-7001:70-71", "-p", "1320:132/sctp", "--expose", "99")
	w.run(t, "fixed", "gateway", "--ip", "10.51.0.200")
	w.engine.Create(t, "mac", map[string]any{
		"Image": w.image, "Cmd": []string{"sleep", "1000"}, "MacAddress": "02:42:aa:bb:cc:dd",
		"HostConfig":       map[string]any{"NetworkMode": "gateway", "PortBindings": map[string]any{"85/tcp": []any{map[string]any{"HostPort": "8500"}}}},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{"gateway": map[string]any{"DriverOpts": map[string]string{"nftnet.antispoof": "off"}}}},
	})
	w.engine.Docker(t, "start", "mac")
	w.run(t, "ranged", "range")
	w.run(t, "two", "dual", "-p", "8090:80")
	w.engine.Docker(t, "network", "connect", "--driver-opt", "nftnet.antispoof=off", "--ip", "10.51.0.201", "gateway", "two")
	w.run(t, "beside", "container:web")
	w.run(t, "paused", "auto", "-P", "--expose", "55/udp")
	w.engine.Docker(t, "pause", "paused")
	w.run(t, "stopped", "auto", "-p", "8100:80")
	w.engine.Docker(t, "stop", "-t", "0", "stopped")
	w.run(t, "inside", "internal", "-p", "8300:80")
	w.run(t, "foreign", "bridge")
	w.engine.Docker(t, "network", "connect", "from", "foreign")
	w.run(t, "host", "host")
	if _, _, err := w.engine.TryDocker("run", "--name", "failed", "--network", "auto", w.image, "nosuchprogram"); err == nil {
		t.Fatal("a container of no program started")
	}
	w.run(t, "before", "auto")
	w.engine.Docker(t, "rename", "before", "renamed")
	endpoints = map[string][]string{
		"web": {"dual"}, "fixed": {"gateway"}, "mac": {"gateway"}, "ranged": {"range"}, "two": {"dual", "gateway"},
		"paused": {"auto"}, "inside": {"internal"}, "foreign": {"from"}, "renamed": {"auto"},
	}
	if hasIPv6Only(t, w) {
		w.network(t, "six", "--ipv4=false", "--ipv6", "--subnet", "fd00:66::/64")
		w.run(t, "six", "six", "-p", "8600:80")
		endpoints["six"] = []string{"six"}
	}
	return endpoints
}

// hasIPv6Only: engines before 28 give every network IPv4.
func hasIPv6Only(t *testing.T, w *world) bool {
	return versions.GreaterThanOrEqualTo(w.connect(t).version, "1.48")
}

// TestStates compares what the engine remembers of every network and container
// with what it really sent, before and after its restart.
func TestStates(t *testing.T) {
	w := newWorld(t)
	w.startEngine(t, "--live-restore")
	want := states(t, w)
	t.Run("requests", func(t *testing.T) { w.compare(t, want) })
	t.Run("details", func(t *testing.T) { w.details(t) })
	w.engine.Restart(t)
	t.Run("requests after the engine's restart", func(t *testing.T) { w.compare(t, want) })
}

func (w *world) compare(t *testing.T, want map[string][]string) {
	t.Helper()
	c := w.connect(t)
	inv, err := c.Inventory(t.Context(), "nftnet")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range inv.Networks {
		w.equal(t, n.Name, "CreateNetwork", n.ID, n.CreateRequest())
	}
	got := map[string][]string{}
	for _, e := range inv.Endpoints {
		got[e.Container] = append(got[e.Container], e.Network)
		slices.Sort(got[e.Container])
		if !e.Joined || !e.Running || e.ContainerID == "" {
			t.Errorf("%s on %s: %+v", e.Container, e.Network, e)
		}
		w.compareEndpoint(t, c, e)
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("endpoints of containers: %s", d)
	}
	if names := names(inv); !slices.Contains(names, "empty") || slices.Contains(names, "config") || slices.Contains(names, "bridge") {
		t.Errorf("networks %q", names)
	}
}

func names(inv Inventory) []string {
	var out []string
	for _, n := range inv.Networks {
		out = append(out, n.Name)
	}
	return out
}

func (w *world) compareEndpoint(t *testing.T, c *Client, e Endpoint) {
	t.Helper()
	d, err := c.Details(t.Context(), e.ContainerID)
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != e.Container || d.State != e.State || !d.Running {
		t.Errorf("%s is %s; details say %s, %s, running %v", e.Container, e.State, d.Name, d.State, d.Running)
	}
	what := e.Container + " on " + e.Network
	w.equal(t, what, "CreateEndpoint", e.ID, d.CreateRequest(e))
	w.equal(t, what, "Join", e.ID, d.JoinRequest(e))
	r, published := d.ConnectivityRequest(e)
	// An internal network has no gateway, and no ports whatever the engine sends.
	if sent := w.published(e.ID) && e.Network != "internal"; sent != published {
		t.Errorf("%s has the container's ports: %v; the engine gave them: %v", what, published, sent)
	}
	if published {
		w.equal(t, what, "ProgramExternalConnectivity", e.ID, r)
	}
}

// equal compares a request with the engine's own.
func (w *world) equal(t *testing.T, what, name, id string, request any) {
	t.Helper()
	sent, found := w.last(name, id)
	if !found {
		t.Errorf("%s: the engine made no call %s", what, name)
		return
	}
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var made map[string]any
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatal(err)
	}
	want := plain(t, sent.request)
	forget(want, made, sent)
	if d := gocmp.Diff(want, made, sorted); d != "" {
		t.Errorf("%s: %s (-engine +ours): %s", what, name, d)
	}
}

// sorted compares lists whose order is random in the engine.
var sorted = gocmp.Transformer("sorted", func(list []any) []string {
	out := make([]string, len(list))
	for i, v := range list {
		text, _ := json.Marshal(v)
		out[i] = string(text)
	}
	slices.Sort(out)
	return out
})

func plain(t *testing.T, v map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// forget drops what the engine's versions say differently, or only at first.
func forget(sent, made map[string]any, c call) {
	from, _ := sent["Options"].(map[string]any)
	into, _ := made["Options"].(map[string]any)
	if into == nil {
		return
	}
	if from == nil {
		from = map[string]any{}
		sent["Options"] = from
	}
	for key := range maps.Keys(into) {
		_, there := from[key]
		switch {
		// Engines before 28 do not send it.
		case key == labelEnableIPv4 && !there:
			delete(into, key)
		// It is about other endpoints, and not sent again when those change.
		case key == labelNoProxy6To4:
			delete(into, key)
			delete(from, key)
		// CreateEndpoint leaves the ports out of internal networks, and where
		// another endpoint shows them; exposed ports that are not published are in
		// Join always.
		case c.name == "CreateEndpoint" && (key == labelPortMap || key == labelExposed):
			delete(into, key)
			delete(from, key)
		}
	}
	// A network from another's configuration has it also if it is false.
	if v, there := from[labelInternal]; there && v == false {
		delete(from, labelInternal)
	}
	if c.name != "CreateNetwork" {
		// Docker's own bridge driver leaves it in the container's sandbox.
		delete(from, labelGeneric)
	}
	// The driver chose the link address, unless the user did: then it is said
	// twice.
	delete(from, "com.docker.network.endpoint.macaddress")
	if in, ok := sent["Interface"].(map[string]any); ok {
		if answer, ok := c.response["Interface"].(map[string]any); ok {
			in["MacAddress"] = cmp.Or(in["MacAddress"].(string), answer["MacAddress"].(string))
		}
	}
	for _, family := range []string{"IPv4Data", "IPv6Data"} {
		list, _ := sent[family].([]any)
		if list == nil {
			sent[family] = []any{}
		}
		for _, data := range list {
			if m := data.(map[string]any); len(asMap(m["AuxAddresses"])) == 0 {
				delete(m, "AuxAddresses")
			}
		}
	}
	if c.name != "CreateNetwork" {
		delete(sent, "IPv4Data")
		delete(sent, "IPv6Data")
	}
}

func asMap(v any) map[string]any { m, _ := v.(map[string]any); return m }

// TestInventoryDuringCalls holds the driver's answer to each of the engine's
// calls, and looks at what the engine believes meanwhile. It also shows that no
// inventory waits for the driver.
func TestInventoryDuringCalls(t *testing.T) {
	w := newWorld(t)
	w.startEngine(t)
	n := w.network(t, "n", "--subnet", "10.60.0.0/24")
	other := w.network(t, "other", "--subnet", "10.61.0.0/24")
	docker := func(args ...string) func() error {
		return func() error {
			_, stderr, err := w.engine.TryDocker(args...)
			if err != nil {
				return errors.New(stderr)
			}
			return nil
		}
	}
	start := docker("run", "-d", "--name", "web", "--network", "n", "-p", "8080:80", w.image, "sleep", "1000")
	connect, disconnect := docker("network", "connect", "other", "web"), docker("network", "disconnect", "other", "web")
	remove := docker("rm", "-f", "web")
	rows := []struct {
		call             string
		do               func() error
		network          string
		standing         Standing
		joined, detailed bool
		after            func() error
	}{
		// The engine writes down what it made after the driver's answer.
		{"CreateEndpoint", start, n, Unknown, false, false, remove},
		{"Join", start, n, Known, false, false, remove},
		{"ProgramExternalConnectivity", start, n, Known, true, false, nil},
		{"CreateEndpoint", connect, other, Unknown, false, false, disconnect},
		{"Join", connect, other, Known, false, false, nil},
		{"Leave", disconnect, other, Known, true, false, connect},
		// Gone from the store, in the list of containers still.
		{"DeleteEndpoint", disconnect, other, Unsure, false, false, nil},
		{"Leave", remove, n, Known, true, false, start},
		{"DeleteEndpoint", remove, n, Unsure, false, false, nil},
	}
	for _, row := range rows {
		c := w.connect(t)
		w.hold(t, row.call, row.do, func(held call) {
			inv, err := c.Inventory(t.Context(), "nftnet")
			if err != nil {
				t.Fatal(err)
			}
			if s := inv.NetworkStanding(row.network); s != Known {
				t.Errorf("%s: the network is %s", row.call, s)
			}
			if s := inv.EndpointStanding(row.network, held.endpoint()); s != row.standing {
				t.Errorf("%s: the endpoint is %s, want %s", row.call, s, row.standing)
			}
			for _, e := range inv.Endpoints {
				if e.ID == held.endpoint() && (e.Joined != row.joined || e.Container != "web" || !e.IPv4.IsValid()) {
					t.Errorf("%s: %+v", row.call, e)
				}
			}
			// Details wait for the container, and therefore for the driver.
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if d, err := c.Details(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: details do not wait: %+v, %v", row.call, d, err)
			}
		})
		if row.after != nil {
			if err := row.after(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if inv := w.inventory(t); len(inv.Endpoints) != 0 {
		t.Errorf("left over: %+v", inv.Endpoints)
	}
	for _, row := range []struct {
		call  string
		do    func() error
		after Standing
	}{
		{"CreateNetwork", docker("network", "create", "-d", "nftnet", "late"), Known},
		{"DeleteNetwork", docker("network", "rm", "late"), Unknown},
	} {
		var id string
		w.hold(t, row.call, row.do, func(held call) {
			id = held.network()
			inv := w.inventory(t)
			if s := inv.NetworkStanding(id); s != Unknown {
				t.Errorf("%s: the network is %s", row.call, s)
			}
		})
		if s := w.inventory(t).NetworkStanding(id); s != row.after {
			t.Errorf("after %s the network is %s, want %s", row.call, s, row.after)
		}
	}
}

// TestInventoryAfterTheEnginesEnd: what the engine forgets without a call to the
// driver is Unknown as soon as the engine answers again.
func TestInventoryAfterTheEnginesEnd(t *testing.T) {
	for _, row := range []struct {
		name  string
		args  []string
		end   func(*world, *testing.T)
		lives bool
	}{
		{"stopped", nil, func(w *world, t *testing.T) { w.engine.Stop(t) }, false},
		{"killed", nil, func(w *world, t *testing.T) { w.engine.Kill(t) }, false},
		{"stopped with live-restore", []string{"--live-restore"}, func(w *world, t *testing.T) { w.engine.Stop(t) }, true},
		{"killed with live-restore", []string{"--live-restore"}, func(w *world, t *testing.T) { w.engine.Kill(t) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			w.startEngine(t, row.args...)
			n := w.network(t, "n", "--subnet", "10.60.0.0/24")
			w.run(t, "stays", "n", "-p", "8080:80")
			w.run(t, "dies", "n")
			before := map[string]Endpoint{}
			for _, e := range w.inventory(t).Endpoints {
				before[e.Container] = e
			}
			pid := w.engine.Docker(t, "inspect", "-f", "{{.State.Pid}}", "dies")
			row.end(w, t)
			if row.lives {
				killProcess(t, pid)
			}
			w.engine.Start(t)
			inv := w.inventory(t)
			if s := inv.NetworkStanding(n); s != Known {
				t.Errorf("the network is %s", s)
			}
			for container, lives := range map[string]bool{"stays": row.lives, "dies": false} {
				want := Unknown
				if lives {
					want = Known
				}
				if s := inv.EndpointStanding(n, before[container].ID); s != want {
					t.Errorf("the endpoint of %q is %s, want %s", container, s, want)
				}
			}
			if row.lives {
				if got := inv.Endpoints; len(got) != 1 || got[0] != before["stays"] {
					t.Errorf("got %+v, want %+v", got, before["stays"])
				}
			} else if len(inv.Endpoints) != 0 {
				t.Errorf("got %+v, want none", inv.Endpoints)
			}
		})
	}
}

func killProcess(t *testing.T, pid string) {
	t.Helper()
	var n int
	if err := json.Unmarshal([]byte(pid), &n); err != nil || n < 2 {
		t.Fatalf("pid %q", pid)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the container's process is gone", func() bool { return syscall.Kill(n, 0) != nil })
}

// details asserts what is empty in which state.
func (w *world) details(t *testing.T) {
	c := w.connect(t)
	details := func(name string) Details {
		d, err := c.Details(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, row := range []struct {
		name, state     string
		running, joined bool
		networks        string
	}{
		{"created", "created", false, false, "dual"},
		{"failed", "created", false, false, "auto"},
		{"stopped", "exited", false, false, "auto"},
		{"paused", "paused", true, true, "auto"},
		{"two", "running", true, true, "dual gateway"},
		{"foreign", "running", true, true, "bridge from"},
		{"host", "running", true, true, "host"},
		{"beside", "running", true, false, ""},
	} {
		d := details(row.name)
		var networks []string
		for _, a := range d.Attachments {
			networks = append(networks, a.Network)
			if joined := a.EndpointID != ""; joined != row.joined {
				t.Errorf("%s on %s has endpoint %q", row.name, a.Network, a.EndpointID)
			}
		}
		if got := strings.Join(networks, " "); got != row.networks || d.State != row.state || d.Running != row.running {
			t.Errorf("%s: %s, running %v, on %q, want %s, %v, %q", row.name, d.State, d.Running, got, row.state, row.running, row.networks)
		}
		if joined := d.SandboxKey != ""; row.joined && !joined {
			t.Errorf("%s has no sandbox", row.name)
		}
	}
	if d := details("beside"); d.SandboxKey != "" {
		t.Errorf("a container in the network of another has sandbox %q", d.SandboxKey)
	}
	if d := details("created"); d.SandboxKey != "" || len(d.Bindings) != 1 {
		t.Errorf("a container that was never started: %+v", d)
	}
	if _, err := c.Details(t.Context(), "nosuch"); !errors.Is(err, ErrNoContainer) {
		t.Errorf("no such container: %v", err)
	}
	// What a user sees is what the inventory has.
	for _, e := range w.inventory(t).Endpoints {
		if e.Container != "two" {
			continue
		}
		want := w.engine.Docker(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+e.Network+`").IPAddress}}`, "two")
		if e.IPv4.Addr() != netip.MustParseAddr(want) {
			t.Errorf("on %s: %s, want %s", e.Network, e.IPv4, want)
		}
	}
}
