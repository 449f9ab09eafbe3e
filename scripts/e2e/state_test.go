package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// tinyDisk puts the state file on a file system of its own that has room for
// little, and returns what fills it to the last byte and what empties it again.
func (w *world) tinyDisk(t *testing.T) (fill, free func()) {
	t.Helper()
	dir := filepath.Join(w.Dir, "disk")
	w.Exec(t, "mkdir", dir)
	w.Exec(t, "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir)
	// Inside and outside of the sandbox this path leads to the mount.
	w.state = w.Path(filepath.Join(dir, "state.db"))
	filler := filepath.Join(dir, "filler")
	fill = func() {
		t.Helper()
		if _, err := w.Try("dd", "if=/dev/zero", "of="+filler, "bs=1k", "count=1000"); err == nil {
			t.Fatal("the disk is not full")
		}
	}
	return fill, func() { t.Helper(); w.Exec(t, "rm", filler) }
}

// diskFull is what an error of a full disk has to name.
var diskFull = []string{"state file", "no space left on device"}

// TestA74DiskFull: with a full disk what is made is refused and changes nothing,
// what is removed is gone from the kernel at once; with space it is written.
func TestA74DiskFull(t *testing.T) {
	w := emptyWorld(t)
	fill, free := w.tinyDisk(t)
	w.startDriver(t)
	w.startEngine(t)
	empty := w.tableText(t)
	w.dual(t, "web", 81)
	w.dual(t, "spare", 82)
	ports := map[string]int{"c1": 8081, "c2": 8082, "c3": 8083}
	for name, port := range ports {
		w.run(t, name, "web", "-p", fmt.Sprintf("%d:80", port))
	}
	fill()

	fitted := w.refusedAtFullDisk(t)
	w.repaired(t, 8081)
	for name, port := range ports {
		w.engine.Docker(t, "rm", "-f", name)
		w.goneFromKernel(t, port)
	}
	if out := w.nftnet(t, "ports"); out != "no ports are published" {
		t.Errorf("nftnet ports after all containers are removed:\n%s", out)
	}
	if l := w.links(t); strings.Contains(l, "nfv") || strings.Contains(l, "nfc") {
		t.Errorf("links of removed containers: %s", l)
	}
	// It may be refused, but never halfway.
	if _, stderr, err := w.engine.TryDocker("run", "-d", "--name", "late", "--network", "spare", "-p", "8081:80", w.image, "/peer", "serve", "-http", ":80"); err == nil {
		w.engine.WaitLog(t, "late", "ready")
		settles(t, 5*time.Second, "a container that was started on the full disk", func() []string { return w.unanswered(8081) })
	} else if !strings.Contains(stderr, diskFull[1]) {
		t.Errorf("a new container on the full disk: %s", stderr)
	}
	w.engine.Docker(t, "rm", "-f", "late")
	for _, name := range append(fitted, "web", "spare") {
		w.engine.Docker(t, "network", "rm", name)
	}
	settles(t, 5*time.Second, "what removed networks leave in the kernel", func() []string {
		return append(w.linksView(t).against("links", view{}), w.tableView(t).against("table", view{})...)
	})
	w.ends(t, "on a full disk")
	w.restartDriver(t)
	w.noLongLock(t)

	free()
	w.dual(t, "after", 83)
	w.run(t, "c4", "after", "-p", "8081:80")
	settles(t, 5*time.Second, "a container once there is space", func() []string { return w.unanswered(8081) })
	w.agrees(t, 20*time.Second)
	w.driver.Kill(t)
	w.restartDriver(t)
	w.agrees(t, 20*time.Second)
	w.engine.Docker(t, "rm", "-f", "c4")
	w.engine.Docker(t, "network", "rm", "after")
	w.agrees(t, 20*time.Second)
	w.tableIs(t, empty, "after all is removed")
}

// refusedAtFullDisk asserts that networks and containers are refused, with the
// reason, and change nothing. It returns the first networks, which fitted into
// what the state file has to itself: large ones first, then small ones.
func (w *world) refusedAtFullDisk(t *testing.T) (fitted []string) {
	t.Helper()
	var sources []string
	for n := range 250 {
		sources = append(sources, fmt.Sprintf("198.51.%d.%d", n, 2*n%250))
	}
	for kind, options := range [][]string{{"-o", "nftnet.allow=" + strings.Join(sources, ",")}, nil} {
		for n := 0; ; n++ {
			if n == 100 {
				t.Fatalf("%d networks were made on a full disk", len(fitted))
			}
			name := fmt.Sprintf("n%d-%d", kind, n)
			before, links := w.tableText(t), w.links(t)
			_, stderr, err := w.engine.TryDocker(slices.Concat([]string{
				"network", "create", "-d", "nftnet", "--subnet", fmt.Sprintf("10.%d.%d.0/24", 90+kind, n),
			}, options, []string{name})...)
			if err == nil {
				fitted = append(fitted, name)
				continue
			}
			for _, words := range diskFull {
				if !strings.Contains(stderr, words) {
					t.Errorf("docker network create: error %q does not name %q", stderr, words)
				}
			}
			w.leavesAll(t, "a network", before, links)
			break
		}
	}
	// Many ports do not fit anywhere.
	before, links := w.tableText(t), w.links(t)
	w.refused(t, diskFull, "run", "-d", "--name", "big", "--network", "web", "-p", "20000-20299:20000-20299",
		w.image, "/peer", "serve", "-http", ":80")
	w.engine.Docker(t, "rm", "-f", "big")
	w.leavesAll(t, "a container", before, links)
	t.Logf("%d networks fitted into the state file: %q", len(fitted), fitted)
	return fitted
}

// leavesAll asserts that what was refused left nothing.
func (w *world) leavesAll(t *testing.T, what, table, links string) {
	t.Helper()
	w.tableIs(t, table, "after "+what+" that was refused")
	if now := w.links(t); now != links {
		t.Errorf("%s that was refused changed the links: %s, were %s", what, now, links)
	}
}

// goneFromKernel asserts that nobody answers on a port, and that another program
// can have it.
func (w *world) goneFromKernel(t *testing.T, port int) {
	t.Helper()
	for _, host := range hostAddrs(w) {
		if r, err := w.LAN.TryGet(url(host, port), time.Second); err == nil {
			t.Errorf("port %d of a removed container answers: %+v", port, r)
		}
	}
	w.bindable(t, port)
}

// losses are the ways in which a state file is lost.
var losses = map[string]func(content []byte) []byte{
	"empty":   func([]byte) []byte { return []byte{} },
	"missing": func([]byte) []byte { return nil },
	// Two pages say where everything is, and all of that is gone.
	"truncated": func(b []byte) []byte { return b[:2*os.Getpagesize()+100] },
	"garbage":   func(b []byte) []byte { return bytes.Repeat([]byte("no state "), len(b)/9) },
}

// lose replaces the state file by what a loss leaves of it.
func (w *world) lose(t *testing.T, loss func([]byte) []byte) (left []byte) {
	t.Helper()
	content, err := os.ReadFile(w.state)
	if err != nil {
		t.Fatal(err)
	}
	if left = loss(content); left == nil {
		err = os.Remove(w.state)
	} else {
		err = os.WriteFile(w.state, left, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// lostWorld has two networks, containers with and without ports, and a rule of
// the user's.
func lostWorld(t *testing.T, engine ...string) *world {
	t.Helper()
	w := emptyWorld(t)
	w.startDriver(t)
	w.engine = w.StartEngine(t, engine...)
	w.image = w.engine.Image(t)
	w.dual(t, "web", 81)
	w.dual(t, "apart", 82, "-o", "com.docker.network.bridge.enable_icc=false")
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp")
	w.run(t, "c2", "web")
	w.run(t, "c3", "apart", "-p", "8081:80")
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "198.51.100.1", "drop")
	return w
}

// TestA74StateLost: the state file is lost under running containers. The driver
// says so, keeps what is left of it, and rebuilds it from the kernel and Docker.
func TestA74StateLost(t *testing.T) {
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			w := lostWorld(t)
			before := w.tableText(t)
			w.driver.Stop(t)
			left := w.lose(t, loss)
			w.restartDriver(t)
			w.rebuilt(t, before, left)
		})
	}
}

