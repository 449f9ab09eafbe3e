package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/nstest"
)

// peerProgram builds the test server, where a user without rights can run it.
var peerProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "peer")
	build := exec.Command("go", "build", "-o", path, "nftnet/internal/nstest/peer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build peer: %w: %s", err, out)
	}
	return path, os.Chmod(filepath.Dir(binary), 0o755)
})

// bare is a docker host with the driver and a neighbour, and no engine.
func bare(t *testing.T) *world {
	t.Helper()
	nstest.RequireRoot(t)
	w := &world{Sandbox: nstest.NewSandbox(t)}
	w.state = filepath.Join(w.Dir, "state.db")
	w.startDriver(t)
	return w
}

// serveAsNobody starts a server on the docker host that has no privilege at
// all, as Caddy under an account of its own.
func (w *world) serveAsNobody(t *testing.T, args ...string) *nstest.Process {
	t.Helper()
	peer, err := peerProgram()
	if err != nil {
		t.Fatal(err)
	}
	p := w.Start(t, "caddy", append([]string{
		"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", peer, "serve",
	}, args...)...)
	p.WaitFor(t, "ready", 10*time.Second)
	return p
}

// redirect runs "nftnet redirect" and returns all that it prints.
func (w *world) redirect(args ...string) (string, error) {
	out, err := w.Command(append([]string{binary, "redirect"}, args...)...).CombinedOutput()
	return string(out), err
}

func (w *world) mustRedirect(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.redirect(args...)
	if err != nil {
		t.Fatalf("nftnet redirect %v: %v: %s", args, err, out)
	}
	return out
}

// refuses asserts that a redirect is refused with all of these words.
func (w *world) refuses(t *testing.T, words []string, args ...string) {
	t.Helper()
	out, err := w.redirect(args...)
	if err == nil || !hasLine(out, words) {
		t.Errorf("nftnet redirect %v: %v, %q; want an error with %q", args, err, out, words)
	}
}

// answersOutside asserts that a server answers on port 80, and by UDP on 53, to
// the neighbour and to the host itself by each of its addresses.
func (w *world) answersOutside(t *testing.T, when string, hosts []netip.Addr) {
	t.Helper()
	for host, lan := range map[netip.Addr]netip.Addr{w.HostAddr4: w.LANAddr4, w.HostAddr6: w.LANAddr6} {
		r := reaches(t, w.LAN, when+": LAN", url(host, 80))
		if r.Client != lan {
			t.Errorf("%s: the server sees %v, want the neighbour's own %v", when, r.Client, lan)
		}
		if _, err := w.LAN.UDP(netip.AddrPortFrom(host, 53).String(), 2*time.Second); err != nil {
			t.Errorf("%s: LAN by %v, UDP: %v", when, host, err)
		}
	}
	for _, a := range hosts {
		reaches(t, w.Host, when+": host", url(a, 80))
		if _, err := w.Host.UDP(netip.AddrPortFrom(a, 53).String(), 2*time.Second); err != nil {
			t.Errorf("%s: host by %v, UDP: %v", when, a, err)
		}
	}
}

// answersContainers is answersOutside for containers, by the host's addresses
// and the gateways of their network.
func (w *world) answersContainers(t *testing.T, when string) {
	t.Helper()
	for _, a := range []netip.Addr{w.HostAddr4, w.HostAddr6, netip.MustParseAddr("10.81.0.1"), netip.MustParseAddr("fd00:81::1")} {
		if _, err := w.engine.Peer(t, "c1", "http", url(a, 80)); err != nil {
			t.Errorf("%s: container by %v: %v", when, a, err)
		}
		if _, err := w.engine.Peer(t, "c1", "udp", netip.AddrPortFrom(a, 53).String()); err != nil {
			t.Errorf("%s: container by %v, UDP: %v", when, a, err)
		}
	}
}

// linkLocal is the docker host's link-local address on the LAN.
func (w *world) linkLocal(t *testing.T) netip.Addr {
	t.Helper()
	words := strings.Fields(w.Host.Exec(t, "ip", "-br", "-6", "addr", "show", "dev", "eth0", "scope", "link"))
	return netip.MustParsePrefix(words[len(words)-1]).Addr()
}

