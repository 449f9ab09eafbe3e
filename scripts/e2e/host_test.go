package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// advertisedLifetime is how long the default route of the host by IPv6, as
// router advertisements gave it, lasts still; 0 where there is none.
func (w *world) advertisedLifetime(t *testing.T) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`default via fe80\S+ dev eth0 .*expires (\d+)sec`).FindStringSubmatch(w.Exec(t, "ip", "-6", "route", "show", "default"))
	if m == nil {
		return 0
	}
	seconds, _ := strconv.Atoi(m[1])
	return time.Duration(seconds) * time.Second
}

// advertised sends router advertisements until the host believes them.
func (w *world) advertised(t *testing.T, when string, life time.Duration) {
	t.Helper()
	within(t, repairBound, "a default route for "+life.String()+", "+when, func() error {
		w.LAN.Advertise(t, "eth0", netip.MustParsePrefix("2001:db8:77::/64"), life)
		if left := w.advertisedLifetime(t); left > life || left < life-time.Minute {
			return fmt.Errorf("the route lasts for %v", left)
		}
		return nil
	})
}

func (w *world) sysctl(t *testing.T, name, want string) {
	t.Helper()
	if got := w.Exec(t, "sysctl", "-n", name); got != want {
		t.Errorf("%s is %s, want %s", name, got, want)
	}
}

// TestA67AdvertisedRoute: the host has its IPv6 from router advertisements, and
// keeps it while networks come and go, the driver restarts, and somebody
// switches forwarding off.
func TestA67AdvertisedRoute(t *testing.T) {
	w := emptyWorld(t)
	w.Exec(t, "ip", "-6", "route", "del", "default")
	w.sysctl(t, "net.ipv6.conf.all.forwarding", "0")
	w.advertised(t, "before the driver", 10*time.Minute)
	w.startDriver(t)
	w.startEngine(t)
	keeps := func(when string) {
		t.Helper()
		if w.advertisedLifetime(t) == 0 {
			t.Errorf("%s: the host has lost its default route", when)
		}
	}

	w.dual(t, "web", 81)
	keeps("after network create")
	w.sysctl(t, "net.ipv6.conf.all.forwarding", "1")
	log := w.driver.Log()
	if n := strings.Count(log, "interfaces=eth0"); n != 1 {
		t.Errorf("the log says %d times what became of eth0:\n%s", n, log)
	}
	w.advertised(t, "with a network", 20*time.Minute)
	w.run(t, "c1", "web", "-p", "8080:80")
	reaches(t, w.LAN, "LAN", url(w.HostAddr6, 8080))

	w.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.eth0.accept_ra=1")
	within(t, repairBound, "forwarding again", func() error {
		if got := w.Exec(t, "sysctl", "-n", "net.ipv6.conf.all.forwarding"); got != "1" {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	keeps("after somebody switched forwarding off")
	w.advertised(t, "with forwarding on again", 30*time.Minute)

	w.driver.Kill(t)
	w.startDriver(t)
	keeps("after the driver was killed and started again")
	w.advertised(t, "after the driver was killed", 40*time.Minute)
	w.engine.Docker(t, "rm", "-f", "c1")
	w.engine.Docker(t, "network", "rm", "web")
	keeps("after network rm")
	w.sysctl(t, "net.ipv6.conf.all.forwarding", "0")
	w.sysctl(t, "net.ipv6.conf.eth0.accept_ra", "1")
	w.sysctl(t, "net.ipv6.conf.default.accept_ra", "1")
	w.sysctl(t, "net.ipv4.ip_forward", "1")
	w.advertised(t, "without networks", 50*time.Minute)
}

// TestA67OthersForward: what Docker's own network needs stays when ours go.
func TestA67OthersForward(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.engine.Docker(t, "network", "create", "--ipv6", "--subnet", "fd00:99::/64", "dockers")
	w.engine.Docker(t, "network", "rm", "web")
	w.sysctl(t, "net.ipv6.conf.all.forwarding", "1")
	w.sysctl(t, "net.ipv6.conf.eth0.accept_ra", "2")
	w.driver.WaitFor(t, "IPv6 forwarding stays on", 5*time.Second)
}

// TestA69OtherTables: a subnet that a VPN's routes cover, in a table of their
// own, is refused by the names of table, rule and route, and leaves nothing; who
// wants it all the same says so.
func TestA69OtherTables(t *testing.T) {
	w := newWorld(t)
	links := w.Exec(t, "ip", "-br", "link")
	for _, line := range []string{
		"-4 route add 10.99.0.0/16 via 192.0.2.2 table 52", "-4 rule add pref 5270 lookup 52",
		"-6 route add fd00:99::/32 via fd00:192::2 table 53", "-6 rule add pref 5271 from fd00:192::1 lookup 53",
	} {
		w.Exec(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	for _, row := range []struct{ args, words []string }{
		{[]string{"--subnet", "10.99.7.0/24"},
			[]string{"10.99.7.0/24", "10.99.0.0/16 via 192.0.2.2 dev eth0", "table 52", "rule 5270 (from all lookup 52)", "nftnet.allow_overlap"}},
		{[]string{"--subnet", "10.98.0.0/15"}, []string{"10.99.0.0/16", "table 52"}},
		{[]string{"--subnet", "10.81.0.0/24", "--ipv6", "--subnet", "fd00:99:7::/64"},
			[]string{"fd00:99:7::/64", "fd00:99::/32 via fd00:192::2 dev eth0", "table 53", "rule 5271 (from fd00:192::1 lookup 53)", "some packets"}},
	} {
		w.refused(t, row.words, append(append([]string{"network", "create", "-d", "nftnet"}, row.args...), "bad")...)
	}
	if after := w.Exec(t, "ip", "-br", "link"); after != links {
		t.Errorf("links are left:\n%s\nbefore\n%s", after, links)
	}
	w.network(t, "wanted", "--subnet", "10.99.7.0/24", "-o", "nftnet.allow_overlap=true")
	w.network(t, "fine", "--subnet", "10.81.0.0/24")
	w.run(t, "c1", "fine", "-p", "8080:80")
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}
