package saved_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
	"nftnet/internal/saved"
)

const listing = `table inet t {
	comment "saved"
	map ports {
		typeof meta l4proto . th dport : ip daddr . th dport
		counter
		elements = { tcp . 8080 counter packets 7 bytes 420 : 10.0.1.2 . 80 }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept comment "loopback"
		ct state established,related counter packets 3 bytes 180 accept
		tcp dport { 22, 443 } accept
	}
}
`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func text(rs ruleset.Ruleset) string {
	var b strings.Builder
	for _, t := range rs.Tables {
		b.WriteString(t.Text(ruleset.Format{}))
	}
	return b.String()
}

// own is this process's own ruleset, which must stay as it is.
func own(t *testing.T) string {
	t.Helper()
	conn, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	rs, err := conn.Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return text(rs)
}

// TestReadIsFaithful: what nft lists is read back word for word, from text and
// from JSON, and the own ruleset is not touched, though the file flushes it.
func TestReadIsFaithful(t *testing.T) {
	nstest.RequireInside(t)
	if out, err := exec.Command("nft", "add table inet mine").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := own(t)
	got, err := saved.Read(t.Context(), write(t, "flush ruleset\n"+listing), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text(got) != listing {
		t.Errorf("read\n%s\nwant\n%s", text(got), listing)
	}
	got, err = saved.Read(t.Context(), "-", strings.NewReader(listing))
	if err != nil || text(got) != listing {
		t.Errorf("of input: %v\n%s", err, text(got))
	}
	const asJSON = ` {"nftables": [{"metainfo": {"json_schema_version": 1}}, {"table": {"family": "ip", "name": "j"}},
		{"chain": {"family": "ip", "table": "j", "name": "c"}}]}`
	got, err = saved.Load(t.Context(), "x.json", []byte(asJSON))
	if err != nil || got.Table(ruleset.FamilyIP, "j") == nil {
		t.Errorf("of JSON: %v\n%s", err, text(got))
	}
	if got, err = saved.Load(t.Context(), "nothing", nil); err != nil || len(got.Tables) > 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	if after := own(t); after != before || !strings.Contains(after, "mine") {
		t.Errorf("the own ruleset was\n%s\nis\n%s", before, after)
	}
}

func TestRefusals(t *testing.T) {
	nstest.RequireInside(t)
	for name, row := range map[string]struct{ text, want string }{
		"grammar":   {"table inet t {\n\tchain c { tcp dport x y }\n}\n", ":2:26-26: Error: syntax error"},
		"interface": {`table inet t { chain c { iif "eth77" accept; }; }` + "\n", "Interface does not exist"},
		"json":      {`{"nftables": [{"rule": {}}]}`, "rror"},
	} {
		file := write(t, row.text)
		_, err := saved.Read(t.Context(), file, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "nft refuses "+file+":\n") || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "/dev/stdin") {
			t.Errorf("%s: %v, want an error with %q", name, err, row.want)
		}
	}
	if _, err := saved.Load(t.Context(), "x.json", []byte(`{"nftables": [`)); err == nil || err.Error() != "x.json is no JSON, though it begins so: unexpected end of JSON input" {
		t.Errorf("of half a document: %v", err)
	}
	if _, err := saved.Read(t.Context(), "/nonexistent", nil); err == nil || err.Error() != "ruleset file: open /nonexistent: no such file or directory" {
		t.Errorf("of a file that is not there: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := saved.Load(ended, "x", []byte(listing)); !errors.Is(err, context.Canceled) {
		t.Errorf("where nobody waits: %v", err)
	}
	t.Setenv("PATH", "/nonexistent")
	if _, err := saved.Load(t.Context(), "x.nft", nil); !errors.Is(err, exec.ErrNotFound) || !strings.HasPrefix(err.Error(), "reading x.nft needs the nft program, which is not installed") {
		t.Errorf("without nft: %v", err)
	}
}

// TestOwned: what would be gone before it is read is refused, and nothing else.
func TestOwned(t *testing.T) {
	nstest.RequireInside(t)
	for text, refused := range map[string]bool{
		"table inet t {\n\tflags owner\n\tchain c { }\n}\n":                          true,
		"table inet t { flags dormant,owner; }\n":                                    true,
		"# flags owner\ntable inet t { flags dormant; comment \"the owner\"; }\n":    false,
		`{"nftables": [{"table": {"family": "ip", "name": "t", "flags": "owner"}}]}`: true,
		`{"nftables": [{"table": {"family": "ip", "name": "owner"}}]}`:               false,
	} {
		got, err := saved.Load(t.Context(), "x", []byte(text))
		if refused && (err == nil || !strings.HasPrefix(err.Error(), "x has a table with the flag owner and without persist")) || !refused && (err != nil || len(got.Tables) != 1) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestExtensionsOfIPTables: what nft lists by name alone it does not load; the
// rules are there all the same, with a part that is not understood.
func TestExtensionsOfIPTables(t *testing.T) {
	nstest.RequireInside(t)
	const listed = `table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		meta l4proto tcp xt match recent counter packets 1 bytes 40 XT target DNAT not found
		tcp dport 80 counter packets 2 bytes 80 accept comment "xt match physdev is no match here"
		# xt match comment
	}
}
`
	got, err := saved.Read(context.Background(), write(t, listed), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := text(got)
	for _, want := range []string{"meta l4proto tcp xt match recent counter packets 1 bytes 40 xt target DNAT", `comment "xt match physdev is no match here"`} {
		if !strings.Contains(out, want) {
			t.Errorf("the ruleset lacks %q:\n%s", want, out)
		}
	}
	if _, known := got.Tables[0].Chains[0].Rules[0].IPTables(); known {
		t.Error("the words of an extension without its arguments are said to be known")
	}
}

// TestCapturedRulesets reads what real hosts listed.
func TestCapturedRulesets(t *testing.T) {
	nstest.RequireInside(t)
	files, err := filepath.Glob("../../../shared/rulesets/*.nft")
	if err != nil || len(files) == 0 {
		t.Skip("the captured rulesets are not beside the checkout (../shared/rulesets)")
	}
	for _, file := range files {
		if _, err := saved.Read(context.Background(), file, nil); err != nil {
			t.Error(err)
		}
	}
}
