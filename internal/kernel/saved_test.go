package kernel_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// savedTable is a table with a chain of the user, "other", whose rules refer to
// sets and chains of the user's and to one set that is not.
const savedTable = `table inet t {
	set ours { type inet_service; elements = { 22 }; }
	set theirs { type ipv4_addr; flags interval; comment "of the user"; elements = { 192.0.2.0/24, 198.51.100.7 comment "one" }; }
	map verdicts { type inet_service : verdict; counter; elements = { 22 : jump deep, 23 : drop }; }
	set seen { type ipv4_addr; size 99; flags dynamic,timeout; timeout 1h; }
	chain deeper { counter return comment "at the end"; }
	chain deep { ip saddr { 203.0.113.1, 203.0.113.8/29 } goto deeper; }
	chain user {
		tcp dport @ours ip saddr @theirs counter packets 5 bytes 500 accept comment "why, \ and where"
		tcp dport vmap @verdicts
		tcp dport vmap { 80 : accept, 443 : jump deep }
		meta mark set tcp dport map { 22 : 1, 80 : 2 }
		add @seen { ip saddr limit rate 5/second } drop
		tcp option maxseg size 1-1400 ip6 dscp cs1 quota over 5 mbytes log flags all reject with tcp reset
	}
	chain unrelated { drop; }
}
`

func TestSavedChainIsPutBackAsItWas(t *testing.T) {
	ns := nstest.NewNS(t, "saved")
	load(t, ns, savedTable)
	conn := open(t, ns)
	notTheirs := func(name string) bool { return name == "ours" || name == "unrelated" }
	saved, err := conn.Save(rs.FamilyInet, "t", "user", notTheirs)
	if err != nil {
		t.Fatal(err)
	}
	before := rawByChain(t, conn, rs.FamilyInet, "t")
	sets := map[string][]string{}
	for _, s := range []string{"theirs", "verdicts", "seen"} {
		sets[s] = rawSet(t, conn, s)
	}

	// It is stored as JSON in between.
	stored, err := json.Marshal(saved)
	if err != nil {
		t.Fatal(err)
	}
	saved = kernel.Saved{}
	if err := json.Unmarshal(stored, &saved); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "flush", "ruleset")
	ours := rs.Set{Name: "ours", Key: rs.TypeInetService}
	if err := conn.Restore(rs.Diff(rs.Ruleset{}, table("t", []rs.Set{ours}, rs.Chain{Name: "user"})), rs.FamilyInet, "t", saved); err != nil {
		t.Fatalf("%+v", err)
	}

	after := rawByChain(t, conn, rs.FamilyInet, "t")
	for _, chain := range []string{"user", "deep", "deeper"} {
		if diff := cmp.Diff(before[chain], after[chain]); diff != "" || len(before[chain]) == 0 {
			t.Errorf("chain %s (-before +after)\n%s", chain, diff)
		}
	}
	for name, lines := range sets {
		if diff := cmp.Diff(lines, rawSet(t, conn, name)); diff != "" {
			t.Errorf("set %s (-before +after)\n%s", name, diff)
		}
	}
	if got := readTable(t, conn, rs.FamilyInet, "t"); got.Chain("unrelated") != nil || len(got.Set("ours").Elements) > 0 {
		t.Errorf("what is not the user's was put back:\n%s", got.Text(rs.Format{}))
	}
}

// TestSaveTakesAllKindsOfRules saves and restores the rules that are read
// elsewhere, known or not. Named objects are no part of what is saved.
func TestSaveTakesAllKindsOfRules(t *testing.T) {
	for _, rows := range rulesToRead {
		if rows.family == rs.FamilyNetdev {
			continue // We make no chains at a device.
		}
		t.Run(string(rows.family)+" "+rows.chain, func(t *testing.T) {
			t.Parallel()
			rows.rules = slices.DeleteFunc(slices.Clone(rows.rules), func(r ruleRow) bool {
				return strings.Contains(r.rule, "counter name") || strings.Contains(r.rule, "ct helper set")
			})
			ns := nstest.NewNS(t, "kinds")
			loadRows(t, ns, rows)
			conn := open(t, ns)
			want := rawByChain(t, conn, rows.family, "t")["c"]
			base := readTable(t, conn, rows.family, "t").Chain("c").Base

			saved, err := conn.Save(rows.family, "t", "c", func(string) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			ns.Exec(t, "nft", "flush", "ruleset")
			empty := rs.Ruleset{Tables: []rs.Table{{Family: rows.family, Name: "t", Chains: []rs.Chain{{Name: "c", Base: base}}}}}
			if err := conn.Restore(rs.Diff(rs.Ruleset{}, empty), rows.family, "t", saved); err != nil {
				t.Fatalf("%+v", err)
			}
			if diff := cmp.Diff(want, rawByChain(t, conn, rows.family, "t")["c"]); diff != "" || len(want) == 0 {
				t.Errorf("(-before +after)\n%s", diff)
			}
		})
	}
}

func TestSaveOfAChainThatIsNotThere(t *testing.T) {
	ns := nstest.NewNS(t, "nochain")
	conn := open(t, ns)
	load(t, ns, "add table inet t")
	for _, table := range []string{"t", "none"} {
		if saved, err := conn.Save(rs.FamilyInet, table, "user", func(string) bool { return false }); err == nil {
			t.Errorf("table %s: saved %s", table, fmt.Sprint(saved))
		}
	}
}
