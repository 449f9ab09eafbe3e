package realise

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"nftnet/plugin/link"
)

// TestStuckIsLoggedOnce: what cannot be repaired is logged when it begins, not at
// each look, and again when it comes back.
func TestStuckIsLoggedOnce(t *testing.T) {
	var (
		r     repairs
		out   bytes.Buffer
		log   = slog.New(slog.NewTextHandler(&out, nil))
		down  = link.Fault{Kind: link.BridgeDown, Network: "n1", Object: "br9", Adopted: true}
		lines = func(want int) {
			t.Helper()
			if n := strings.Count(out.String(), "cannot repair"); n != want {
				t.Errorf("%d lines, want %d:\n%s", n, want, &out)
			}
		}
	)
	for range 3 {
		r.settle([]link.Fault{down})
		r.stuck(down, log)
		if r.due() {
			t.Error("a repair is due")
		}
	}
	lines(1)
	r.settle(nil)
	r.due()
	r.settle([]link.Fault{down})
	r.stuck(down, log)
	lines(2)
}
