package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// holdsSoon waits until a condition holds.
func holdsSoon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// TestA46PolicyDrop: iptables' FORWARD drops by policy, as dockerd leaves it
// where it switches forwarding on itself.
func TestA46PolicyDrop(t *testing.T) {
	w := emptyWorld(t)
	w.Exec(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	w.startDriver(t)
	w.startEngine(t)
	w.Exec(t, "ip6tables", "-P", "FORWARD", "DROP")
	if out := w.Exec(t, "iptables", "-S", "FORWARD"); !strings.Contains(out, "-P FORWARD DROP") {
		t.Fatalf("dockerd did not set the policy:\n%s", out)
	}
	before := map[string]string{}
	for _, cmd := range []string{"iptables", "ip6tables"} {
		before[cmd] = w.Exec(t, cmd, "-S", "FORWARD")
	}
	w.dual(t, "web", 81)
	w.dual(t, "lab", 82, "-o", "com.docker.network.bridge.name=lab0")
	w.run(t, "c1", "web", "-p", "8080:80")
	w.run(t, "c2", "lab", "-p", "8081:80")
	w.run(t, "old", "bridge", "-p", "8082:80")
	nstest.Serve(t, w.LAN, ":80", "")
	old := netip.MustParseAddr(w.engine.Docker(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "old"))

	row := func(t *testing.T) {
		t.Helper()
		for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
			reaches(t, w.LAN, "LAN to web", url(host, 8080))
			reaches(t, w.LAN, "LAN to lab", url(host, 8081))
			w.from(t, "c2", "another network to web", host, 8080)
		}
		reaches(t, w.LAN, "LAN to Docker's own network", url(w.HostAddr4, 8082))
		w.from(t, "old", "Docker's own network to web", w.HostAddr4, 8080)
		for _, c := range []string{"c1", "c2"} {
			w.from(t, c, c+" to LAN, IPv4", w.LANAddr4, 80)
			w.from(t, c, c+" to LAN, IPv6", w.LANAddr6, 80)
			w.from(t, c, c+" to the published port of Docker's own network", w.HostAddr4, 8082)
			w.neverFrom(t, c, c+" to an unpublished port of Docker's own network", old, 81)
		}
	}
	t.Run("as dockerd left it", row)
	for _, cmd := range []string{"iptables -S", "iptables-save", "ip6tables -S"} {
		out := w.Exec(t, strings.Fields(cmd)...)
		for _, line := range []string{"-o lab0 -m comment --comment nftnet -j ACCEPT", "-i lab0 -o docker0 -m comment --comment nftnet -j RETURN", "-i lab0 -m comment --comment nftnet -j ACCEPT"} {
			if !strings.Contains(out, "-A FORWARD "+line) {
				t.Errorf("%s does not list %q:\n%s", cmd, line, out)
			}
		}
	}
	w.Exec(t, "iptables", "-I", "DOCKER-USER", "-s", w.LANAddr4.String(), "-o", "lab0", "-j", "DROP")
	timesOut(t, w.LAN, "LAN, whom Docker's DOCKER-USER drops", url(w.HostAddr4, 8081))
	reaches(t, w.LAN, "LAN to the other network", url(w.HostAddr4, 8080))
	w.Exec(t, "iptables", "-D", "DOCKER-USER", "1")

	ours := func() int { return strings.Count(w.Exec(t, "iptables", "-S", "FORWARD"), "lab0") }
	count := ours()
	w.Exec(t, "iptables", "-F", "FORWARD")
	holdsSoon(t, "the lines are back after iptables -F", func() bool { return ours() == count })
	w.Exec(t, "iptables", "-P", "FORWARD", "ACCEPT")
	holdsSoon(t, "the lines are gone with the policy", func() bool { return ours() == 0 })
	w.Exec(t, "iptables", "-P", "FORWARD", "DROP")
	holdsSoon(t, "the lines are back with the policy", func() bool { return ours() == count })

	w.engine.Docker(t, "rm", "-f", "c1", "c2", "old")
	w.engine.Docker(t, "network", "rm", "web", "lab")
	if out := w.Exec(t, "ip6tables", "-S", "FORWARD"); out != before["ip6tables"] {
		t.Errorf("lines are left:\n%s", out)
	}
	if n := ours(); n != 0 {
		t.Errorf("%d lines are left in IPv4", n)
	}
}
