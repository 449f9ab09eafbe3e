package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// zone is the zone of firewalld that holds the bridges.
const zone = "nftnet"

// firewalledWorld is a world that firewalld runs in before all others do, with
// networks web and gone, and an internal one; web has a container that publishes
// a port.
func firewalledWorld(t *testing.T) (*world, *nstest.Process) {
	t.Helper()
	w := emptyWorld(t)
	w.StartBus(t)
	firewalld := w.StartFirewalld(t)
	w.startDriver(t)
	w.startEngine(t)
	for name, n := range map[string]int{"web": 81, "gone": 82, "inside": 83} {
		args := []string{"-o", "com.docker.network.bridge.name=" + bridge(name)}
		if name == "inside" {
			args = append(args, "--internal")
		}
		w.dual(t, name, n, args...)
	}
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp")
	w.run(t, "c2", "web")
	w.engine.Docker(t, "run", "-d", "--name", "s1", "--network", "web", "-p", "9000:9000", w.image, "/peer", "serve", "-stream", ":9000")
	w.run(t, "i1", "inside")
	w.run(t, "i2", "inside")
	nstest.Serve(t, w.LAN, ":80", "")
	nstest.Serve(t, w.Host, ":8888", "")
	// Where bridged frames take the IP hooks firewalld rejects those between
	// containers, too, of a zone that it does not know.
	for _, name := range []string{"iptables", "ip6tables"} {
		w.Host.Exec(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-"+name+"=1")
	}
	return w, firewalld
}

func bridge(network string) string { return "br-" + network }

// interfaces are what firewalld has in the zone now.
func (w *world) interfaces(t *testing.T) []string {
	t.Helper()
	out, err := w.Try("firewall-cmd", "--zone="+zone, "--list-interfaces")
	if err != nil {
		return []string{err.Error()}
	}
	return sorted(strings.Fields(out))
}

// holds waits until the zone has these bridges and no others.
func (w *world) holds(t *testing.T, networks ...string) {
	t.Helper()
	var want []string
	for _, n := range networks {
		want = append(want, bridge(n))
	}
	var have []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if have = w.interfaces(t); slices.Equal(have, sorted(want)) {
			return
		}
	}
	t.Fatalf("the zone has %q, want %q", have, want)
}

