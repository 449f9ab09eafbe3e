package nat_test

import (
	"testing"

	"nftnet/internal/desired/desiredtest"
	"nftnet/nat"
)

func TestRulesetIsTheGoldenOne(t *testing.T) { desiredtest.Build(nat.Ruleset).CheckGolden(t) }

func TestChangeOfAPartIsTheChangeOfTheWhole(t *testing.T) {
	desiredtest.Build(nat.Ruleset).CheckParts(t)
}