func TestA55Redirect(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80")
	w.serveAsNobody(t, "-http", ":3000", "-udp", ":5353")
	before := w.tableText(t)

	if out := w.mustRedirect(t, "add", "80", "3000"); out != "redirect 80-tcp: port 80/tcp on every address of this host leads to port 3000\n" {
		t.Errorf("add says %q", out)
	}
	w.mustRedirect(t, "add", "53", "5353", "--proto", "udp", "--name", "dns")
	want := w.tableText(t)
	answers := func(when string) {
		t.Helper()
		w.answersOutside(t, when, hostAddrs(w))
		w.answersContainers(t, when)
		if got := w.tableText(t); got != want {
			t.Errorf("%s the table is\n%s\nit was\n%s", when, got, want)
		}
	}
	answers("added")
	reaches(t, w.LAN, "LAN by a link-local address", fmt.Sprintf("http://[%s%%25eth0]:80/", w.linkLocal(t)))
	reaches(t, w.LAN, "LAN to the port itself", url(w.HostAddr4, 3000))
	reaches(t, w.LAN, "LAN to the published port", url(w.HostAddr4, 8080))
	bothBridgeNF(t, w, func(t *testing.T) { w.answersContainers(t, "bridged") })
	for _, addr := range []string{"0.0.0.0:80", "127.0.0.1:80"} {
		if err := w.Host.Do(func() error {
			l, err := listenTCP(addr)
			if err == nil {
				_ = l.Close()
			}
			return err
		}); err == nil {
			t.Errorf("another program can listen on %s", addr)
		}
	}

	w.Exec(t, "nft", "flush", "ruleset")
	eventually(t, "the redirect after a flush", func() error {
		_, err := w.LAN.TryGet(url(w.HostAddr4, 80), 500*time.Millisecond)
		return err
	})
	answers("after a flush")
	w.driver.Stop(t)
	answers("while the driver is stopped")
	w.startDriver(t)
	answers("after a restart")
	w.driver.Kill(t)
	w.startDriver(t)
	answers("after kill -9")
	w.driver.Kill(t)
	w.Exec(t, "nft", "flush", "ruleset")
	w.startDriver(t)
	answers("after a flush while it was down")

	w.mustRedirect(t, "rm", "80", "dns")
	if after := w.tableText(t); after != before {
		t.Errorf("the table is not as it was:\n%s\nit was:\n%s", after, before)
	}
	for _, addr := range []string{"0.0.0.0:80", "0.0.0.0:53"} {
		nstestFree(t, w, addr)
	}
	for _, from := range []*nstest.NS{w.LAN, w.Host} {
		if r, err := from.TryGet(url(w.HostAddr4, 80), silence); err == nil || isTimeout(err) {
			t.Errorf("port 80 after the end: %+v, %v; want a refusal", r, err)
		}
	}
	w.driver.Stop(t)
	w.startDriver(t)
	if after := w.tableText(t); after != before {
		t.Errorf("the redirect came back:\n%s", after)
	}
}

