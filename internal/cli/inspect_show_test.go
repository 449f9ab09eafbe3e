package cli

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// notes is a writer that may be read meanwhile.
type notes struct {
	mu sync.Mutex
	b  strings.Builder
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

func TestProgress(t *testing.T) {
	var quick, slow notes
	tellProgress(&quick, "reading", time.Hour, time.Hour)()
	if quick.String() != "" {
		t.Errorf("of quick work: %q", quick.String())
	}
	stop := tellProgress(&slow, "reading", time.Millisecond, time.Millisecond)
	for range 1000 {
		if strings.Count(slow.String(), "reading") > 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	said := slow.String()
	if !strings.HasPrefix(said, "\r\x1b[Knftnet: reading: 0s\r\x1b[Knftnet: reading: ") || !strings.HasSuffix(said, "s\r\x1b[K") {
		t.Errorf("of slow work: %q", said)
	}
	// No terminal, no progress.
	progress(&slow, "more")()
	if slow.String() != said {
		t.Errorf("without a terminal: %q", slow.String())
	}
}

// TestCompletion: the shell is told the names that there are.
func TestCompletion(t *testing.T) {
	nstest.RequireInside(t)
	ns := nstest.NewNS(t, "complete")
	ns.Exec(t, "nft", "add table ip one; add chain ip one a; add table inet two; add chain inet two b; add chain inet two c")
	for _, row := range []struct {
		args []string
		want []string
	}{
		{[]string{"--table", ""}, []string{"one\ttable of family ip", "two\ttable of family inet"}},
		{[]string{"--chain", ""}, []string{"a\tchain of table ip one", "b\tchain of table inet two", "c\tchain of table inet two"}},
		{[]string{"--table", "two", "--chain", ""}, []string{"b\tchain of table inet two", "c\tchain of table inet two"}},
		{[]string{"--table", "ip one", "--chain", ""}, []string{"a\tchain of table ip one"}},
		{[]string{"--network", ""}, nil},
		{[]string{"--container", ""}, nil},
		{[]string{"--color", ""}, []string{"auto", "always", "never"}},
	} {
		args := append([]string{"__complete", "inspect", "--docker", noDocker, "--netns", ns.Path()}, row.args...)
		out, _, err := run(t, args...)
		got := strings.Split(strings.TrimSpace(out), "\n")
		if err != nil || !slices.Equal(got[:len(got)-1], row.want) || got[len(got)-1] != ":4" {
			t.Errorf("%v: %v, %q, want %q", row.args, err, got, row.want)
		}
	}
}
