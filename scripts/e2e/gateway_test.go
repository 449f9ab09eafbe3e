package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"nftnet/internal/nstest"
)

// families are the address families of a network.
type families struct{ v4, v6 bool }

func (f families) String() string {
	switch f {
	case families{v4: true}:
		return "IPv4"
	case families{v6: true}:
		return "IPv6"
	}
	return "dual"
}

// rank is what decides which of networks A and B has the container's gateway.
type rank string

const (
	// Networks of equal rank are ordered by name.
	nameAfter  rank = "B after A"
	nameBefore rank = "B before A"
	priority   rank = "B by gw-priority"
)

// event is what happens to the engine or the driver after each step.
type event string

const (
	nothing        event = "plain"
	engineRestarts event = "live-restore"
	engineDies     event = "engine killed"
	driverDies     event = "driver killed"
)

// gatewayCase is one permutation of A65.
type gatewayCase struct {
	version nstest.EngineVersion
	a, b    families
	rank    rank
	event   event
}

func (c gatewayCase) String() string {
	return fmt.Sprintf("%s/A=%s B=%s/%s/%s", c.version, c.a, c.b, c.rank, c.event)
}

// factors are the kinds of a permutation that go together in pairs.
func (c gatewayCase) factors() []string {
	return []string{"engine " + string(c.version), "A " + c.a.String(), "B " + c.b.String(), string(c.rank), string(c.event)}
}

// can reports whether an engine of a major version can make the permutation:
// networks without IPv4 and priorities of gateways came with Docker 28.
func (c gatewayCase) can(major int) bool {
	return major >= 28 || c.a.v4 && c.b.v4 && c.rank != priority
}

// permutations are all that engines of the given major versions can make.
func permutations(majors map[nstest.EngineVersion]int) []gatewayCase {
	kinds := []families{{v4: true}, {v6: true}, {v4: true, v6: true}}
	var out []gatewayCase
	for _, version := range slices.Sorted(maps.Keys(majors)) {
		for _, a := range kinds {
			for _, b := range kinds {
				for _, r := range []rank{nameAfter, nameBefore, priority} {
					for _, e := range []event{nothing, engineRestarts, engineDies, driverDies} {
						if c := (gatewayCase{version, a, b, r, e}); c.can(majors[version]) {
							out = append(out, c)
						}
					}
				}
			}
		}
	}
	return out
}

// pairs are the pairs of kinds that a permutation has.
func (c gatewayCase) pairs() [][2]string {
	var out [][2]string
	f := c.factors()
	for i := range f {
		for j := range i {
			out = append(out, [2]string{f[j], f[i]})
		}
	}
	return out
}

// everyPair selects permutations that have every pair of kinds among them which
// all have. The seed decides between those that add as many.
func everyPair(all []gatewayCase, seed uint64) []gatewayCase {
	left := map[[2]string]bool{}
	for _, c := range all {
		for _, p := range c.pairs() {
			left[p] = true
		}
	}
	adds := func(c gatewayCase) (n int) {
		for _, p := range c.pairs() {
			if left[p] {
				n++
			}
		}
		return n
	}
	all = slices.Clone(all)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []gatewayCase
	for len(left) > 0 {
		best := slices.MaxFunc(all, func(a, b gatewayCase) int { return cmp.Compare(adds(a), adds(b)) })
		for _, p := range best.pairs() {
			delete(left, p)
		}
		out = append(out, best)
	}
	return out
}

// envGateways holds "all" for every permutation, or the seed of a selection.
const envGateways = "NFTNET_GATEWAYS"

// selectedCases are the permutations that this run tries.
func selectedCases(t *testing.T) []gatewayCase {
	t.Helper()
	majors := map[nstest.EngineVersion]int{}
	for _, v := range nstest.Engines() {
		majors[v] = v.Major(t)
	}
	all := permutations(majors)
	text := cmp.Or(os.Getenv(envGateways), "1")
	if text == "all" {
		return all
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%s: use all, or a number as the seed of a selection", envGateways, text)
	}
	some := everyPair(all, seed)
	t.Logf("%d of %d permutations, seed %d (%s=all runs every one)", len(some), len(all), seed, envGateways)
	return some
}

// TestEveryPair: a selection has whatever two kinds go together, in a fraction
// of the permutations, and is the same for the same seed.
func TestEveryPair(t *testing.T) {
	all := permutations(map[nstest.EngineVersion]int{"20.10": 20, "28.5": 28})
	some := everyPair(all, 1)
	if !slices.Equal(some, everyPair(all, 1)) || slices.Equal(some, everyPair(all, 2)) {
		t.Error("the seed does not decide on the selection")
	}
	if len(some) > len(all)/5 {
		t.Errorf("%d of %d permutations are selected", len(some), len(all))
	}
	for _, c := range all {
		for _, p := range c.pairs() {
			if !slices.ContainsFunc(some, func(s gatewayCase) bool { return slices.Contains(s.pairs(), p) }) {
				t.Errorf("no permutation with %v is selected", p)
			}
		}
	}
	for _, c := range all {
		if c.version == "20.10" && (c.a == families{v6: true} || c.rank == priority) {
			t.Errorf("engine 20.10 cannot make %v", c)
		}
	}
}

