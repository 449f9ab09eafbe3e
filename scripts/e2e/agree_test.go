package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// settles polls until fn finds nothing more to say, and fails the test with what
// it still says after the time. It reports whether fn came to rest.
func settles(t *testing.T, within time.Duration, what string, fn func() []string) bool {
	t.Helper()
	var left []string
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		if left = fn(); len(left) == 0 {
			return true
		}
		if time.Now().After(end) {
			t.Errorf("%s: after %v still\n  %s", what, within, strings.Join(left, "\n  "))
			return false
		}
	}
}

// unanswered names the ways by which a port of the host does not answer over
// HTTP: a neighbour by both families, the host by both loopback addresses.
func (w *world) unanswered(port int) []string {
	var out []string
	for _, way := range []struct {
		from *nstest.NS
		url  string
	}{
		{w.LAN, url(w.HostAddr4, port)}, {w.LAN, url(w.HostAddr6, port)},
		{w.Host, url(localhost4, port)}, {w.Host, url(localhost6, port)},
	} {
		name := "LAN"
		if way.from == w.Host {
			name = "host"
		}
		if _, err := way.from.TryGet(way.url, time.Second); err != nil {
			out = append(out, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return out
}

// bindable fails the test unless another program of the host can have a port, of
// both protocols and families.
func (w *world) bindable(t *testing.T, ports ...int) {
	t.Helper()
	settles(t, 5*time.Second, "bind ports that are published no more", func() (taken []string) {
		_ = w.Host.Do(func() error {
			for _, port := range ports {
				taken = append(taken, bindErrors(port)...)
			}
			return nil
		})
		return taken
	})
}

func bindErrors(port int) (out []string) {
	try := func(c io.Closer, err error) {
		if err != nil {
			out = append(out, err.Error())
			return
		}
		_ = c.Close()
	}
	for network, host := range map[string]string{"4": "0.0.0.0", "6": "[::]"} {
		addr := fmt.Sprintf("%s:%d", host, port)
		l, err := net.Listen("tcp"+network, addr)
		try(l, err)
		c, err := net.ListenPacket("udp"+network, addr)
		try(c, err)
	}
	return out
}

// container is what Docker says of a container.
type container struct {
	ID, Name string
	State    struct {
		Running bool
		Pid     int
		Error   string
	}
	HostConfig struct {
		PortBindings map[string][]struct{ HostIP, HostPort string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ NetworkID, EndpointID string }
	}
}

// containers lists all that Docker has.
func (w *world) containers(t *testing.T) []container {
	t.Helper()
	ids := strings.Fields(w.engine.Docker(t, "ps", "-aq"))
	if len(ids) == 0 {
		return nil
	}
	var out []container
	if err := json.Unmarshal([]byte(w.engine.Docker(t, append([]string{"inspect"}, ids...)...)), &out); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i].Name = strings.TrimPrefix(out[i].Name, "/")
	}
	return out
}

// view is what one side says there is: networks and endpoints by the start of
// their ids, host ports as in "0.0.0.0:80/tcp", each with what it is called.
type view map[string]string

const (
	// networkDigits of a network's id are in the name of its bridge,
	// endpointDigits of an endpoint's in those of its links.
	networkDigits, endpointDigits = 11, 12
)

func (v view) network(id, name string)  { v["network "+id[:networkDigits]] = name }
func (v view) endpoint(id, name string) { v["endpoint "+id[:endpointDigits]] = name }

// only keeps the kinds of things that another side speaks of.
func (v view) only(kinds ...string) view {
	out := maps.Clone(v)
	maps.DeleteFunc(out, func(what, _ string) bool {
		kind, _, _ := strings.Cut(what, " ")
		return !slices.Contains(kinds, kind)
	})
	return out
}

// against says in words where a side differs from what ought to be.
func (v view) against(side string, want view) (out []string) {
	for _, what := range slices.Sorted(maps.Keys(v)) {
		if _, ok := want[what]; !ok {
			out = append(out, fmt.Sprintf("%s: has %s%s, of which Docker knows nothing", side, what, called(v[what])))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(want)) {
		if _, ok := v[what]; !ok {
			out = append(out, fmt.Sprintf("%s: lacks %s%s", side, what, called(want[what])))
		}
	}
	return out
}

func called(name string) string {
	if name == "" {
		return ""
	}
	return " (" + name + ")"
}

// disagreements says in words where the state file, the links, the table, the
// driver's answers and its sockets differ from what Docker believes, and the
// redirects from what the driver lists. Containers must be on networks of both
// families that are named after their ids, with ports on every address.
func (w *world) disagreements(t *testing.T) []string {
	t.Helper()
	want := w.dockersView(t)
	for _, r := range w.listRedirects(t) {
		want["redirect "+r.Name] = ""
		for _, host := range []string{"0.0.0.0", "[::]"} {
			want[fmt.Sprintf("socket %s:%d/%s", host, r.Port, r.Proto)] = "redirect " + r.Name
		}
	}
	return slices.Concat(
		w.storedView(t).against("state file", want.only("network", "endpoint")),
		w.linksView(t).against("links", want.only("network", "endpoint")),
		w.tableView(t).against("table", want.only("network", "endpoint", "redirect")),
		w.portsView(t).against("nftnet ports", want.only("port")),
		w.socketsView(t).against("sockets", want.only("socket")),
	)
}

// dockersView is what Docker believes. Of a published port two things are to be
// there: the driver's word for it, and a socket.
func (w *world) dockersView(t *testing.T) view {
	t.Helper()
	v := view{}
	list := w.engine.Docker(t, "network", "ls", "--no-trunc", "--filter", "driver=nftnet", "--format", "{{.ID}} {{.Name}}")
	ours := map[string]bool{}
	for line := range strings.Lines(list) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		v.network(id, name)
		ours[id] = true
	}
	for _, c := range w.containers(t) {
		on := false
		for _, n := range c.NetworkSettings.Networks {
			if ours[n.NetworkID] && n.EndpointID != "" {
				v.endpoint(n.EndpointID, c.Name)
				on = true
			}
		}
		if !on {
			continue
		}
		for inside, bindings := range c.HostConfig.PortBindings {
			_, proto, _ := strings.Cut(inside, "/")
			for _, b := range bindings {
				for _, host := range []string{"0.0.0.0", "[::]"} {
					v[fmt.Sprintf("port %s:%s/%s", host, b.HostPort, proto)] = c.Name
					v[fmt.Sprintf("socket %s:%s/%s", host, b.HostPort, proto)] = c.Name
				}
			}
		}
	}
	return v
}

var quotedIDs = regexp.MustCompile(`"([0-9a-f]+)"`)

// storedView reads the state file.
func (w *world) storedView(t *testing.T) view {
	t.Helper()
	v := view{}
	networks, endpoints, _ := strings.Cut(w.stored(t), "endpoints")
	for _, m := range quotedIDs.FindAllStringSubmatch(networks, -1) {
		v.network(m[1], "")
	}
	for _, m := range quotedIDs.FindAllStringSubmatch(endpoints, -1) {
		v.endpoint(m[1], "")
	}
	return v
}

var ownLink = regexp.MustCompile(`^(nft-|nfv|nfc)([0-9a-f]+)`)

// linksView is the bridges, and the ends of veth pairs on the host. The other
// end, nfc, is there only until the engine moves it into its container.
func (w *world) linksView(t *testing.T) view {
	t.Helper()
	v := view{}
	for line := range strings.Lines(w.Host.Exec(t, "ip", "-br", "link")) {
		m := ownLink.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[1] == "nft-":
			v.network(m[2], "bridge "+m[0])
		case m[1] == "nfv":
			v.endpoint(m[2], "link "+m[0])
		default:
			v["link "+m[0]] = "a container's end, on the host"
		}
	}
	return v
}

