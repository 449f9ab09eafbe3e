package nstest

import (
	"strings"
	"testing"
	"time"
)

// firewalldTimeout is how long firewalld may take to load its zones: about one
// second on an idle machine, much more where other tests run beside it.
const firewalldTimeout = time.Minute

// StartBus starts a system bus of D-Bus in the sandbox, at its usual address.
// It runs until the test ends.
func (sb *Sandbox) StartBus(t testing.TB) {
	t.Helper()
	sb.Exec(t, "mkdir", "-p", "/run/dbus")
	p := sb.Start(t, "dbus-daemon", "dbus-daemon", "--system", "--nofork", "--nopidfile", "--print-address=1")
	p.WaitFor(t, "system_bus_socket", stopTimeout)
}

// StartFirewalld starts firewalld on the sandbox's bus and waits until it has
// made its rules. What it writes to /etc/firewalld is there at the next start in
// the same sandbox, and gone with the sandbox. It needs StartBus.
func (sb *Sandbox) StartFirewalld(t testing.TB) *Process {
	t.Helper()
	// On the console: /var/log is the machine's own.
	p := sb.Start(t, "firewalld", "firewalld", "--nofork", "--nopid", "--log-target=console")
	var state string
	if !poll(firewalldTimeout, func() bool {
		out, err := sb.Try("firewall-cmd", "--state")
		state = strings.TrimSpace(out)
		return p.ended() || err == nil && state == "running"
	}) || p.ended() {
		t.Fatalf("firewalld is not running: %q", state)
	}
	return p
}