// TestA65Gateways: whatever networks a container is on and whoever was killed
// meanwhile, each family's published port is where the container's gateway of
// that family is.
func TestA65Gateways(t *testing.T) {
	nstest.RequireRoot(t)
	t.Parallel()
	for _, c := range selectedCases(t) {
		t.Run(c.String(), func(t *testing.T) {
			newGateways(t, c).play(t)
		})
	}
}

// gateways is a world in which a permutation is played: network A is called m,
// network B z or b.
type gateways struct {
	*world
	gatewayCase
	// seen is how much of whose log belongs to earlier steps.
	seen    int
	process *nstest.Process
	names   map[string]string
}

func newGateways(t *testing.T, c gatewayCase) *gateways {
	t.Helper()
	g := &gateways{world: emptyWorld(t), gatewayCase: c, names: map[string]string{}}
	g.startDriver(t)
	var args []string
	if c.event == engineRestarts {
		args = []string{"--live-restore"}
	}
	g.engine = g.StartEngineVersion(t, c.version, args...)
	g.image = g.engine.Image(t)
	g.create(t, "m", 81, c.a)
	g.create(t, g.nameOfB(), 82, c.b)
	return g
}

func (g *gateways) nameOfB() string {
	if g.rank == nameBefore {
		return "b"
	}
	return "z"
}

// create makes a network of some families by the API: clients before 28 know no
// networks without IPv4.
func (g *gateways) create(t *testing.T, name string, n int, f families) {
	t.Helper()
	var subnets []map[string]string
	if f.v4 {
		subnets = append(subnets, map[string]string{"Subnet": fmt.Sprintf("10.%d.0.0/24", n)})
	}
	if f.v6 {
		subnets = append(subnets, map[string]string{"Subnet": fmt.Sprintf("fd00:%d::/64", n)})
	}
	g.post(t, "/networks/create", map[string]any{
		"Name": name, "Driver": "nftnet", "CheckDuplicate": true, "EnableIPv4": f.v4, "EnableIPv6": f.v6, "IPAM": map[string]any{"Config": subnets},
	})
	g.names[g.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", name)[:12]] = name
}

func (g *gateways) post(t *testing.T, path string, request map[string]any) {
	t.Helper()
	if err := g.engine.Post(path, request); err != nil {
		t.Fatal(err)
	}
}

// connect connects the container to network B by the API: clients before 28
// know no priorities.
func (g *gateways) connect(t *testing.T) {
	t.Helper()
	endpoint := map[string]any{}
	if g.rank == priority {
		endpoint["GwPriority"] = 5
	}
	g.post(t, "/networks/"+g.nameOfB()+"/connect", map[string]any{"Container": "c1", "EndpointConfig": endpoint})
}

// step is one thing that a user does to the container.
type step struct {
	name string
	do   func(*testing.T)
	// connectsLater says that a network is connected to the container before it
	// is started again, last that there is no container any more.
	connectsLater, last bool
}

// play takes the steps, with the event of the permutation after each.
func (g *gateways) play(t *testing.T) {
	docker := func(args ...string) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			g.engine.Docker(t, args...)
		}
	}
	policy := "no"
	if g.event == engineDies {
		policy = "always"
	}
	for _, s := range []step{
		{name: "run on A", do: func(t *testing.T) { g.run(t, "c1", "m", "-p", "8080:80", "--restart", policy) }, connectsLater: true},
		{name: "connect B", do: g.connect},
		{name: "restart with both", do: docker("restart", "-t", "5", "c1"), connectsLater: true},
		{name: "disconnect B", do: docker("network", "disconnect", g.nameOfB(), "c1"), connectsLater: true},
		{name: "connect B again", do: g.connect},
		{name: "disconnect A", do: docker("network", "disconnect", "m", "c1")},
		{name: "rm", do: docker("rm", "-f", "c1"), last: true},
	} {
		right := g.served
		if s.last {
			right = func() error { return g.gone(t) }
		}
		g.stays(t, s.name, s.do, right)
		if g.follows(s) {
			g.stays(t, fmt.Sprintf("%s, then %s", s.name, g.event), g.happen, right)
		}
	}
}