var tableOwner = regexp.MustCompile(`comment "(?:net=([0-9a-f]{12}))?(?: ?ep=([0-9a-f]{12}))?(?:redirect=([^"]+))?"`)

// tableView is the owners that the comments of both tables name.
func (w *world) tableView(t *testing.T) view {
	t.Helper()
	v := view{}
	text, _ := w.Try("nft", "list", "table", "inet", "nftnet")
	bridge, _ := w.Try("nft", "list", "table", "bridge", "nftnet")
	for _, m := range tableOwner.FindAllStringSubmatch(text+bridge, -1) {
		if m[1] != "" {
			v.network(m[1], "")
		}
		if m[2] != "" {
			v.endpoint(m[2], "")
		}
		if m[3] != "" {
			v["redirect "+m[3]] = ""
		}
	}
	return v
}

func (w *world) portsView(t *testing.T) view {
	t.Helper()
	v := view{}
	for _, p := range w.published(t) {
		v[fmt.Sprintf("port %s/%s", p.Host, p.Proto)] = "to " + p.Container
	}
	return v
}

// socketsView is the sockets of the driver that are bound.
func (w *world) socketsView(t *testing.T) view {
	t.Helper()
	v := view{}
	for line := range strings.Lines(w.Host.Exec(t, "ss", "-Hlntup")) {
		if f := strings.Fields(line); strings.Contains(line, `("nftnet",`) {
			v[fmt.Sprintf("socket %s/%s", f[4], f[0])] = ""
		}
	}
	return v
}

