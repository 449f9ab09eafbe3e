package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
	"nftnet/internal/ruleset/rulesettest"
)

// TestKernelFollowsAnySequenceOfRulesets applies random rulesets one after the
// other, with a user who puts rules into their chain in between. After each the
// kernel must hold what is wanted, and no more.
func TestKernelFollowsAnySequenceOfRulesets(t *testing.T) {
	const sequences, states = 4, 40
	for n := range sequences {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			ns := nstest.NewNS(t, "sequence")
			conn := open(t, ns)
			for i := range states {
				seed := n*states + i
				have := readAll(t, conn)
				want := rulesettest.Random().Example(seed)
				batch := rs.Diff(have, want)
				if err := conn.Apply(batch); err != nil {
					t.Fatalf("ruleset %d: %+v\nfrom\n%s", seed, err, have)
				}
				got := readAll(t, conn)
				if left := rs.Diff(got, want); len(left) > 0 {
					t.Fatalf("ruleset %d: left to do:\n%safter\n%sfrom\n%s", seed, left, batch, have)
				}
				expected := rulesettest.WithUserRules(have, want).Text(rs.Format{Stateless: true})
				if diff := cmp.Diff(rulesettest.Canonical(expected), rulesettest.Canonical(list(t, ns))); diff != "" {
					t.Fatalf("ruleset %d: nft lists (-wanted +listed):\n%safter\n%sfrom\n%s", seed, diff, batch, have)
				}
				addUserRules(t, ns, got, seed)
			}
			if err := conn.Apply(rs.Diff(readAll(t, conn), rs.Ruleset{})); err != nil {
				t.Fatalf("%+v", err)
			}
			if left := strings.TrimSpace(list(t, ns)); left != "" {
				t.Errorf("removed, there is left:\n%s", left)
			}
		})
	}
}

// addUserRules is a user who replaces the rules in their chain, with plain nft.
func addUserRules(t *testing.T, ns *nstest.NS, have rs.Ruleset, seed int) {
	t.Helper()
	table := have.Table(rs.FamilyInet, "t")
	if table == nil {
		return
	}
	text := "flush chain inet t " + rulesettest.UserChain + "\n"
	for _, r := range rulesettest.UserRules(*table).Example(seed) {
		text += "add rule inet t " + rulesettest.UserChain + " " + r.Text(rs.Format{Stateless: true}) + "\n"
	}
	load(t, ns, text)
}
