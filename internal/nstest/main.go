package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// envInside marks the process that Main has started in a namespace of its own.
const envInside = "NFTNET_TEST_INSIDE"

// Main runs the tests of a package in a network namespace of their own, with lo
// up: TestMain calls it for packages whose code works in the namespace of its
// process. It returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv(envInside) != "" {
		return m.Run()
	}
	if os.Getuid() != 0 {
		// The tests themselves say what they need, or skip.
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	// The test binary was started in its package's folder, as the copy is.
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nstest: run the tests in a network namespace:", err)
		return 1
	}
	return 0
}

// RequireInside fails a test whose process is not in a namespace that [Main]
// made: it would change the host's own.
func RequireInside(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	if os.Getenv(envInside) == "" {
		t.Fatal("this test must run in a network namespace of its own: TestMain has to call nstest.Main")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("set lo up: %v: %s", err, out)
	}
}
