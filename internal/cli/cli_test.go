package cli

import (
	"bytes"
	"os"
	"testing"

	"nftnet/internal/nstest"
)

// TestMain gives the tests a network namespace of their own. A process with
// envProgram is the program itself.
func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		os.Exit(Main("test"))
	}
	os.Exit(nstest.Main(m))
}

// envProgram makes the test's program the one under test.
const envProgram = "NFTNET_TEST_PROGRAM"

// run runs the program with arguments, in this process and without a terminal.
func run(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := root("test")
	cmd.SetArgs(args)
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

// noDocker makes a Docker that does not answer.
const noDocker = "unix:///nonexistent/docker.sock"
