package store

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
)

func state() desired.State {
	s := desired.New()
	s.Networks["n1"] = desired.Network{
		ID: "n1", Bridge: "nft-n1", ICC: true, Masquerade: true, MTU: 1400, IfacePrefix: "eth",
		IPv4: desired.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
	}
	s.Endpoints["e1"] = desired.Endpoint{
		ID: "e1", NetworkID: "n1", IPv4: netip.MustParseAddr("10.1.0.2"), MAC: "02:42:0a:01:00:02", HostLink: "nfve1",
		Published: []desired.Port{{
			Proto: 6, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Container: netip.MustParseAddrPort("10.1.0.2:80"),
		}},
	}
	s.Redirects["web"] = desired.Redirect{Name: "web", Proto: 6, Port: 80, To: 3000, Address: netip.MustParseAddr("192.0.2.1")}
	return s
}

var netipValues = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func load(t *testing.T, s *Store) desired.State {
	t.Helper()
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestStateSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state.db")
	s := open(t, path)
	if diff := cmp.Diff(desired.New(), load(t, s), netipValues); diff != "" {
		t.Errorf("a new file is not empty:\n%s", diff)
	}
	if err := s.Save(desired.New(), state()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	if diff := cmp.Diff(state(), load(t, s), netipValues); diff != "" {
		t.Errorf("what was read back differs:\n%s", diff)
	}
	if err := s.Save(state().Part("n1", "e1"), state().Part("n1", "")); err != nil {
		t.Fatal(err)
	}
	if got := load(t, s); len(got.Endpoints) != 0 || len(got.Networks) != 1 {
		t.Errorf("the endpoint is still there: %+v", got)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "open in another process") {
		t.Error(err)
	}
}

// TestImpossibleRedirect is refused: the kernel would refuse the whole table.
func TestImpossibleRedirect(t *testing.T) {
	for words, r := range map[string]desired.Redirect{
		"port 0 is not a port": {Name: "web", Proto: 6, Port: 80},
		"it calls itself":      {Name: "other", Proto: 6, Port: 80, To: 3000},
		"protocol 1":           {Name: "web", Proto: 1, Port: 80, To: 3000},
	} {
		s := open(t, filepath.Join(t.TempDir(), "state.db"))
		bad := desired.New()
		bad.Redirects["web"] = r
		if err := s.Save(desired.New(), bad); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "redirect web: "+words) {
			t.Errorf("%+v: %v, want %q", r, err, words)
		}
	}
}

// TestDamagedFile is refused and kept: a silent start from nothing would cut
// off every container.
func TestDamagedFile(t *testing.T) {
	good := filepath.Join(t.TempDir(), "state.db")
	s := open(t, good)
	if err := s.Save(desired.New(), state()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	overwritten := func(from int) []byte {
		b := bytes.Clone(whole)
		for i := from; i < from+page && i < len(b); i++ {
			b[i] = 0xa5
		}
		return b
	}
	for name, content := range map[string][]byte{
		"text":           []byte(strings.Repeat("no database\n", 1000)),
		"short":          whole[:100],
		"truncated":      whole[:3*page],
		"pages garbled":  append(bytes.Clone(whole[:2*page]), bytes.Repeat([]byte{0xa5}, len(whole)-2*page)...),
		"entry garbled":  bytes.ReplaceAll(whole, []byte(`{"id"`), []byte(`{"xd`)),
		"entry no JSON":  bytes.ReplaceAll(whole, []byte(`"network_id":`), []byte(`"network_id" `)),
		"metas garbled":  append(bytes.Repeat([]byte{0xa5}, 2*page), whole[2*page:]...),
		"second garbled": overwritten(3 * page),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err == nil {
				// What can be read must be all of it.
				got := load(t, s)
				_ = s.Close()
				if diff := cmp.Diff(state(), got, netipValues); diff != "" {
					t.Fatalf("a damaged file is opened, with a loss:\n%s", diff)
				}
				return
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("the damaged file was changed: %v", err)
			}
		})
	}
}
