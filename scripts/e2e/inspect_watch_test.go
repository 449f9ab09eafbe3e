package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// watchTimeout bounds the wait for a line of --watch.
const watchTimeout = 20 * time.Second

// TestWatchNamesWhoAddedARule: nft, by name, and what it added, in its words
// and in plain ones; an end that is asked for is no failure.
func TestWatchNamesWhoAddedARule(t *testing.T) {
	w := emptyWorld(t)
	w.Exec(t, "nft", "add table inet mine; add chain inet mine in { type filter hook input priority 0; }")
	text := w.Start(t, "watch", binary, "inspect", "--watch", "--width", "200")
	lines := w.Start(t, "lines", binary, "inspect", "--watch", "--format", "json", "--counters", "--interval", "200ms")
	text.WaitFor(t, "Changes are told as they happen.", watchTimeout)
	lines.WaitFor(t, `"event":"begin"`, watchTimeout)
	w.Exec(t, "nft", "add rule inet mine in tcp dport 2222 drop")
	text.WaitFor(t, "+ 1  tcp dport 2222 drop", watchTimeout)
	text.WaitFor(t, "New: A packet that goes to tcp port 2222 is dropped.", watchTimeout)
	text.WaitFor(t, "Changed by nft (pid ", watchTimeout)
	lines.WaitFor(t, `"nft","pid":`, watchTimeout)
	lines.WaitFor(t, `"after":["tcp dport 2222 drop"]`, watchTimeout)
	text.Stop(t)
	lines.Stop(t)
	for _, args := range [][]string{{"--counters"}, {"--interval", "2s"}, {"--watch", "--interval", "1ms"}, {"--watch", "--table", "mine"}, {"--watch", "--format", "nft"}} {
		if _, err := w.Try(append([]string{binary, "inspect"}, args...)...); err == nil || !strings.Contains(err.Error(), "allowed") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestDiffAfterAPublishedPort: what a "docker run -p" does to the ruleset, with
// the statuses of diff.
func TestDiffAfterAPublishedPort(t *testing.T) {
	w := newWorld(t)
	w.network(t, "web")
	file := w.Dir + "/before.nftnet"
	w.nftnet(t, "inspect", "--save", file)
	w.diff(t, 0, file, "live")
	w.run(t, "c1", "web", "-p", "8080:80")
	if got := w.diff(t, 1, file, "live", "--width", "200"); !strings.Contains(got, "+ tcp . 8080") ||
		!strings.Contains(got, "tcp port 8080 on any IPv4 address of this host goes to") || !strings.Contains(got, "container c1 of network web") {
		t.Errorf("a published port is not told:\n%s", got)
	}
	var doc struct {
		Equal   bool
		Changes []struct{ Change, Set string }
	}
	if err := json.Unmarshal([]byte(w.diff(t, 1, file, "live", "--format", "json")), &doc); err != nil || doc.Equal || len(doc.Changes) == 0 {
		t.Errorf("as JSON: %+v, %v", doc, err)
	}
	w.engine.Docker(t, "rm", "-f", "c1")
	if got := w.diff(t, 0, file, "live"); got != "" {
		t.Errorf("what went again is told:\n%s", got)
	}
	w.diff(t, 2, file, w.Dir+"/nosuch")
	w.diff(t, 2, file)
	w.diff(t, 2, file, "live", "--format", "nft")
}

// diff compares rulesets, and fails where the status is another one.
func (w *world) diff(t *testing.T, status int, args ...string) string {
	t.Helper()
	out, err := w.Command(append([]string{"env", "DOCKER_HOST=unix://" + w.engine.Socket, binary, "inspect", "diff"}, args...)...).Output()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Errorf("diff %v: status %d, want %d\n%s%s", args, got, status, out, exit)
	}
	return string(out)
}
