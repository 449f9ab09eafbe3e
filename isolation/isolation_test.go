package isolation_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
	"nftnet/internal/desired/desiredtest"
	"nftnet/internal/nstest/golden"
	"nftnet/internal/ruleset"
	"nftnet/isolation"
)

func TestRulesetIsTheGoldenOne(t *testing.T) {
	for _, row := range desiredtest.Rows() {
		t.Run(row.Name, func(t *testing.T) {
			text := isolation.Ruleset(row.State).Sorted().Text(ruleset.Format{Stateless: true})
			golden.Check(t, filepath.Join("testdata", row.Name+".nft"), text)
		})
	}
}

// TestChangeOfAPartIsTheChangeOfTheWhole: what one network or endpoint adds to
// the table does not depend on the others, and an endpoint adds elements only.
// So a Docker call costs the same with one network and with a thousand.
func TestChangeOfAPartIsTheChangeOfTheWhole(t *testing.T) {
	for _, row := range desiredtest.Rows() {
		for id, n := range row.State.Networks {
			before := row.State.Clone()
			delete(before.Networks, id)
			for _, e := range row.State.EndpointsOf(id) {
				delete(before.Endpoints, e.ID)
			}
			after := before.Clone()
			after.Networks[id] = n
			compare(t, row.Name+": network "+n.Bridge, before, after, desired.New(), row.State.Part(id, ""))
		}
		for id, e := range row.State.Endpoints {
			before := row.State.Clone()
			delete(before.Endpoints, id)
			compare(t, row.Name+": endpoint "+id, before, row.State, row.State.Part(e.NetworkID, ""), row.State.Part(e.NetworkID, id))
		}
	}
}

func compare(t *testing.T, what string, before, after, partBefore, partAfter desired.State) {
	t.Helper()
	for _, way := range []string{"added", "removed"} {
		whole, part := changes(before, after), changes(partBefore, partAfter)
		if diff := cmp.Diff(whole, part); diff != "" {
			t.Errorf("%s %s (-whole +part)\n%s", what, way, diff)
		}
		for _, line := range part {
			if strings.Contains(what, "endpoint") && !strings.Contains(line, " element ") {
				t.Errorf("%s %s takes more than elements: %s", what, way, line)
			}
		}
		before, after, partBefore, partAfter = after, before, partAfter, partBefore
	}
}

func changes(before, after desired.State) []string {
	batch := ruleset.Diff(isolation.Ruleset(before), isolation.Ruleset(after))
	return slices.Sorted(strings.Lines(batch.String()))
}
