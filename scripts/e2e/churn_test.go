package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// TestA62Churn: 30 containers come and go in random order, and the driver is
// restarted in between. The bridge's MAC stays the same, and no connection fails
// that a container which stays has or makes.
func TestA62Churn(t *testing.T) {
	w := newWorld(t)
	w.lanServers(t)
	w.dual(t, "web", 81)
	w.dual(t, "other", 82)
	bridge := w.bridgeOf(t, "web")
	want := w.macOf(t, bridge)
	ownMAC(t, want)
	if want == w.macOf(t, w.bridgeOf(t, "other")) {
		t.Errorf("the bridges of two networks have one MAC, %s", want)
	}
	macs := w.watchMAC(t, bridge)
	w.run(t, "stays", "web", "-p", "8080:80", "-p", fmt.Sprint(talkPort)+":7")
	stays := w.engine.NS(t, "stays")
	open := w.kernelTalks(t, stays)
	ways := append(append(w.lanWays(8080), w.hostWays(8080)...), w.containerWays(stays, 8080)...)

	const seed = 62
	t.Logf("seed %d", seed)
	c := crowd{rand: rand.New(rand.NewPCG(seed, 0)), most: 30}
	restarts := []restart{{10, w.stopDriver}, {20, w.killDriver}}
	for c.step(t, w) {
		if _, err := ask(ways, 3*time.Second); err != nil {
			t.Errorf("after %s: %v", c.last, err)
		}
		if len(restarts) > 0 && c.started >= restarts[0].after {
			restarts[0].end(t)
			restarts = restarts[1:]
			w.startDriver(t)
		}
	}
	open.end(t)
	for _, mac := range macs() {
		if mac != want {
			t.Errorf("the bridge's MAC was %s for a time, it was made with %s", mac, want)
		}
	}
	if mac := w.macOf(t, bridge); mac != want {
		t.Errorf("the bridge's MAC is %s at the end, it was made with %s", mac, want)
	}
}

// restart is an end of the driver after a number of containers have come.
type restart struct {
	after int
	end   func(t *testing.T)
}

func (w *world) stopDriver(t *testing.T) { w.driver.Stop(t) }
func (w *world) killDriver(t *testing.T) { w.driver.Kill(t) }

// ownMAC asserts that an address is locally administered and unicast.
func ownMAC(t *testing.T, text string) {
	t.Helper()
	mac, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	if mac[0]&3 != 2 {
		t.Errorf("MAC %s is not a locally administered unicast address", text)
	}
}

// watchMAC notes each address that an interface of the host has from now on.
func (w *world) watchMAC(t *testing.T, name string) (read func() []string) {
	t.Helper()
	monitor := w.Start(t, "links", "ip", "-o", "monitor", "link")
	line := regexp.MustCompile(`(?m)^\d+: ` + regexp.QuoteMeta(name) + `:.*link/ether (\S+)`)
	read = func() []string {
		var out []string
		for _, m := range line.FindAllStringSubmatch(monitor.Log(), -1) {
			out = append(out, m[1])
		}
		return out
	}
	// Nothing says that it listens: it does once it tells of a change.
	length := 1000
	within(t, 5*time.Second, "the watch of the bridge", func() error {
		length++
		w.Host.Exec(t, "ip", "link", "set", name, "txqueuelen", strconv.Itoa(length))
		if len(read()) == 0 {
			return errors.New("it has told of nothing yet")
		}
		return nil
	})
	return read
}

// crowd is a number of containers that come and go.
type crowd struct {
	rand          *rand.Rand
	most, started int
	here          []string
	last          string
}

// step starts up to three containers and removes some, at random, and reports
// whether there was anything left to do.
func (c *crowd) step(t *testing.T, w *world) bool {
	t.Helper()
	var come, gone []string
	for range min(1+c.rand.IntN(3), c.most-c.started) {
		c.started++
		come = append(come, fmt.Sprintf("x%d", c.started))
	}
	c.rand.Shuffle(len(c.here), func(i, j int) { c.here[i], c.here[j] = c.here[j], c.here[i] })
	n := c.rand.IntN(len(c.here) + 1)
	if len(come) == 0 {
		n = len(c.here)
	}
	gone, c.here = c.here[:n], append(come, c.here[n:]...)
	var all sync.WaitGroup
	for _, name := range come {
		all.Go(func() {
			if _, stderr, err := w.engine.TryDocker("run", "-d", "--name", name, "--network", "web", w.image, "sleep", "1d"); err != nil {
				t.Errorf("start %s: %v: %s", name, err, stderr)
			}
		})
	}
	if len(gone) > 0 {
		all.Go(func() {
			if _, stderr, err := w.engine.TryDocker(append([]string{"rm", "-f"}, gone...)...); err != nil {
				t.Errorf("remove %q: %v: %s", gone, err, stderr)
			}
		})
	}
	all.Wait()
	c.last = "starting " + strings.Join(come, ", ") + " and removing " + strings.Join(gone, ", ")
	return len(come)+len(gone) > 0
}

// TestA62OlderBridge: a bridge that an older version made has the MAC of one of
// its ports. The driver gives it its own at the start, and nobody loses a
// connection by that.
func TestA62OlderBridge(t *testing.T) {
	w := newWorld(t)
	w.lanServers(t)
	w.dual(t, "web", 81)
	bridge := w.bridgeOf(t, "web")
	want := w.macOf(t, bridge)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", fmt.Sprint(talkPort)+":7")
	c1 := w.engine.NS(t, "c1")
	w.driver.Stop(t)
	const older = "02:00:5e:00:53:01"
	w.Host.Exec(t, "ip", "link", "set", bridge, "address", older)
	w.knowsGateway(t, c1, older)
	open := w.kernelTalks(t, c1)
	open.goOn(t)
	w.startDriver(t)
	if mac := w.macOf(t, bridge); mac != want {
		t.Errorf("the bridge's MAC is %s after the start, want its own, %s", mac, want)
	}
	ways := append(append(w.lanWays(8080), w.hostWays(8080)...), w.containerWays(c1, 8080)...)
	answer(t, 5*time.Second, "new connections", ways)
	open.end(t)
}

// knowsGateway lets a container learn anew which MAC its gateways have.
func (w *world) knowsGateway(t *testing.T, c *nstest.NS, mac string) {
	t.Helper()
	c.Exec(t, "ip", "neigh", "flush", "dev", "eth0")
	for _, gateway := range []string{"10.81.0.1", "fd00:81::1"} {
		c.Exec(t, "busybox", "ping", "-c", "1", "-W", "3", gateway)
		if out := c.Exec(t, "ip", "neigh", "show", gateway, "dev", "eth0"); !strings.Contains(out, mac) {
			t.Fatalf("the container believes of its gateway: %q, want %s", out, mac)
		}
	}
}
