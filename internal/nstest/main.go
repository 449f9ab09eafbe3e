package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// envInside holds the id of the process that runs in a namespace made by Main:
// a process that it starts, such as a worker of the fuzzer, makes its own.
const envInside = "NFTNET_TEST_INSIDE"

func inside() bool { return os.Getenv(envInside) == strconv.Itoa(os.Getpid()) }

// Main runs the tests of a package in a network namespace of their own:
// TestMain calls it for packages whose code works in the namespace of its
// process. It returns the exit code.
func Main(m *testing.M) int {
	// Without root the tests themselves say what they need, or skip.
	if inside() || os.Getuid() != 0 {
		return m.Run()
	}
	fmt.Fprintln(os.Stderr, "nstest: run the tests in a network namespace:", enterNew())
	return 1
}

// enterNew begins the program anew in a network namespace of its own: the
// thread that executes it takes its namespace along, and all other threads end.
// It returns where that fails only.
func enterNew() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// The last of two variables of one name counts in Go, the first in others.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envInside+"=") })
	env = append(env, envInside+"="+strconv.Itoa(os.Getpid()))
	return fmt.Errorf("execute %s: %w", exe, syscall.Exec(exe, os.Args, env))
}

// RequireInside fails a test whose process is not in a namespace that [Main]
// made: it would change the host's own. It sets lo up.
func RequireInside(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	if !inside() {
		t.Fatal("this test must run in a network namespace of its own: TestMain has to call nstest.Main")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("set lo up: %v: %s", err, out)
	}
}