// TestA74StateLostWithoutEngine: the same where the engine is down when the
// driver starts, and its containers go on by live-restore.
func TestA74StateLostWithoutEngine(t *testing.T) {
	w := lostWorld(t, "--live-restore")
	before := w.tableText(t)
	w.engine.Kill(t)
	w.driver.Stop(t)
	left := w.lose(t, losses["missing"])
	w.restartDriver(t)
	reaches(t, w.LAN, "LAN while the engine is down", url(w.HostAddr4, 8080))
	reaches(t, w.Host, "host while the engine is down", "http://127.0.0.1:8080/")
	w.engine.Start(t)
	w.rebuilt(t, before, left)
}

// rebuilt asserts that all is as it was before the state file was lost, and goes
// on as usual.
func (w *world) rebuilt(t *testing.T, before string, left []byte) {
	t.Helper()
	if !w.agrees(t, 20*time.Second) {
		t.FailNow()
	}
	for _, port := range []int{8080, 8081} {
		settles(t, 5*time.Second, fmt.Sprintf("port %d of a container", port), func() []string { return w.unanswered(port) })
	}
	w.tableIs(t, before, "after the state file was lost")
	w.saysLost(t)
	if len(left) > 0 {
		w.keptAside(t, left)
	}

	w.engine.Docker(t, "rm", "-f", "c1")
	w.goneFromKernel(t, 8080)
	w.run(t, "c4", "web", "-p", "8080:80")
	settles(t, 5*time.Second, "a new container", func() []string { return w.unanswered(8080) })
	w.engine.Docker(t, "rm", "-f", "c2", "c3", "c4")
	w.engine.Docker(t, "network", "rm", "web", "apart")
	w.agrees(t, 20*time.Second)
	if l := w.links(t); l != "" {
		t.Errorf("links are left: %s", l)
	}
	if lines := w.ownedLines(t); len(lines) > 0 {
		t.Errorf("the table still has\n%s", strings.Join(lines, "\n"))
	}
}

