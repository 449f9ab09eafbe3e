package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// liveWorld is a world whose engine leaves its containers running, with one
// that is asked and asks.
func liveWorld(t *testing.T) (w *world, c1 *nstest.NS, ways []way) {
	t.Helper()
	w = emptyWorld(t)
	w.startDriver(t)
	w.engine = w.StartEngine(t, "--live-restore")
	w.image = w.engine.Image(t)
	w.lanServers(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", fmt.Sprint(talkPort)+":7", "-p", "5353:53/udp")
	c1 = w.engine.NS(t, "c1")
	return w, c1, slices.Concat(w.lanWays(8080), w.hostWays(8080), w.containerWays(c1, 8080))
}

// holdings is all that the driver has on the host, and says that it has.
func (w *world) holdings(t *testing.T) string {
	t.Helper()
	var sockets []string
	for line := range strings.Lines(w.Exec(t, "ss", "-Hlntu")) {
		f := strings.Fields(line)
		sockets = append(sockets, f[0]+" "+f[4])
	}
	return strings.Join([]string{
		w.tableText(t), w.textOf(t, "bridge", "nftnet"), w.links(t), strings.Join(sorted(sockets), "\n"), w.nftnet(t, "ports"),
	}, "\n\n")
}

// unchanged waits until the driver holds what it held before.
func (w *world) unchanged(t *testing.T, what, before string) {
	t.Helper()
	within(t, repairBound, what, func() error { return differ(w.holdings(t), before) })
}

// byKernel leaves out the ways that need the driver's process.
func byKernel(ways []way) []way {
	return slices.DeleteFunc(slices.Clone(ways), func(x way) bool { return strings.Contains(x.name, "[::1]") })
}

// TestA36DriverRestarts: the driver is killed and stopped under connections in
// all directions.
func TestA36DriverRestarts(t *testing.T) {
	w, c1, ways := liveWorld(t)
	before := w.holdings(t)
	open := w.kernelTalks(t, c1)
	for i, end := range []func(*testing.T){w.killDriver, w.stopDriver, w.killDriver} {
		end(t)
		answer(t, repairBound, "while the driver is down", byKernel(ways))
		w.startDriver(t)
		answer(t, repairBound, "once the driver is back", ways)
		open.goOn(t)
		w.unchanged(t, fmt.Sprintf("what the driver holds after restart %d", i+1), before)
	}
	open.end(t)
	w.gone(t)
}

// gone removes the container and asserts that nothing of it is left, and that
// another gets its ports.
func (w *world) gone(t *testing.T) {
	t.Helper()
	w.engine.Docker(t, "rm", "-f", "c1")
	if out := w.nftnet(t, "ports"); out != "no ports are published" {
		t.Errorf("without containers nftnet ports says:\n%s", out)
	}
	if l := w.links(t); strings.Contains(l, "nfv") {
		t.Errorf("links are left: %s", l)
	}
	for _, line := range w.ownedLines(t) {
		if strings.Contains(line, "ep=") {
			t.Errorf("the table speaks of a container still: %s", line)
		}
	}
	for _, port := range []int{8080, talkPort} {
		nstestFree(t, w, fmt.Sprintf("0.0.0.0:%d", port))
	}
	w.run(t, "c9", "web", "-p", "8080:80")
	answer(t, repairBound, "another container with the same port", append(w.lanWays(8080), w.hostWays(8080)...))
}

// TestA51LiveRestore: the engine is stopped and killed, alone and together with
// the driver, and its containers run on.
func TestA51LiveRestore(t *testing.T) {
	w, c1, ways := liveWorld(t)
	before := w.holdings(t)
	open := w.kernelTalks(t, c1)
	served := startTalk(t, "host to [::1]", w.Host, hostAddrs(w)[1], talkPort)
	for _, row := range []struct {
		name string
		end  func()
	}{
		{"stopped", func() { w.engine.Stop(t) }},
		{"killed", func() { w.engine.Kill(t) }},
	} {
		row.end()
		answer(t, repairBound, "while the engine is "+row.name, ways)
		w.engine.Start(t)
		answer(t, repairBound, "once the engine is back", ways)
		w.unchanged(t, "what the driver holds after the engine was "+row.name, before)
		open.goOn(t)
		served.goesOn(t)
	}
	served.end(t)

	w.engine.Kill(t)
	w.driver.Kill(t)
	answer(t, repairBound, "while engine and driver are down", byKernel(ways))
	w.startDriver(t)
	w.engine.Start(t)
	answer(t, repairBound, "once engine and driver are back", ways)
	w.unchanged(t, "what the driver holds after both were killed", before)
	open.end(t)
	w.gone(t)
}

// TestA51Reboot: the host reboots. All links and rules are gone; the state
// file and the engine's data are not.
func TestA51Reboot(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world){
		"after a shutdown": func(t *testing.T, w *world) {
			w.engine.Stop(t)
			w.driver.Stop(t)
		},
		"after a power failure": func(*testing.T, *world) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lanServers(t)
			w.dual(t, "web", 81)
			w.network(t, "plain", "--subnet", "10.82.0.0/24", "-o", "com.docker.network.driver.mtu=1400")
			w.run(t, "c1", "web", "--restart", "always", "-p", "8080:80", "-p", "5353:53/udp")
			w.run(t, "c2", "plain", "--restart", "always", "-p", "8082:80")
			w.run(t, "once", "web", "-p", "8083:80")
			w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "ip", "saddr", "198.51.100.7", "drop")
			w.driver.WaitFor(t, "kept a copy of the user's rules", repairBound)
			macs := []string{w.macOf(t, w.bridgeOf(t, "web")), w.macOf(t, w.bridgeOf(t, "plain"))}

			end(t, w)
			w.Reboot(t)
			if l := w.links(t); l != "" {
				t.Fatalf("there are links after the reboot: %s", l)
			}
			w.startDriver(t)
			w.engine.Start(t)

			c1, c2 := w.engine.NS(t, "c1"), w.engine.NS(t, "c2")
			answer(t, repairBound, "containers that restart always", slices.Concat(
				w.lanWays(8080), w.hostWays(8080), w.containerWays(c1, 8080),
				w.lanWays(8082), w.hostWays(8082), []way{{"c2 to LAN", c2, url(w.LANAddr4, 80)}, {"c2 to c1", c2, url(w.HostAddr4, 8080)}}))
			if after := []string{w.macOf(t, w.bridgeOf(t, "web")), w.macOf(t, w.bridgeOf(t, "plain"))}; !slices.Equal(after, macs) {
				t.Errorf("the bridges have the MACs %q, they had %q before the reboot", after, macs)
			}
			if text := w.tableText(t); !strings.Contains(text, "ip saddr 198.51.100.7 drop") {
				t.Errorf("the user's rule is lost:\n%s", text)
			}
			if n := strings.Count(w.links(t), "nfv"); n != 2 {
				t.Errorf("%d links of containers, want two: %s", n, w.links(t))
			}
			// Two ports of c1 and one of c2, each by both families.
			if list := w.published(t); len(list) != 6 {
				t.Errorf("%d ports are published, want 6: %+v", len(list), list)
			}
			w.engine.Docker(t, "start", "once")
			w.engine.WaitLog(t, "once", "ready")
			w.dual(t, "new", 83)
			w.run(t, "c3", "new", "-p", "8084:80")
			answer(t, repairBound, "containers that start later", slices.Concat(w.lanWays(8083), w.lanWays(8084), w.hostWays(8084)))
			if r := w.status(t); !r.OK {
				t.Errorf("status finds errors: %+v", r.Findings)
			}
		})
	}
}