// follows reports whether the event of the permutation happens after a step.
//
// A restarted engine that restores a container does not find the name of an
// interface without IPv4 (moby libnetwork/osl RestoreInterfaces compares the
// IPv4 address in both families), so the next "network connect" wants that name
// again and fails: with Docker's own bridge driver as with any other.
func (g *gateways) follows(s step) bool {
	switch g.event {
	case nothing:
		return false
	case engineRestarts:
		return !s.last && (g.a.v4 || !s.connectsLater)
	case engineDies:
		return !s.last
	}
	return true
}

// happen lets the event of the permutation happen.
func (g *gateways) happen(t *testing.T) {
	t.Helper()
	switch g.event {
	case engineRestarts:
		g.engine.Restart(t)
	case engineDies:
		g.engine.Kill(t)
		g.engine.Start(t)
	case driverDies:
		g.driver.Kill(t)
		g.startDriver(t)
	}
}

const (
	// settle is how long a step may take to have its effect.
	settle = 2 * time.Second
	// stay is how many looks at the effect must agree.
	stay = 5
)

// stays takes a step and asserts that its effect comes and does not go.
func (g *gateways) stays(t *testing.T, what string, do func(*testing.T), right func() error) {
	t.Helper()
	do(t)
	err := right()
	for end := time.Now().Add(settle); err != nil && time.Now().Before(end); {
		err = right()
	}
	for i := 0; err == nil && i < stay; i++ {
		if err = right(); err != nil {
			err = fmt.Errorf("right at first, then: %w", err)
		}
	}
	calls := g.calls()
	if err != nil {
		t.Errorf("%s: %v\ncalls: %s", what, err, calls)
	} else {
		t.Logf("%s: calls: %s", what, calls)
	}
}

// calls lists the calls of the engine to the driver since the last time, with
// the network of each.
func (g *gateways) calls() string {
	log := g.driver.Log()
	if g.process != g.driver {
		g.process, g.seen = g.driver, 0
	}
	var out []string
	for line := range strings.Lines(log[g.seen:]) {
		if strings.Contains(line, "msg=call ") {
			out = append(out, g.call(line))
		}
	}
	g.seen = len(log)
	return strings.Join(out, ", ")
}

// call shortens a line of the driver's log to the call, the network and the
// first digits of the endpoint.
func (g *gateways) call(line string) string {
	line, _, failed := strings.Cut(line, " error=")
	var words []string
	for _, field := range strings.Fields(line) {
		switch key, value, _ := strings.Cut(field, "="); key {
		case "name":
			words = append(words, strings.Replace(value, "ExternalConnectivity", "", 1))
		case "network":
			words = append(words, g.names[value])
		case "endpoint":
			words = append(words, fmt.Sprintf("%.4s", value))
		}
	}
	if failed {
		words = append(words, "(failed)")
	}
	return strings.Join(words, " ")
}

// entrances are the ways to a published port, by the family of the host's
// address.
func (g *gateways) entrances() []entrance {
	return []entrance{
		{g.LAN, g.HostAddr4}, {g.LAN, g.HostAddr6},
		{g.Host, netip.MustParseAddr("127.0.0.1")}, {g.Host, netip.IPv6Loopback()},
	}
}

type entrance struct {
	from *nstest.NS
	to   netip.Addr
}

// served compares who answers with the container's own routes: the port of a
// family leads to the container's address on the interface of its default route.
// A container without a default route in a family is served by the other one.
//
// Docker's bridge driver answers nothing in some of these steps: to IPv4
// clients of a container without IPv4, because its proxy crosses from IPv6
// to IPv4 alone; and on 20.10 to IPv6 clients right after the second network is
// connected, because its proxy for the first still has the port. The rule holds
// there too: the port is published without an address, so on each of the host's,
// and a client cannot know which families the container has.
func (g *gateways) served() error {
	own, err := g.gatewayAddresses("c1")
	if err != nil {
		return err
	}
	if !own[0].IsValid() && !own[1].IsValid() {
		return errors.New("the container has no default route")
	}
	var errs []error
	for _, way := range g.entrances() {
		want := cmp.Or(own[1], own[0])
		if way.to.Is4() {
			want = cmp.Or(own[0], own[1])
		}
		r, err := way.from.TryGet(url(way.to, 8080), time.Second/2)
		switch {
		case err != nil:
			errs = append(errs, err)
		case r.Local != netip.AddrPortFrom(want, 80).String():
			errs = append(errs, fmt.Errorf("%s leads to %s, want %s, where the container's gateway is", url(way.to, 8080), r.Local, want))
		}
	}
	return errors.Join(errs...)
}