// TestA55Conflicts: whoever is first keeps the port, and is named to the other.
func TestA55Conflicts(t *testing.T) {
	w := web(t)
	nstest.Serve(t, w.Host, "0.0.0.0:8088", "")
	before := w.tableText(t)
	for args, words := range map[string][]string{
		"8080 3000":                      {"redirect 8080-tcp", "publishes host port 0.0.0.0:8080/tcp", "(container c1)"},
		"8080 3000 --address 192.0.2.1":  {"8080/tcp on 192.0.2.1", "(container c1)"},
		"8090 3000":                      {"publishes host port 127.0.0.1:8090/tcp", "(container c1)"},
		"5353 3000 --proto udp":          {"5353/udp", "(container c1)"},
		"80 8080":                        {"redirect 80-tcp (80/tcp to 8080)", "publishes host port 0.0.0.0:8080/tcp", "(container c1)"},
		"8088 3000":                      {"8088/tcp", "another program on this host has it"},
		"80 80":                          {"port 80 to itself is not allowed"},
		"80 0":                           {`port "0" is not allowed`},
		"80 3000 --address 198.51.100.9": {"198.51.100.9:80/tcp", "the host has no such address"},
		"80 3000 --proto icmp":           {`protocol "icmp" is not allowed: tcp, udp and sctp are`},
	} {
		w.refuses(t, words, append([]string{"add"}, strings.Fields(args)...)...)
	}
	if after := w.tableText(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
	w.mustRedirect(t, "add", "80", "3000")
	w.refuses(t, []string{"redirect 80-tcp (80/tcp to 3000) has port"}, "add", "80", "3001", "--name", "second")
	for publish, words := range map[string][]string{
		"80:80":           {"0.0.0.0:80/tcp", "redirect 80-tcp (80/tcp to 3000) has it already", "nftnet redirect rm 80-tcp"},
		"127.0.0.1:80:80": {"127.0.0.1:80/tcp", "redirect 80-tcp (80/tcp to 3000)"},
		"3000:80":         {"0.0.0.0:3000/tcp", "redirect 80-tcp (80/tcp to 3000) leads there"},
	} {
		w.refused(t, words, "run", "-d", "--name", "c2", "--network", "web", "-p", publish, w.image, "/peer", "serve", "-http", ":80")
		w.engine.Docker(t, "rm", "-f", "c2")
	}
	w.mustRedirect(t, "rm", "80-tcp")
	w.run(t, "c2", "web", "-p", "80:80")
	reaches(t, w.LAN, "LAN to the container that got the port", url(w.HostAddr4, 80))
}

// TestA55WithoutDocker is the blog post's host: a server without privileges,
// and no Docker at all.
func TestA55WithoutDocker(t *testing.T) {
	w := bare(t)
	before := w.tableText(t)
	out := w.mustRedirect(t, "add", "80", "3000")
	if !strings.Contains(out, "note: nothing listens on port 3000/tcp yet") {
		t.Errorf("without a server add says %q", out)
	}
	w.mustRedirect(t, "add", "53", "5353", "--proto", "udp", "--name", "dns")
	server := w.serveAsNobody(t, "-http", ":3000", "-udp", ":5353")
	hosts := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9"), netip.IPv6Loopback(), w.HostAddr4, w.HostAddr6}
	w.answersOutside(t, "added", hosts)
	w.driver.Kill(t)
	w.startDriver(t)
	w.answersOutside(t, "after kill -9", hosts)

	out = w.mustRedirect(t, "ls")
	program := fmt.Sprintf("peer (pid %d) on ::", server.Pid())
	for _, words := range [][]string{
		{"NAME", "PORT", "PROTOCOL", "ADDRESS", "LEADS TO", "SERVER"}, {"80-tcp", "tcp", "every", "3000", program}, {"dns", "udp", "every", "5353", program},
	} {
		if !hasLine(out, words) {
			t.Errorf("nftnet redirect ls has no line with %q:\n%s", words, out)
		}
	}
	var list []control.Redirect
	if err := json.Unmarshal([]byte(w.mustRedirect(t, "ls", "--format", "json")), &list); err != nil || len(list) != 2 || list[1].Port != 80 || list[1].To != 3000 {
		t.Errorf("nftnet redirect ls --format json: %+v, %v", list, err)
	}
	if out := w.Exec(t, binary, "__complete", "redirect", "rm", "dns", ""); !strings.Contains(out, "80-tcp\tport 80/tcp") || strings.Contains(out, "dns\t") {
		t.Errorf("completion of names: %q", out)
	}
	if out := w.Exec(t, binary, "inspect", "--table", "nftnet"); !strings.Contains(strings.Join(strings.Fields(out), " "), "sent to this host itself, port 3000 (redirect)") {
		t.Errorf("nftnet inspect does not explain the redirect:\n%s", out)
	}
	w.refuses(t, []string{`there is no redirect "none"`}, "rm", "dns", "none")
	w.mustRedirect(t, "rm", "80/tcp", "dns")
	if after := w.tableText(t); after != before {
		t.Errorf("the table is not as it was:\n%s", after)
	}
	if out := w.mustRedirect(t, "ls"); out != "there are no redirects\n" {
		t.Errorf("nftnet redirect ls: %q", out)
	}
	w.driver.Stop(t)
	w.refuses(t, []string{`"nftnet serve" is not running on ` + socket, "start it"}, "ls")
}

// TestA55LoopbackServer: what add says of a server that listens on loopback
// alone is what packets do.
func TestA55LoopbackServer(t *testing.T) {
	w := bare(t)
	w.serveAsNobody(t, "-http", "127.0.0.1:3000")
	out := w.mustRedirect(t, "add", "80", "3000")
	for _, words := range []string{
		"warning: peer (pid ", "listens on 127.0.0.1 only", "    from outside and from containers by IPv4\n", "    from the host itself to [::1]:80\n",
		`let the server listen on every address, ":3000"`, "bind 0.0.0.0 [::]",
	} {
		if !strings.Contains(out, words) {
			t.Errorf("add does not say %q:\n%s", words, out)
		}
	}
	for _, a := range []string{"127.0.0.1", w.HostAddr4.String()} {
		reaches(t, w.Host, "host", "http://"+a+":80/")
	}
	for what, u := range map[*nstest.NS]string{w.LAN: url(w.HostAddr4, 80), w.Host: "http://[::1]:80/"} {
		if r, err := what.TryGet(u, silence); err == nil {
			t.Errorf("%s answers (%+v): the warning is wrong", u, r)
		}
	}
}

// TestA55WithoutIPv6: a host without IPv6 is told nothing of it.
func TestA55WithoutIPv6(t *testing.T) {
	w := bare(t)
	w.Host.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
	w.serveAsNobody(t, "-http", "0.0.0.0:3000")
	if out := w.mustRedirect(t, "add", "80", "3000"); strings.Count(out, "\n") != 1 {
		t.Errorf("add says %q", out)
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 80))
	reaches(t, w.Host, "host", "http://127.0.0.1:80/")
	w.mustRedirect(t, "rm", "80")
	nstestFree(t, w, "0.0.0.0:80")
}

