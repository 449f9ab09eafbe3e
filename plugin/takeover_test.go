package plugin

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/control"
	"nftnet/internal/nstest"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/store"
)

// splitNetworks makes network 1, IPv4 with a default address for ports, and
// network 2, IPv6 alone.
func (r *rig) splitNetworks(t *testing.T, binding string) {
	t.Helper()
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(1), "Options": m{libnetwork.Generic: m{"com.docker.network.bridge.host_binding_ipv4": binding}},
		"IPv4Data": []m{{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24"}},
	})
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(2), "Options": m{libnetwork.Generic: m{}},
		"IPv6Data": []m{{"Pool": "fd00:2::/64", "Gateway": "fd00:2::1/64"}},
	})
}

var web = m{"com.docker.network.portmap": []m{published(8080, 80)}}

// joinSplit attaches the container of sandbox to one of those networks.
func (r *rig) joinSplit(t *testing.T, n int) {
	t.Helper()
	who := ids(n, n)
	r.ok(t, "CreateEndpoint", with(who, "Interface", map[int]m{1: {"Address": "10.1.0.2/24"}, 2: {"AddressIPv6": "fd00:2::2/64"}}[n]))
	r.ok(t, "Join", with(with(who, "SandboxKey", "/nowhere/netns/0123456789ab"), "Options", web))
}

func (r *rig) program(t *testing.T, n int) string {
	t.Helper()
	errText, _ := r.call(t, "ProgramExternalConnectivity", with(ids(n, n), "Options", web))
	return errText
}

