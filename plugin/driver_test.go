package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/desired"
	"nftnet/internal/nstest"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/realise"
)

// rig is a driver that serves on a socket, in the test's own namespace. The
// test plays the engine.
type rig struct {
	driver *Driver
	client *http.Client
	stop   func()
}

// silentDocker knows the names of containers and answers nothing else.
type silentDocker struct{}

func (silentDocker) ContainerName(context.Context, string) string { return "the-owner" }

func (silentDocker) Believes(context.Context) (Belief, error) {
	return Belief{}, errors.New("no engine")
}

func (silentDocker) Calls(context.Context, BelievedEndpoint) (EndpointCalls, error) {
	return EndpointCalls{}, errors.New("no engine")
}

func (silentDocker) Follow(ctx context.Context, _ func()) { <-ctx.Done() }

func newRig(t testing.TB) *rig { return newRigAt(t, filepath.Join(t.TempDir(), "state.db")) }

func newRigAt(t testing.TB, statePath string) *rig {
	t.Helper()
	return newRigWith(t, Config{State: statePath, Docker: silentDocker{}})
}

func newRigWith(t testing.TB, c Config) *rig {
	t.Helper()
	nstest.RequireInside(t)
	log := slog.New(slog.DiscardHandler)
	c.Log = log
	d, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "nftnet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(d, log).Serve(ctx, l) }()
	r := &rig{driver: d, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
	r.stop = sync.OnceFunc(func() {
		r.client.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		r.driver = nil
	})
	t.Cleanup(func() {
		r.removeAll(t)
		r.stop()
	})
	return r
}

// state is a copy of the driver's state.
func (r *rig) state() desired.State { return read(r.driver, "test", desired.State.Clone) }

// held is how many ports of the host the driver holds.
func (r *rig) held() int { return r.driver.kernel.(*realise.Kernel).Held() }

// removeAll takes back all networks and redirects, so that the next test finds none; after a
// stop they are another rig's.
func (r *rig) removeAll(t testing.TB) {
	if r.driver == nil {
		return
	}
	for id := range r.state().Networks {
		r.ok(t, "DeleteNetwork", m{"NetworkID": id})
	}
	for name := range r.state().Redirects {
		r.redirect(t, control.PathRemoveRedirect, control.RedirectName{Name: name})
	}
}

// post sends a body as it is, and returns the status and the answer.
func (r *rig) post(t testing.TB, call string, body []byte) (int, string) {
	t.Helper()
	resp, err := r.client.Post("http://driver/"+call, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", call, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", call, err)
	}
	return resp.StatusCode, string(text)
}

// call sends a request of the protocol and returns the error in the answer.
func (r *rig) call(t testing.TB, name string, req any) (errText string, answer map[string]any) {
	t.Helper()
	body, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	_, text := r.post(t, "NetworkDriver."+name, body)
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%s: answer %q: %v", name, text, err)
	}
	errText, _ = answer["Err"].(string)
	return errText, answer
}

func (r *rig) ok(t testing.TB, name string, req any) map[string]any {
	t.Helper()
	errText, answer := r.call(t, name, req)
	if errText != "" {
		t.Fatalf("%s: %s", name, errText)
	}
	return answer
}

// id is an id of Docker's; the first digits name links and bridges.
func id(n int) string { return fmt.Sprintf("%08x%056x", n, n) }

type m = map[string]any

// network creates network n, 10.<n>.0.0/24.
func (r *rig) network(t testing.TB, n int) {
	t.Helper()
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(n), "Options": m{libnetwork.Generic: m{}},
		"IPv4Data": []m{{"Pool": fmt.Sprintf("10.%d.0.0/24", n), "Gateway": fmt.Sprintf("10.%d.0.1/24", n)}},
	})
}

func ids(network, endpoint int) m {
	return m{"NetworkID": id(network), "EndpointID": id(1000 + endpoint)}
}

func with(base m, key string, value any) m {
	out := m{key: value}
	for k, v := range base {
		out[k] = v
	}
	return out
}

// attach takes endpoint e of network n through the calls of a start.
func (r *rig) attach(t testing.TB, n, e int, ports ...m) {
	t.Helper()
	who := ids(n, e)
	r.ok(t, "CreateEndpoint", with(who, "Interface", m{"Address": fmt.Sprintf("10.%d.0.%d/24", n, e+2)}))
	r.ok(t, "Join", with(who, "SandboxKey", fmt.Sprintf("/nowhere/netns/%012x", n<<32+e)))
	r.ok(t, "ProgramExternalConnectivity", with(who, "Options", m{"com.docker.network.portmap": ports}))
}

func published(hostPort, containerPort int) m {
	return m{"Proto": 6, "IP": "", "Port": containerPort, "HostIP": "", "HostPort": hostPort, "HostPortEnd": hostPort}
}

