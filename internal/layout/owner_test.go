package layout_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nftnet/internal/layout"
)

func TestOwnersComeBackFromTheirComments(t *testing.T) {
	id := rapid.StringMatching(`[0-9a-f]{64}`)
	rapid.Check(t, func(t *rapid.T) {
		network, endpoint := id.Draw(t, "network"), rapid.OneOf(id, rapid.Just("")).Draw(t, "endpoint")
		owner := layout.NewOwner(network, endpoint)
		comment := owner.Comment()
		if got, ok := layout.ParseOwner(comment); !ok || got != owner {
			t.Fatalf("%q is read as %+v, %v", comment, got, ok)
		}
		if !strings.HasPrefix(network, owner.Network) || len(owner.Network) != 12 || !strings.HasPrefix(endpoint, owner.Endpoint) {
			t.Fatalf("%+v is not of network %s and endpoint %s", owner, network, endpoint)
		}
		if len(comment) > 128 {
			t.Fatalf("%q is longer than nft takes", comment)
		}
	})
}

func TestForeignCommentsHaveNoOwner(t *testing.T) {
	for _, comment := range []string{
		"", "net", "net=", "net= ep=0123", "ep=0123456789ab", "allow net=0123456789ab", "net=0123456789ab because", "net=a ep=b x=c",
		"Net=0123456789ab", "net:0123456789ab", "-m comment --comment net=0123456789ab", "net=a=b", "net=a net=b", "net=a ep=", "net=../etc",
		"net=a  ep=b", " net=a", "net=a\tep=b",
	} {
		if owner, ok := layout.ParseOwner(comment); ok {
			t.Errorf("%q has the owner %+v", comment, owner)
		}
	}
}

// TestOnlyOwnCommentsAreOwners: what is read as an owner is what we would write.
func TestOnlyOwnCommentsAreOwners(t *testing.T) {
	word := rapid.OneOf(rapid.SampledFrom([]string{"net=", "ep=", "net", " ", "0a", "="}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		comment := strings.Join(rapid.SliceOf(word).Draw(t, "words"), "")
		if owner, ok := layout.ParseOwner(comment); ok && owner.Comment() != comment {
			t.Fatalf("%q is read as %q", comment, owner.Comment())
		}
	})
}