// listedRedirect is what nftnet redirect ls says of one.
type listedRedirect struct {
	Name, Proto string
	Port        uint16
}

func (w *world) listRedirects(t *testing.T) (out []listedRedirect) {
	t.Helper()
	if err := json.Unmarshal([]byte(w.mustRedirect(t, "ls", "--format", "json")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// agrees waits until all sides agree with Docker.
func (w *world) agrees(t *testing.T, within time.Duration) bool {
	t.Helper()
	return settles(t, within, "the driver and Docker", func() []string { return w.disagreements(t) })
}

// tableIs fails the test unless the table is as it was, and shows the chains and
// sets that are not.
func (w *world) tableIs(t *testing.T, before, when string) {
	t.Helper()
	after := w.tableText(t)
	if after == before {
		return
	}
	parts := func(text string) map[string]bool {
		out := map[string]bool{}
		for part := range strings.SplitSeq(text, "\n\n") {
			out[part] = true
		}
		return out
	}
	was, is := parts(before), parts(after)
	show := func(what string, some, others map[string]bool) (out string) {
		for _, part := range slices.Sorted(maps.Keys(some)) {
			if !others[part] {
				out += what + part + "\n"
			}
		}
		return out
	}
	t.Errorf("the table is not as it was %s:\n%s%s", when, show("was: ", was, is), show("is: ", is, was))
}

// call sends the driver a call of Docker's protocol.
func (w *world) call(name string, body map[string]any) (answer map[string]any, err error) {
	client := w.caller()
	defer client.CloseIdleConnections()
	return callBy(client, name, body)
}

// caller is a client that keeps its connection to the driver, as Docker does.
func (w *world) caller() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.Path(socket))
		},
	}}
}

func callBy(client *http.Client, name string, body map[string]any) (answer map[string]any, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Post("http://nftnet/NetworkDriver."+name, "application/json", bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", name, resp.Status, err)
	}
	if text, _ := answer["Err"].(string); text != "" || resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s: %s: %s", name, resp.Status, text)
	}
	return answer, nil
}

// mustCall is call that must succeed.
func (w *world) mustCall(t *testing.T, name string, body map[string]any) {
	t.Helper()
	if _, err := w.call(name, body); err != nil {
		t.Fatal(err)
	}
}

// networkBody is a CreateNetwork call of a network of both families:
// 10.<n>.0.0/24 and fd00:<n>::/64.
func networkBody(id string, n int) map[string]any {
	pool := func(pool, gateway string) []map[string]any {
		return []map[string]any{{"Pool": pool, "Gateway": gateway}}
	}
	return map[string]any{
		"NetworkID": id,
		"Options":   map[string]any{"com.docker.network.generic": map[string]any{}, "com.docker.network.enable_ipv6": true},
		"IPv4Data":  pool(fmt.Sprintf("10.%d.0.0/24", n), fmt.Sprintf("10.%d.0.1/24", n)),
		"IPv6Data":  pool(fmt.Sprintf("fd00:%d::/64", n), fmt.Sprintf("fd00:%d::1/64", n)),
	}
}