// TestA55OneAddress: a redirect of one address leaves the others alone.
func TestA55OneAddress(t *testing.T) {
	w := bare(t)
	w.Host.Exec(t, "ip", "addr", "add", "192.0.2.11/24", "dev", "eth0")
	w.serveAsNobody(t, "-http", ":3000")
	w.mustRedirect(t, "add", "80", "3000", "--address", "192.0.2.11", "--name", "four")
	w.mustRedirect(t, "add", "80", "3000", "--address", w.HostAddr6.String(), "--name", "six")
	for _, from := range []*nstest.NS{w.LAN, w.Host} {
		reaches(t, from, "the address", "http://192.0.2.11:80/")
		reaches(t, from, "the address", url(w.HostAddr6, 80))
		if _, err := from.TryGet(url(w.HostAddr4, 80), silence); err == nil {
			t.Errorf("%s answers on another address", from.Name())
		}
	}
	nstestFree(t, w, "192.0.2.1:80")
	w.refuses(t, []string{`"80" means several redirects`, "four", "six"}, "rm", "80")
	w.mustRedirect(t, "rm", "four", "six")
}

// TestA55EarlyKnock: a client that asked before the redirect came is answered,
// though the kernel has its flow down as one that is not translated.
func TestA55EarlyKnock(t *testing.T) {
	w := bare(t)
	w.serveAsNobody(t, "-udp", ":5353")
	// A server that takes and never answers keeps the flow alive.
	w.Host.Exec(t, "nft", "add table inet block; add chain inet block input { type filter hook input priority 0; }; add rule inet block input udp dport 53 drop")
	client := make(chan error, 1)
	go func() {
		_, err := w.LAN.UDP(netip.AddrPortFrom(w.HostAddr4, 53).String(), 8*time.Second)
		client <- err
	}()
	time.Sleep(time.Second)
	w.mustRedirect(t, "add", "53", "5353", "--proto", "udp")
	if err := <-client; err != nil {
		t.Errorf("a client that knocked before: %v", err)
	}
}