func table(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "table", "inet", "nftnet").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}

func links(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("ip", "-br", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	return string(out)
}

// TestA44Bodies: what is no request is answered with a status of 4xx, and leaves
// nothing.
func TestA44Bodies(t *testing.T) {
	r := newRig(t)
	before := table(t)
	calls := []string{
		"CreateNetwork", "DeleteNetwork", "CreateEndpoint", "DeleteEndpoint", "EndpointOperInfo", "Join", "Leave",
		"ProgramExternalConnectivity", "RevokeExternalConnectivity", "GwAllocCheck",
	}
	for _, call := range calls {
		for name, body := range map[string]string{
			"empty":     "",
			"truncated": `{"NetworkID":"0123`,
			"list":      `[]`,
			"number":    `7`,
			"mistyped":  `{"NetworkID":7,"EndpointID":[],"Options":"x"}`,
			"nested":    strings.Repeat(`{"Options":`, 20000),
			"garbage":   "\x00\xff\xfe",
		} {
			if noBody[call] && body == "" {
				continue
			}
			if status, text := r.post(t, "NetworkDriver."+call, []byte(body)); status/100 != 4 {
				t.Errorf("%s with a body that is %s: status %d, %s", call, name, status, text)
			}
		}
	}
	for name, body := range map[string]m{
		"no id":    {"IPv4Data": []m{{"Pool": "10.1.0.0/24"}}},
		"short id": {"NetworkID": "0123", "IPv4Data": []m{{"Pool": "10.1.0.0/24"}}},
		"path":     {"NetworkID": "../../../../etc/passwd", "IPv4Data": []m{{"Pool": "10.1.0.0/24"}}},
	} {
		if errText, _ := r.call(t, "CreateNetwork", body); !strings.Contains(errText, "not an id of Docker's") {
			t.Errorf("CreateNetwork with %s: %q", name, errText)
		}
	}
	if after := table(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
}

func TestActivation(t *testing.T) {
	r := newRig(t)
	if status, text := r.post(t, "Plugin.Activate", nil); status != 200 || !strings.Contains(text, `"NetworkDriver"`) {
		t.Errorf("Activate: %d %s", status, text)
	}
	if status, text := r.post(t, "NetworkDriver.GetCapabilities", nil); status != 200 ||
		strings.TrimSpace(text) != `{"Scope":"local","ConnectivityScope":"local","GwAllocChecker":true}` {
		t.Errorf("GetCapabilities: %d %s", status, text)
	}
	if _, text := r.post(t, "NetworkDriver.GwAllocCheck", []byte(`{"Options":{}}`)); strings.TrimSpace(text) != `{"SkipIPv4":false,"SkipIPv6":false}` {
		t.Errorf("GwAllocCheck: %s", text)
	}
}

// TestA44UnknownIDs are no error where Docker takes something back: it may be
// gone already.
func TestA44UnknownIDs(t *testing.T) {
	r := newRig(t)
	who := ids(1, 1)
	for _, call := range []string{"Leave", "RevokeExternalConnectivity", "DeleteEndpoint", "EndpointOperInfo"} {
		r.ok(t, call, who)
	}
	r.ok(t, "DeleteNetwork", m{"NetworkID": id(1)})
	for _, call := range []string{"CreateEndpoint", "Join", "ProgramExternalConnectivity"} {
		if errText, _ := r.call(t, call, who); !strings.Contains(errText, "is unknown") {
			t.Errorf("%s on an unknown network: %q", call, errText)
		}
	}
	if status, text := r.post(t, "NetworkDriver.EndpointOperInfo", []byte(`{"NetworkID":"x","EndpointID":"y"}`)); status != 200 ||
		strings.TrimSpace(text) != `{"Value":{}}` {
		t.Errorf("EndpointOperInfo: %d %s", status, text)
	}
}

// TestEveryWayOut: ports are taken back by Revoke, Leave and DeleteEndpoint
// alike, whichever of them Docker sends.
func TestEveryWayOut(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	empty := table(t)
	for _, way := range [][]string{
		{"RevokeExternalConnectivity", "Leave", "DeleteEndpoint"},
		{"Leave", "DeleteEndpoint"},
		{"DeleteEndpoint"},
		{"Leave", "Leave", "DeleteEndpoint", "DeleteEndpoint"},
		{"RevokeExternalConnectivity", "RevokeExternalConnectivity", "DeleteEndpoint"},
	} {
		r.attach(t, 1, 0, published(8080, 80))
		if !strings.Contains(table(t), "tcp . 8080") {
			t.Fatalf("port 8080 is not published:\n%s", table(t))
		}
		r.ok(t, way[0], ids(1, 0))
		if strings.Contains(table(t), "8080") || r.held() != 0 {
			t.Errorf("%s leaves the port:\n%s", way[0], table(t))
		}
		for _, call := range way[1:] {
			r.ok(t, call, ids(1, 0))
		}
		if got := table(t); got != empty {
			t.Errorf("%v leaves something:\n%s", way, got)
		}
		if l := links(t); strings.Contains(l, "nfv") || strings.Contains(l, "nfc") {
			t.Errorf("%v leaves links:\n%s", way, l)
		}
	}
}

// TestSecondPublish replaces the first: Docker repeats a call whose answer was
// lost.
func TestSecondPublish(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.attach(t, 1, 0, published(8080, 80))
	for _, port := range []int{8080, 8081} {
		r.ok(t, "ProgramExternalConnectivity", with(ids(1, 0), "Options", m{"com.docker.network.portmap": []m{published(port, 80)}}))
		if got := table(t); !strings.Contains(got, fmt.Sprintf("tcp . %d", port)) || strings.Count(got, ": 10.1.0.2 . 80") != 1 {
			t.Errorf("after publishing %d:\n%s", port, got)
		}
	}
}

// TestRefusedPublishLeavesNothing: ports before the refused one are given back.
func TestRefusedPublishLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.attach(t, 1, 0, published(8080, 80))
	r.attach(t, 1, 1)
	before := table(t)
	errText, _ := r.call(t, "ProgramExternalConnectivity",
		with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{published(8081, 80), published(8080, 81)}}))
	if !strings.Contains(errText, "8080/tcp") || !strings.Contains(errText, id(1000)[:12]) || !strings.Contains(errText, "publishes it already (container the-owner)") {
		t.Errorf("error %q does not name the port and its owner", errText)
	}
	if after := table(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
	if l, err := net.Listen("tcp4", "0.0.0.0:8081"); err != nil {
		t.Errorf("port 8081 is still held: %v", err)
	} else {
		_ = l.Close()
	}
}

