package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	stormKills = flag.Int("kills", 40, "how often TestA74Storm kills the driver")
	stormSeed  = flag.Uint64("seed", 1, "seed of TestA74Storm")
)

// TestA74Storm kills the driver at seeded moments of what users do, and has it
// start again at once. A user tries again what failed, as users do. Then all
// sides agree, and nobody who had nothing to do with it noticed.
//
// Two worlds share the kills: one waits while the other works.
func TestA74Storm(t *testing.T) {
	for _, half := range []uint64{0, 1} {
		t.Run(fmt.Sprintf("seed %d.%d", *stormSeed, half), func(t *testing.T) {
			kills := (*stormKills + int(half)) / 2
			newStorm(t, rand.New(rand.NewPCG(*stormSeed, half))).rage(t, kills)
		})
	}
}

// storm is a world in which the driver is killed.
type storm struct {
	*world
	rand  *rand.Rand
	lanes []*lane
	// took is how long each kind of action took undisturbed: a kill comes at a
	// seeded part of that.
	took map[string]time.Duration

	history []string
	faults  []string
	counts  map[string]int
}

// lane is what acts on things of its own, one after the other: two lanes have
// two actions under way when the driver is killed.
type lane struct {
	storm     *storm
	n, seq    int
	networks  []string
	running   []string
	stopped   []string
	redirects []int
}

// startTime is about what a start of the driver takes.
const startTime = 60 * time.Millisecond

// stayingPort and echoPort are those of the container that stays.
const stayingPort, echoPort = 8080, 7000

func newStorm(t *testing.T, r *rand.Rand) *storm {
	t.Helper()
	s := &storm{world: newWorld(t), rand: r, took: map[string]time.Duration{}, counts: map[string]int{}}
	s.dual(t, "stay", 90)
	s.run(t, "stay", "stay", "-p", fmt.Sprintf("%d:80", stayingPort), "-p", fmt.Sprintf("%d:7", echoPort))
	for n := range 2 {
		s.lanes = append(s.lanes, &lane{storm: s, n: n})
	}
	// Each kind once without a kill, in an order in which each can be done.
	for _, kind := range []string{"create", "run", "restart", "stop", "start", "rm", "delete", "redirect", "unredirect"} {
		begin := time.Now()
		if a := s.lanes[0].action(kind); a.fails() {
			t.Fatalf("%s without a kill: %s", a.what, a.err)
		}
		s.took[kind] = time.Since(begin)
	}
	return s
}

// action is something that a user does.
type action struct {
	lane       *lane
	kind, what string
	do         func() (stderr string, err error)
	// again is what a user does after a failure; nil for the same.
	again func() (stderr string, err error)
	// done notes that it was done.
	done func()

	err string
}

// fails does the action and reports whether it failed.
func (a *action) fails() bool { return a.failsBy(a.do) }

func (a *action) failsBy(do func() (string, error)) bool {
	if stderr, err := do(); err != nil {
		a.err = fmt.Sprintf("%v: %s", err, strings.Join(strings.Fields(stderr), " "))
		return true
	}
	a.done()
	return false
}

// may lists the kinds of actions that a lane can do now.
func (l *lane) may() []string {
	var kinds []string
	if len(l.networks) < 3 {
		kinds = append(kinds, "create")
	}
	if len(l.redirects) < 3 {
		kinds = append(kinds, "redirect")
	}
	if len(l.networks) > 0 && len(l.running) < 3 {
		kinds = append(kinds, "run", "run")
	}
	if len(l.running) > 0 {
		kinds = append(kinds, "restart", "stop", "rm")
	}
	if len(l.stopped) > 0 {
		kinds = append(kinds, "start")
	}
	if l.emptyNetwork() != "" {
		kinds = append(kinds, "delete")
	}
	if len(l.redirects) > 0 {
		kinds = append(kinds, "unredirect")
	}
	return kinds
}

// emptyNetwork is a network without containers: theirs is named after it.
func (l *lane) emptyNetwork() string {
	for _, n := range l.networks {
		used := func(c string) bool { return strings.HasSuffix(c, "-"+n) }
		if !slices.ContainsFunc(l.running, used) && !slices.ContainsFunc(l.stopped, used) {
			return n
		}
	}
	return ""
}

