package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
	"nftnet/plugin/store"
)

const examplesDir = "../../examples"

// composeImages stand for those that compose files name: what their containers serve.
var composeImages = map[string][]string{
	"caddy:2":         {"-http", ":80"},
	"nginx:stable":    {"-http", ":80,:81"},
	"postgres:16":     {"-tcp", ":5432"},
	"prom/prometheus": {"-http", ":9090"},
}

// project is a compose file that is up.
type project struct {
	*world
	file string
}

// newComposeWorld makes a world that has the images of compose files.
func newComposeWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for name, serves := range composeImages {
		w.engine.ImageNamed(t, name, append([]string{"/peer", "serve"}, serves...)...)
	}
	return w
}

// compose runs docker-compose, or the program that NFTNET_COMPOSE names: "docker
// compose" is its successor.
func (p project) compose(t *testing.T, args ...string) string {
	t.Helper()
	program := strings.Fields(os.Getenv("NFTNET_COMPOSE"))
	if len(program) == 0 {
		program = []string{"docker-compose"}
	}
	env := []string{"env", "DOCKER_HOST=unix://" + p.engine.Socket, "DOCKER_CONFIG=" + filepath.Join(p.Dir, "cli")}
	return p.Exec(t, slices.Concat(env, program, []string{"-f", p.file}, args)...)
}

// container is the one of a service.
func (p project) container(t *testing.T, service string) string {
	t.Helper()
	id := p.engine.Docker(t, "ps", "-q", "--filter", "label=com.docker.compose.service="+service)
	if id == "" || strings.Contains(id, "\n") {
		t.Fatalf("service %s has the containers %q, want one", service, id)
	}
	return id
}

// network is Docker's name of a network of the file.
func (p project) network(t *testing.T, name string) string {
	t.Helper()
	return p.engine.Docker(t, "network", "ls", "--format", "{{.Name}}", "--filter", "label=com.docker.compose.network="+name)
}

// runProject brings a file up, tries it, takes it down and asserts that nothing is left.
func (w *world) runProject(t *testing.T, file string, try func(*testing.T, project)) {
	t.Helper()
	file, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	p := project{w, file}
	before := w.footprint(t)
	p.compose(t, "up", "-d")
	for _, id := range strings.Fields(w.engine.Docker(t, "ps", "-q")) {
		w.engine.WaitLog(t, id, "ready")
	}
	if w.footprint(t) == before {
		t.Error("the project leaves no trace in the host: nothing is tried")
	}
	try(t, p)
	p.compose(t, "down", "-v")
	if after := w.footprint(t); after != before {
		t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
	}
	for _, kind := range []string{"container", "volume"} {
		if left := w.engine.Docker(t, kind, "ls", "-q"); left != "" {
			t.Errorf("a %s is left: %s", kind, left)
		}
	}
}

// footprint is all that a network can leave on the host, in words: every table,
// links, listening sockets and stored state.
func (w *world) footprint(t *testing.T) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(w.Exec(t, "nft", "list", "tables")) {
		f := strings.Fields(line)
		out = append(out, strings.Join(f, " "), w.textOf(t, f[1], f[2]))
	}
	var links, sockets []string
	for line := range strings.Lines(w.Exec(t, "ip", "-br", "link")) {
		links = append(links, strings.Fields(line)[0])
	}
	for line := range strings.Lines(w.Exec(t, "ss", "-Hlntu")) {
		sockets = append(sockets, strings.Fields(line)[4])
	}
	return strings.Join(append(out, strings.Join(links, " "), strings.Join(sorted(sockets), " "), w.stored(t)), "\n\n")
}

// stored lists what the state file holds. The driver has it open: a copy is read.
func (w *world) stored(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(w.state)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(copied, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// The driver may have written meanwhile.
	if o := s.Origin(); o.Found != store.Read {
		t.Fatalf("the copy of the state file is %s: %s", o.Found, o.Why)
	}
	state, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("networks %q, endpoints %q",
		slices.Sorted(maps.Keys(state.Networks)), slices.Sorted(maps.Keys(state.Endpoints)))
}

// TestA49Examples: each folder of examples does what its README says, and goes
// without a trace.
func TestA49Examples(t *testing.T) {
	tries := map[string]func(*testing.T, project){
		"web-and-database": tryWebAndDatabase,
		"ipv6":             tryIPv6,
		"closed":           tryClosed,
		"routed":           tryRouted,
	}
	files, err := filepath.Glob(filepath.Join(examplesDir, "*", "compose.yaml"))
	if err != nil || len(files) != len(tries) {
		t.Fatalf("%d examples, %v; the test knows %d", len(files), err, len(tries))
	}
	w := newComposeWorld(t)
	nstest.Serve(t, w.LAN, ":80", "")
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			try, ok := tries[name]
			if !ok {
				t.Fatal("nothing tries this example")
			}
			w.runProject(t, file, try)
		})
	}
}

