package kernel_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// rulesetsFile holds whole rulesets that nft 1.0.6 listed, one JSON object a
// line. They are not part of the module.
const rulesetsFile = "../../../shared/corpus/rulesets.jsonl"

type corpusRuleset struct {
	ID, Text string
	JSON     struct{ Nftables []map[string]map[string]any }
}

// The least shares of foreign rules and rulesets that must be printed as nft
// prints them.
const leastEqual = 0.995

// TestA57RulesetsOfTheCorpusAreListedAsByNft reads whole foreign rulesets. What we
// print must be what nft lists, and where nft loads its own listing to the same
// bytes, ours must do so too.
func TestA57RulesetsOfTheCorpusAreListedAsByNft(t *testing.T) {
	var total, equal, reloadable, same int
	ns := nstest.NewNS(t, "rulesets")
	conn := open(t, ns)
	for _, c := range readRulesets(t) {
		if !nftLoads(t, ns, c.Text) {
			continue
		}
		total++
		rs, err := conn.Read(kernel.Filter{})
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		theirs, ours := strings.TrimSpace(ns.Exec(t, "nft", "list", "ruleset"))+"\n", rs.String()
		if ours == theirs {
			equal++
		} else {
			differences.note("ruleset "+c.ID, firstDifference(theirs, ours), firstDifference(ours, theirs))
		}
		before := rawTables(t, conn, rs)
		if !nftLoads(t, ns, theirs) || rawTables(t, conn, rs) != before {
			continue
		}
		reloadable++
		if nftLoads(t, ns, ours) && rawTables(t, conn, rs) == before {
			same++
		} else {
			t.Errorf("%s: nft makes something else of what we print\n%s", c.ID, firstDifference(ours, theirs))
		}
	}
	differences.write(t)
	t.Logf("%d rulesets: %d (%.1f %%) printed as nft prints them, %d of %d the same after a reload",
		total, equal, 100*float64(equal)/float64(total), same, reloadable)
	if float64(equal) < leastEqual*float64(total) {
		t.Errorf("%d of %d rulesets are printed as nft prints them", equal, total)
	}
}

func readRulesets(t *testing.T) []corpusRuleset {
	t.Helper()
	f, err := os.Open(rulesetsFile)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no corpus of foreign rulesets at %s", rulesetsFile)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []corpusRuleset
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var c corpusRuleset
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// nftLoads puts a ruleset in the place of what is there; false where nft
// refuses it.
func nftLoads(t *testing.T, ns *nstest.NS, text string) bool {
	t.Helper()
	ns.Exec(t, "nft", "flush", "ruleset")
	path := filepath.Join(t.TempDir(), "ruleset.nft")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ns.Try("nft", "-f", path)
	return err == nil
}

// rawTables is the kernel's own encoding of the rules and sets of the tables.
func rawTables(t *testing.T, conn *kernel.Conn, rs ruleset.Ruleset) string {
	t.Helper()
	var b strings.Builder
	for _, table := range rs.Tables {
		fmt.Fprintf(&b, "%s %s\n%v\n", table.Family, table.Name, rawByChain(t, conn, table.Family, table.Name))
		objects, err := conn.Raw(table.Family, table.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.Kind != "rule" && !strings.HasPrefix(o.Name, "__") {
				fmt.Fprintf(&b, "%s %s\n%s\n", o.Kind, o.Name, strings.Join(o.Lines, "\n"))
			}
		}
	}
	return b.String()
}

// firstDifference is the first line of a that b has another for.
func firstDifference(a, b string) string {
	other := strings.Split(b, "\n")
	for i, l := range strings.Split(a, "\n") {
		if i >= len(other) || other[i] != l {
			return fmt.Sprintf("line %d: %s", i+1, strings.TrimSpace(l))
		}
	}
	return ""
}
