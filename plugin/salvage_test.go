package plugin

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nftnet/plugin/libnetwork"
)

// spoil damages the entry of an endpoint in a state file, wherever it stands.
func spoil(t *testing.T, path, endpointID string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entry := []byte(fmt.Sprintf(`{"id":%q`, endpointID))
	if !bytes.Contains(text, entry) {
		t.Fatalf("the file has no endpoint %s", endpointID)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(text, entry, bytes.Repeat([]byte("x"), len(entry))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestA62PartOfTheState: where a part of the state file can be read and Docker
// cannot be asked, nothing changes for running containers; what could be read is
// there when Docker answers, and ports keep their numbers.
func TestA62PartOfTheState(t *testing.T) {
	soon(t)
	e := newEngine()
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigWith(t, Config{State: state, Docker: e})
	r.mustRedirect(t, m{"port": 81, "to": 3000})
	e.network(t, r, 1)
	e.run(t, r, 1, 1, binding(8080, 80))
	e.run(t, r, 1, 2, libnetwork.PortBinding{Proto: 6, Port: 80})
	ports, rules, redirects := r.leads(), table(t), r.redirects(t)
	r.stop()
	spoil(t, state, id(1002))
	e.set(func() { e.down, e.again = true, nil })
	r = newRigWith(t, Config{State: state, Docker: e})
	if got := table(t); got != rules {
		t.Errorf("the rules changed while Docker cannot be asked:\n%s\nthey were:\n%s", got, rules)
	}
	e.set(func() { e.down = false })
	e.tell(t)
	eventually(t, "the state is whole", func() bool { return r.driver.ready() == nil && len(r.state().Endpoints) == 2 })
	r.ended(id(1002))
	if got := r.redirects(t); got != redirects {
		t.Errorf("redirects: %s, want %s", got, redirects)
	}
	r.leadsTo(t, ports)
}