// action returns an action of a kind that the lane may do.
func (l *lane) action(kind string) *action {
	s := l.storm
	l.seq++
	pick := func(list []string) string { return list[s.rand.IntN(len(list))] }
	docker := func(args ...string) func() (string, error) {
		return func() (string, error) { _, stderr, err := s.engine.TryDocker(args...); return stderr, err }
	}
	nftnet := func(args ...string) func() (string, error) {
		return func() (string, error) { return s.redirect(args...) }
	}
	move := func(name string, from, to *[]string) func() {
		return func() {
			*from = slices.DeleteFunc(*from, func(n string) bool { return n == name })
			if to != nil {
				*to = append(*to, name)
			}
		}
	}
	a := &action{lane: l, kind: kind}
	switch kind {
	case "create":
		n, subnet := fmt.Sprintf("n%d%d", l.n, l.seq), l.n*125+l.seq%125
		a.what = "network create " + n
		a.do = docker("network", "create", "-d", "nftnet", "--subnet", fmt.Sprintf("10.91.%d.0/24", subnet),
			"--ipv6", "--subnet", fmt.Sprintf("fd00:91:%d::/64", subnet), n)
		a.done = func() { l.networks = append(l.networks, n) }
	case "run":
		n := pick(l.networks)
		c, port := fmt.Sprintf("c%d%d-%s", l.n, l.seq, n), s.portOf(l)
		a.what = fmt.Sprintf("run %s on port %d", c, port)
		a.do = docker("run", "-d", "--name", c, "--network", n, "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:53/udp", port),
			s.image, "/peer", "serve", "-http", ":80", "-udp", ":53")
		a.again = docker("start", c)
		a.done = func() { l.running = append(l.running, c) }
	case "restart":
		c := pick(l.running)
		a.what, a.do, a.done = "restart "+c, docker("restart", "-t", "0", c), func() {}
	case "stop":
		c := pick(l.running)
		a.what, a.do, a.done = "stop "+c, docker("stop", "-t", "0", c), move(c, &l.running, &l.stopped)
	case "start":
		c := pick(l.stopped)
		a.what, a.do, a.done = "start "+c, docker("start", c), move(c, &l.stopped, &l.running)
	case "rm":
		c := pick(l.running)
		a.what, a.do, a.done = "rm -f "+c, docker("rm", "-f", c), move(c, &l.running, nil)
	case "delete":
		n := l.emptyNetwork()
		a.what, a.do, a.done = "network rm "+n, docker("network", "rm", n), move(n, &l.networks, nil)
		a.again = unlessGone(a.do, "not found", "No such network")
	case "redirect":
		port := s.portOf(l)
		a.what, a.do = fmt.Sprintf("redirect add %d", port), nftnet("add", fmt.Sprint(port), "3000")
		a.again = unlessGone(a.do, fmt.Sprintf("redirect %d-tcp (%d/tcp to 3000) has", port, port))
		a.done = func() { l.redirects = append(l.redirects, port) }
	case "unredirect":
		port := l.redirects[0]
		a.what, a.do = fmt.Sprintf("redirect rm %d", port), nftnet("rm", fmt.Sprintf("%d-tcp", port))
		a.again = unlessGone(a.do, "there is no redirect")
		a.done = func() { l.redirects = l.redirects[1:] }
	}
	if a.again == nil {
		a.again = a.do
	}
	return a
}

// unlessGone counts it as done when an error says that the first try did it: its
// answer was lost with the driver.
func unlessGone(do func() (string, error), words ...string) func() (string, error) {
	return func() (string, error) {
		stderr, err := do()
		for _, w := range words {
			if err != nil && strings.Contains(stderr, w) {
				return stderr, nil
			}
		}
		return stderr, err
	}
}

// portOf is a host port of the lane's own, different at each step.
func (s *storm) portOf(l *lane) int { return 20000 + 5000*l.n + l.seq%5000 }

// rage kills the driver so many times, and looks at what is left.
func (s *storm) rage(t *testing.T, kills int) {
	defer func() {
		if t.Failed() {
			t.Logf("what was done:\n%s", strings.Join(s.history, "\n"))
		}
	}()
	streams := []*heartbeat{
		startHeartbeat(t, s.LAN, "LAN", netip.AddrPortFrom(s.HostAddr4, echoPort).String()),
		startHeartbeat(t, s.LAN, "LAN by IPv6", netip.AddrPortFrom(s.HostAddr6, echoPort).String()),
		startHeartbeat(t, s.Host, "host by 127.0.0.1", netip.AddrPortFrom(localhost4, echoPort).String()),
	}
	for killed, round := 0, 0; killed < kills; round++ {
		killed += s.round(t, round)
	}
	s.driver.WaitFor(t, "msg=serving", 20*time.Second)
	t.Logf("%d kills: %v", kills, s.counts)
	for _, h := range streams {
		h.stop(t)
	}
	for _, f := range s.faults {
		t.Error(f)
	}
	s.cleanUp(t)
}

