package firewalld

import (
	"testing"
	"time"
)

func TestWithoutBus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	z, log := watch(t)
	begin := time.Now()
	z.Set([]string{"br-a"})
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("Set took %v without a bus", took)
	}
	if n := log.count("level="); n != 0 {
		t.Errorf("%d lines of log", n)
	}
}

func TestLife(t *testing.T) {
	startBus(t)
	z, log := watch(t)
	z.Set([]string{"br-a", "br-b"}) // firewalld is not running yet
	if n := log.count("level="); n != 0 {
		t.Errorf("%d lines of log without firewalld", n)
	}
	f := startFake(t, "")
	f.has(t, "br-a", "br-b")

	z.Set([]string{"br-a"})
	f.has(t, "br-a")
	f.reload()
	f.has(t, "br-a")
	if n := f.count("reload"); n != 2 {
		t.Errorf("%d reloads, want the driver's one and the test's", n)
	}

	// It is replaced by another, with what it has on disk.
	if _, err := f.conn.ReleaseName(busName); err != nil {
		t.Fatal(err)
	}
	z.Set([]string{"br-a", "br-c"})
	f.alter(func() { clear(f.zoneOf) })
	f.own(t)
	f.has(t, "br-a", "br-c")
	z.Set(nil)
	f.has(t)
	if n := log.count("level=WARN"); n != 0 {
		t.Errorf("%d warnings: %s", n, log.b.String())
	}
	if n := f.count("reload"); n != 2 {
		t.Errorf("%d reloads after the replacement", n)
	}
}

func TestNothingWantedNothingMade(t *testing.T) {
	startBus(t)
	f := startFake(t, "")
	z, _ := watch(t)
	z.Set(nil)
	if f.count("create "+zoneName) != 0 || f.count("reload") != 0 {
		t.Errorf("calls %q: a host without networks must be left alone", f.calls)
	}
}

func TestOtherInterfaces(t *testing.T) {
	startBus(t)
	f := startFake(t, "")
	f.alter(func() {
		f.permanent[zoneName], f.loaded[zoneName], f.loaded[policyName] = true, true, true
		f.zoneOf = map[string]string{"br-user": "internal", "lo": zoneName, "br-gone": zoneName}
	})
	z, log := watch(t)
	z.Set([]string{"br-a", "br-user"})
	// lo is there, so it is the user's; br-gone is no link of this host.
	f.has(t, "br-a", "lo")
	z.Set([]string{"br-a", "br-b", "br-user"})
	f.has(t, "br-a", "br-b", "lo")
	if zone, _ := f.zone("br-user"); zone != "internal" {
		t.Errorf("the user's bridge is in %q", zone)
	}
	if n := log.count("is in another zone"); n != 1 {
		t.Errorf("the other zone is told of %d times, want once", n)
	}
}

// TestReloadOnce: where a reload does not bring the zone, a second would not.
func TestReloadOnce(t *testing.T) {
	startBus(t)
	f := startFake(t, "")
	f.alter(func() { f.broken = true })
	z, log := watch(t)
	z.Set([]string{"br-a"})
	z.Set([]string{"br-a", "br-b"})
	z.Set([]string{"br-b"})
	if n := f.count("reload"); n != 1 {
		t.Errorf("%d reloads, want 1", n)
	}
	if n := log.count("lacks nftnet and nftnet-forwarding still"); n != 1 {
		t.Errorf("the failure is told of %d times, want once:\n%s", n, log.b.String())
	}
}

func TestStrictForwardPorts(t *testing.T) {
	for value, want := range map[string]int{"yes": 1, "no": 0} {
		t.Run(value, func(t *testing.T) {
			startBus(t)
			f := startFake(t, value)
			z, log := watch(t)
			z.Set([]string{"br-a"})
			z.Set([]string{"br-a", "br-b"})
			f.has(t, "br-a", "br-b")
			if n := log.count("StrictForwardPorts=yes"); n != want {
				t.Errorf("%d warnings, want %d", n, want)
			}
		})
	}
}

// TestHanging: a call waits for a firewalld that does not answer once, and
// what was asked for meanwhile happens when it answers again.
func TestHanging(t *testing.T) {
	startBus(t)
	f := startFake(t, "")
	hang := make(chan struct{})
	f.alter(func() { f.hang = hang })
	z, log := watch(t)
	begin := time.Now()
	for _, bridges := range [][]string{{"br-a"}, {"br-a", "br-b"}, {"br-b"}} {
		z.Set(bridges)
	}
	if took := time.Since(begin); took < patience || took > patience*3/2 {
		t.Errorf("three calls took %v, want %v", took, patience)
	}
	if n := log.count("takes long to answer"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	f.alter(func() { f.hang = nil })
	close(hang)
	f.has(t, "br-b")
}

// TestCloseWhileHanging: a stop of the driver does not wait for firewalld.
func TestCloseWhileHanging(t *testing.T) {
	startBus(t)
	f := startFake(t, "")
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	f.alter(func() { f.hang = hang })
	z, _ := watch(t)
	go z.Set([]string{"br-a"})
	eventually(t, func() bool { return f.count("list") > 0 }, func() any { return f.calls })
	begin := time.Now()
	z.Close()
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Close took %v", took)
	}
}
