package isolation_test

import (
	"path/filepath"
	"testing"

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