// round begins one action in each lane, kills the driver meanwhile, starts it
// again, and tries again what failed. In some rounds it kills the driver once
// more while it starts. It returns how often it did.
func (s *storm) round(t *testing.T, round int) (kills int) {
	var wait sync.WaitGroup
	var actions []*action
	for _, l := range s.lanes {
		kinds := l.may()
		actions = append(actions, l.action(kinds[s.rand.IntN(len(kinds))]))
	}
	// The moment is one of the first lane's in one round, of the second's in the
	// next.
	moment := time.Duration(s.rand.Float64() * 1.1 * float64(s.took[actions[round%2].kind]))
	pause := []time.Duration{0, 0, 100 * time.Millisecond, 500 * time.Millisecond}[s.rand.IntN(4)]
	s.driver.WaitFor(t, "msg=serving", 20*time.Second)
	failed := make([]bool, len(actions))
	for i, a := range actions {
		wait.Go(func() { failed[i] = a.fails() })
	}
	time.Sleep(moment)
	s.driver.Kill(t)
	time.Sleep(pause)
	s.driver.Restart(t)
	kills = 1
	if s.rand.IntN(4) == 0 {
		time.Sleep(time.Duration(s.rand.Int64N(int64(startTime))))
		s.driver.Kill(t)
		s.driver.Restart(t)
		kills = 2
	}
	wait.Wait()
	s.driver.WaitFor(t, "msg=serving", 20*time.Second)
	for i, a := range actions {
		s.finish(round, moment, a, failed[i])
	}
	return kills
}

// finish tries an action again that failed, once.
func (s *storm) finish(round int, moment time.Duration, a *action, failed bool) {
	line := fmt.Sprintf("%3d, killed after %v: %s", round, moment.Round(time.Millisecond), a.what)
	s.counts[a.kind]++
	if failed {
		s.counts[a.kind+" failed"]++
		line += ": " + a.err
		if a.failsBy(a.again) {
			s.faults = append(s.faults, fmt.Sprintf("round %d: %s fails, and once more: %s", round, a.what, a.err))
			line += "; again: " + a.err
			s.giveUp(a)
		}
	}
	s.history = append(s.history, line)
}

// giveUp removes what an action began that cannot be finished.
func (s *storm) giveUp(a *action) {
	if a.kind == "run" {
		name := strings.Fields(a.what)[1]
		_, _, _ = s.engine.TryDocker("rm", "-f", name)
	}
}

// cleanUp asserts that all sides agree after the storm, that all that runs
// answers, and that nothing is left when all is removed.
func (s *storm) cleanUp(t *testing.T) {
	var ports, listed []int
	for _, l := range s.lanes {
		ports = append(ports, l.redirects...)
	}
	for _, r := range s.listRedirects(t) {
		listed = append(listed, int(r.Port))
	}
	if slices.Sort(ports); !slices.Equal(ports, listed) {
		t.Errorf("redirects of ports %v are listed, those of %v were added and not removed", listed, ports)
	}
	// The driver compares with Docker's list by itself; what it leaves to the
	// user goes by prune.
	var left []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if left = s.disagreements(t); len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		out, err := s.prune("", "--yes")
		t.Logf("20 s after the storm there was left\n  %s\nnftnet prune --yes: %v, %s", strings.Join(left, "\n  "), err, out)
	}
	if !s.agrees(t, 5*time.Second) {
		return
	}
	for _, c := range s.containers(t) {
		for inside, bindings := range c.HostConfig.PortBindings {
			if c.State.Running && inside == "80/tcp" {
				var port int
				_, _ = fmt.Sscan(bindings[0].HostPort, &port)
				settles(t, 5*time.Second, "the port of container "+c.Name, func() []string { return s.unanswered(port) })
			}
		}
	}
	for _, c := range s.containers(t) {
		s.engine.Docker(t, "rm", "-f", c.Name)
	}
	for _, n := range append(slices.Concat(s.lanes[0].networks, s.lanes[1].networks), "stay") {
		s.engine.Docker(t, "network", "rm", n)
	}
	for _, r := range s.listRedirects(t) {
		s.mustRedirect(t, "rm", r.Name)
	}
	s.agrees(t, 20*time.Second)
	if l := s.links(t); l != "" {
		t.Errorf("links are left: %s", l)
	}
	if lines := s.ownedLines(t); len(lines) > 0 {
		t.Errorf("the table still has\n%s", strings.Join(lines, "\n"))
	}
}
