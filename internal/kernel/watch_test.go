package kernel_test

import (
	"errors"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// openWatch subscribes in a namespace of the test's own.
func openWatch(t *testing.T, ns *nstest.NS) *kernel.Watch {
	t.Helper()
	var w *kernel.Watch
	err := ns.Do(func() (err error) {
		w, err = kernel.OpenWatch()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// TestWatchNamesWhoChangedWhat: one event for each change, with its tables and
// the process that made it.
func TestWatchNamesWhoChangedWhat(t *testing.T) {
	ns := nstest.NewNS(t, "watch")
	conn := open(t, ns)
	w := openWatch(t, ns)
	mustApply(t, conn, rs.Diff(rs.Ruleset{}, table("t", nil, rs.Chain{Name: "c"})))
	e, err := w.Next()
	if err != nil || !e.Touches(rs.FamilyInet, "t") || e.Touches(rs.FamilyIP, "t") || e.Touches(rs.FamilyInet, "other") ||
		e.Port != conn.Port() || !strings.HasPrefix(e.Generation.Process, "kernel.test") {
		t.Errorf("our change: %+v, %v", e, err)
	}
	ns.Exec(t, "nft", "add", "table", "ip", "other")
	if e, err = w.Next(); err != nil || !e.Touches(rs.FamilyIP, "other") || e.Touches(rs.FamilyInet, "t") ||
		e.Port == conn.Port() || e.Generation.Process != "nft" {
		t.Errorf("nft's change: %+v, %v", e, err)
	}
	ns.Exec(t, "nft", "flush", "ruleset")
	if e, err = w.Next(); err != nil || !e.Touches(rs.FamilyIP, "other") || !e.Touches(rs.FamilyInet, "t") {
		t.Errorf("a flush: %+v, %v", e, err)
	}
}

func TestWatchEnds(t *testing.T) {
	w := openWatch(t, nstest.NewNS(t, "watch"))
	ended := make(chan error, 1)
	go func() {
		_, err := w.Next()
		ended <- err
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
}
