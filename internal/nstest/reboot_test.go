package nstest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// TestReboot: what a host keeps on disk is there after it, what it has in memory
// is not.
func TestReboot(t *testing.T) {
	t.Parallel()
	sb := nstest.NewSandbox(t)
	e := sb.StartEngine(t)
	serve(t, e, "web", "-p", "8080:80", "-p", "5353:53/udp", "--restart", "always")
	serve(t, e, "once")
	program := sb.Start(t, "program", "sleep", "1d")
	if err := os.WriteFile(filepath.Join(sb.Dir, "disk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, made := range [][]string{
		{"ip", "link", "add", "old0", "type", "bridge"},
		{"nft", "add", "table", "inet", "old"},
		{"sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"},
		{"touch", "/run/old"},
	} {
		sb.Exec(t, made...)
	}
	// A connection of the test itself must not keep the old network alive.
	c, err := sb.LAN.Dial(t.Context(), "tcp", "192.0.2.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	sb.Reboot(t)
	if err := program.Wait(t, second); err == nil {
		t.Error("a program survived")
	}
	if _, err := os.Stat(filepath.Join(sb.Dir, "disk")); err != nil {
		t.Errorf("a file is lost: %v", err)
	}
	if out := sb.Exec(t, "sh", "-c", "ip link; nft list tables; sysctl net.ipv6.conf.all.forwarding; ls /run"); strings.Contains(out, "old") ||
		strings.Contains(out, "docker0") || !strings.Contains(out, "forwarding = 0") {
		t.Errorf("the host is not a fresh one:\n%s", out)
	}
	sb.Host.Exec(t, "busybox", "ping", "-c", "1", "-W", "3", sb.LANAddr4.String())
	sb.LAN.Exec(t, "busybox", "ping", "-c", "1", "-W", "3", sb.HostAddr6.String())
	e.Start(t)
	e.WaitLog(t, "web", "ready")
	published(t, sb)
	if running := e.Docker(t, "inspect", "-f", "{{.State.Running}}", "once"); running != "false" {
		t.Error("a container without a restart policy runs after the reboot")
	}
}

// TestContainerNS: the namespace is the container's own.
func TestContainerNS(t *testing.T) {
	t.Parallel()
	sb := nstest.NewSandbox(t)
	e := sb.StartEngine(t)
	serve(t, e, "web")
	nstest.ServeTCP(t, sb.LAN, ":7")
	ns := e.NS(t, "web")
	if a := e.Docker(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"); !strings.Contains(ns.Exec(t, "ip", "addr"), a+"/") {
		t.Errorf("the namespace lacks the container's address %s", a)
	}
	r, err := ns.TCP("192.0.2.2:7", 3*second)
	check(t, "tcp", r, err, "192.0.2.1", "192.0.2.2:7")
	r, err = sb.Host.TCP(e.Docker(t, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web")+":7", 3*second)
	check(t, "tcp", r, err, "172.17.0.1", "172.17.0.2:7")
}