// saysLost asserts that the driver's log says aloud what became of the state.
func (w *world) saysLost(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(w.driver.Log()) {
		loud := strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")
		if loud && strings.Contains(line, "state file") && strings.Contains(line, "rebuil") {
			return
		}
	}
	t.Errorf("no warning of the driver speaks of a state file that was lost and rebuilt:\n%s", w.driver.Log())
}

// keptAside asserts that a file beside the state file has what was left of it.
func (w *world) keptAside(t *testing.T, left []byte) {
	t.Helper()
	files, err := filepath.Glob(w.state + "?*")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && bytes.Equal(b, left)
	}) {
		t.Errorf("what was left of the state file is kept nowhere beside it: %q", files)
	}
}

// TestA74TwoDrivers: of two drivers that start at the same moment one serves,
// and the other says why it does not.
func TestA74TwoDrivers(t *testing.T) {
	w := emptyWorld(t)
	// Both wait, awake, for the same file.
	const script = `until [ -e /run/begin ]; do :; done; exec "$0" "$@"`
	var pair []*nstest.Process
	for range 20 {
		if len(pair) == 0 {
			for _, name := range []string{"first", "second"} {
				pair = append(pair, w.Start(t, name, "sh", "-c", script, binary, "serve", "--state", w.state, "--socket", socket))
			}
		} else {
			for _, p := range pair {
				p.Restart(t)
			}
		}
		w.Exec(t, "touch", "/run/begin")
		w.oneServes(t, pair)
		w.Exec(t, "rm", "/run/begin")
		if t.Failed() {
			return
		}
	}
}

func (w *world) oneServes(t *testing.T, pair []*nstest.Process) {
	t.Helper()
	holdsSoon(t, "one of two drivers ends", func() bool { return pair[0].Ended() || pair[1].Ended() })
	serves, gaveUp := pair[0], pair[1]
	if serves.Ended() {
		serves, gaveUp = gaveUp, serves
	}
	if err := gaveUp.Wait(t, time.Second); err == nil || !strings.Contains(gaveUp.Log(), "is nftnet running already?") {
		t.Errorf("the driver that gave up: %v, %q; want an error that names the other process", err, gaveUp.Log())
	}
	if serves.Ended() {
		t.Errorf("none of two drivers serves; one says\n%s", serves.Log())
		return
	}
	serves.WaitFor(t, "msg=serving", 10*time.Second)
	if out, err := w.Try(binary, "ports"); err != nil {
		t.Errorf("the driver that serves cannot be asked: %s, %v", out, err)
	}
	serves.Stop(t)
}

// TestA74SocketIsAFile: what is no socket is never replaced by one.
func TestA74SocketIsAFile(t *testing.T) {
	w := emptyWorld(t)
	const path = "/run/precious"
	w.Exec(t, "sh", "-c", "echo precious > "+path)
	for at, kind := range map[string]string{path: "a regular file", "/run/docker": "a folder"} {
		if out, err := w.tryServe(t, "--socket", at); err == nil || !strings.Contains(out, at) || !strings.Contains(out, kind) {
			t.Errorf("--socket %s: %v, %q; want an error that names %s", at, err, out, kind)
		}
	}
	if got, err := w.Try("cat", path); err != nil || got != "precious" {
		t.Errorf("the file is now %q, %v", got, err)
	}
}

// tryServe starts a driver that must not start, and returns what it says.
func (w *world) tryServe(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return w.tryServeAs(t, nil, args...)
}

func (w *world) tryServeAs(t *testing.T, as []string, args ...string) (string, error) {
	t.Helper()
	p := w.Start(t, "refused", slices.Concat(as, []string{binary, "serve", "--state", w.state}, args)...)
	holdsSoon(t, "the driver ends or serves", func() bool { return p.Ended() || strings.Contains(p.Log(), "msg=serving") })
	if !p.Ended() {
		p.Stop(t)
		return p.Log(), nil
	}
	return p.Log(), p.Wait(t, time.Second)
}

// TestA74WithoutCapability: what the driver lacks is named, and nothing is left
// by its try.
func TestA74WithoutCapability(t *testing.T) {
	w := emptyWorld(t)
	out, err := w.tryServeAs(t, []string{"setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"}, "--socket", socket)
	if err == nil || !strings.Contains(out, "CAP_NET_ADMIN") {
		t.Errorf("a driver without CAP_NET_ADMIN: %v, %q; want an error that names it", err, out)
	}
	if _, err := w.Try("test", "-e", socket); err == nil {
		t.Error("the driver that did not start left its socket")
	}
	w.startDriver(t)
}
