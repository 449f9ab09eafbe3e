package e2e

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// report is what nftnet status tells programs.
type report struct {
	OK       bool
	Driver   bool
	Table    bool
	Networks []struct{ Name, Bridge string }
	Ports    int
	Findings []struct {
		Level, Object, Flow, Sentence, Mend string
		Networks, Families                  []string
	}
}

// status runs nftnet status and checks that its exit status tells what it
// prints.
func (w *world) status(t *testing.T) report {
	t.Helper()
	cmd := w.Command("env", "DOCKER_HOST=unix://"+filepath.Join(w.Dir, "docker.sock"), binary, "status", "--socket", socket, "--format", "json")
	out, err := cmd.Output()
	var r report
	if e := json.Unmarshal(out, &r); e != nil {
		t.Fatalf("status: %v, %v:\n%s", err, e, out)
	}
	if r.OK != (cmd.ProcessState.ExitCode() == 0) {
		t.Errorf("exit status %d, but ok is %v:\n%s", cmd.ProcessState.ExitCode(), r.OK, out)
	}
	return r
}

// mends lists the lines that a report prints for a chain.
func (r report) mends(chain string) []string {
	var out []string
	for _, f := range r.Findings {
		if f.Level == "error" && f.Object == chain {
			out = append(out, f.Mend)
		}
	}
	return out
}

// mend is the line that a report prints for one flow; empty where none is
// dropped.
func (r report) mend(chain, flow string) string {
	for _, f := range r.Findings {
		if f.Level == "error" && f.Object == chain && f.Flow == flow {
			return f.Mend
		}
	}
	return ""
}

// mend runs the line that status prints for one flow.
func (w *world) mend(t *testing.T, chain, flow string) {
	t.Helper()
	line := w.status(t).mend(chain, flow)
	if line == "" {
		t.Fatalf("status has no line for %s at %s", flow, chain)
	}
	w.Exec(t, "sh", "-ec", line)
}

// fine asserts that nothing is found in the way.
func (w *world) fine(t *testing.T) {
	t.Helper()
	if r := w.status(t); !r.OK || len(r.Findings) > 0 {
		t.Errorf("status finds something in the way: %+v", r.Findings)
	}
}

func (w *world) hostAddrs() []netip.Addr { return []netip.Addr{w.HostAddr4, w.HostAddr6} }

// fromLAN asserts whether the LAN neighbour reaches the published port.
func (w *world) fromLAN(t *testing.T, open bool) {
	t.Helper()
	for _, a := range w.hostAddrs() {
		if open {
			reaches(t, w.LAN, "LAN", url(a, 8080))
		} else {
			timesOut(t, w.LAN, "LAN", url(a, 8080))
		}
	}
}

// toLAN asserts whether a container reaches a server on the neighbour.
func (w *world) toLAN(t *testing.T, open bool) {
	t.Helper()
	for _, a := range []netip.Addr{w.LANAddr4, w.LANAddr6} {
		if r, err := w.engine.Peer(t, "c1", "http", url(a, 80)); open != (err == nil) {
			t.Errorf("container to %v: %+v, %v; want it to pass: %v", a, r, err, open)
		}
	}
}

func TestA33UserTableThatDrops(t *testing.T) {
	w := web(t)
	nstest.Serve(t, w.LAN, ":80", "")
	w.fromLAN(t, true)
	w.toLAN(t, true)
	w.fine(t)

	const chain = "chain inet filter forward"
	w.Exec(t, "nft", "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }")
	w.fromLAN(t, false)
	w.toLAN(t, false)
	text, err := w.Try(binary, "status", "--socket", socket)
	if err == nil {
		t.Error("status ends well although a chain drops everything")
	}
	if text = prose(text); !strings.Contains(text, "published ports of network") || !strings.Contains(text, chain+" at hook forward drops their first packets by its policy drop") {
		t.Errorf("status does not name the chain: %s", text)
	}

	// Each line mends what it says, in both families, and nothing else.
	w.mend(t, chain, "published")
	w.fromLAN(t, true)
	w.toLAN(t, false)
	w.mend(t, chain, "outgoing")
	w.toLAN(t, true)
	w.fine(t)
}

