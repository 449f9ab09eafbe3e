package kernel_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// corpusFile holds rules that nft 1.0.6 loads and lists, one JSON object a
// line. They are not part of the module.
const corpusFile = "../../../shared/corpus/rules.jsonl"

type corpusRule struct {
	ID       int
	Family   ruleset.Family
	Table    string
	Hook     string
	Chain    string
	Rule     string
	Setup    []string
	IPTables string
	JSON     map[string]any
}

var listDifferences = flag.String("differences", "", "file for the rules that are printed in other words than nft's")

// differenceList gathers rules that we print in other words than nft.
type differenceList struct{ lines []string }

var differences differenceList

func (l *differenceList) note(family, theirs, ours string) {
	l.lines = append(l.lines, fmt.Sprintf("%s\n  nft: %s\n  we:  %s\n", family, theirs, ours))
}

func (l *differenceList) write(t *testing.T) {
	t.Helper()
	if *listDifferences == "" {
		return
	}
	slices.Sort(l.lines)
	if err := os.WriteFile(*listDifferences, []byte(strings.Join(l.lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRulesOfTheCorpusLoseNothing reads a great number of foreign rules. Where
// our text is not nft's, it must either show that a part is unknown, or mean
// the same: nft loads it to the same bytes.
func TestRulesOfTheCorpusLoseNothing(t *testing.T) {
	rules := readCorpus(t)
	groups := map[string][]corpusRule{}
	for _, r := range rules {
		// Rules with sets of their own in one table would not fit together.
		group := string(r.Family)
		if len(r.Setup) > 0 {
			group = fmt.Sprintf("%s-%d", r.Family, r.ID)
		}
		groups[group] = append(groups[group], r)
	}
	var total, equal, unknown, other int
	for name, group := range groups {
		t.Run(name, func(t *testing.T) {
			b := newCorpusBatch(group)
			read := b.readBack(t)
			var doubtful []doubt
			for _, r := range read {
				total++
				if r.ours != r.theirs {
					differences.note(string(b.family), r.theirs, r.ours)
				}
				switch {
				case r.ours == r.theirs:
					equal++
				case strings.Contains(r.ours, "unknown"):
					unknown++
				default:
					other++
					doubtful = append(doubtful, doubt{r, b.rules[r.at]})
				}
			}
			checkMeaning(t, doubtful)
		})
	}
	differences.write(t)
	t.Logf("%d rules: %d (%.1f %%) printed as nft prints them, %d with a part shown as unknown, %d in other words",
		total, equal, 100*float64(equal)/float64(total), unknown, other)
	if total == 0 || float64(equal) < leastEqual*float64(total) || unknown > 0 {
		t.Errorf("%d of %d rules are printed as nft prints them", equal, total)
	}
}

// readCorpus are the rules that nft loads as it lists them: iptables' extensions
// it would load as rules of its own, and of a rule of several lines, which has a
// chain inside, it lists no single line.
func readCorpus(t *testing.T) []corpusRule {
	t.Helper()
	return slices.DeleteFunc(readCorpusFile(t), func(r corpusRule) bool {
		return r.IPTables != "" || strings.Contains(r.Rule, "\n")
	})
}

func readCorpusFile(t *testing.T) []corpusRule {
	t.Helper()
	f, err := os.Open(corpusFile)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no corpus of foreign rules at %s", corpusFile)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []corpusRule
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r corpusRule
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// corpusBatch are rules of one family that go into one table, a chain for each
// hook.
type corpusBatch struct {
	family ruleset.Family
	table  string
	rules  []corpusRule
	chains []string
}

func newCorpusBatch(rules []corpusRule) *corpusBatch {
	b := &corpusBatch{family: rules[0].Family, table: "corpus", rules: rules}
	if len(rules[0].Setup) > 0 {
		b.table = rules[0].Table
	}
	for _, r := range rules {
		if !slices.Contains(b.chains, r.Hook) {
			b.chains = append(b.chains, r.Hook)
		}
	}
	return b
}

var target = regexp.MustCompile(`\b(?:jump|goto) ([\w.-]+)`)

// text is the batch for nft -f, without the rules of which skip holds the
// index. ruleAt says which rule stands on which line.
func (b *corpusBatch) text(skip map[int]bool) (text string, ruleAt map[int]int) {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	add("add table %s %s", b.family, b.table)
	for i, hook := range b.chains {
		if hook != "" && !strings.HasSuffix(hook, ";") {
			hook += ";"
		}
		add("add chain %s %s c%d { %s }", b.family, b.table, i, hook)
	}
	ruleAt = map[int]int{}
	for i, r := range b.rules {
		if skip[i] {
			continue
		}
		for _, s := range r.Setup {
			add("%s", s)
		}
		for _, m := range target.FindAllStringSubmatch(r.Rule, -1) {
			add("add chain %s %s %s", b.family, b.table, m[1])
		}
		add("add rule %s %s c%d %s", b.family, b.table, slices.Index(b.chains, r.Hook), r.Rule)
		ruleAt[len(lines)] = i
	}
	return strings.Join(lines, "\n") + "\n", ruleAt
}

var errorLine = regexp.MustCompile(`corpus\.nft:(\d+):`)

// load has nft load the rules that it takes and returns the index of those.
func (b *corpusBatch) load(t *testing.T, ns *nstest.NS) []int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "corpus.nft")
	skip := map[int]bool{}
	for range 40 {
		text, ruleAt := b.text(skip)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ns.Try("nft", "-f", path)
		if err == nil {
			return slices.Sorted(func(yield func(int) bool) {
				for _, i := range ruleAt {
					if !yield(i) {
						return
					}
				}
			})
		}
		before := len(skip)
		for _, m := range errorLine.FindAllStringSubmatch(err.Error(), -1) {
			n, _ := strconv.Atoi(m[1])
			if i, ok := ruleAt[n]; ok {
				skip[i] = true
			}
		}
		if len(skip) == before {
			t.Fatal(err)
		}
	}
	t.Fatal("nft refuses ever more rules")
	return nil
}

// readRule is a rule in nft's words and in ours, with its bytes.
type readRule struct {
	at           int
	ours, theirs string
	raw          string
}

// readBack loads the rules and reads them both ways.
func (b *corpusBatch) readBack(t *testing.T) []readRule {
	t.Helper()
	ns := nstest.NewNS(t, "corpus")
	loaded := b.load(t, ns)
	conn := open(t, ns)
	rs, err := conn.Read(kernel.Filter{Family: b.family, Table: b.table})
	if err != nil {
		t.Fatal(err)
	}
	byChain := map[string][]int{}
	for _, i := range loaded {
		c := fmt.Sprintf("c%d", slices.Index(b.chains, b.rules[i].Hook))
		byChain[c] = append(byChain[c], i)
	}
	rawRules := rawByChain(t, conn, b.family, b.table)
	var out []readRule
	for chain, indices := range byChain {
		theirs := chainLines(ns.Exec(t, "nft", "-s", "list", "chain", string(b.family), b.table, chain))
		ours := rs.Table(b.family, b.table).Chain(chain)
		if len(theirs) != len(indices) || len(ours.Rules) != len(indices) || len(rawRules[chain]) != len(indices) {
			t.Fatalf("chain %s: %d rules loaded, nft lists %d, we read %d, the kernel dumps %d",
				chain, len(indices), len(theirs), len(ours.Rules), len(rawRules[chain]))
		}
		for n, i := range indices {
			out = append(out, readRule{
				at: i, theirs: theirs[n], raw: rawRules[chain][n],
				ours: ours.Rules[n].Text(ruleset.Format{Stateless: true}),
			})
		}
	}
	return out
}

// chainLines are the rules in a listing of one chain.
func chainLines(listing string) []string {
	var out []string
	for line := range strings.Lines(listing) {
		rule, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t\t")
		if ok && !strings.HasPrefix(rule, "type ") {
			out = append(out, rule)
		}
	}
	return out
}

// noticedByNftOnly are the attributes of a set that only nft reads: the types
// of key and data, and the user data.
var noticedByNftOnly = regexp.MustCompile(`^(4|6|13): `)

// rawByChain is the dump of each rule by chain, with the content of anonymous
// sets in place of their numbers.
func rawByChain(t *testing.T, conn *kernel.Conn, family ruleset.Family, table string) map[string][]string {
	t.Helper()
	objects, err := conn.Raw(family, table)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	for _, o := range objects {
		if o.Kind != "rule" && strings.HasPrefix(o.Name, "__") {
			name := hex.EncodeToString([]byte(o.Name)) + "00"
			for _, l := range o.Lines {
				if !strings.HasSuffix(l, name) && !(o.Kind == "set" && noticedByNftOnly.MatchString(l)) {
					content[name] += l + "\n"
				}
			}
		}
	}
	out := map[string][]string{}
	for _, o := range objects {
		if o.Kind != "rule" {
			continue
		}
		var text strings.Builder
		for _, l := range o.Lines {
			if _, value, ok := strings.Cut(l, ": "); ok && content[value] != "" {
				l = content[value]
			}
			if !strings.HasPrefix(l, "2: ") { // the chain
				text.WriteString(l + "\n")
			}
		}
		out[o.Name] = append(out[o.Name], text.String())
	}
	return out
}

// doubt is a rule that we print in other words than nft.
type doubt struct {
	read readRule
	rule corpusRule
}

// checkMeaning has nft load our words; the kernel must then hold the same
// bytes.
func checkMeaning(t *testing.T, doubtful []doubt) {
	t.Helper()
	if len(doubtful) == 0 {
		return
	}
	rules := make([]corpusRule, len(doubtful))
	for i, d := range doubtful {
		rules[i] = d.rule
		rules[i].Rule = d.read.ours
	}
	again := map[int]string{}
	for _, r := range newCorpusBatch(rules).readBack(t) {
		again[r.at] = r.raw
	}
	for i, d := range doubtful {
		if raw, ok := again[i]; !ok {
			t.Errorf("%s: nft prints %s\nwe print %s, which nft does not load", d.rule.Family, d.read.theirs, d.read.ours)
		} else if raw != d.read.raw {
			t.Errorf("%s: nft prints %s\nwe print %s, which means something else", d.rule.Family, d.read.theirs, d.read.ours)
		}
	}
}
