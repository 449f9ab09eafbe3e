package e2e

import (
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// refused runs a docker command that must fail with all of these words.
func (w *world) refused(t *testing.T, words []string, args ...string) {
	t.Helper()
	_, stderr, err := w.engine.TryDocker(args...)
	if err == nil {
		t.Errorf("docker %s succeeds, it must be refused", strings.Join(args, " "))
		return
	}
	for _, word := range words {
		if !strings.Contains(stderr, word) {
			t.Errorf("docker %s: error %q does not name %q", strings.Join(args, " "), stderr, word)
		}
	}
}

// elements counts what the table holds for networks and endpoints.
func (w *world) ownedLines(t *testing.T) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(w.tableText(t)) {
		if strings.Contains(line, "net=") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// links lists the interfaces of the docker host that the driver made.
func (w *world) links(t *testing.T) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(w.Host.Exec(t, "ip", "-br", "link")) {
		if strings.HasPrefix(line, "nf") {
			out = append(out, strings.Fields(line)[0])
		}
	}
	return strings.Join(out, " ")
}

func TestA25PortInUse(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	before := w.tableText(t)
	nstest.Serve(t, w.Host, "0.0.0.0:8080", "0.0.0.0:5353")
	w.Host.Listen(t, "tcp6", "[::]:8081")
	for name, row := range map[string]struct {
		publish string
		words   []string
	}{
		"tcp":          {"8080:80", []string{"0.0.0.0:8080/tcp", "another program on this host has it"}},
		"udp":          {"5353:53/udp", []string{"0.0.0.0:5353/udp", "another program on this host has it"}},
		"IPv6 only":    {"8081:80", []string{"[::]:8081/tcp", "another program on this host has it"}},
		"one address":  {"127.0.0.1:8080:80", []string{"127.0.0.1:8080/tcp", "another program on this host has it"}},
		"no such host": {"198.51.100.9:8082:80", []string{"198.51.100.9:8082/tcp", "the host has no such address"}},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(t, row.words, "run", "-d", "--restart", "always", "--name", "c1", "--network", "web",
				"-p", "9000:81", "-p", row.publish, w.image, "/peer", "serve", "-http", ":80")
			if s := w.engine.Docker(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "c1"); s != "created 0" {
				t.Errorf("the container is %q, want \"created 0\": no restart loop", s)
			}
			w.engine.Docker(t, "rm", "-f", "c1")
			if after := w.tableText(t); after != before {
				t.Errorf("the table changed:\n%s", after)
			}
			if l := w.links(t); strings.Contains(l, "nfv") {
				t.Errorf("links are left: %s", l)
			}
			// The other port of the container is free again.
			nstestFree(t, w, "0.0.0.0:9000")
		})
	}
}

