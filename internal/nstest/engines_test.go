package nstest_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// TestEngines: every engine publishes a port, answers the installed client,
// runs with a containerd and helpers of its own, and leaves nothing when it is
// killed.
func TestEngines(t *testing.T) {
	for _, v := range nstest.Engines() {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			var sb *nstest.Sandbox
			t.Run("life", func(t *testing.T) {
				sb = nstest.NewSandbox(t)
				e := sb.StartEngineVersion(t, v)
				serve(t, e, "web", "-p", "8080:80")
				r, err := sb.LAN.TryGet("http://192.0.2.1:8080", 3*second)
				check(t, "published port", r, err, "192.0.2.2", "172.17.0.2:80")
				if got := e.Docker(t, "version", "-f", "{{.Server.Version}}"); !strings.HasPrefix(got, fmt.Sprintf("%d.", v.Major(t))) {
					t.Errorf("engine %s says that it is %s, its program that it is %d", v, got, v.Major(t))
				}
				ownPrograms(t, sb, v)
			})
			if things := left(t, sb); len(things) > 0 {
				t.Errorf("left behind: %q", things)
			}
		})
	}
}

// ownPrograms asserts that an engine's helpers are those that were unpacked with
// it.
func ownPrograms(t *testing.T, sb *nstest.Sandbox, v nstest.EngineVersion) {
	t.Helper()
	helpers := []string{"dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"}
	found := map[string]bool{}
	files, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, f := range files {
		exe, _ := os.Readlink(f)
		mounts, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "mountinfo"))
		name := filepath.Base(exe)
		if !strings.Contains(string(mounts), filepath.Base(sb.Dir)) || !slices.Contains(helpers, name) {
			continue
		}
		found[name] = true
		if unpacked := strings.Contains(exe, "/.tools/engines/"+string(v)+"/"); unpacked != (v != nstest.Engine20) {
			t.Errorf("engine %s runs %s", v, exe)
		}
	}
	if len(found) != len(helpers) {
		t.Errorf("engine %s runs %v, want all of %v", v, found, helpers)
	}
}

func TestMissingEngine(t *testing.T) {
	err := nstest.Outside(context.Background(), io.Discard, func(t testing.TB) {
		nstest.EngineVersion("1.0").Major(t)
	})
	if err == nil || !strings.Contains(err.Error(), "engine 1.0: not on this machine: run scripts/engines") {
		t.Errorf("a missing engine fails with %v, want what fetches it", err)
	}
}
