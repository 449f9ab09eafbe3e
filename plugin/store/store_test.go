package store

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
)

func state() desired.State {
	s := desired.New()
	s.Networks["n1"] = network("n1")
	s.Endpoints["e1"] = endpoint("e1")
	s.Redirects["web"] = desired.Redirect{Name: "web", Proto: 6, Port: 80, To: 3000, Address: netip.MustParseAddr("192.0.2.1")}
	return s
}

func network(id string) desired.Network {
	return desired.Network{
		ID: id, Bridge: "nft-" + id, ICC: true, Masquerade: true, MTU: 1400, IfacePrefix: "eth",
		IPv4: desired.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
	}
}

func endpoint(id string) desired.Endpoint {
	return desired.Endpoint{
		ID: id, NetworkID: "n1", IPv4: netip.MustParseAddr("10.1.0.2"), MAC: "02:42:0a:01:00:02", HostLink: "nfv" + id,
		Published: []desired.Port{{
			Proto: 6, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Container: netip.MustParseAddrPort("10.1.0.2:80"),
		}},
	}
}

// ofEndpoints is a state of endpoints alone.
func ofEndpoints(endpoints ...desired.Endpoint) desired.State {
	s := desired.New()
	for _, e := range endpoints {
		s.Endpoints[e.ID] = e
	}
	return s
}

// large is an endpoint whose entry has some 100 bytes for each of its ports.
func large(id string, ports int) desired.Endpoint {
	e := endpoint(id)
	for i := range ports {
		e.Published = append(e.Published, desired.Port{
			Proto: 6, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i)), Container: netip.AddrPortFrom(e.IPv4, uint16(i)),
		})
	}
	return e
}

var netipValues = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func opened(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func load(t testing.TB, s *Store) desired.State {
	t.Helper()
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func save(t testing.TB, s *Store, before, after desired.State) {
	t.Helper()
	if err := s.Save(before, after); err != nil {
		t.Fatal(err)
	}
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// holds asserts what the store says, and what the file holds for the process
// that opens it next: a copy of it is opened.
func holds(t testing.TB, s *Store, want desired.State) {
	t.Helper()
	if diff := cmp.Diff(want, load(t, s), netipValues); diff != "" {
		t.Errorf("the store holds something else:\n%s", diff)
	}
	fileHolds(t, s.path, want)
}

func fileHolds(t testing.TB, path string, want desired.State) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openBytes(t, text)
	if o := s.Origin(); o.Found != Read || o.Why != "" {
		t.Errorf("the file is not whole: %+v", o)
	}
	if diff := cmp.Diff(want, load(t, s), netipValues); diff != "" {
		t.Errorf("the file holds something else:\n%s", diff)
	}
}

// openBytes opens a file with the bytes given.
func openBytes(t testing.TB, text []byte) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return opened(t, path)
}

func TestStateSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state.db")
	s := opened(t, path)
	if s.Origin().Found != Missing {
		t.Errorf("origin of a new file: %+v", s.Origin())
	}
	holds(t, s, desired.New())
	save(t, s, desired.New(), state())
	if err := s.SaveUserRules([]byte("accept")); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	s = opened(t, path)
	if s.Origin().Found != Read {
		t.Errorf("origin of a good file: %+v", s.Origin())
	}
	holds(t, s, state())
	if rules, err := s.UserRules(); err != nil || string(rules) != "accept" {
		t.Errorf("the user's rules are %q, %v", rules, err)
	}
	save(t, s, state().Part("n1", "e1"), state().Part("n1", ""))
	want := state()
	delete(want.Endpoints, "e1")
	holds(t, s, want)
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	opened(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, err := filepath.Glob(path + "?*"); err != nil || len(names) > 0 {
		t.Errorf("there is more than the file: %v, %v", names, err)
	}
}

// TestEntriesThatStay are left alone: a part holds the network of an endpoint
// too, as it was when the part was taken.
func TestEntriesThatStay(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "state.db"))
	save(t, s, desired.New(), state())
	part := state().Part("n1", "")
	newer := part.Clone()
	n := newer.Networks["n1"]
	n.MTU = 9000
	newer.Networks["n1"] = n
	save(t, s, part, newer)
	with := part.Clone()
	with.Endpoints["e2"] = endpoint("e2")
	save(t, s, part, with)
	want := state()
	want.Networks["n1"] = n
	want.Endpoints["e2"] = endpoint("e2")
	holds(t, s, want)
}

func childHold(args []string) int {
	s, err := Open(args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = s.Close()
	return 0
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	first := start(t, "hold", path)
	if got := first.line(t); got != "open" {
		t.Fatal(got)
	}
	_, err := Open(path)
	want := fmt.Sprintf("state file %s: it is open in another process (pid %d, ", path, first.cmd.Process.Pid)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	first.kill()
	opened(t, path)
}

// TestImpossibleRedirect is refused: the kernel would refuse the whole table.
func TestImpossibleRedirect(t *testing.T) {
	for words, r := range map[string]desired.Redirect{
		"port 0 is not a port": {Name: "web", Proto: 6, Port: 80},
		"it calls itself":      {Name: "other", Proto: 6, Port: 80, To: 3000},
		"protocol 1":           {Name: "web", Proto: 1, Port: 80, To: 3000},
	} {
		path := filepath.Join(t.TempDir(), "state.db")
		s := opened(t, path)
		bad := state()
		bad.Redirects["web"] = r
		save(t, s, desired.New(), bad)
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v, want %q", r, err, words)
		}
		closed(t, s)
		o := opened(t, path).Origin()
		if o.Found != Damaged || !strings.Contains(o.Why, words) {
			t.Errorf("origin %+v, want %q", o, words)
		}
		want := state()
		delete(want.Redirects, "web")
		if diff := cmp.Diff(want, o.Salvaged, netipValues); diff != "" {
			t.Errorf("salvaged:\n%s", diff)
		}
	}
}

// TestEveryKindIsStored asserts that nothing of a state is left out.
func TestEveryKindIsStored(t *testing.T) {
	s := desired.New()
	fields := reflect.ValueOf(s)
	for i := range fields.NumField() {
		m := fields.Field(i)
		m.SetMapIndex(reflect.ValueOf("x"), reflect.Zero(m.Type().Elem()))
	}
	changes, err := allChanges(desired.New(), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != fields.NumField() {
		t.Errorf("a state has %d kinds of entries, %d are stored", fields.NumField(), len(changes))
	}
}
