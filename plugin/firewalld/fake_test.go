package firewalld

import (
	"bufio"
	"bytes"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
)

// startBus starts a bus of the test's own, which takes the place of the system
// bus.
func startBus(t *testing.T) {
	t.Helper()
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address", "--address=unix:dir="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(address))
}

// fake is a firewalld without rules: the part of its interface that the package
// uses.
type fake struct {
	conn *dbus.Conn

	mu        sync.Mutex
	permanent map[string]bool
	loaded    map[string]bool
	zoneOf    map[string]string
	calls     []string
	hang      chan struct{}
	broken    bool
}

// startFake puts a firewalld on the bus. It lacks the zone and the policy.
func startFake(t *testing.T, strict string) *fake {
	t.Helper()
	f := &fake{permanent: map[string]bool{}, loaded: map[string]bool{}, zoneOf: map[string]string{}}
	var err error
	if f.conn, err = dbus.ConnectSystemBus(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.conn.Close() })
	tables := map[string]map[string]any{
		busName:             {"reload": f.reload},
		busName + ".zone":   {"getZones": f.names, "getInterfaces": f.interfaces, "getZoneOfInterface": f.zone, "addInterface": f.add, "removeInterface": f.remove},
		busName + ".policy": {"getPolicies": f.names},
	}
	for iface, table := range tables {
		if err := f.conn.ExportMethodTable(table, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.conn.ExportMethodTable(map[string]any{"addZone2": f.create, "addPolicy": f.create}, configPath, configIface); err != nil {
		t.Fatal(err)
	}
	if strict != "" {
		if _, err := prop.Export(f.conn, configPath, prop.Map{configIface: {"StrictForwardPorts": {Value: strict}}}); err != nil {
			t.Fatal(err)
		}
	}
	f.own(t)
	return f
}

func (f *fake) own(t *testing.T) {
	t.Helper()
	if reply, err := f.conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the name: %v, %v", reply, err)
	}
}

func refuse(code string) *dbus.Error {
	return dbus.NewError(exception, []any{code + ": said the fake"})
}

// enter notes a call, and hangs where the test wants it to.
func (f *fake) enter(call ...string) func() {
	f.mu.Lock()
	hang := f.hang
	f.calls = append(f.calls, strings.Join(call, " "))
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.mu.Lock()
	return f.mu.Unlock
}

func (f *fake) names() ([]string, *dbus.Error) {
	defer f.enter("list")()
	var names []string
	for name := range f.loaded {
		names = append(names, name)
	}
	return names, nil
}

func (f *fake) create(name string, _ map[string]dbus.Variant) (dbus.ObjectPath, *dbus.Error) {
	defer f.enter("create", name)()
	if f.permanent[name] {
		return "/", refuse("NAME_CONFLICT")
	}
	f.permanent[name] = true
	return "/", nil
}

func (f *fake) reload() *dbus.Error {
	defer f.enter("reload")()
	if !f.broken {
		for name := range f.permanent {
			f.loaded[name] = true
		}
	}
	clear(f.zoneOf)
	_ = f.conn.Emit(path, busName+".Reloaded")
	return nil
}

func (f *fake) interfaces(zone string) ([]string, *dbus.Error) {
	defer f.enter("interfaces")()
	if !f.loaded[zone] {
		return nil, refuse("INVALID_ZONE")
	}
	return f.in(zone), nil
}

func (f *fake) in(zone string) []string {
	names := []string{}
	for name, z := range f.zoneOf {
		if z == zone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (f *fake) zone(name string) (string, *dbus.Error) {
	defer f.enter("zone", name)()
	return f.zoneOf[name], nil
}

func (f *fake) add(zone, name string) (string, *dbus.Error) {
	defer f.enter("add", name)()
	switch f.zoneOf[name] {
	case zone:
		return "", refuse("ZONE_ALREADY_SET")
	case "":
		f.zoneOf[name] = zone
		return zone, nil
	}
	return "", refuse("ZONE_CONFLICT")
}

func (f *fake) remove(zone, name string) (string, *dbus.Error) {
	defer f.enter("remove", name)()
	if f.zoneOf[name] != zone {
		return "", refuse("UNKNOWN_INTERFACE")
	}
	delete(f.zoneOf, name)
	return zone, nil
}

// alter changes the fake between calls.
func (f *fake) alter(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) count(call string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == call {
			n++
		}
	}
	return n
}

// has waits until the zone has these interfaces and no others.
func (f *fake) has(t *testing.T, want ...string) {
	t.Helper()
	var have []string
	eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		have = f.in(zoneName)
		return slices.Equal(have, want)
	}, func() any { return have })
}

func eventually(t *testing.T, done func() bool, have func() any) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still %v", have())
		}
	}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

func watch(t *testing.T) (*Zone, *journal) {
	t.Helper()
	j := &journal{}
	z := Watch(slog.New(slog.NewTextHandler(j, nil)))
	t.Cleanup(z.Close)
	return z, j
}
