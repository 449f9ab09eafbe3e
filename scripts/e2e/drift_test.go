package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// repairBound is how long a repair may take before a test fails: the driver
// needs a fraction of a second, a machine that does other things more.
const repairBound = 5 * time.Second

// drift is a change that somebody makes beside the driver.
type drift struct {
	name string
	// do is run by a shell on the host, with the names of the network's BRIDGE
	// and of the container's VETH in its environment.
	do string
	// told are the words of the line in the driver's log that tells what it was, in
	// whatever order: regular expressions, in which BRIDGE and VETH stand for the
	// names, too. Any line will do where there are none.
	told string
}

// driftWorld is a network with a container that is asked and asks by all ways.
type driftWorld struct {
	*world
	c1           *nstest.NS
	bridge, veth string
	ways         []way
	// whole is the network's shape while all is well.
	whole string
}

// makeDriftWorld fills an empty world.
func makeDriftWorld(t *testing.T, w *world) *driftWorld {
	t.Helper()
	w.startDriver(t)
	w.startEngine(t)
	w.lanServers(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", fmt.Sprint(talkPort)+":7")
	// Rules of the user's, in chains and sets of their own, that stay.
	w.Exec(t, "nft", `add set inet nftnet banned { type ipv4_addr; elements = { 198.51.100.7 }; }; add chain inet nftnet mine; `+
		`add rule inet nftnet mine ip saddr @banned drop; add rule inet nftnet DOCKER-USER jump mine`)
	d := &driftWorld{world: w, c1: w.engine.NS(t, "c1"), bridge: w.bridgeOf(t, "web")}
	d.veth = w.vethOf(t, d.c1)
	d.ways = append(append(w.lanWays(8080), w.hostWays(8080)...), w.containerWays(d.c1, 8080)...)
	if !answer(t, repairBound, "all ways", d.ways) {
		t.FailNow()
	}
	// The link-local address of the bridge comes some time after the container.
	settled := func() error {
		if d.whole = w.shape(t, d.bridge); !strings.Contains(d.whole, "link-local") {
			return errors.New("no link-local address")
		}
		return nil
	}
	if !within(t, repairBound, "the bridge's addresses", settled) {
		t.FailNow()
	}
	return d
}

// isWhole waits until the network is what it was, and has then answered by all
// ways.
func (d *driftWorld) isWhole(t *testing.T, bound time.Duration) bool {
	t.Helper()
	return within(t, bound, "the network is whole", d.wholeness(t))
}

// wholeness returns a function that says what the network lacks still.
func (d *driftWorld) wholeness(t *testing.T) func() error {
	left := d.ways
	return func() error {
		if err := differ(d.shape(t, d.bridge), d.whole); err != nil {
			return err
		}
		var err error
		left, err = ask(left, 300*time.Millisecond)
		return err
	}
}

// expand fills in the names of the network's interfaces.
func (d *driftWorld) expand(s string) string {
	return os.Expand(s, func(name string) string {
		return map[string]string{"BRIDGE": d.bridge, "VETH": d.veth}[name]
	})
}

// shell runs commands on the host.
func (d *driftWorld) shell(t *testing.T, commands string) {
	t.Helper()
	d.Exec(t, "env", "BRIDGE="+d.bridge, "VETH="+d.veth, "sh", "-ec", commands)
}

// words matches a text that holds all words of a list, in whatever order.
func (d *driftWorld) words(list string) func(text string) bool {
	var want []*regexp.Regexp
	for word := range strings.FieldsSeq(d.expand(list)) {
		want = append(want, regexp.MustCompile(word))
	}
	return func(text string) bool {
		return !slices.ContainsFunc(want, func(r *regexp.Regexp) bool { return !r.MatchString(text) })
	}
}

// tells returns a function that says whether a line of the log beyond debugging,
// from now on, holds all of some words.
func (d *driftWorld) tells(words string) func() error {
	before, match := d.driver.Log(), d.words(words)
	return func() error {
		log := strings.TrimPrefix(d.driver.Log(), before)
		for line := range strings.Lines(log) {
			if !strings.Contains(line, "level=DEBUG") && match(line) {
				return nil
			}
		}
		return fmt.Errorf("no line of the log holds %q:\n%s", d.expand(words), log)
	}
}

// drifts tries one change after the other, with connections that stay open. A
// change that is not repaired spoils its world: the next one gets another.
func drifts(t *testing.T, list []drift, during func(d *driftWorld, change func())) {
	w := emptyWorld(t)
	var d *driftWorld
	for _, x := range list {
		if w == nil {
			w = oneMoreWorld(t)
		}
		if d == nil {
			d = makeDriftWorld(t, w)
		}
		ok := t.Run(x.name, func(t *testing.T) {
			open := d.lanTalks(t)
			open.goOn(t)
			whole, told := d.wholeness(t), d.tells(x.told)
			during(d, func() { d.shell(t, x.do) })
			if within(t, repairBound, "the network is whole, and the log tells why", func() error { return errors.Join(whole(), told()) }) {
				open.end(t)
			}
		})
		if !ok {
			d, w = nil, nil
		}
	}
}

// running is the usual state of the driver during a change.
func running(_ *driftWorld, change func()) { change() }

func TestA66Bridge(t *testing.T) {
	drifts(t, []drift{
		{"down", `ip link set $BRIDGE down`, `$BRIDGE down`},
		{"IPv4 address flushed", `ip -4 addr flush dev $BRIDGE`, `$BRIDGE 10\.81\.0\.1`},
		// Without a link-local address the kernel asks for no neighbour.
		{"IPv6 addresses flushed", `ip -6 addr flush dev $BRIDGE; ip -6 neigh flush dev $BRIDGE`, `$BRIDGE fd00:81::1`},
		{"MAC changed", `ip link set $BRIDGE address 02:00:5e:00:53:01`, `$BRIDGE 02:00:5e:00:53:01`},
		{"renamed", `ip link set $BRIDGE down && ip link set $BRIDGE name foo0`, `$BRIDGE foo0`},
		{"deleted", `ip link del $BRIDGE`, `$BRIDGE deleted|missing|gone|removed`},
	}, running)
}

func TestA66Veth(t *testing.T) {
	drifts(t, []drift{
		{"down", `ip link set $VETH down`, `$VETH down`},
		{"off the bridge", `ip link set $VETH nomaster`, `$VETH bridge`},
		{"on another bridge", `ip link add other0 type bridge && ip link set other0 up && ip link set $VETH master other0`, `$VETH other0`},
		{"hairpin off", `ip link set $VETH type bridge_slave hairpin off`, `$VETH hairpin`},
	}, running)
}

func TestA66Parameters(t *testing.T) {
	drifts(t, []drift{
		{"ip_forward", `sysctl -qw net.ipv4.ip_forward=0`, `ip_forward`},
		{"IPv6 forwarding", `sysctl -qw net.ipv6.conf.all.forwarding=0`, `(?i)ipv6.*forwarding`},
		{"route_localnet", `sysctl -qw net.ipv4.conf.$BRIDGE.route_localnet=0`, `$BRIDGE route_localnet`},
		{"disable_ipv6", `sysctl -qw net.ipv6.conf.$BRIDGE.disable_ipv6=1`, `$BRIDGE disable_ipv6`},
	}, running)
}

func TestA66Table(t *testing.T) {
	drifts(t, []drift{
		{"dormant", `nft 'add table inet nftnet { flags dormant; }'`, `dormant by=.?nft`},
		{"dormant, family bridge", `nft 'add table bridge nftnet { flags dormant; }'`, `dormant by=.?nft`},
		{"base chain renamed", `nft rename chain inet nftnet FORWARD FORWARD-old`, `FORWARD-old by=.?nft`},
		{"nat chain renamed", `nft rename chain inet nftnet PREROUTING PREROUTING-old`, `PREROUTING-old by=.?nft`},
		{"chain renamed", `nft rename chain inet nftnet in-nat in-nat-old`, `in-nat-old by=.?nft`},
		{"foreign base chain that drops", `nft 'add chain inet nftnet evil { type filter hook forward priority 5; policy drop; }'`, `evil by=.?nft`},
		{"foreign base chain, family bridge", `nft 'add chain bridge nftnet evil { type filter hook prerouting priority 5; policy drop; }'`, `evil by=.?nft`},
	}, running)
}

// TestA66WhileDown: the driver finds at its start what was changed before.
func TestA66WhileDown(t *testing.T) {
	drifts(t, []drift{
		{"bridge", `ip link set $BRIDGE down; ip addr flush dev $BRIDGE`, ""},
		{"bridge renamed", `ip link set $BRIDGE down; ip link set $BRIDGE name foo0`, ""},
		{"bridge deleted", `ip link del $BRIDGE`, ""},
		{"veth", `ip link set $VETH type bridge_slave hairpin off; ip link set $VETH nomaster down`, ""},
		{"parameters", `sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.$BRIDGE.route_localnet=0 ` +
			`net.ipv6.conf.$BRIDGE.disable_ipv6=1`, ""},
		{"table", `nft rename chain inet nftnet in-nat in-nat-old
			nft 'add chain inet nftnet evil { type filter hook forward priority 5; policy drop; }'
			nft 'add table bridge nftnet { flags dormant; }'`, ""},
	}, func(d *driftWorld, change func()) {
		d.driver.Stop(t)
		change()
		d.startDriver(t)
	})
}

// TestA66DormantWhileDown: with the table asleep and the driver down nothing
// translates, so connections break, as after a flush. New ones do not.
func TestA66DormantWhileDown(t *testing.T) {
	d := makeDriftWorld(t, emptyWorld(t))
	d.driver.Stop(t)
	d.Exec(t, "nft", "add table inet nftnet { flags dormant; }")
	d.startDriver(t)
	d.isWhole(t, repairBound)
}

// TestA66UsersChains: a chain that the user makes to use it from DOCKER-USER,
// one step after the other, stays. What becomes of one that nothing uses does
// not matter.
func TestA66UsersChains(t *testing.T) {
	d := makeDriftWorld(t, emptyWorld(t))
	for _, step := range []string{
		`add chain inet nftnet second`,
		`add rule inet nftnet second ip saddr 198.51.100.8 drop`,
		`add rule inet nftnet DOCKER-USER jump second`,
	} {
		d.Exec(t, "nft", step)
	}
	whole := d.shape(t, d.bridge)
	for _, part := range []string{"chain second", "ip saddr 198.51.100.8 drop", "jump second", "jump mine", "set banned"} {
		if !strings.Contains(whole, part) {
			t.Errorf("the table lacks %q:\n%s", part, whole)
		}
	}
	// The driver looks at the table after each change: after this one, too.
	d.whole = whole
	d.Exec(t, "nft", "add", "chain", "inet", "nftnet", "evil", "{ type filter hook forward priority 5; policy drop; }")
	d.isWhole(t, repairBound)

	d.Exec(t, "nft", "add", "chain", "inet", "nftnet", "idle")
	d.Exec(t, "nft", "flush", "chain", "inet", "nftnet", "FORWARD")
	within(t, repairBound, "the table beside the chain that nothing uses", func() error {
		return differ(strings.Replace(d.shape(t, d.bridge), "chain idle {\n\t}\n\n", "", 1), d.whole)
	})
	answer(t, repairBound, "all ways", d.ways)
}

// unrepaired finds the error of status that is about something, and runs the
// fix that it prints.
func (d *driftWorld) unrepaired(t *testing.T, about string) {
	t.Helper()
	match := d.words(about)
	var fix string
	found := within(t, repairBound, "status tells it", func() error {
		r := d.status(t)
		for _, f := range r.Findings {
			if f.Level == "error" && match(f.Object+" "+f.Sentence) {
				fix = f.Mend
				return nil
			}
		}
		return fmt.Errorf("no error about %q: %+v", d.expand(about), r.Findings)
	})
	if !found {
		return
	}
	if text, err := d.Try("env", "DOCKER_HOST=unix://"+d.engine.Socket, binary, "status", "--socket", socket); err == nil {
		t.Errorf("nftnet status exits with 0:\n%s", text)
	}
	if fix == "" {
		t.Error("the error has no fix")
		return
	}
	t.Logf("the fix: %s", fix)
	d.Exec(t, "env", "DOCKER_HOST=unix://"+d.engine.Socket, "sh", "-ec", fix)
}

// healthy waits until status finds no error.
func (d *driftWorld) healthy(t *testing.T) {
	t.Helper()
	within(t, repairBound, "status finds no error", func() error {
		if r := d.status(t); !r.OK {
			return fmt.Errorf("%+v", r.Findings)
		}
		return nil
	})
}

// TestA66VethDeleted: nobody can give a running container its link back but who
// starts it.
func TestA66VethDeleted(t *testing.T) {
	d := makeDriftWorld(t, emptyWorld(t))
	d.shell(t, `ip link del $VETH`)
	d.unrepaired(t, `c1|${VETH}`)
	answer(t, repairBound, "after the fix", append(d.lanWays(8080), d.hostWays(8080)...))
	d.healthy(t)
}

// TestA66NameTaken: a bridge cannot have its name while another interface has
// it. The driver looks away while the name is taken from it.
func TestA66NameTaken(t *testing.T) {
	d := makeDriftWorld(t, emptyWorld(t))
	open := d.lanTalks(t)
	d.pause(t, func() {
		d.shell(t, `ip link set $BRIDGE down; ip link set $BRIDGE name foo0; ip link add $BRIDGE type veth peer name other0`)
	})
	d.unrepaired(t, `${BRIDGE}`)
	if d.isWhole(t, repairBound) {
		open.end(t)
	}
	d.healthy(t)
}

// pause keeps the driver from running while fn does.
func (d *driftWorld) pause(t *testing.T, fn func()) {
	t.Helper()
	defer d.signal(t, syscall.SIGCONT)
	d.signal(t, syscall.SIGSTOP)
	fn()
}

func (d *driftWorld) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(d.driver.Pid(), s); err != nil {
		t.Fatal(err)
	}
}

// TestA66Contest: a program sets the bridge down again and again. The driver
// does not spend the host's time on it, and says so; it wins once the other has
// ended.
func TestA66Contest(t *testing.T) {
	d := makeDriftWorld(t, emptyWorld(t))
	const gaveWay = `$BRIDGE keeps|undo|again|back(s|ed|ing)?.off|backoff`
	match, told := d.words(gaveWay), d.tells(gaveWay)
	said := false
	for round := range 40 {
		d.shell(t, `ip link set $BRIDGE down`)
		if round < 20 {
			d.upSoon(t)
			continue
		}
		for _, f := range d.status(t).Findings {
			said = said || match(f.Object+" "+f.Sentence)
		}
		if said {
			break
		}
	}
	if !said {
		t.Error("status does not say that somebody keeps undoing what the driver does")
	}
	within(t, repairBound, "the log", told)
	d.isWhole(t, 30*time.Second)
	d.healthy(t)
}

// upSoon waits until the bridge is up, but not for long: the driver may wait.
func (d *driftWorld) upSoon(t *testing.T) {
	t.Helper()
	for range 10 {
		if strings.Contains(d.Host.Exec(t, "ip", "-br", "link", "show", d.bridge), ",UP,") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