// leads lists the host ports with what they lead to.
func (r *rig) leads() string {
	var out []string
	for _, p := range r.driver.Published() {
		out = append(out, p.Host+">"+p.Container)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (r *rig) leadsTo(t *testing.T, want string) {
	t.Helper()
	if got := r.leads(); got != want {
		t.Errorf("the ports are %q, want %q", got, want)
	}
	r.consistent(t)
}

// TestA65HostBinding: where the networks of a container publish on different
// addresses, a port moves from all addresses to one and back.
func TestA65HostBinding(t *testing.T) {
	const split = "127.0.0.1:8080>10.1.0.2:80 [::]:8080>[fd00:2::2]:80"
	r := newRig(t)
	r.splitNetworks(t, "127.0.0.1")
	r.joinSplit(t, 2)
	if text := r.program(t, 2); text != "" {
		t.Fatal(text)
	}
	r.leadsTo(t, "0.0.0.0:8080>[fd00:2::2]:80 [::]:8080>[fd00:2::2]:80")
	r.joinSplit(t, 1)
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.leadsTo(t, split)
	r.ok(t, "RevokeExternalConnectivity", ids(1, 1))
	r.leadsTo(t, "0.0.0.0:8080>[fd00:2::2]:80 [::]:8080>[fd00:2::2]:80")
	// A refused change leaves what was.
	other, err := net.Listen("tcp4", "127.0.0.1:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	both := with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{published(8080, 80), published(8081, 81)}})
	if text, _ := r.call(t, "ProgramExternalConnectivity", both); !strings.Contains(text, "8081") {
		t.Errorf("the refusal is %q", text)
	}
	r.leadsTo(t, "0.0.0.0:8080>[fd00:2::2]:80 [::]:8080>[fd00:2::2]:80")
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.leadsTo(t, split)
}

// TestA65OtherFamilyTaken: a family that cannot be taken over does not cost the
// other one.
func TestA65OtherFamilyTaken(t *testing.T) {
	r := newRig(t)
	r.splitNetworks(t, "127.0.0.1")
	other, err := net.Listen("tcp4", "127.0.0.2:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.joinSplit(t, 1)
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.joinSplit(t, 2)
	if text := r.program(t, 2); text != "" {
		t.Fatal(text)
	}
	r.ok(t, "RevokeExternalConnectivity", ids(1, 1))
	r.leadsTo(t, "[::]:8080>[fd00:2::2]:80")
}

// TestPortsBeforeJoin: ports that were asked for before Join are the sandbox's.
func TestPortsBeforeJoin(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	who := ids(1, 1)
	r.ok(t, "CreateEndpoint", with(who, "Interface", m{"Address": "10.1.0.2/24"}))
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.ok(t, "Join", with(with(who, "SandboxKey", "/nowhere/netns/0123456789ab"), "Options", web))
	r.leadsTo(t, "0.0.0.0:8080>10.1.0.2:80 [::]:8080>10.1.0.2:80")
	r.ok(t, "DeleteEndpoint", who)
	r.leadsTo(t, "")
}

// TestA43DeadOwnerAndRedirect: the port of a container that is dead does not keep
// the administrator from redirecting it.
func TestA43DeadOwnerAndRedirect(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.ok(t, "CreateEndpoint", with(ids(1, 1), "Interface", m{"Address": "10.1.0.2/24"}))
	r.ok(t, "Join", with(ids(1, 1), "SandboxKey", filepath.Join(t.TempDir(), "gone")))
	if text := r.program(t, 1); text != "" {
		t.Fatal(text)
	}
	r.mustRedirect(t, m{"port": 8080, "to": 3000})
	r.consistent(t)
}

// TestDeleteNetworkThatCannotGo: a rule of the user's that leads to a chain of
// ours keeps it in the kernel; the call says so, and works when the rule is gone.
func TestDeleteNetworkThatCannotGo(t *testing.T) {
	r := newRig(t)
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(1), "Options": m{libnetwork.Generic: m{"nftnet.antispoof": "strict"}},
		"IPv4Data": []m{{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24"}},
	})
	r.attach(t, 1, 1)
	nft := func(command string) {
		t.Helper()
		if out, err := exec.Command("nft", command).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", command, err, out)
		}
	}
	nft("add chain bridge nftnet mine")
	nft(fmt.Sprintf("add rule bridge nftnet mine jump spoof-%.12s", id(1001)))
	if text, _ := r.call(t, "DeleteNetwork", m{"NetworkID": id(1)}); !strings.Contains(text, "busy") {
		t.Errorf("DeleteNetwork: %q", text)
	}
	nft("delete chain bridge nftnet mine")
	r.ok(t, "DeleteNetwork", m{"NetworkID": id(1)})
	r.consistent(t)
}

// TestA62RedirectWithoutState: no redirect is changed while the state is lost.
func TestA62RedirectWithoutState(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	kept := filepath.Join(t.TempDir(), "kept.db")
	r := newRigAt(t, state)
	r.network(t, 1)
	r.attach(t, 1, 1, published(8080, 80))
	before := table(t)
	r.stop()
	if err := os.Rename(state, kept); err != nil {
		t.Fatal(err)
	}
	r = newRigAt(t, state)
	for path, body := range map[string]m{control.PathRedirects: {"port": 81, "to": 3000}, control.PathRemoveRedirect: {"name": "81-tcp"}} {
		if status, text := r.redirect(t, path, body); status != 503 || !strings.Contains(text, "state file was lost") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if now := table(t); now != before {
		t.Errorf("the table is now\n%s\nit was\n%s", now, before)
	}
	r.stop()
	newRigAt(t, kept)
}

// TestA78OlderState: ports of a running container that an older version stored
// stay, whatever happens to the container later.
func TestA78OlderState(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigAt(t, state)
	r.splitNetworks(t, "0.0.0.0")
	for n := 1; n <= 2; n++ {
		r.joinSplit(t, n)
		if text := r.program(t, n); text != "" {
			t.Fatal(text)
		}
	}
	const ports = "0.0.0.0:8080>10.1.0.2:80 [::]:8080>[fd00:2::2]:80"
	r.leadsTo(t, ports)
	ns := nstest.NewNS(t, "c1")
	moveLink(t, ns, r.containerLink(t, 2), "fd00:2::2/64")
	r.stop()
	olderState(t, state)
	r = newRigAt(t, state)
	r.leadsTo(t, ports)
	// What the container's IPv6 address leads to is looked at again each time.
	r.driver.familyChanged(id(1002))
	r.leadsTo(t, ports)
	r.ok(t, "RevokeExternalConnectivity", ids(1, 1))
	r.leadsTo(t, "0.0.0.0:8080>[fd00:2::2]:80 [::]:8080>[fd00:2::2]:80")
}

// containerLink is the container's end of endpoint n.
func (r *rig) containerLink(t *testing.T, n int) string {
	t.Helper()
	return strings.Replace(r.state().Endpoints[id(1000+n)].HostLink, "nfv", "nfc", 1)
}

// olderState takes from a state file what older versions did not store.
func olderState(t *testing.T, path string) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	older := before.Clone()
	for k, e := range older.Endpoints {
		e.Gateway, e.Asked = 0, nil
		older.Endpoints[k] = e
	}
	if err := s.Save(before, older); err != nil {
		t.Fatal(err)
	}
}
