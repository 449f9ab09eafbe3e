package isolation_test

import (
	"testing"

	"nftnet/internal/desired/desiredtest"
	"nftnet/isolation"
)

func TestRulesetIsTheGoldenOne(t *testing.T) { desiredtest.Build(isolation.Ruleset).CheckGolden(t) }

func TestChangeOfAPartIsTheChangeOfTheWhole(t *testing.T) {
	desiredtest.Build(isolation.Ruleset).CheckParts(t)
}
