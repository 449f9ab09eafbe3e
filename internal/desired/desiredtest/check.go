package desiredtest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
	"nftnet/internal/nstest/golden"
	"nftnet/internal/ruleset"
)

// Build turns a state into rules: the job of packages nat and isolation.
type Build func(desired.State) ruleset.Ruleset

// CheckGolden compares what each row becomes with its file in testdata.
func (b Build) CheckGolden(t *testing.T) {
	t.Helper()
	for _, row := range Rows() {
		t.Run(row.Name, func(t *testing.T) {
			text := b(row.State).Sorted().Text(ruleset.Format{Stateless: true})
			golden.Check(t, filepath.Join("testdata", row.Name+".nft"), text)
		})
	}
}

// CheckParts asserts that what one network, endpoint or redirect adds to the table does
// not depend on the others, and that an endpoint adds elements only, or chains
// of its own. So a Docker call costs the same with one network and with a
// thousand.
func (b Build) CheckParts(t *testing.T) {
	t.Helper()
	for _, row := range Rows() {
		for id, n := range row.State.Networks {
			before := row.State.Clone()
			delete(before.Networks, id)
			for _, e := range row.State.EndpointsOf(id) {
				delete(before.Endpoints, e.ID)
			}
			after := before.Clone()
			after.Networks[id] = n
			b.compare(t, row.Name+": network "+n.Bridge, before, after, desired.New(), row.State.Part(id, ""))
		}
		for id, e := range row.State.Endpoints {
			before := row.State.Clone()
			delete(before.Endpoints, id)
			b.compare(t, row.Name+": endpoint "+id, before, row.State, row.State.Part(e.NetworkID, ""), row.State.Part(e.NetworkID, id))
		}
		for name := range row.State.Redirects {
			before := row.State.Clone()
			delete(before.Redirects, name)
			b.compare(t, row.Name+": redirect "+name, before, row.State, desired.New(), row.State.RedirectPart(name))
		}
	}
}

func (b Build) compare(t *testing.T, what string, before, after, partBefore, partAfter desired.State) {
	t.Helper()
	for _, way := range []string{"added", "removed"} {
		whole, part := b.changes(before, after), b.changes(partBefore, partAfter)
		if diff := cmp.Diff(whole, part); diff != "" {
			t.Errorf("%s %s (-whole +part)\n%s", what, way, diff)
		}
		for _, line := range part {
			if strings.Contains(what, "endpoint") && !strings.Contains(line, " element ") && !strings.Contains(line, " spoof-") {
				t.Errorf("%s %s takes more than elements and chains of its own: %s", what, way, line)
			}
		}
		before, after, partBefore, partAfter = after, before, partAfter, partBefore
	}
}

func (b Build) changes(before, after desired.State) []string {
	batch := ruleset.Diff(b(before), b(after))
	return slices.Sorted(strings.Lines(batch.String()))
}
