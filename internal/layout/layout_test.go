package layout_test

import (
	"strings"
	"testing"

	"nftnet/internal/layout"
)

// TestNamesOfLinks: what the kernel takes as an interface's name is 15 bytes at
// most (IFNAMSIZ less the terminating zero).
func TestNamesOfLinks(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	if got := layout.BridgeName(id); got != "nft-0123456789a" || len(got) > 15 {
		t.Errorf("bridge of %s: %q", id, got)
	}
	if got := layout.BridgeName("short"); got != "nft-short" {
		t.Errorf("bridge of a short id: %q", got)
	}
	if !strings.HasSuffix(layout.BridgeName(id), layout.ShortID(id)) {
		t.Errorf("the short id %q does not name the bridge", layout.ShortID(id))
	}
}