// passes asserts what passes with firewalld, and what does not.
func (w *world) passes(t *testing.T) {
	t.Helper()
	peer := func(what, from, to string) {
		if _, err := w.engine.Peer(t, from, "http", "-timeout", "3s", to); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, v6 := range []bool{false, true} {
		host, lan := w.HostAddr4, w.LANAddr4
		if v6 {
			host, lan = w.HostAddr6, w.LANAddr6
		}
		if r := reaches(t, w.LAN, "LAN to the published port", url(host, 8080)); r.Client != lan {
			t.Errorf("LAN to the published port: the container sees client %v, want %v", r.Client, lan)
		}
		if _, err := w.LAN.UDP(netip.AddrPortFrom(host, 5353).String(), 3*time.Second); err != nil {
			t.Errorf("LAN to the published UDP port: %v", err)
		}
		reaches(t, w.Host, "host to the published port", url(host, 8080))
		peer("container to the outside", "c1", url(lan, 80))
		peer("container to the host", "c1", url(host, 8888))
		peer("container to the published port of another", "c2", url(host, 8080))
		peer("container to another", "c2", url(w.address(t, "c1", "web", v6), 81))
		peer("container to another of an internal network", "i2", url(w.address(t, "i1", "inside", v6), 80))
		if r, err := w.LAN.TryGet(url(host, 8888), silence); err == nil {
			t.Errorf("LAN reaches a port of the host that firewalld has closed: %+v", r)
		}
	}
}

// closed asserts that what is not published stays closed, though firewalld
// accepts what goes to the zone, and that the driver's table alone decides that.
func (w *world) closed(t *testing.T) {
	t.Helper()
	w.AddRouteOnLAN(t, "10.81.0.0/24")
	w.AddRouteOnLAN(t, "fd00:81::/64")
	for _, v6 := range []bool{false, true} {
		timesOut(t, w.LAN, "LAN to an unpublished port", url(w.address(t, "c1", "web", v6), 81))
	}
	w.Exec(t, "nft", "add", "rule", "inet", "nftnet", "DOCKER-USER", "tcp", "dport", "81", "accept")
	for _, v6 := range []bool{false, true} {
		reaches(t, w.LAN, "LAN to a port that the user opened", url(w.address(t, "c1", "web", v6), 81))
	}
	if r, err := w.engine.Peer(t, "i1", "http", "-timeout", silence.String(), url(w.LANAddr4, 80)); err == nil {
		t.Errorf("a container of an internal network reaches the LAN: %+v", r)
	}
}

func TestA35Firewalld(t *testing.T) {
	w, firewalld := firewalledWorld(t)
	first := w.driver
	w.holds(t, "web", "gone", "inside")
	t.Run("before", w.passes)
	t.Run("closed", w.closed)

	w.engine.Docker(t, "network", "rm", "gone")
	w.holds(t, "web", "inside")
	for _, reload := range []string{"--reload", "--complete-reload"} {
		running := []*transfer{
			startTransfer(t, w.LAN, "LAN to the port", netip.AddrPortFrom(w.HostAddr4, 9000).String()),
			startTransfer(t, w.LAN, "LAN to the port by IPv6", netip.AddrPortFrom(w.HostAddr6, 9000).String()),
		}
		w.Exec(t, "firewall-cmd", reload)
		w.holds(t, "web", "inside")
		for _, tr := range running {
			tr.stop(t)
		}
		t.Run("after "+reload, w.passes)
	}

	// A reload while the driver is down empties the zone; its start fills it.
	w.driver.Stop(t)
	w.Exec(t, "firewall-cmd", "--reload")
	w.holds(t)
	w.startDriver(t)
	w.holds(t, "web", "inside")
	t.Run("after a restart of the driver", w.passes)

	firewalld.Stop(t)
	w.dual(t, "late", 84, "-o", "com.docker.network.bridge.name="+bridge("late"))
	w.StartFirewalld(t)
	w.holds(t, "web", "inside", "late")
	t.Run("after a restart of firewalld", w.passes)

	// This makes the bridges permanent, and reloads bring them back.
	w.Exec(t, "firewall-cmd", "--runtime-to-permanent")
	w.engine.Docker(t, "network", "rm", "late")
	w.Exec(t, "firewall-cmd", "--reload")
	w.holds(t, "web", "inside")
	if out := w.Exec(t, "firewall-cmd", "--get-active-zones"); strings.Contains(out, bridge("late")) || strings.Contains(out, bridge("gone")) {
		t.Errorf("a deleted network's bridge is in a zone:\n%s", out)
	}
	if n := strings.Count(first.Log()+w.driver.Log(), "reloaded it"); n != 1 {
		t.Errorf("the driver reloaded firewalld %d times, once is enough", n)
	}
}

// TestA35OtherZone: a bridge that the user put into another zone stays there.
func TestA35OtherZone(t *testing.T) {
	w := emptyWorld(t)
	w.StartBus(t)
	w.StartFirewalld(t)
	w.startDriver(t)
	w.startEngine(t)
	w.Exec(t, "firewall-cmd", "--permanent", "--zone=internal", "--add-interface="+bridge("mine"))
	w.Exec(t, "firewall-cmd", "--reload")
	w.dual(t, "mine", 81, "-o", "com.docker.network.bridge.name="+bridge("mine"))
	w.dual(t, "web", 82, "-o", "com.docker.network.bridge.name="+bridge("web"))
	w.holds(t, "web")
	w.Exec(t, "firewall-cmd", "--reload")
	w.holds(t, "web")
	if got := w.Exec(t, "firewall-cmd", "--get-zone-of-interface="+bridge("mine")); got != "internal" {
		t.Errorf("the user's bridge is in zone %q", got)
	}
	if n := strings.Count(w.driver.Log(), "is in another zone"); n != 1 {
		t.Errorf("the driver says %d times that a bridge is in another zone, once is enough:\n%s", n, w.driver.Log())
	}
	w.engine.Docker(t, "network", "rm", "mine")
	if got := w.Exec(t, "firewall-cmd", "--zone=internal", "--list-interfaces"); got != bridge("mine") {
		t.Errorf("the user's zone has %q", got)
	}
}
