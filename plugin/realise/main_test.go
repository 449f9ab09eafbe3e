package realise

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/link"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// logged is the log of a test.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// memory keeps the copy of the user's rules for a test.
type memory struct {
	mu     sync.Mutex
	text   []byte
	refuse error
	// block stops whoever saves until it is closed.
	block chan struct{}
}

func (m *memory) UserRules() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text, nil
}

func (m *memory) SaveUserRules(text []byte) error {
	if m.block != nil {
		<-m.block
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	m.text = text
	return nil
}

func (m *memory) set(refuse error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

// rig is a Kernel with its log.
type rig struct {
	*Kernel
	log   *logged
	close func()
}

// open opens a Kernel in the namespace of the test, which is empty when the test
// ends.
func open(t *testing.T, c Config) *rig {
	t.Helper()
	nstest.RequireInside(t)
	l := &logged{}
	c.Log = slog.New(slog.NewTextHandler(l, nil))
	if c.UserRules == nil {
		c.UserRules = &memory{}
	}
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Kernel: k, log: l}
	r.close = sync.OnceFunc(func() {
		if err := k.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(func() {
		r.close()
		clearAll(t)
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return r
}

// started is a Kernel that has taken up a state.
func started(t *testing.T, s desired.State) *rig {
	t.Helper()
	r := open(t, Config{})
	r.restore(t, s)
	return r
}

func (r *rig) restore(t *testing.T, s desired.State) {
	t.Helper()
	if err := r.Restore(s); err != nil {
		t.Fatal(err)
	}
}

// add realises the state with more in it, as a call of Docker's does.
func (r *rig) add(t *testing.T, after desired.State) {
	t.Helper()
	if err := r.Realise(desired.New(), after); err != nil {
		t.Fatal(err)
	}
}

// clearAll takes all rules, and the links that the tests make.
func clearAll(t *testing.T) {
	t.Helper()
	run(t, "nft", "flush", "ruleset")
	for line := range strings.Lines(run(t, "ip", "-br", "link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		if name != "lo" && !strings.HasPrefix(name, "nfc") {
			// The other end of a pair may be gone with it.
			_ = exec.Command("ip", "link", "del", name).Run()
		}
	}
}

func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// patience bounds the wait for what takes a second at most.
const patience = 20 * time.Second

// eventually waits until something is so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// network is 10.<x>.0.0/24 and fd00:<x>::/64.
func network(x byte) desired.Network {
	id := strings.Repeat(fmt.Sprintf("%02d", x), 32)
	v6 := netip.AddrFrom16([16]byte{0: 0xfd, 3: x, 15: 1})
	return desired.Network{
		ID: id, Bridge: layout.BridgeName(id), ICC: true, Masquerade: true, MTU: 1500, IfacePrefix: "eth",
		IPv4: desired.Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, x}), 24), Gateway: netip.AddrFrom4([4]byte{10, x, 0, 1})},
		IPv6: desired.Subnet{Prefix: netip.PrefixFrom(v6, 64).Masked(), Gateway: v6},
	}
}

// endpoint is container number of a network.
func endpoint(x, number byte, ports ...desired.Port) desired.Endpoint {
	id := strings.Repeat(fmt.Sprintf("%02d%02d", number, x), 16)
	return desired.Endpoint{
		ID: id, NetworkID: network(x).ID, MAC: fmt.Sprintf("02:42:0a:%02x:00:%02x", x, number), HostLink: link.HostName(id),
		Sandbox: fmt.Sprintf("/nowhere/netns/%02d%02d", x, number), Published: ports,
		IPv4: netip.AddrFrom4([4]byte{10, x, 0, number}), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 3: x, 15: number}),
	}
}

func tcp(host, container string) desired.Port {
	return desired.Port{Proto: 6, Host: netip.MustParseAddrPort(host), Container: netip.MustParseAddrPort(container)}
}

func stateOf(networks []desired.Network, endpoints ...desired.Endpoint) desired.State {
	s := desired.New()
	for _, n := range networks {
		s.Networks[n.ID] = n
	}
	for _, e := range endpoints {
		s.Endpoints[e.ID] = e
	}
	return s
}

// web is a network with a container that publishes port 8080.
func web() desired.State {
	return stateOf([]desired.Network{network(1)}, endpoint(1, 2, tcp("0.0.0.0:8080", "10.1.0.2:80"), tcp("[::]:8080", "[fd00:1::2]:80")))
}

// tables reads what the kernel has of the driver's tables.
func (r *rig) tables(t *testing.T) rs.Ruleset {
	t.Helper()
	conn, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	have, err := conn.Read(kernel.Filter{Table: layout.Table})
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// differs says what the tables have that a state does not ask for, and what they
// lack.
func (r *rig) differs(t *testing.T, s desired.State) rs.Batch {
	t.Helper()
	return rs.Diff(r.tables(t), r.rules(s))
}

// isWhole waits until the tables are what a state asks for.
func (r *rig) isWhole(t *testing.T, s desired.State) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		diff := r.differs(t, s)
		if len(diff) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the tables are not what the state asks for after %v:\n%s", patience, diff)
		}
	}
}

// free reports whether another program can have a port.
func free(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func kind(t *testing.T, name string) string {
	t.Helper()
	k, err := link.Kind(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// master is the bridge that an interface is on.
func master(name string) string {
	out, _ := exec.Command("ip", "-o", "link", "show", name).Output()
	_, after, _ := strings.Cut(string(out), "master ")
	name, _, _ = strings.Cut(after, " ")
	return name
}

func sysctl(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "sysctl", "-n", name))
}
