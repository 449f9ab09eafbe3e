package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// volatile is what a sandbox has in Dir and a host in /run: a reboot takes it
// away.
var volatile = []string{"exec", "docker.sock", "dockerd.pid"}

// Reboot ends everything in the sandbox at once, as a power failure does, and
// brings it up again: the Docker host has new mounts and a new network
// namespace with its uplink alone. What is in Dir stays, with the engine's data
// but without what it keeps in /run. The neighbour stays as it was, with its
// routes by the host. The engine and other programs are to be started anew.
func (sb *Sandbox) Reboot(t testing.TB) {
	t.Helper()
	if err := sb.reboot(); err != nil {
		t.Fatalf("reboot sandbox: %v", err)
	}
	sb.connect(t)
	if err := errors.Join(sb.route(), sb.keep()); err != nil {
		t.Fatalf("reboot sandbox: %v", err)
	}
}

func (sb *Sandbox) reboot() error {
	if err := sb.end(); err != nil {
		return err
	}
	for _, name := range volatile {
		if err := removeDir(filepath.Join(sb.Dir, name)); err != nil {
			return err
		}
	}
	// A socket of the test itself may keep the old namespace alive, which would
	// keep the neighbour's end of the uplink.
	if err := ip("-n", sb.LAN.name, "link", "del", "eth0"); err != nil {
		return err
	}
	return sb.Host.renew()
}

// renew replaces the namespace by an empty one of the same name.
func (ns *NS) renew() error {
	if err := ns.remove(); err != nil {
		return err
	}
	if _, err := os.Stat(ns.Path()); !os.IsNotExist(err) {
		return fmt.Errorf("namespace %s is there still: %w", ns.name, err)
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.create()
}
