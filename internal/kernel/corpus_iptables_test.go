package kernel_test

import (
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// TestIPTablesRulesOfTheCorpusAreUnderstood has iptables-nft load foreign rules.
// We must print them as nft does, and in the words of iptables-save.
func TestIPTablesRulesOfTheCorpusAreUnderstood(t *testing.T) {
	ns := nstest.NewNS(t, "iptables")
	conn := open(t, ns)
	var total, equal, words int
	for _, r := range readCorpusFile(t) {
		if r.IPTables == "" {
			continue
		}
		command := map[ruleset.Family]string{ruleset.FamilyIP: "iptables-nft", ruleset.FamilyIP6: "ip6tables-nft"}[r.Family]
		ns.Exec(t, "nft", "flush", "ruleset")
		if _, err := ns.Try("sh", "-c", command+" -t "+r.Table+" "+r.IPTables); err != nil {
			t.Logf("not loaded: %s: %v", r.IPTables, err)
			continue
		}
		total++
		rs, err := conn.Read(kernel.Filter{Family: r.Family, Table: r.Table})
		if err != nil {
			t.Fatal(err)
		}
		theirs := chainLines(ns.Exec(t, "nft", "list", "chain", string(r.Family), r.Table, r.Chain))
		rules := rs.Table(r.Family, r.Table).Chain(r.Chain).Rules
		if len(rules) != 1 || len(theirs) != 1 {
			t.Fatalf("%s: %d rules, nft lists %d", r.IPTables, len(rules), len(theirs))
		}
		if ours := rules[0].String(); ours == theirs[0] {
			equal++
		} else {
			differences.note("iptables "+r.IPTables, theirs[0], ours)
		}
		_, want, _ := strings.Cut(strings.TrimSpace(r.IPTables), r.Chain+" ")
		if got, ok := rules[0].IPTables(); ok && plainWords(got) == plainWords(want) {
			words++
		} else {
			differences.note("words", want, got)
		}
	}
	differences.write(t)
	t.Logf("%d rules of iptables: %d (%.1f %%) printed as nft prints them, %d (%.1f %%) in the words of iptables-save",
		total, equal, 100*float64(equal)/float64(total), words, 100*float64(words)/float64(total))
	if float64(equal) < leastEqual*float64(total) {
		t.Errorf("%d of %d rules are printed as nft prints them", equal, total)
	}
}

// plainWords are words of iptables without what says nothing: the length of a
// whole address, and the module of a protocol that is named already.
func plainWords(s string) string {
	for _, drop := range []string{"/32", "/128", "-m tcp ", "-m udp "} {
		s = strings.ReplaceAll(s, drop, "")
	}
	return s
}
