// Package nstest gives tests a network to try real packets on: namespaces
// joined by veth pairs, HTTP and UDP peers that tell each client which address
// it came from, and a real Docker engine in a sandbox.
//
// Nothing here touches the network namespace of the machine itself, and all of
// it is gone when the test ends, whether the test passed or not. What a test
// run left behind that was killed before it could clean up, the next one
// removes.
package nstest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	// prefix begins the name of every namespace, directory and control group
	// of this package; the process id and random digits follow.
	prefix = "nftt-"
	// commandTimeout ends a command that hangs. Docker itself takes 46 s to
	// stop a container whose network plugin is gone.
	commandTimeout = 2 * time.Minute
)

// RequireRoot fails the test when it does not run as root, because a test that
// is skipped where it could run hides a fault. Set NFTNET_UNPRIVILEGED=1 to
// skip it instead.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("NFTNET_UNPRIVILEGED") == "1" {
		t.Skip("needs root; skipped because NFTNET_UNPRIVILEGED=1")
	}
	t.Fatal("needs root (set NFTNET_UNPRIVILEGED=1 to skip the tests that do)")
}

// newName returns a name that no other test on the machine uses. It carries
// the process id, by which sweep knows the names of processes that are gone.
func newName(label string) string {
	b := make([]byte, 4)
	rand.Read(b)
	return fmt.Sprintf("%s%d-%s-%s", prefix, os.Getpid(), hex.EncodeToString(b), label)
}

// run runs cmd for at most commandTimeout. It returns what the command printed
// without the last newlines; the error holds args, which name the command, and
// what it printed on standard error.
func run(cmd *exec.Cmd, args []string) (stdout string, err error) {
	stdout, stderr, err := output(cmd)
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr)
	}
	return stdout, err
}

func output(cmd *exec.Cmd) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// A child that outlives the command must not keep its pipes, and us, open.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	timer := time.AfterFunc(commandTimeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	return strings.TrimRight(out.String(), "\n"), strings.TrimRight(errs.String(), "\n"), err
}

// poll calls done every few milliseconds until it returns true or timeout has
// passed, and reports whether it did.
func poll(timeout time.Duration, done func() bool) bool {
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
