package nstest

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Sandbox is a Docker host of a test's own: a network namespace with an uplink
// to a neighbour, and a mount namespace in which /run and /etc/docker are empty
// and all that is written to /etc, /opt and /var/lib is gone with the sandbox.
// Any number of sandboxes, all with the same addresses, can be up at a time.
type Sandbox struct {
	// Host is the namespace of the Docker host. Its uplink is eth0, its default
	// routes go by the LAN neighbour, and it forwards IPv4.
	Host *NS
	// LAN is the namespace of the neighbour. It has no route to anything behind
	// the host; AddRouteOnLAN adds one.
	LAN *NS
	// The addresses of the two ends of the uplink.
	HostAddr4, HostAddr6, LANAddr4, LANAddr6 netip.Addr
	// Dir is a directory that is the same inside and outside of the sandbox and
	// removed with it.
	Dir string

	name   string
	keeper *exec.Cmd
}

// NewSandbox makes a sandbox that is up for as long as the test. It requires
// root.
func NewSandbox(t testing.TB) *Sandbox {
	t.Helper()
	sb := &Sandbox{
		Host:      NewNS(t, "host"),
		LAN:       NewNS(t, "lan"),
		HostAddr4: netip.MustParseAddr("192.0.2.1"),
		HostAddr6: netip.MustParseAddr("fd00:192::1"),
		LANAddr4:  netip.MustParseAddr("192.0.2.2"),
		LANAddr6:  netip.MustParseAddr("fd00:192::2"),
		name:      newName("box"),
	}
	sb.connect(t)
	if err := sb.route(); err != nil {
		t.Fatalf("route out of the sandbox: %v", err)
	}

	temp, err := tempDir()
	if err != nil {
		t.Fatalf("find directory for the sandbox: %v", err)
	}
	sb.Dir = filepath.Join(temp, sb.name)
	t.Cleanup(func() {
		if err := sb.remove(); err != nil {
			t.Errorf("remove sandbox: %v", err)
		}
	})
	if err := os.Mkdir(sb.Dir, 0o711); err != nil {
		t.Fatalf("create sandbox: %v", err)
	}
	if err := sb.keep(); err != nil {
		t.Fatalf("create mount namespace of the sandbox: %v", err)
	}
	return sb
}

// connect makes the uplink of the host.
func (sb *Sandbox) connect(t testing.TB) {
	t.Helper()
	Connect(t,
		sb.Host, "eth0", []string{sb.HostAddr4.String() + "/24", sb.HostAddr6.String() + "/64"},
		sb.LAN, "eth0", []string{sb.LANAddr4.String() + "/24", sb.LANAddr6.String() + "/64"})
}

// route lets the host forward, and sends by the neighbour what has no other
// route. IPv6 forwarding is left off, as on a fresh host.
func (sb *Sandbox) route() error {
	if err := sb.Host.setSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return sb.Host.ipBatch(fmt.Sprintf("route add default via %s\nroute add default via %s\n", sb.LANAddr4, sb.LANAddr6))
}

// keeperScript makes the mounts of a sandbox and then does nothing.
//
//go:embed keeper.sh
var keeperScript string

// keep starts the process that holds the sandbox's mount namespace and waits
// until its mounts are made.
func (sb *Sandbox) keep() error {
	var stderr bytes.Buffer
	cmd := exec.Command("nsenter", "--net="+sb.Host.Path(), "sh", "-ec", keeperScript, "keeper", sb.Dir)
	// Unsharing mounts makes them private too: none shows up outside.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	defer stdout.Close()
	if err := cmd.Start(); err != nil {
		return err
	}
	sb.keeper = cmd
	timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return errors.Join(errors.New("keeper made no mounts"), cmd.Wait(), errors.New(stderr.String()))
	}
	return nil
}

// remove ends the sandbox with everything that runs in it.
func (sb *Sandbox) remove() error {
	return errors.Join(sb.end(), removeDir(sb.Dir))
}

// end ends everything that runs in the sandbox, and with it the mounts.
func (sb *Sandbox) end() error {
	if err := endProcesses(sb.Dir); err != nil {
		return err
	}
	if sb.keeper != nil && sb.keeper.ProcessState == nil {
		// It was killed, so its status is no news.
		_ = sb.keeper.Wait()
	}
	return nil
}

// Command returns a command that runs inside the sandbox, with / as its working
// directory. The process it starts is the command's own, not a wrapper's.
func (sb *Sandbox) Command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--mount=" + sb.proc("ns/mnt"), "--net=" + sb.Host.Path(), "--"}, args...)...)
}

// Path returns the path by which a file of the sandbox is reached from outside:
// the socket of a plugin in /run/docker/plugins, for example.
func (sb *Sandbox) Path(inside string) string {
	return sb.proc(filepath.Join("root", inside))
}

func (sb *Sandbox) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(sb.keeper.Process.Pid), file)
}

// Exec runs a command in the sandbox and returns its standard output without
// the last newline. It fails the test when the command fails.
func (sb *Sandbox) Exec(t testing.TB, args ...string) string {
	t.Helper()
	out, err := sb.Try(args...)
	if err != nil {
		t.Fatalf("in sandbox: %v", err)
	}
	return out
}

// Try is Exec that returns the error. It holds what the command printed on
// standard error.
func (sb *Sandbox) Try(args ...string) (string, error) {
	return run(sb.Command(args...), args)
}

// AddRouteOnLAN routes a subnet behind the host, in CIDR notation, by the host,
// so that the neighbour can try to reach containers directly.
func (sb *Sandbox) AddRouteOnLAN(t testing.TB, cidr string) {
	t.Helper()
	subnet, err := netip.ParsePrefix(cidr)
	if err != nil {
		t.Fatalf("add route on lan: %v", err)
	}
	via := sb.HostAddr4
	if subnet.Addr().Is6() {
		via = sb.HostAddr6
	}
	if err := ip("-n", sb.LAN.name, "route", "add", cidr, "via", via.String()); err != nil {
		t.Fatalf("add route on lan: %v", err)
	}
}
