package plugin

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// TestA66VethWhileDown: a link that was changed while no driver ran is what it
// was after the next start, and its container keeps its ports.
func TestA66VethWhileDown(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigAt(t, state)
	r.network(t, 1)
	r.attach(t, 1, 1, published(8080, 80))
	veth, bridge := r.state().Endpoints[id(1001)].HostLink, r.state().Networks[id(1)].Bridge
	moveLink(t, nstest.NewNS(t, "c1"), r.containerLink(t, 1), "10.1.0.3/24")
	ports := r.leads()
	for _, change := range []string{
		"ip link set VETH down",
		"ip link set VETH nomaster",
		"ip link set VETH down; ip link set VETH name other; ip link set other up",
	} {
		r.stop()
		if out, err := exec.Command("sh", "-ec", strings.ReplaceAll(change, "VETH", veth)).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", change, err, out)
		}
		r = newRigAt(t, state)
		whole := func() bool {
			out, err := exec.Command("ip", "-o", "link", "show", "dev", veth, "master", bridge, "up").CombinedOutput()
			return err == nil && len(out) > 0
		}
		if !poll(whole) {
			t.Errorf("after %q the link is\n%s", change, links(t))
		}
		r.leadsTo(t, ports)
	}
}

// poll waits until something is so.
func poll(done func() bool) bool {
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// TestA65UnheldPortMoves: a port that another program had at the start is held
// when that ends, also where it leads to another network by then.
func TestA65UnheldPortMoves(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigAt(t, state)
	r.network(t, 1)
	r.network(t, 2)
	for n := 1; n <= 2; n++ {
		who := ids(n, n)
		r.ok(t, "CreateEndpoint", with(who, "Interface", m{"Address": map[int]string{1: "10.1.0.2/24", 2: "10.2.0.2/24"}[n]}))
		r.ok(t, "Join", with(with(who, "SandboxKey", "/nowhere/netns/0123456789ab"), "Options", web))
	}
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.stop()
	other, err := net.Listen("tcp4", "0.0.0.0:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r = newRigAt(t, state)
	if text := r.program(t, 2); text != "" {
		t.Fatal(text)
	}
	unheld := func() bool { return len(r.driver.kernel.Problems()) == 1 }
	if !poll(unheld) {
		t.Errorf("nothing says that the port is not held: %v", r.driver.kernel.Problems())
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if !poll(func() bool { return r.held() == 2 }) {
		t.Errorf("%d ports are held, want 2", r.held())
	}
	r.leadsTo(t, "0.0.0.0:8080>10.2.0.2:80 [::]:8080>10.2.0.2:80")
}