// gatewayAddresses asks a container's own network namespace for the addresses,
// IPv4 and IPv6, of the interfaces that its default routes leave by.
func (w *world) gatewayAddresses(container string) (own [2]netip.Addr, err error) {
	pid, stderr, err := w.engine.TryDocker("inspect", "-f", "{{.State.Pid}}", container)
	if err != nil {
		return own, fmt.Errorf("inspect %s: %w: %s", container, err, stderr)
	}
	if pid == "0" {
		return own, errors.New("the container does not run")
	}
	ns, err := netns.GetFromPath("/proc/" + pid + "/ns/net")
	if err != nil {
		return own, fmt.Errorf("open the container's namespace: %w", err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return own, fmt.Errorf("open the container's namespace: %w", err)
	}
	defer h.Close()
	for i, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if own[i], err = defaultAddress(h, family); err != nil {
			return own, err
		}
	}
	return own, nil
}

// defaultAddress returns the address of the interface that the default route of
// a family leaves by, or none where there is no such route.
func defaultAddress(h *netlink.Handle, family int) (netip.Addr, error) {
	routes, err := h.RouteList(nil, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list the container's routes: %w", err)
	}
	routes = slices.DeleteFunc(routes, func(r netlink.Route) bool {
		if r.Dst == nil {
			return false
		}
		ones, _ := r.Dst.Mask.Size()
		return ones != 0
	})
	if len(routes) == 0 {
		return netip.Addr{}, nil
	}
	best := slices.MinFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	link, err := h.LinkByIndex(best.LinkIndex)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the interface of the container's default route: %w", err)
	}
	addrs, err := h.AddrList(link, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list the container's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.Scope == int(netlink.SCOPE_UNIVERSE) {
			return ip.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s of the container has a default route and no address", link.Attrs().Name)
}

// gone looks whether nothing is left of the container's port.
func (g *gateways) gone(t *testing.T) error {
	var errs []error
	for _, way := range g.entrances() {
		if r, err := way.from.TryGet(url(way.to, 8080), time.Second/4); err == nil {
			errs = append(errs, fmt.Errorf("%s answers (%+v) after the container's end", url(way.to, 8080), r))
		}
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		errs = append(errs, g.Host.Do(func() error { return bind(network, ":8080") }))
	}
	if list := g.published(t); len(list) > 0 {
		errs = append(errs, fmt.Errorf("nftnet ports lists %+v after the container's end", list))
	}
	return errors.Join(errs...)
}

// bind reports why a port cannot be had.
func bind(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// TestRoutedNonGateway: a port that is published on a routed network is open
// there also where another network has the container's gateway, of which
// Docker tells the driver in Join alone.
func TestRoutedNonGateway(t *testing.T) {
	nstest.RequireRoot(t)
	t.Parallel()
	for _, v := range nstest.Engines() {
		t.Run(string(v), func(t *testing.T) {
			w := emptyWorld(t)
			w.startDriver(t)
			w.engine = w.StartEngineVersion(t, v)
			w.image = w.engine.Image(t)
			w.dual(t, "a-nat", 81)
			w.dual(t, "b-routed", 82, "-o", mode4+"routed", "-o", mode6+"routed")
			w.routes(t, 81, 82)
			w.run(t, "c1", "a-nat", "-p", "8080:80")
			w.engine.Docker(t, "network", "connect", "b-routed", "c1")
			t.Run("connected", w.routedNonGateway)
			w.engine.Docker(t, "restart", "-t", "5", "c1")
			w.engine.WaitLog(t, "c1", "ready")
			t.Run("started with both", w.routedNonGateway)
			w.engine.Docker(t, "network", "disconnect", "a-nat", "c1")
			w.bothFamilies(t, "c1", "b-routed", func(t *testing.T, a netip.Addr) {
				reaches(t, w.LAN, "LAN to the routed address, now of the gateway", url(a, 80))
			})
		})
	}
}

func (w *world) routedNonGateway(t *testing.T) {
	nat := [2]netip.Addr{w.address(t, "c1", "a-nat", false), w.address(t, "c1", "a-nat", true)}
	routed := [2]netip.Addr{w.address(t, "c1", "b-routed", false), w.address(t, "c1", "b-routed", true)}
	own, err := w.gatewayAddresses("c1")
	if err != nil {
		t.Fatal(err)
	}
	if own != nat {
		t.Fatalf("the gateways of the container are those of %v, the test wants %v", own, nat)
	}
	reaches(t, w.LAN, "LAN to the host's port", url(w.HostAddr4, 8080))
	reaches(t, w.LAN, "LAN to the host's port", url(w.HostAddr6, 8080))
	for _, a := range routed {
		reaches(t, w.LAN, "LAN to the routed address", url(a, 80))
	}
	allTimeOut(t, w.LAN, "LAN to the address behind NAT", url(nat[0], 80), url(nat[1], 80))
	allTimeOut(t, w.LAN, "LAN to an unpublished port of the routed address", url(routed[0], 81), url(routed[1], 81))
}

// allTimeOut is timesOut for several addresses at a time.
func allTimeOut(t *testing.T, from *nstest.NS, what string, urls ...string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, u := range urls {
		wg.Go(func() { timesOut(t, from, what, u) })
	}
	wg.Wait()
}
