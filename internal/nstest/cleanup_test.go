package nstest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role tells a child of this test binary how to end.
const role = "NSTEST_CHILD"

// TestChild is no test but the body of the children of those below.
func TestChild(t *testing.T) {
	how := os.Getenv(role)
	if how == "" {
		return
	}
	sb := NewSandbox(t)
	e := sb.StartEngine(t)
	e.Docker(t, "run", "-d", "--name", "sleeper", e.Image(t), "sleep", "1000")
	sb.Start(t, "helper", "sh", "-c", "echo the helper speaks; sleep 1000").WaitFor(t, "speaks", 5*time.Second)
	os.Stdout.WriteString("dir " + sb.Dir + "\n")
	switch how {
	case "fail":
		t.Fatal("on purpose")
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

// child runs TestChild in a process of its own and returns what it printed and
// its sandbox's directory. It fails this test unless the child's failed.
func child(t *testing.T, how string) (out []byte, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), role+"="+how)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the child passed:\n%s", out)
	}
	for line := range bytes.Lines(out) {
		if d, ok := bytes.CutPrefix(line, []byte("dir ")); ok {
			return out, strings.TrimSpace(string(d))
		}
	}
	t.Fatalf("the child made no sandbox:\n%s", out)
	return nil, ""
}

// remains returns what is left of a sandbox, and of the process that made it.
func remains(dir string) (things []string) {
	pid := strings.Split(filepath.Base(dir), "-")[1]
	names, _ := filepath.Glob("/run/netns/" + prefix + pid + "-*")
	return append(names, remainsOf(dir)...)
}

// remainsOf returns what is left of a sandbox but for its namespaces.
func remainsOf(dir string) (things []string) {
	for _, pattern := range []string{dir, "/sys/fs/cgroup" + cgroupParent(dir), "/sys/fs/cgroup/*" + cgroupParent(dir)} {
		found, _ := filepath.Glob(pattern)
		things = append(things, found...)
	}
	for _, pid := range processes(dir) {
		things = append(things, fmt.Sprint("process ", pid))
	}
	return things
}

func TestRootIsRequired(t *testing.T) {
	t.Parallel()
	RequireRoot(t)
	for _, row := range []struct{ env, want string }{
		{"NFTNET_UNPRIVILEGED=", "--- FAIL: TestChild"},
		{"NFTNET_UNPRIVILEGED=1", "--- SKIP: TestChild"},
	} {
		// The build directory is closed to others, its open program is not.
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$", "-test.v")
		cmd.Env = append(os.Environ(), role+"=fail", row.env)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, _ := cmd.CombinedOutput(); !bytes.Contains(out, []byte(row.want)) || !bytes.Contains(out, []byte("needs root")) {
			t.Errorf("with %s: want %q:\n%s", row.env, row.want, out)
		}
	}
}

func TestFailedTestLeavesNothing(t *testing.T) {
	t.Parallel()
	RequireRoot(t)
	out, dir := child(t, "fail")
	if things := remains(dir); len(things) > 0 {
		t.Errorf("left behind: %q", things)
	}
	for _, want := range []string{"on purpose", "output of helper", "the helper speaks", "output of dockerd"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the log lacks %q:\n%s", want, out)
		}
	}
}

func TestSweepAfterKilledTest(t *testing.T) {
	t.Parallel()
	RequireRoot(t)
	_, dir := child(t, "die")
	if things := remains(dir); len(things) < 4 {
		t.Errorf("a killed test left only %q: this test shows nothing", things)
	}
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	if things := remains(dir); len(things) > 0 {
		t.Errorf("left after sweep: %q", things)
	}
}

// A managed plugin's control group is none of those below the sandbox's own.
func TestManagedPluginLeavesNothing(t *testing.T) {
	t.Parallel()
	var sb *Sandbox
	var groups []string
	t.Run("life", func(t *testing.T) {
		sb = NewSandbox(t)
		e := sb.StartEngine(t)
		e.Docker(t, "plugin", "create", "mute", pluginDir(t))
		// The plugin never answers, so enabling it does not end.
		if err := e.docker("plugin", "enable", "mute").Start(); err != nil {
			t.Fatal(err)
		}
		if !poll(10*time.Second, func() bool {
			for _, pid := range processes(sb.Dir) {
				groups = append(groups, cgroups(strconv.Itoa(pid))...)
			}
			return len(groups) > 0
		}) {
			t.Fatal("the plugin has no control group")
		}
	})
	for _, g := range groups {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			if found, _ := filepath.Glob(root + g); len(found) > 0 {
				t.Errorf("left behind: %s", found)
			}
		}
	}
	if things := remainsOf(sb.Dir); len(things) > 0 {
		t.Errorf("left behind: %q", things)
	}
}

// pluginDir returns the directory of a plugin that runs and does nothing.
func pluginDir(t *testing.T) string {
	t.Helper()
	peer, err := buildPeer()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	const config = `{"description": "mute", "documentation": "", "entrypoint": ["/peer", "serve"], "workdir": "/",
		"interface": {"types": ["docker.networkdriver/1.0"], "socket": "mute.sock"},
		"network": {"type": "host"}, "linux": {"capabilities": []}}`
	for name, content := range map[string][]byte{"rootfs/peer": peer, "config.json": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