// nstestFree asserts that a TCP port of the docker host can be had.
func nstestFree(t *testing.T, w *world, addr string) {
	t.Helper()
	err := w.Host.Do(func() error {
		l, err := listenTCP(addr)
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		t.Errorf("port %s is not free: %v", addr, err)
	}
}

func TestA26PortOfAnotherContainer(t *testing.T) {
	w := web(t)
	w.refused(t, []string{"8080/tcp", "publishes it already (container c1)", w.address(t, "c1", "web", false).String()},
		"run", "-d", "--name", "c2", "--network", "web", "-p", "8080:80", w.image, "/peer", "serve", "-http", ":80")
	reaches(t, w.LAN, "LAN to the first container", url(w.HostAddr4, 8080))
}

func TestPortIsHeld(t *testing.T) {
	w := web(t)
	err := w.Host.Do(func() error {
		l, err := listenTCP("0.0.0.0:8080")
		if err == nil {
			_ = l.Close()
		}
		return err
	})
	if err == nil {
		t.Error("another program can listen on a published port")
	}
}

func TestRefusedOptions(t *testing.T) {
	w := newWorld(t)
	before := w.tableText(t)
	for _, row := range []struct {
		option string
		words  []string
	}{
		{"com.docker.network.driver.mtu=abc", []string{"com.docker.network.driver.mtu", `"abc"`, "allowed is"}},
		{"com.docker.network.driver.mtu=100000", []string{"com.docker.network.driver.mtu", `"100000"`, "65535"}},
		{"com.docker.network.bridge.name=a-name-that-is-too-long", []string{"bridge.name", "a-name-that-is-too-long", "15"}},
		{"com.docker.network.bridge.name=eth0", []string{"bridge.name", "eth0", "is a veth"}},
		{"com.docker.network.bridge.enable_icc=maybe", []string{"enable_icc", `"maybe"`, "true or false"}},
		{"com.docker.network.bridge.host_binding_ipv4=localhost", []string{"host_binding_ipv4", `"localhost"`, "IPv4 or IPv6 address"}},
		{"nftnet.no-such=1", []string{"nftnet.no-such", "1", "allowed are", "com.docker.network.driver.mtu"}},
	} {
		w.refused(t, row.words, "network", "create", "-d", "nftnet", "-o", row.option, "bad")
	}
	if out := w.engine.Docker(t, "network", "ls", "-q", "--filter", "name=bad"); out != "" {
		t.Errorf("a refused network is listed: %s", out)
	}
	if after := w.tableText(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
	if l := w.links(t); l != "" {
		t.Errorf("links are left: %s", l)
	}
}

func TestContainerReachesOutsideMasqueraded(t *testing.T) {
	w := web(t)
	nstest.Serve(t, w.LAN, ":80", ":53")
	for lan, host := range map[netip.Addr]netip.Addr{w.LANAddr4: w.HostAddr4, w.LANAddr6: w.HostAddr6} {
		r, err := w.engine.Peer(t, "c1", "http", url(lan, 80))
		if err != nil || r.Client != host {
			t.Errorf("%s: the neighbour sees %v, %v; want the docker host's %v", family(lan), r.Client, err, host)
		}
	}
}

func TestInternalNetwork(t *testing.T) {
	w := newWorld(t)
	nstest.Serve(t, w.LAN, ":80", "")
	w.dual(t, "in", 83, "--internal")
	w.run(t, "c1", "in", "-p", "8080:80")
	w.run(t, "c2", "in")
	w.AddRouteOnLAN(t, "10.83.0.0/24")
	c1 := w.address(t, "c1", "in", false)
	if _, err := w.engine.Peer(t, "c2", "http", url(c1, 80)); err != nil {
		t.Errorf("neighbours of an internal network: %v", err)
	}
	if _, err := w.engine.Peer(t, "c1", "http", "-timeout", "1s", url(w.LANAddr4, 80)); err == nil {
		t.Error("a container of an internal network reaches the outside")
	}
	timesOut(t, w.LAN, "LAN into an internal network", url(c1, 80))
	if r, err := w.LAN.TryGet(url(w.HostAddr4, 8080), silence); err == nil {
		t.Errorf("a port of an internal network is published: %+v", r)
	}
}

func TestICCOff(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "quiet", 84, "-o", "com.docker.network.bridge.enable_icc=false")
	w.run(t, "c1", "quiet", "-p", "8080:80")
	w.run(t, "c2", "quiet")
	bothBridgeNF(t, w, func(t *testing.T) {
		for _, v6 := range []bool{false, true} {
			if _, err := w.engine.Peer(t, "c2", "http", "-timeout", "1s", url(w.address(t, "c1", "quiet", v6), 80)); err == nil {
				t.Errorf("neighbours reach each other with enable_icc=false (IPv6: %v)", v6)
			}
		}
		reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	})
}

func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	before := w.tableText(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8090:80")
	if len(w.ownedLines(t)) == 0 {
		t.Fatal("the table says nothing of the container")
	}
	w.engine.Docker(t, "rm", "-f", "c1")
	w.engine.Docker(t, "network", "rm", "web")
	if after := w.tableText(t); after != before {
		t.Errorf("the table is not as it was:\n%s", after)
	}
	if l := w.links(t); l != "" {
		t.Errorf("links are left: %s", l)
	}
	nstestFree(t, w, "0.0.0.0:8080")
}

func TestDriverRestart(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world){
		"stopped": func(t *testing.T, w *world) { w.driver.Stop(t) },
		"killed":  func(t *testing.T, w *world) { w.driver.Kill(t) },
	} {
		t.Run(name, func(t *testing.T) {
			w := web(t)
			before := w.tableText(t)
			end(t, w)
			if log := w.driver.Log(); strings.Contains(log, "level=ERROR") || (name == "stopped" && !strings.Contains(log, "stay connected")) {
				t.Errorf("the log of a driver that was %s:\n%s", name, log)
			}
			reaches(t, w.LAN, "LAN while the driver is down", url(w.HostAddr4, 8080))
			reaches(t, w.Host, "host while the driver is down", "http://127.0.0.1:8080/")
			w.startDriver(t)
			if after := w.tableText(t); after != before {
				t.Errorf("the table is not as it was before the restart:\n%s", after)
			}
			reaches(t, w.LAN, "LAN after the restart", url(w.HostAddr4, 8080))
			reaches(t, w.Host, "host by [::1] after the restart", "http://[::1]:8080/")
			w.engine.Docker(t, "rm", "-f", "c1")
			w.run(t, "c2", "web", "-p", "8080:80")
			reaches(t, w.LAN, "LAN to a new container", url(w.HostAddr4, 8080))
		})
	}
}