var (
	localhost4 = netip.MustParseAddr("127.0.0.1")
	localhost6 = netip.IPv6Loopback()
)

func (w *world) lanSides() map[netip.Addr]netip.Addr {
	return map[netip.Addr]netip.Addr{w.HostAddr4: w.LANAddr4, w.HostAddr6: w.LANAddr6}
}

// fromAnywhere asserts that a port of the host answers neighbours, and the host
// itself by each of its addresses.
func (w *world) fromAnywhere(t *testing.T, port int) {
	t.Helper()
	for host := range w.lanSides() {
		reaches(t, w.LAN, "LAN", url(host, port))
	}
	w.fromHost(t, port)
}

func (w *world) fromHost(t *testing.T, port int) {
	t.Helper()
	for _, a := range []netip.Addr{localhost4, localhost6, w.HostAddr4, w.HostAddr6} {
		reaches(t, w.Host, "host", url(a, port))
	}
}

// unpublished asserts that nobody answers on a port of the host, and that
// clients are told so at once.
func (w *world) unpublished(t *testing.T, port uint16) {
	t.Helper()
	for host := range w.lanSides() {
		for name, ns := range map[string]*nstest.NS{"LAN": w.LAN, "host": w.Host} {
			_, err := ns.TCP(netip.AddrPortFrom(host, port).String(), silence)
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s to %v:%d: %v, want a refusal", name, host, port, err)
			}
		}
	}
}

func tryWebAndDatabase(t *testing.T, p project) {
	p.fromAnywhere(t, 8080)
	web, database := p.container(t, "web"), p.container(t, "database")
	if _, err := p.engine.Peer(t, web, "tcp", "database:5432"); err != nil {
		t.Errorf("web server to database: %v", err)
	}
	if _, err := p.engine.Peer(t, database, "http", url(p.LANAddr4, 80)); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("database to LAN: %v, want: network is unreachable", err)
	}
	p.from(t, web, "web server to LAN", p.LANAddr4, 80)
	p.unpublished(t, 5432)
	a := p.address(t, database, p.network(t, "backend"), false)
	p.AddRouteOnLAN(t, a.String()+"/32")
	p.silent(t, p.LAN, netip.AddrPortFrom(a, 5432))
	p.compose(t, "up", "-d", "--force-recreate", "web")
	p.engine.WaitLog(t, p.container(t, "web"), "ready")
	p.fromAnywhere(t, 8080)
}

// silent asserts that a TCP server does not answer, nor refuses.
func (w *world) silent(t *testing.T, from *nstest.NS, to netip.AddrPort) {
	t.Helper()
	if r, err := from.TCP(to.String(), silence); err == nil || !isTimeout(err) {
		t.Errorf("%v: %+v, %v, a time-out must be seen", to, r, err)
	}
}

func tryIPv6(t *testing.T, p project) {
	p.fromHost(t, 8081)
	for host, lan := range p.lanSides() {
		if r := reaches(t, p.LAN, "LAN", url(host, 8081)); r.Client != lan {
			t.Errorf("%s: the container sees %v, want the neighbour's %v", family(host), r.Client, lan)
		}
	}
	out := p.engine.Docker(t, "exec", p.container(t, "web"), "ip", "addr", "show", "eth0")
	for _, want := range []string{"10.86.0.80/24", "fd00:86::80/64", "mtu 1450"} {
		if !strings.Contains(out, want) {
			t.Errorf("the container's interface lacks %s:\n%s", want, out)
		}
	}
	p.Exec(t, "ip", "link", "show", "nft-dual")
}

// tryClosed has a second subnet on the LAN, that of the allow list.
func tryClosed(t *testing.T, p project) {
	listed := map[netip.Addr]netip.Addr{}
	for _, subnet := range []string{"192.168.1.%d/24", "fd00:168:1::%d/64"} {
		host, lan := fmt.Sprintf(subnet, 1), fmt.Sprintf(subnet, 20)
		p.Exec(t, "ip", "addr", "add", host, "dev", "eth0", "nodad")
		p.LAN.Exec(t, "ip", "addr", "add", lan, "dev", "eth0", "nodad")
		listed[netip.MustParsePrefix(host).Addr()] = netip.MustParsePrefix(lan).Addr()
		t.Cleanup(func() {
			p.Exec(t, "ip", "addr", "del", host, "dev", "eth0")
			p.LAN.Exec(t, "ip", "addr", "del", lan, "dev", "eth0")
		})
	}
	p.fromAnywhere(t, 8082)
	p.fromHost(t, 9090)
	for _, a := range []netip.Addr{localhost4, localhost6, p.HostAddr4, p.HostAddr6} {
		if _, err := p.Host.TCP(netip.AddrPortFrom(a, 5432).String(), 2*time.Second); err != nil {
			t.Errorf("host to the database by %v: %v", a, err)
		}
	}
	var silences sync.WaitGroup
	for host, lan := range listed {
		reaches(t, p.LAN, "listed neighbour", url(host, 8082))
		silences.Go(func() { timesOut(t, p.LAN, "listed neighbour, to a port that nobody may reach", url(host, 9090)) })
		r, err := p.LAN.TCP(netip.AddrPortFrom(host, 5432).String(), 2*time.Second)
		if err != nil || r.Client != lan {
			t.Errorf("listed neighbour to the database: %+v, %v; want an answer to %v", r, err, lan)
		}
	}
	for host := range p.lanSides() {
		silences.Go(func() { timesOut(t, p.LAN, "other neighbour, to a port that nobody may reach", url(host, 9090)) })
		silences.Go(func() { p.silent(t, p.LAN, netip.AddrPortFrom(host, 5432)) })
	}
	silences.Wait()
}

