package nstest_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// namespaces returns the list of all namespaces that have a name.
func namespaces(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").CombinedOutput()
	if err != nil {
		t.Fatalf("ip netns list: %v: %s", err, out)
	}
	return string(out)
}

// left is all that a sandbox could leave behind.
func left(t *testing.T, sb *nstest.Sandbox) (things []string) {
	t.Helper()
	for _, ns := range []*nstest.NS{sb.Host, sb.LAN} {
		if strings.Contains(namespaces(t), ns.Name()) {
			things = append(things, "namespace "+ns.Name())
		}
	}
	if _, err := os.Lstat(sb.Dir); err == nil {
		things = append(things, "directory "+sb.Dir)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(filepath.Base(sb.Dir))) {
		things = append(things, "mounts of "+sb.Dir)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(sb.Dir))
	things = append(things, groups...)
	return append(things, running(sb.Dir)...)
}

// running returns the processes that have something of a directory in their
// command line or their mounts.
func running(dir string) (things []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		cmd, _ := os.ReadFile(f)
		mounts, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "mountinfo"))
		if bytes.Contains(cmd, []byte(dir)) || bytes.Contains(mounts, []byte(dir)) {
			things = append(things, fmt.Sprintf("process %s: %q", filepath.Dir(f), cmd))
		}
	}
	return things
}

// serve runs a container that serves HTTP on port 80 and UDP on port 53, on
// Docker's own bridge.
func serve(t *testing.T, e *nstest.Engine, name string, args ...string) {
	t.Helper()
	args = append([]string{"run", "-d", "--name", name, "--network", "bridge"}, args...)
	e.Docker(t, append(args, e.Image(t), "/peer", "serve", "-http", ":80", "-udp", ":53", "-tcp", ":7", "-stream", ":9000")...)
	e.WaitLog(t, name, "ready")
}

func TestEngine(t *testing.T) {
	t.Parallel()
	var sb *nstest.Sandbox
	t.Run("life", func(t *testing.T) {
		sb = nstest.NewSandbox(t)
		e := sb.StartEngine(t)
		serve(t, e, "web", "-p", "8080:80", "-p", "5353:53/udp", "-p", "9000:9000", "--restart", "always")

		t.Run("published", func(t *testing.T) { published(t, sb) })
		t.Run("stream", func(t *testing.T) { stream(t, sb) })
		t.Run("outbound", func(t *testing.T) { outbound(t, sb, e) })
		t.Run("direct", func(t *testing.T) { direct(t, sb) })
		t.Run("errors", func(t *testing.T) {
			if _, stderr, err := e.TryDocker("inspect", "nothing"); err == nil || !strings.Contains(stderr, "nothing") {
				t.Errorf("inspect of nothing: %v, %q", err, stderr)
			}
		})

		before := e.Process().Pid()
		e.Restart(t)
		if e.Process().Pid() == before {
			t.Error("a restarted engine has the pid of the old one")
		}
		e.WaitLog(t, "web", "ready")
		t.Run("published after restart", func(t *testing.T) { published(t, sb) })
	})
	if things := left(t, sb); len(things) > 0 {
		t.Errorf("left behind: %q", things)
	}
}

func published(t *testing.T, sb *nstest.Sandbox) {
	r, err := sb.LAN.TryGet("http://192.0.2.1:8080", 3*second)
	check(t, "http", r, err, "192.0.2.2", "172.17.0.2:80")
	r, err = sb.LAN.UDP("192.0.2.1:5353", 3*second)
	check(t, "udp", r, err, "192.0.2.2", "172.17.0.2:53")
	// Docker's userland proxy serves IPv6.
	r, err = sb.LAN.TryGet("http://[fd00:192::1]:8080", 3*second)
	check(t, "http, IPv6", r, err, "172.17.0.1", "172.17.0.2:80")
}

