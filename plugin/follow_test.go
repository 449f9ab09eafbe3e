package plugin

import (
	"log/slog"
	"sync"
	"testing"
)

// TestFollowAndForgetAtOnce: an endpoint that is forgotten while it begins to be
// followed is followed no more.
func TestFollowAndForgetAtOnce(t *testing.T) {
	r := newRig(t)
	r.ok(t, "CreateNetwork", anyNetwork(2))
	r.ok(t, "CreateEndpoint", with(ids(2, 1), "Interface", m{"AddressIPv6": "fd00:2::2/64"}))
	r.ok(t, "Join", with(ids(2, 1), "SandboxKey", "/nowhere/netns/111111111111"))
	e := r.state().Endpoints[id(1001)]
	i := openInside(slog.New(slog.DiscardHandler), func(string) {})
	if i.links == nil {
		t.Fatal("containers cannot be followed")
	}
	for range 300 {
		var both sync.WaitGroup
		both.Go(func() { i.follow(e) })
		both.Go(func() { i.forget(e.ID) })
		both.Wait()
	}
	i.forget(e.ID)
	if n := len(i.followed); n != 0 {
		t.Errorf("%d endpoints are followed", n)
	}
	i.close()
}
