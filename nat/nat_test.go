package nat_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/desired/desiredtest"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/nat"
)

func TestRulesetIsTheGoldenOne(t *testing.T) { desiredtest.Build(nat.Ruleset).CheckGolden(t) }

func TestChangeOfAPartIsTheChangeOfTheWhole(t *testing.T) {
	desiredtest.Build(nat.Ruleset).CheckParts(t)
}

// TestPublishedIsReadBack: what the table publishes is what the state does, as far
// as the kernel translates it.
func TestPublishedIsReadBack(t *testing.T) {
	for _, row := range desiredtest.Rows() {
		var want []desired.Port
		for _, e := range row.State.SortedEndpoints() {
			for _, p := range e.Published {
				if p.Kind() == desired.Translated {
					want = append(want, p)
				}
			}
		}
		r := nat.Ruleset(row.State)
		got := nat.Published(*r.Table(rs.FamilyInet, layout.Table))
		byKey := func(a, b desired.Port) int { return strings.Compare(a.Key(), b.Key()) }
		slices.SortFunc(want, byKey)
		slices.SortFunc(got, byKey)
		if !slices.Equal(got, want) {
			t.Errorf("%s: read back %v, want %v", row.Name, got, want)
		}
	}
}

// TestPublishedOfAnything: elements that are none of ours are left out.
func TestPublishedOfAnything(t *testing.T) {
	if got := nat.Published(rs.Table{}); got != nil {
		t.Errorf("an empty table publishes %v", got)
	}
	at := rs.Concat(rs.Addr(netip.MustParseAddr("10.0.0.2")), rs.Port(80))
	for _, key := range []rs.Value{{}, rs.Port(80), rs.Concat(rs.Port(1), rs.Port(2), rs.Port(3), rs.Port(4)), rs.Concat(rs.Iface("eth0"), rs.Proto(6), rs.Port(80))} {
		for _, set := range []string{"publish4", "publish6", "publish4_at", "publish6_at"} {
			for _, data := range []rs.Value{at, {}} {
				table := rs.Table{Sets: []rs.Set{{Name: set, Elements: []rs.Element{{Key: key, Data: data}}}}}
				if got := nat.Published(table); len(got) != 0 {
					t.Errorf("%s with key %v: %v", set, key, got)
				}
			}
		}
	}
}

// TestRedirectsAreReadBack: the table tells the redirects of its state.
func TestRedirectsAreReadBack(t *testing.T) {
	found := 0
	for _, row := range desiredtest.Rows() {
		r := nat.Ruleset(row.State)
		got, want := nat.Redirects(*r.Table(rs.FamilyInet, layout.Table)), row.State.SortedRedirects()
		byName := func(a, b desired.Redirect) int { return strings.Compare(a.Name, b.Name) }
		slices.SortFunc(got, byName)
		slices.SortFunc(want, byName)
		if !slices.Equal(got, want) {
			t.Errorf("%s: read back %v, want %v", row.Name, got, want)
		}
		found += len(got)
	}
	if found == 0 {
		t.Error("no row has a redirect")
	}
	if got := nat.Redirects(rs.Table{Sets: []rs.Set{{Name: "redirects", Elements: []rs.Element{{Key: rs.Port(80), Verdict: rs.GotoChain("redirect-x")}}}}}); len(got) != 0 {
		t.Errorf("an element without a chain is %v", got)
	}
}
