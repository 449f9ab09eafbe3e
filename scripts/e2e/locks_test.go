package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
	"nftnet/internal/slowlock"
)

// waited is how long a lock is held by somebody who waits for a peer, a disk or
// another program. The driver's log names holders from 100 ms on, which a busy
// machine can take from anybody.
const waited = time.Second

var heldTooLong = regexp.MustCompile(`msg="` + slowlock.Held + `".* held=(\S+)`)

// longLocks are the lines of the driver's log that name who waited under a lock.
func longLocks(log string) []string {
	var out []string
	for line := range strings.Lines(log) {
		m := heldTooLong.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if held, err := time.ParseDuration(m[1]); err != nil || held >= waited {
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
time=2026-11-27T17:03:25.194Z level=WARN msg="lock held too long" holder="starved" held=150ms
time=2026-11-27T17:03:25.195Z level=DEBUG msg=call name=NetworkDriver.Join
`
	want := []string{`time=2026-11-27T17:03:25.194Z level=WARN msg="lock held too long" holder="restore user rules" held=1.2s`}
	if got := longLocks(log); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