// TestA33Neighbours: where bridged frames go through the IP hooks, a chain that
// drops keeps the containers of one network from each other, too.
func TestA33Neighbours(t *testing.T) {
	w := web(t)
	w.run(t, "c2", "web")
	w.Exec(t, "nft", "table inet filter { chain forward { type filter hook forward priority 0; policy drop; }; }")
	const chain = "chain inet filter forward"
	bothBridgeNF(t, w, func(t *testing.T) {
		bridged := w.Host.Exec(t, "sysctl", "-n", "net.bridge.bridge-nf-call-iptables") == "1"
		for _, v6 := range []bool{false, true} {
			if r, err := w.engine.Peer(t, "c2", "http", url(w.address(t, "c1", "web", v6), 80)); bridged == (err == nil) {
				t.Errorf("neighbour, frames in the IP hooks %v: %+v, %v", bridged, r, err)
			}
		}
		if found := w.status(t).mend(chain, "neighbours") != ""; found != bridged {
			t.Errorf("status finds that neighbours are dropped: %v, frames in the IP hooks: %v", found, bridged)
		}
		if !bridged {
			return
		}
		w.mend(t, chain, "neighbours")
		for _, v6 := range []bool{false, true} {
			if _, err := w.engine.Peer(t, "c2", "http", url(w.address(t, "c1", "web", v6), 80)); err != nil {
				t.Errorf("neighbour, after the line: %v", err)
			}
		}
	})
}

// TestA33WithoutObstacle: who accepts in their own chain what is translated and
// what goes out is told that all is well.
func TestA33WithoutObstacle(t *testing.T) {
	w := web(t)
	nstest.Serve(t, w.LAN, ":80", "")
	w.Exec(t, "nft", `table inet filter { chain forward { type filter hook forward priority 0; policy drop; ct status dnat accept; ct state established,related accept; iifname "nft-*" accept; ip saddr 198.51.100.0/24 drop; }; }`)
	w.fromLAN(t, true)
	w.toLAN(t, true)
	w.fine(t)
}

// TestA33RuleInJumpedChain: the line takes effect where the packet is dropped,
// behind what the user drops before.
func TestA33RuleInJumpedChain(t *testing.T) {
	w := web(t)
	w.Exec(t, "nft", `table inet mine { chain f { type filter hook forward priority 10; ct state established,related accept; iifname "nft-*" accept; jump rest; }; chain rest { ip saddr 198.51.100.0/24 drop; reject; }; }`)
	lines := w.status(t).mends("chain inet mine f")
	if len(lines) != 1 {
		t.Fatalf("lines %q, want one", lines)
	}
	w.Exec(t, "sh", "-ec", lines[0])
	w.fromLAN(t, true)
	w.fine(t)
	if rules := w.Exec(t, "nft", "list", "chain", "inet", "mine", "rest"); strings.Index(rules, "198.51.100.0") > strings.Index(rules, "dnat") {
		t.Errorf("the line goes before the user's own drop:\n%s", rules)
	}
}

// TestA33PolicyOfIptables: what dockerd sets when it switches forwarding on
// itself. Whether the driver deals with it or not, status tells the truth, and
// its line leaves the table to iptables.
func TestA33PolicyOfIptables(t *testing.T) {
	w := web(t)
	nstest.Serve(t, w.LAN, ":80", "")
	w.Exec(t, "iptables", "-P", "FORWARD", "DROP")
	w.Exec(t, "ip6tables", "-P", "FORWARD", "DROP")
	for _, family := range []string{"ip", "ip6"} {
		for _, l := range w.status(t).mends("chain " + family + " filter FORWARD") {
			if !strings.HasPrefix(l, family+"tables ") && !strings.HasPrefix(l, "iptables ") {
				t.Errorf("the line for iptables' table is %q", l)
			}
			w.Exec(t, "sh", "-ec", l)
		}
	}
	w.fromLAN(t, true)
	w.toLAN(t, true)
	w.fine(t)
	w.Exec(t, "iptables-save")
	w.Exec(t, "ip6tables-save")
}

func TestStatusOfTheHost(t *testing.T) {
	w := web(t)
	r := w.status(t)
	if !r.Driver || !r.Table || len(r.Networks) != 1 || r.Networks[0].Name != "web" || !strings.HasPrefix(r.Networks[0].Bridge, "nft-") {
		t.Errorf("status: %+v", r)
	}
	w.driver.Kill(t)
	// A driver that runs would repair it.
	w.Exec(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	if lines := w.status(t).mends(""); !slices.Equal(lines, []string{"systemctl start nftnet", "sysctl -w net.ipv4.ip_forward=1"}) {
		t.Errorf("without driver and with forwarding off: %q", lines)
	}
	w.Exec(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	w.Exec(t, "nft", "delete", "table", "inet", "nftnet")
	if r = w.status(t); r.OK || r.Driver || r.Table || len(r.Networks) != 1 {
		t.Errorf("without driver and table: %+v", r)
	}
	out, err := w.Try("setpriv", "--reuid", "65534", "--clear-groups", binary, "status")
	if err == nil || !strings.Contains(err.Error(), "needs root, or CAP_NET_ADMIN") {
		t.Errorf("without root: %v %s", err, out)
	}
}
