package e2e

import (
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// uplinkWorld is a docker host with a second uplink, eth1, that rules choose by
// the source address, and a client far behind that uplink, whom nobody reaches
// by the first one.
type uplinkWorld struct {
	*world
	router     *nstest.NS
	far4, far6 netip.Addr
	// The addresses of the host on the second uplink.
	host4, host6 netip.Addr
}

const (
	secondRules4 = "-4 rule add pref 200 from 198.51.100.1 lookup 100"
	secondRules6 = "-6 rule add pref 200 from fd00:198::1 lookup 100"
)

func (w *world) lines(t *testing.T, ns *nstest.NS, list ...string) {
	t.Helper()
	for _, line := range list {
		ns.Exec(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

func newUplinkWorld(t *testing.T) *uplinkWorld {
	t.Helper()
	u := &uplinkWorld{
		world: emptyWorld(t), router: nstest.NewNS(t, "uplink"),
		far4: netip.MustParseAddr("203.0.113.5"), far6: netip.MustParseAddr("fd00:203::5"),
		host4: netip.MustParseAddr("198.51.100.1"), host6: netip.MustParseAddr("fd00:198::1"),
	}
	nstest.Connect(t, u.Host, "eth1", []string{"198.51.100.1/24", "fd00:198::1/64"}, u.router, "eth1", []string{"198.51.100.254/24", "fd00:198::254/64"})
	// The router's own connections come from far away.
	u.lines(t, u.router, "addr add 203.0.113.5/32 dev lo", "addr add fd00:203::5/128 dev lo nodad",
		"route add 198.51.100.1/32 dev eth1 src 203.0.113.5", "-6 route add fd00:198::1/128 dev eth1 src fd00:203::5",
		"route add 198.51.100.8/32 dev eth1 src 203.0.113.5")
	u.lines(t, u.LAN, "route add blackhole 203.0.113.5/32", "-6 route add blackhole fd00:203::5/128")
	u.lines(t, u.Host, "route add default via 198.51.100.254 table 100", "-6 route add default via fd00:198::254 table 100", secondRules4, secondRules6)
	return u
}

// answers asserts that TCP and UDP ports answer, to clients of both uplinks.
func (u *uplinkWorld) answers(t *testing.T, when string, tcp, udp int) {
	t.Helper()
	for _, row := range []struct {
		from       *nstest.NS
		what       string
		host, want netip.Addr
	}{
		{u.router, "far by uplink 2", u.host4, u.far4}, {u.router, "far by uplink 2", u.host6, u.far6},
		{u.LAN, "LAN by uplink 1", u.HostAddr4, u.LANAddr4}, {u.LAN, "LAN by uplink 1", u.HostAddr6, u.LANAddr6},
	} {
		what := fmt.Sprintf("%s: %s, %s", when, row.what, row.host)
		if r := reaches(t, row.from, what, url(row.host, tcp)); r.Client != row.want {
			t.Errorf("%s: TCP is seen from %s, want %s", what, r.Client, row.want)
		}
		if r, err := row.from.UDP(netip.AddrPortFrom(row.host, uint16(udp)).String(), 3*time.Second); err != nil || r.Client != row.want {
			t.Errorf("%s: UDP is seen from %s, %v; want %s", what, r.Client, err, row.want)
		}
	}
}

// uplinkTraces are the chains and routing rules that the driver has for uplinks.
func (u *uplinkWorld) uplinkTraces(t *testing.T) string {
	t.Helper()
	var out []string
	out = append(out, regexp.MustCompile(`chain UPLINK\S+`).FindAllString(u.Exec(t, "nft", "list", "table", "inet", "nftnet"), -1)...)
	for _, family := range []string{"-4", "-6"} {
		out = append(out, regexp.MustCompile(`.*fwmark.*`).FindAllString(u.Exec(t, "ip", family, "rule", "show"), -1)...)
	}
	return strings.Join(out, "\n")
}

// TestA68Published: published ports answer by the uplink that they are asked by,
// through flushes, restarts and changes of the rules; marks of others stay.
func TestA68Published(t *testing.T) {
	u := newUplinkWorld(t)
	// Somebody else marks all connections, and packets of containers.
	u.Exec(t, "nft", `add table inet other; add chain inet other in { type filter hook prerouting priority -180; };
		add rule inet other in ct state new ct mark set ct mark | 0x40; add rule inet other in iifname "nft-*" meta mark set meta mark | 0x20;
		add chain inet other out { type filter hook postrouting priority 0; };
		add rule inet other out oifname eth1 ct status dnat meta mark & 0xff != 0x20 counter comment "lost"`)
	u.startDriver(t)
	u.startEngine(t)
	if traces := u.uplinkTraces(t); traces != "" {
		t.Errorf("without networks there are\n%s", traces)
	}
	u.dual(t, "web", 81)
	u.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp")
	u.answers(t, "at first", 8080, 5353)
	marks := u.Exec(t, "conntrack", "-L", "-p", "tcp")
	for line := range strings.Lines(marks) {
		want := "mark=64 " // of uplink 1: somebody else's alone
		if strings.Contains(line, "src=203.0.113.5 dst=198.51.100.1") || strings.Contains(line, "src=fd00:203::5 dst=fd00:198::1") {
			want = fmt.Sprintf("mark=%d ", 0x1000|0x40)
		}
		if strings.Contains(line, "dport=8080") && !strings.Contains(line, want) {
			t.Errorf("a connection has not %s: %s", want, line)
		}
	}
	if out := u.Exec(t, "nft", "list", "chain", "inet", "other", "out"); !strings.Contains(out, "counter packets 0 ") {
		t.Errorf("packets lost the mark of another program:\n%s", out)
	}
	if out, err := u.Try("env", "DOCKER_HOST=unix://"+u.engine.Socket, binary, "status"); err != nil || strings.Contains(out, "UPLINK") {
		t.Errorf("nftnet status is not content: %v\n%s", err, out)
	}
	// A neighbour on the uplink's own link is answered directly.
	u.lines(t, u.router, "route change 198.51.100.1/32 dev eth1 src 198.51.100.254")
	reaches(t, u.router, "neighbour on uplink 2", url(u.host4, 8080))
	if line := u.Exec(t, "conntrack", "-L", "-s", "198.51.100.254", "-p", "tcp"); !strings.Contains(line, "mark=64 ") {
		t.Errorf("the connection of a neighbour is marked: %s", line)
	}
	u.lines(t, u.router, "route change 198.51.100.1/32 dev eth1 src 203.0.113.5")
	// Containers of other networks ask the same address.
	u.dual(t, "db", 82)
	u.run(t, "c2", "db")
	reaches(t, u.engine.NS(t, "c2"), "container of another network", url(u.host4, 8080))
	reaches(t, u.engine.NS(t, "c1"), "the container itself", url(u.host4, 8080))

	u.Exec(t, "nft", "flush", "table", "inet", "nftnet")
	within(t, repairBound, "the chains after a flush", func() error {
		if _, err := u.router.TryGet(url(u.host4, 8080), silence); err != nil {
			return err
		}
		return nil
	})
	u.driver.Kill(t)
	u.startDriver(t)
	u.answers(t, "after the driver was killed", 8080, 5353)

	u.lines(t, u.Host, "-4 rule del pref 200 from 198.51.100.1", "-6 rule del pref 200 from fd00:198::1")
	within(t, repairBound, "no trace without the rules", func() error {
		if traces := u.uplinkTraces(t); traces != "" {
			return fmt.Errorf("there are\n%s", traces)
		}
		return nil
	})
	timesOut(t, u.router, "far by uplink 2, the control", url(u.host4, 8080))
	u.lines(t, u.Host, strings.Replace(secondRules4, "200", "300", 1), secondRules6)
	within(t, repairBound, "chains with the rules", func() error {
		if strings.Count(u.uplinkTraces(t), "chain UPLINK") != 3 || strings.Count(u.uplinkTraces(t), "fwmark 0x1000/0x3000 lookup 100") != 2 {
			return fmt.Errorf("there are\n%s", u.uplinkTraces(t))
		}
		return nil
	})
	u.answers(t, "with the rules again", 8080, 5353)

	u.engine.Docker(t, "rm", "-f", "c1", "c2")
	u.engine.Docker(t, "network", "rm", "web", "db")
	if traces := u.uplinkTraces(t); traces != "" {
		t.Errorf("without networks there are\n%s", traces)
	}
}

// TestA68Redirect: a redirect answers by the uplink that it is asked by, also
// where it answers from another address of the interface, and without an engine.
func TestA68Redirect(t *testing.T) {
	u := newUplinkWorld(t)
	u.startDriver(t)
	u.serveAsNobody(t, "-http", ":3000", "-udp", ":3053")
	u.mustRedirect(t, "add", "80", "3000")
	u.mustRedirect(t, "add", "53", "3053", "--proto", "udp")
	u.answers(t, "redirect", 80, 53)
	// The kernel redirects to the first address of the interface, which no rule is
	// about.
	u.lines(t, u.Host, "addr add 198.51.100.8/24 dev eth1", "-4 rule del pref 200 from 198.51.100.1", "-4 rule add pref 200 from 198.51.100.8 lookup 100")
	within(t, repairBound, "answers from the second address", func() error {
		_, err := u.router.TryGet(url(netip.MustParseAddr("198.51.100.8"), 80), silence)
		return err
	})
}

// TestA68AdoptedBridge: the second uplink is a bridge that a network adopted: its
// questions and its answers come in by the same interface.
func TestA68AdoptedBridge(t *testing.T) {
	u := newUplinkWorld(t)
	u.lines(t, u.Host, "addr flush dev eth1", "link add br0 up type bridge", "link set eth1 master br0", "addr add 198.51.100.1/24 dev br0",
		"route add default via 198.51.100.254 table 100")
	u.startDriver(t)
	u.startEngine(t)
	u.network(t, "web", "--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1", "-o", "com.docker.network.bridge.name=br0")
	u.run(t, "c1", "web", "-p", "8080:80")
	c := u.router.HTTPClient()
	for range 3 { // one connection: its later packets have its mark
		r, err := c.Get(url(u.host4, 8080))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		r.Body.Close()
	}
	if line := u.Exec(t, "conntrack", "-L", "-s", "203.0.113.5", "-p", "tcp"); !strings.Contains(line, fmt.Sprintf("mark=%d ", 0x1000)) {
		t.Errorf("the connection is not marked: %s", line)
	}
}

// TestA68MarkMask: the administrator chooses the bits, or none.
func TestA68MarkMask(t *testing.T) {
	for mask, want := range map[string]string{"0x70000000": "fwmark 0x10000000/0x70000000 lookup 100", "0": ""} {
		t.Run(mask, func(t *testing.T) {
			u := newUplinkWorld(t)
			u.startDriver(t, "--mark-mask", mask)
			u.serveAsNobody(t, "-http", ":3000")
			u.mustRedirect(t, "add", "80", "3000")
			if traces := u.uplinkTraces(t); want == "" && traces != "" || !strings.Contains(traces, want) {
				t.Errorf("there are\n%s\nwant %q", traces, want)
			}
		})
	}
}