// TestRestartAfterFlush is the least of A34 and A61: a start makes the table
// whole again.
func TestRestartAfterFlush(t *testing.T) {
	w := web(t)
	before := w.tableText(t)
	w.driver.Stop(t)
	w.Exec(t, "nft", "flush", "ruleset")
	w.startDriver(t)
	if after := w.tableText(t); after != before {
		t.Errorf("the table is not as it was before the flush:\n%s", after)
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}

// TestA37ContainerGoneWhileDown removes a container that the driver does not
// hear of.
func TestA37ContainerGoneWhileDown(t *testing.T) {
	w := web(t)
	w.driver.Kill(t)
	w.engine.Kill(t)
	w.engine.Start(t)
	w.startDriver(t)
	for _, line := range w.ownedLines(t) {
		if strings.Contains(line, "ep=") {
			t.Errorf("the table still speaks of the container: %s", line)
		}
	}
	w.engine.Docker(t, "start", "c1")
	w.engine.WaitLog(t, "c1", "ready")
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}

func TestSecondDriverIsRefused(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Try(binary, "serve", "--state", w.state, "--socket", "/run/other.sock"); err == nil || !strings.Contains(err.Error(), "it is open in another process") {
		t.Errorf("a second driver with the same state: %v", err)
	}
	if _, err := w.Try(binary, "serve", "--state", w.state+"2", "--socket", socket); err == nil || !strings.Contains(err.Error(), "belongs to another process") {
		t.Errorf("a second driver on the same socket: %v", err)
	}
}

func TestPortsCommand(t *testing.T) {
	w := web(t)
	out := w.nftnet(t, "ports")
	for _, words := range [][]string{
		{"0.0.0.0:8080", "tcp", "10.81.0.2:80", "c1", "web", "kernel"},
		{"[::]:8080", "tcp", "[fd00:81::2]:80", "kernel"},
		{"0.0.0.0:5353", "udp", "10.81.0.2:53"},
		{"127.0.0.1:8090", "tcp", "10.81.0.2:80"},
	} {
		if !hasLine(out, words) {
			t.Errorf("nftnet ports has no line with %q:\n%s", words, out)
		}
	}
	w.driver.Stop(t)
	if _, err := w.Try(binary, "ports"); err == nil || !strings.Contains(err.Error(), `"nftnet serve" is not running on `) {
		t.Errorf("nftnet ports without a driver: %v", err)
	}
}

func hasLine(text string, words []string) bool {
	for line := range strings.Lines(text) {
		n := 0
		for _, w := range words {
			if strings.Contains(line, w) {
				n++
			}
		}
		if n == len(words) {
			return true
		}
	}
	return false
}

func TestMTU(t *testing.T) {
	w := newWorld(t)
	w.network(t, "web", "-o", "com.docker.network.driver.mtu=1400", "-o", "com.docker.network.container_iface_prefix=lan",
		"-o", "com.docker.network.bridge.name=mybridge")
	w.run(t, "c1", "web")
	if mtu := w.engine.Docker(t, "exec", "c1", "cat", "/sys/class/net/lan0/mtu"); mtu != "1400" {
		t.Errorf("MTU in the container is %s, want 1400", mtu)
	}
	if !strings.Contains(w.Host.Exec(t, "ip", "link", "show", "mybridge"), "mtu 1400") {
		t.Error("the bridge's MTU is not 1400")
	}
}