// startDriverWith is startDriver with variables of the environment, which stand
// before the usual ones.
func (w *world) startDriverWith(t *testing.T, env ...string) {
	t.Helper()
	w.driver = w.Start(t, "nftnet", slices.Concat(
		[]string{"env", "DOCKER_HOST=unix://" + filepath.Join(w.Dir, "docker.sock")}, env,
		[]string{binary, "serve", "--state", w.state, "--socket", socket, "--log-level", "debug"})...)
	w.driver.WaitFor(t, "msg=serving", 20*time.Second)
}

// restartDriver starts the driver once more as it was started before.
func (w *world) restartDriver(t *testing.T) {
	t.Helper()
	w.driver.Restart(t)
	w.driver.WaitFor(t, "msg=serving", 20*time.Second)
}

// ends fails the test unless the driver, asked to stop, ends soon, and logs in
// what time it did.
func (w *world) ends(t *testing.T, what string) {
	t.Helper()
	begin := time.Now()
	terminate(t, w.driver.Pid())
	if err := w.driver.Wait(t, 5*time.Second); err != nil {
		t.Errorf("%s: a stopped driver ends with %v, and says\n%s", what, err, tail(w.driver, 40))
	}
	t.Logf("%s: the driver ended %v after SIGTERM", what, time.Since(begin).Round(time.Millisecond))
}

// driverLog is what all starts of the driver printed.
func (w *world) driverLog(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.Dir, "nftnet.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// noLongLock fails the test where the driver held its lock for long.
func (w *world) noLongLock(t *testing.T) {
	t.Helper()
	for _, line := range longLocks(w.driverLog(t)) {
		t.Errorf("the driver's log: %s", line)
	}
}

// repaired waits until the table is there again after a flush, and a port of a
// container answers new connections.
func (w *world) repaired(t *testing.T, port int) {
	t.Helper()
	w.Exec(t, "nft", "flush", "ruleset")
	settles(t, 10*time.Second, "the port after a flush", func() []string { return w.unanswered(port) })
}

// heartbeat is a connection to a server that echoes, on which a byte goes there
// and back all the time.
type heartbeat struct {
	name  string
	conn  net.Conn
	beats atomic.Int64
	gap   time.Duration
	err   error
	done  chan struct{}
}

// patience is how long a byte may take: TCP repeats what is lost, later each
// time.
const patience = 20 * time.Second

func startHeartbeat(t *testing.T, from *nstest.NS, name, addr string) *heartbeat {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	h := &heartbeat{name: name, conn: conn, done: make(chan struct{})}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		defer close(h.done)
		h.err = h.run()
	}()
	return h
}

func (h *heartbeat) run() error {
	buf := make([]byte, 4096)
	// The server greets first.
	for beat := 0; ; beat++ {
		begin := time.Now()
		if err := h.conn.SetDeadline(begin.Add(patience)); err != nil {
			return err
		}
		if beat > 0 {
			if _, err := h.conn.Write([]byte{'.'}); err != nil {
				return err
			}
		}
		if _, err := h.conn.Read(buf); err != nil {
			return err
		}
		h.gap = max(h.gap, time.Since(begin))
		h.beats.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// stop ends the heartbeat, which must still beat.
func (h *heartbeat) stop(t *testing.T) {
	t.Helper()
	before := h.beats.Load()
	settles(t, patience, h.name, func() []string {
		select {
		case <-h.done:
			return nil
		default:
		}
		if h.beats.Load() > before {
			return nil
		}
		return []string{fmt.Sprintf("no beat after %d", before)}
	})
	_ = h.conn.Close()
	<-h.done
	if !errors.Is(h.err, net.ErrClosed) {
		t.Errorf("%s broke after %d beats: %v", h.name, h.beats.Load(), h.err)
	}
	t.Logf("%s: %d beats, longest wait %v", h.name, h.beats.Load(), cmp.Or(h.gap.Round(time.Millisecond), h.gap))
}
