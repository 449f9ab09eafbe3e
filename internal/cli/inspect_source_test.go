package cli

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nftnet/internal/nstest"
)

const savedRules = `table inet t {
	chain a {
		type filter hook input priority filter; policy accept;
		tcp dport 22 jump b
	}

	chain b {
		ip saddr 192.0.2.0/24 accept
	}
}
`

func savedFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestInspectFile: a file is explained as a live ruleset is, without Docker too.
func TestInspectFile(t *testing.T) {
	nstest.RequireInside(t)
	file := savedFile(t, savedRules)
	out, errOut, err := run(t, "inspect", "--docker", noDocker, "--file", file)
	if err != nil || !strings.Contains(out, "A packet that goes to tcp port 22 is sent through chain b.") {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(errOut, "names are missing: docker engine at unix:///nonexistent/docker.sock: connect: no such file") {
		t.Errorf("what is missing: %q", errOut)
	}
	out, errOut, err = run(t, "inspect", "--docker", noDocker, "--file", file, "--format", "nft")
	if err != nil || out != savedRules || errOut != "" {
		t.Errorf("--format nft: %v, %q\n%s", err, errOut, out)
	}
	out, _, err = run(t, "inspect", "--docker", noDocker, "--file", file, "--chain", "b")
	if err != nil || !strings.HasPrefix(out, "Shown is chain b of table inet t, with the sets that its rules look up.\n") || strings.Contains(out, "chain a\n") {
		t.Errorf("--chain: %v\n%s", err, out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--chain", "c"}, `no chain "c": there are a, b (table inet t)`},
		{[]string{"--table", "u"}, `there is no table "u": the ruleset has inet t`},
		{[]string{"--network", "web"}, `no network "web": there are none; networks have names where Docker answers only`},
		{[]string{"--netns", "1"}, "--file and --netns are not allowed together: one of them is"},
	} {
		_, _, err := run(t, append([]string{"inspect", "--docker", noDocker, "--file", file}, row.args...)...)
		if err == nil || err.Error() != row.want {
			t.Errorf("%v: %v, want %s", row.args, err, row.want)
		}
	}
	_, _, err = run(t, "inspect", "--file", savedFile(t, "table inet t {"))
	if err == nil || !strings.HasPrefix(err.Error(), "nft refuses ") || !strings.Contains(err.Error(), "rules.nft:1:") {
		t.Errorf("of half a file: %v", err)
	}
}

// asNobody runs the program without privileges but those given.
func asNobody(t *testing.T, input string, capabilities []uintptr, args ...string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test's own directory is root's.
	program, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "nftnet-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe = filepath.Join(dir, "nftnet")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"inspect"}, args...)...)
	cmd.Env = append(os.Environ(), envProgram+"=1")
	cmd.Stdin = strings.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: capabilities,
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestInspectFileUnprivileged: a file needs no rights over the host.
func TestInspectFileUnprivileged(t *testing.T) {
	nstest.RequireInside(t)
	out, err := asNobody(t, savedRules, nil, "--docker", noDocker, "--file", "-", "--format", "nft")
	if strings.Contains(out, "the right to make user namespaces") {
		t.Skipf("this host lets nobody make user namespaces: %s", out)
	}
	if err != nil || out != savedRules {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = asNobody(t, "table {", nil, "--file", "-")
	if err == nil || !strings.HasPrefix(out, "nftnet: nft refuses standard input:\nstandard input:1:") || strings.Count(out, "nftnet:") != 1 {
		t.Errorf("of what is no ruleset: %v\n%s", err, out)
	}
}

// TestInspectWithoutRights: without rights to Docker's socket all but names is
// there; without those to read the ruleset it is said what they are.
func TestInspectWithoutRights(t *testing.T) {
	nstest.RequireInside(t)
	ns := nstest.NewNS(t, "rights")
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	const capNetAdmin = 12
	out, err := asNobody(t, "", []uintptr{capNetAdmin}, "--docker", "unix://"+socket)
	if err != nil || !strings.Contains(out, "names are missing: docker engine at unix://"+socket+": connect: permission denied") || !strings.Contains(out, "prerouting") {
		t.Errorf("without rights to the socket: %v\n%s", err, out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "nftnet: reading the ruleset needs root, or CAP_NET_ADMIN: "},
		{[]string{"--netns", fmt.Sprint(os.Getpid())}, "nftnet: no right to look at the network namespace /proc/"},
		{[]string{"--netns", ns.Name()}, "nftnet: entering the network namespace " + ns.Path() + " needs root, or CAP_SYS_ADMIN: "},
		{[]string{"--container", "c1", "--docker", "unix://" + socket}, `nftnet: container "c1" cannot be found without docker: docker engine at unix://` + socket + ": connect: permission denied"},
	} {
		out, err := asNobody(t, "", nil, row.args...)
		if err == nil || !strings.HasPrefix(out, row.want) {
			t.Errorf("%v: %v, %q, want an error with %q", row.args, err, out, row.want)
		}
	}
}

// TestInspectNamespace reads another namespace by its name, file and process.
func TestInspectNamespace(t *testing.T) {
	nstest.RequireInside(t)
	ns := nstest.NewNS(t, "cli")
	ns.Exec(t, "nft", "add table inet only-there")
	for _, netns := range []string{ns.Name(), ns.Path()} {
		out, _, err := run(t, "inspect", "--netns", netns, "--format", "nft")
		if err != nil || !strings.Contains(out, "only-there") {
			t.Errorf("--netns %s: %v\n%s", netns, err, out)
		}
	}
	out, _, err := run(t, "inspect", "--netns", fmt.Sprint(os.Getpid()), "--format", "nft")
	if err != nil || strings.Contains(out, "only-there") {
		t.Errorf("of this process: %v\n%s", err, out)
	}
}
