package kernel_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
	"nftnet/internal/desired/desiredtest"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
	"nftnet/isolation"
	"nftnet/nat"
)

// open connects to nftables in a fresh namespace.
func open(t testing.TB, ns *nstest.NS) *kernel.Conn {
	t.Helper()
	c, err := kernel.OpenAt(int(ns.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// load has nft itself load a text.
func load(t testing.TB, ns *nstest.NS, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ruleset.nft")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "-f", path)
}

// list is what nft itself lists.
func list(t testing.TB, ns *nstest.NS) string {
	t.Helper()
	return ns.Exec(t, "nft", "-s", "list", "ruleset") + "\n"
}

// TestKernelHoldsTheSameWhoeverWroteIt has nft load the golden text and us
// apply the values that the text was made from. nft must list both as the text,
// and the kernel's dump of both must be equal byte for byte.
func TestKernelHoldsTheSameWhoeverWroteIt(t *testing.T) {
	parts := []struct {
		name string
		of   func(desired.State) ruleset.Ruleset
	}{
		{"nat", nat.Ruleset},
		{"isolation", isolation.Ruleset},
		{"both", func(s desired.State) ruleset.Ruleset {
			return ruleset.Merge(nat.Ruleset(s), isolation.Ruleset(s))
		}},
	}
	for _, row := range desiredtest.Rows() {
		for _, part := range parts {
			t.Run(row.Name+"/"+part.name, func(t *testing.T) {
				t.Parallel()
				want := part.of(row.State)
				text := want.Sorted().Text(ruleset.Format{Stateless: true})

				theirs := nstest.NewNS(t, "nft")
				load(t, theirs, text)
				if diff := cmp.Diff(rulesettest.Canonical(text), rulesettest.Canonical(list(t, theirs))); diff != "" {
					t.Errorf("loaded by nft, nft lists (-text +listed):\n%s", diff)
				}

				ours := nstest.NewNS(t, "ours")
				conn := open(t, ours)
				if err := conn.Apply(ruleset.Diff(ruleset.Ruleset{}, want)); err != nil {
					t.Fatalf("%+v", err)
				}
				if diff := cmp.Diff(rulesettest.Canonical(text), rulesettest.Canonical(list(t, ours))); diff != "" {
					t.Errorf("applied by us, nft lists (-text +listed):\n%s", diff)
				}

				if diff := cmp.Diff(raw(t, open(t, theirs)), raw(t, conn)); diff != "" {
					t.Errorf("the kernel's dump (-nft's +ours):\n%s", diff)
				}
			})
		}
	}
}

func raw(t *testing.T, c *kernel.Conn) []kernel.RawObject {
	t.Helper()
	var objects []kernel.RawObject
	for _, family := range []ruleset.Family{ruleset.FamilyInet, ruleset.FamilyBridge} {
		table, err := c.Raw(family, layout.Table)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, table...)
	}
	if len(objects) == 0 {
		t.Fatal("the kernel dumped nothing")
	}
	for i := range objects {
		objects[i].Lines = withoutTurnedBytes(objects[i].Lines)
	}
	return objects
}

// withoutTurnedBytes leaves out the expressions by which nft turns numbers of
// one byte around, before it looks them up in a set of ranges: they do nothing.
func withoutTurnedBytes(lines []string) []string {
	const element = "  1:"
	name := "    1: " + hex.EncodeToString([]byte("byteorder\x00"))
	var out []string
	for len(lines) > 0 {
		end := 1
		for end < len(lines) && strings.HasPrefix(lines[end], "    ") {
			end++
		}
		expression := lines[:end]
		lines = lines[end:]
		if len(expression) > 1 && expression[0] == element && expression[1] == name && slices.Contains(expression, "      4: 00000001") {
			continue
		}
		out = append(out, expression...)
	}
	return out
}
