// Package e2e holds the acceptance rows of the project as tests: a real Docker
// engine with the real driver in network namespaces of the test's own, and real
// packets from a neighbour, from the host and between containers.
package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// binary is the nftnet under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nftnet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "nftnet")
	build := exec.Command("go", "build", "-o", binary, "nftnet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build nftnet: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// socket is where the driver listens inside a sandbox.
const socket = "/run/docker/plugins/nftnet.sock"

// world is a docker host with the driver, a neighbour on its LAN, and an engine.
type world struct {
	*nstest.Sandbox
	engine *nstest.Engine
	driver *nstest.Process
	image  string
	state  string
}

// newWorld makes a world with nothing in it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t)
	w.startDriver(t)
	w.startEngine(t)
	return w
}

// emptyWorld makes a world without driver and engine.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	nstest.RequireRoot(t)
	// Most of a test is waiting for what must not come.
	t.Parallel()
	return oneMoreWorld(t)
}

// oneMoreWorld is emptyWorld for a test that has had one.
func oneMoreWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Sandbox: nstest.NewSandbox(t)}
	w.state = filepath.Join(w.Dir, "state.db")
	return w
}

// startEngine starts the engine and gives it the image of the containers.
func (w *world) startEngine(t *testing.T) {
	t.Helper()
	w.engine = w.StartEngine(t)
	w.image = w.engine.Image(t)
}

// startDriver starts nftnet and waits until it serves.
func (w *world) startDriver(t *testing.T, args ...string) {
	t.Helper()
	w.driver = w.Start(t, "nftnet", append([]string{
		"env", "DOCKER_HOST=unix://" + filepath.Join(w.Dir, "docker.sock"), binary, "serve",
		"--state", w.state, "--socket", socket, "--log-level", "debug",
	}, args...)...)
	noLongLocks(t, w.driver)
	w.driver.WaitFor(t, "msg=serving", 10*time.Second)
}

// nftnet runs a command of nftnet on the docker host.
func (w *world) nftnet(t *testing.T, args ...string) string {
	t.Helper()
	return w.Exec(t, append([]string{"env", "DOCKER_HOST=unix://" + w.engine.Socket, binary}, args...)...)
}

// network makes an nftnet network.
func (w *world) network(t *testing.T, name string, args ...string) {
	t.Helper()
	w.engine.Docker(t, append(append([]string{"network", "create", "-d", "nftnet"}, args...), name)...)
}

// dual makes a network of both families: 10.<n>.0.0/24 and fd00:<n>::/64.
func (w *world) dual(t *testing.T, name string, n int, args ...string) {
	t.Helper()
	w.network(t, name, append([]string{
		"--subnet", fmt.Sprintf("10.%d.0.0/24", n), "--ipv6", "--subnet", fmt.Sprintf("fd00:%d::/64", n),
	}, args...)...)
}

// run starts a container that serves HTTP on 80 and 81, UDP on 53, TCP on 7.
func (w *world) run(t *testing.T, name, network string, args ...string) {
	t.Helper()
	docker := append([]string{"run", "-d", "--name", name, "--network", network}, args...)
	w.engine.Docker(t, append(docker, w.image, "/peer", "serve", "-http", ":80,:81", "-udp", ":53", "-tcp", ":7")...)
	w.engine.WaitLog(t, name, "ready")
}

// address is a container's address on a network.
func (w *world) address(t *testing.T, container, network string, v6 bool) netip.Addr {
	t.Helper()
	field := "IPAddress"
	if v6 {
		field = "GlobalIPv6Address"
	}
	text := w.engine.Docker(t, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), container)
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatalf("address of %s on %s: %v", container, network, err)
	}
	return a
}

// url is an HTTP address.
func url(host netip.Addr, port int) string {
	return "http://" + netip.AddrPortFrom(host, uint16(port)).String() + "/"
}

// silence is how long a test waits before it says that a packet was dropped.
const silence = 1500 * time.Millisecond

// reaches asserts that an HTTP server answers from a namespace.
func reaches(t *testing.T, from *nstest.NS, what, url string) nstest.Reply {
	t.Helper()
	r, err := from.TryGet(url, 3*time.Second)
	if err != nil {
		t.Errorf("%s: %s does not answer: %v", what, url, err)
	}
	return r
}

// timesOut asserts that nothing at all comes back: no answer and no refusal.
func timesOut(t *testing.T, from *nstest.NS, what, url string) {
	t.Helper()
	r, err := from.TryGet(url, silence)
	if err == nil {
		t.Errorf("%s: %s answers (%+v), it must not", what, url, r)
		return
	}
	if !isTimeout(err) {
		t.Errorf("%s: %s: %v, a time-out must be seen", what, url, err)
	}
}

func isTimeout(err error) bool {
	return os.IsTimeout(err) || strings.Contains(err.Error(), "timeout") || strings.Contains(err.Error(), "deadline exceeded")
}

// tableText is the table in nft's words, its sets and chains and the elements of
// each set sorted: the order in which they were made says nothing.
func (w *world) tableText(t *testing.T) string {
	t.Helper()
	return w.textOf(t, "inet", "nftnet")
}

// textOf is tableText of another table.
func (w *world) textOf(t *testing.T, family, name string) string {
	t.Helper()
	text := w.Exec(t, "nft", "-s", "list", "table", family, name)
	_, text, _ = strings.Cut(text, "{\n")
	blocks := strings.Split(strings.TrimSuffix(strings.TrimSpace(text), "\n}"), "\n\n")
	for i, b := range blocks {
		blocks[i] = sortElements(strings.TrimSpace(b))
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n\n")
}

// sortElements sorts the elements of a set, which nft lists in the order of the
// kernel's hash.
func sortElements(block string) string {
	head, list, ok := strings.Cut(block, "elements = { ")
	if !ok {
		return block
	}
	list, tail, _ := strings.Cut(list, " }\n")
	elements := strings.Split(list, ",\n")
	for i, e := range elements {
		elements[i] = strings.TrimSpace(e)
	}
	slices.Sort(elements)
	return head + "elements = { " + strings.Join(elements, ",\n") + " }\n" + tail
}
