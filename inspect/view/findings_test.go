package view_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"
)

func TestFindings(t *testing.T) {
	list := []inspect.Finding{
		{Note: inspect.Note{Level: inspect.Error, Sentence: "one two three four five", Evidence: []inspect.Evidence{{Text: "chain \x1b x { a b c d e }"}}},
			Mend: "nft add rule inet filter forward ct status dnat accept"},
		{Note: inspect.Note{Level: inspect.Warn, Sentence: "Six."}},
	}
	var b bytes.Buffer
	if err := view.Findings(&b, list, view.Options{Width: 16}); err != nil {
		t.Fatal(err)
	}
	// What can be copied is never broken, and nothing steers the terminal.
	want := `
error:
  one two three
  four five
      chain \x1b x { a b c d e }
  mend it by
      nft add rule inet filter forward ct status dnat accept

warn:
  Six.
`
	if got := b.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	b.Reset()
	if err := view.Findings(&b, list, view.Options{Color: true}); err != nil || !strings.Contains(b.String(), "\x1b[") {
		t.Errorf("no colours: %v %q", err, b.String())
	}
	if err := view.Findings(failing{}, list, view.Options{}); !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

// TestOwnSites: the inspector reads the driver's networks out of what the
// driver writes, and the driver's own drops are no obstacles.
func TestOwnSites(t *testing.T) {
	rs := ruleset.Merge(nat.Ruleset(hostState()), isolation.Ruleset(hostState()))
	sites := inspect.OwnSites(rs)
	if len(sites) != 2 {
		t.Fatalf("%d networks: %+v", len(sites), sites)
	}
	for _, s := range sites {
		lab := strings.HasPrefix(labID, s.Network.ID)
		if !lab && !strings.HasPrefix(webID, s.Network.ID) || s.Internal != lab || s.Isolated != lab {
			t.Errorf("%+v", s)
		}
	}
	names := hostNames()
	for i := range sites {
		sites[i].Network.Subnets = names.Networks[i].Subnets
	}
	on := inspect.Sysctls{Forward: true, Bridged: true}
	for _, f := range inspect.NewModel(rs, names).Findings(inspect.Host{Sites: sites, IPv4: on, IPv6: on}) {
		if f.Level != inspect.Info {
			t.Errorf("%s: %s", f.Level, f.Sentence)
		}
	}
}