// TestA43AddressOfAPredecessor: Docker gives an address to a new endpoint without
// a word about the old one, whose container died with the engine.
func TestA43AddressOfAPredecessor(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.attach(t, 1, 0, published(8080, 80))
	r.ok(t, "CreateEndpoint", with(ids(1, 7), "Interface", m{"Address": "10.1.0.2/24"}))
	if got := table(t); strings.Contains(got, "8080") || strings.Contains(got, id(1000)[:12]) {
		t.Errorf("the predecessor is still there:\n%s", got)
	}
	if strings.Contains(links(t), "nfv") {
		t.Errorf("the predecessor's link is still there:\n%s", links(t))
	}
}

// TestCrowd: many endpoints come and go at once, and leave nothing.
func TestCrowd(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.network(t, 2)
	empty := table(t)
	var all sync.WaitGroup
	for e := range 20 {
		all.Go(func() {
			n := 1 + e%2
			r.attach(t, n, e, published(9000+e, 80), m{"Proto": 17, "Port": 53})
			r.ok(t, "Leave", ids(n, e))
			r.ok(t, "DeleteEndpoint", ids(n, e))
		})
	}
	all.Wait()
	if got := table(t); got != empty {
		t.Errorf("something is left:\n%s", got)
	}
	if n := r.held(); n != 0 {
		t.Errorf("%d ports are still held", n)
	}
	if l := links(t); strings.Contains(l, "nfv") {
		t.Errorf("links are left:\n%s", l)
	}
}

// TestFlushIsMended: a change that finds the table gone makes it whole.
func TestFlushIsMended(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.attach(t, 1, 0, published(8080, 80))
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	r.attach(t, 1, 1, published(8081, 80))
	got := table(t)
	for _, want := range []string{"tcp . 8080", "tcp . 8081", "hook postrouting", "DOCKER-USER"} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
}

// TestUserRulesSurvive: DOCKER-USER belongs to the user.
func TestUserRulesSurvive(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigAt(t, state)
	r.network(t, 1)
	for _, args := range [][]string{
		{"add", "set", "inet", "nftnet", "bad", "{ type ipv4_addr; elements = { 198.51.100.1 } }"},
		{"add", "chain", "inet", "nftnet", "mine"},
		{"add", "rule", "inet", "nftnet", "mine", "counter", "drop"},
		{"add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "@bad", "jump", "mine"},
	} {
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	r.attach(t, 1, 0, published(8080, 80))
	before := table(t)
	r.stop()
	newRigAt(t, state)
	if after := table(t); after != before {
		t.Errorf("a restart changed the table:\n%s\nit was:\n%s", after, before)
	}
	if !strings.Contains(before, "ip saddr @bad jump mine") {
		t.Errorf("the user's rule is gone:\n%s", before)
	}
}