func tryRouted(t *testing.T, p project) {
	web := p.container(t, "web")
	p.routes(t, 88)
	for lan, a := range map[netip.Addr]netip.Addr{
		p.LANAddr4: netip.MustParseAddr("10.88.0.80"), p.LANAddr6: netip.MustParseAddr("fd00:88::80"),
	} {
		if r := reaches(t, p.LAN, "LAN", url(a, 80)); r.Client != lan {
			t.Errorf("%s: the container sees %v, want the neighbour's %v", family(a), r.Client, lan)
		}
		timesOut(t, p.LAN, "LAN to a port that is not published", url(a, 81))
		if r := p.from(t, web, "container to LAN", lan, 80); r.Client != a {
			t.Errorf("%s: the neighbour sees %v, want the container's %v", family(a), r.Client, a)
		}
	}
	p.unpublished(t, 80)
}

// TestA49BridgeFile: a file for Docker's own driver, and the same one with the
// driver's name replaced, look the same from outside and inside.
func TestA49BridgeFile(t *testing.T) {
	w := newComposeWorld(t)
	text, err := os.ReadFile("testdata/bridge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"bridge", "nftnet"} {
		t.Run(driver, func(t *testing.T) {
			file := filepath.Join(w.Dir, driver+".yaml")
			of := strings.ReplaceAll(string(text), "driver: bridge", "driver: "+driver)
			if err := os.WriteFile(file, []byte(of), 0o644); err != nil {
				t.Fatal(err)
			}
			w.runProject(t, file, tryBridgeFile)
		})
	}
}

func tryBridgeFile(t *testing.T, p project) {
	reaches(t, p.LAN, "LAN", url(p.HostAddr4, 8080))
	reaches(t, p.Host, "host", url(p.HostAddr4, 8080))
	reaches(t, p.Host, "host", url(localhost4, 8081))
	for _, where := range []struct {
		from *nstest.NS
		to   string
	}{
		{p.Host, url(localhost4, 8080)}, {p.LAN, url(p.HostAddr6, 8080)}, {p.LAN, url(p.HostAddr4, 8081)},
	} {
		if r, err := where.from.TryGet(where.to, silence); err == nil {
			t.Errorf("%s answers (%+v), it is not published there", where.to, r)
		}
	}
	p.tryFront(t)
	if _, err := p.engine.Peer(t, p.container(t, "guest"), "http", "-timeout", silence.String(), "http://stranger/"); err == nil {
		t.Error("containers reach each other with enable_icc=false")
	}
}

// tryFront tries what the file says of network front.
func (p project) tryFront(t *testing.T) {
	front := p.network(t, "front")
	if out := p.Exec(t, "ip", "-d", "link", "show", "br-front"); !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "bridge") {
		t.Errorf("the bridge: %s", out)
	}
	app := p.container(t, "app")
	if a := p.address(t, app, front, false).String(); a != "10.90.0.130" && a != "10.90.0.131" {
		t.Errorf("app has the address %s, which is outside of the range, or taken", a)
	}
	if out := p.engine.Docker(t, "exec", app, "ip", "route"); !strings.Contains(out, "default via 10.90.0.254 ") {
		t.Errorf("app has the routes\n%s", out)
	}
	if _, err := p.engine.Peer(t, app, "http", "http://www/"); err != nil {
		t.Errorf("app to web by its alias: %v", err)
	}
	out := p.engine.Docker(t, "network", "inspect", "-f", `{{.Attachable}} {{index .Labels "org.example.team"}}`, front)
	if out != "true web" {
		t.Errorf("attachable and label are %q, want \"true web\"", out)
	}
	if out := p.engine.Docker(t, "network", "inspect", "-f", "{{.Internal}}", p.network(t, "back")); out != "true" {
		t.Errorf("back is internal: %s", out)
	}
}