func stream(t *testing.T, sb *nstest.Sandbox) {
	c, err := sb.LAN.Dial(t.Context(), "tcp", "192.0.2.1:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * second))
	if n, err := io.CopyN(io.Discard, c, 16<<20); err != nil {
		t.Errorf("received %d bytes: %v", n, err)
	}
}

func outbound(t *testing.T, sb *nstest.Sandbox, e *nstest.Engine) {
	nstest.Serve(t, sb.LAN, ":80", ":53")
	r, err := e.Peer(t, "web", "http", "http://192.0.2.2")
	check(t, "http", r, err, "192.0.2.1", "192.0.2.2:80")
	r, err = e.Peer(t, "web", "udp", "192.0.2.2:53")
	check(t, "udp", r, err, "192.0.2.1", "192.0.2.2:53")
	r, err = e.Peer(t, "web", "tcp", "-from", "172.17.0.2:4711", "172.17.0.2:7")
	check(t, "tcp", r, err, "172.17.0.2", "172.17.0.2:7")
	if r.Port != 4711 {
		t.Errorf("client port %d, want 4711", r.Port)
	}
	if r, err := e.Peer(t, "web", "http", "-timeout", "500ms", "http://192.0.2.2:81"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("closed port: %+v, %v", r, err)
	}
	if got := e.Docker(t, "exec", "web", "sh", "-c", "wget -qO- http://192.0.2.2 && ip route"); !strings.Contains(got, `"client":"192.0.2.1"`) || !strings.Contains(got, "default via 172.17.0.1") {
		t.Errorf("busybox: %s", got)
	}
}

func direct(t *testing.T, sb *nstest.Sandbox) {
	if r, err := sb.LAN.TryGet("http://172.17.0.2", second/2); err == nil {
		t.Errorf("without a route: %+v", r)
	}
	sb.AddRouteOnLAN(t, "172.17.0.0/16")
	sb.AddRouteOnLAN(t, "fd00:17::/64")
	// Debian's engine lets packets pass that are routed to a container.
	r, err := sb.LAN.TryGet("http://172.17.0.2", 3*second)
	check(t, "with a route", r, err, "192.0.2.2", "172.17.0.2:80")
}

func TestLiveRestore(t *testing.T) {
	t.Parallel()
	var sb *nstest.Sandbox
	t.Run("life", func(t *testing.T) {
		sb = nstest.NewSandbox(t)
		e := sb.StartEngine(t, "--live-restore")
		serve(t, e, "web", "-p", "8080:80", "-p", "5353:53/udp")
		init := e.Docker(t, "inspect", "-f", "{{.State.Pid}}", "web")
		e.Kill(t)
		e.Start(t)
		if now := e.Docker(t, "inspect", "-f", "{{.State.Pid}}", "web"); now != init {
			t.Errorf("container's pid is %s, was %s", now, init)
		}
		if r := sb.LAN.Get(t, "http://192.0.2.1:8080"); r.Client != sb.LANAddr4 {
			t.Errorf("got %+v, want client %s", r, sb.LANAddr4)
		}
		e.Docker(t, "run", "-d", "--name", "frozen", e.Image(t), "sleep", "1000")
		e.Docker(t, "pause", "frozen")
		e.Kill(t)
	})
	if things := left(t, sb); len(things) > 0 {
		t.Errorf("left behind: %q", things)
	}
}

func TestSandbox(t *testing.T) {
	var sb *nstest.Sandbox
	t.Run("life", func(t *testing.T) {
		sb = nstest.NewSandbox(t)
		if got := sb.Exec(t, "cat", "/proc/sys/net/ipv4/ip_forward"); got != "1" {
			t.Errorf("ip_forward is %s", got)
		}
		if got := sb.Exec(t, "ls", "/sys/class/net"); got != "eth0\nlo" {
			t.Errorf("interfaces in sysfs: %q", got)
		}
		if got := sb.Exec(t, "sh", "-c", "ls /etc/docker /opt; ls /run; ls -A /sys/fs/cgroup"); strings.Contains(got, "netns") || !strings.Contains(got, "memory") {
			t.Errorf("files: %q", got)
		}
		sb.Exec(t, "sh", "-c", "echo inside >/run/docker/plugins/x; mkdir /var/lib/"+filepath.Base(sb.Dir))
		if b, err := os.ReadFile(sb.Path("/run/docker/plugins/x")); string(b) != "inside\n" {
			t.Errorf("file of the sandbox: %q, %v", b, err)
		}
		if _, err := os.Lstat("/var/lib/" + filepath.Base(sb.Dir)); err == nil {
			t.Error("a directory made in the sandbox shows outside")
		}
		if _, err := sb.Try("sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
			t.Errorf("error %v, want what the command said", err)
		}
		nstest.Serve(t, sb.LAN, "192.0.2.2:80", "")
		r := sb.Host.Get(t, "http://192.0.2.2")
		if r.Client != sb.HostAddr4 {
			t.Errorf("got %+v, want client %s", r, sb.HostAddr4)
		}
	})
	if things := left(t, sb); len(things) > 0 {
		t.Errorf("left behind: %q", things)
	}
}

func TestProcess(t *testing.T) {
	sb := nstest.NewSandbox(t)
	p := sb.Start(t, "loop", "sh", "-c", `trap 'echo bye; exit 3' TERM; echo up $$; while :; do sleep 0.01; done`)
	p.WaitFor(t, fmt.Sprintf("up %d\n", p.Pid()), 5*second)
	p.Stop(t)
	if err := p.Wait(t, second); err == nil || err.Error() != "exit status 3" {
		t.Errorf("ended with %v, want status 3", err)
	}
	if got := p.Log(); !strings.HasSuffix(got, "bye\n") {
		t.Errorf("log %q", got)
	}
	q := sb.Start(t, "loop", "sleep", "1000")
	if got := q.Log(); got != "" {
		t.Errorf("log of a new process has the old one's: %q", got)
	}
	q.Kill(t)
	if err := q.Wait(t, second); err == nil || err.Error() != "signal: killed" {
		t.Errorf("ended with %v, want killed", err)
	}
	q.Stop(t)
}
