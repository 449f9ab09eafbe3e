package e2e

import (
	"slices"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

// longLocks are the lines of the driver's log that name who held a lock for too
// long (100 ms).
func longLocks(log string) []string {
	var out []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, `msg="lock held too long"`) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// noLongLocks asserts at the test's end that the driver held no lock too long.
func noLongLocks(t *testing.T, driver *nstest.Process) {
	t.Helper()
	t.Cleanup(func() {
		for _, line := range longLocks(driver.Log()) {
			t.Errorf("the driver: %s", line)
		}
	})
}

// TestLongLocks: what every test looks for in the driver's log is found.
func TestLongLocks(t *testing.T) {
	log := `time=2026-11-27T17:03:24.084Z level=INFO msg=serving socket=/run/nftnet.sock
time=2026-11-27T17:03:25.194Z level=WARN msg="lock held too long" holder="restore user rules" held=1.2s
time=2026-11-27T17:03:25.195Z level=DEBUG msg=call name=NetworkDriver.Join
`
	want := []string{`time=2026-11-27T17:03:25.194Z level=WARN msg="lock held too long" holder="restore user rules" held=1.2s`}
	if got := longLocks(log); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
