package view_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/desired/desiredtest"
	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
	"nftnet/isolation"
	"nftnet/nat"
)

// sameAsNft has nft and us list what a namespace holds.
func sameAsNft(t *testing.T, ns *nstest.NS) {
	t.Helper()
	conn, err := kernel.OpenAt(int(ns.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rs, err := inspect.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := view.JSON(&b, inspect.NewModel(rs, inspect.Names{}), view.Options{}, "devel"); err != nil {
		t.Fatal(err)
	}
	ours, err := rulesettest.ParseJSON(b.String())
	theirs, err2 := rulesettest.ParseJSON(ns.Exec(t, "nft", "-j", "list", "ruleset"))
	if err != nil || err2 != nil || len(ours) != len(theirs) {
		t.Fatalf("%d objects, nft has %d: %v, %v", len(ours), len(theirs), err, err2)
	}
	for i := range theirs[1:] {
		for kind, o := range theirs[i+1] {
			got, want := rulesettest.CommonJSON(kind, ours[i+1][kind], true), rulesettest.CommonJSON(kind, o, true)
			if diff := cmp.Diff(want, got); diff != "" && !hasText(o) {
				t.Errorf("object %d, a %s (-nft +nftnet):\n%s", i+1, kind, diff)
			}
		}
	}
}

// hasText says whether nft has no JSON for a part of a rule.
func hasText(rule map[string]any) bool {
	expr, _ := rule["expr"].([]any)
	for _, e := range expr {
		if _, ok := e.(string); ok {
			return true
		}
	}
	return false
}

// ofIPTables finds what nft lists of iptables' extensions and does not load.
var ofIPTables = regexp.MustCompile(`(?i)\bxt (match|target)\b`)

func TestJSONIsThatOfNft(t *testing.T) {
	texts := map[string]string{}
	for _, row := range desiredtest.Rows() {
		rs := ruleset.Merge(nat.Ruleset(row.State), isolation.Ruleset(row.State))
		texts["driver "+row.Name] = rs.Sorted().Text(ruleset.Format{Stateless: true})
	}
	captured, err := filepath.Glob("../../../shared/rulesets/*.nft")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(captured, "testdata/everything.nft") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = string(text)
	}
	ns := nstest.NewNS(t, "json")
	ns.Exec(t, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			ns.Exec(t, "nft", "flush", "ruleset")
			path := filepath.Join(t.TempDir(), "ruleset.nft")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ns.Try("nft", "-f", path); err != nil && ofIPTables.MatchString(text) {
				t.Skip("nft loads no extensions of iptables: the corpus has them")
			} else if err != nil {
				t.Fatal(err)
			}
			sameAsNft(t, ns)
		})
	}
}
