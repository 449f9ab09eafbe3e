package nstest

import (
	"testing"

	"github.com/vishvananda/netns"

	"nftnet/internal/nstest/wire"
)

// NS returns the network namespace of a running container, under a name of its
// own. The namespace outlives the container until the test ends: take it of
// containers only that stay.
func (e *Engine) NS(t testing.TB, container string) *NS {
	t.Helper()
	pid := e.Docker(t, "inspect", "-f", "{{.State.Pid}}", container)
	ns := &NS{name: newName("c"), handle: netns.None()}
	t.Cleanup(func() {
		if err := ns.remove(); err != nil {
			t.Errorf("remove namespace: %v", err)
		}
	})
	if err := ip("netns", "attach", ns.name, pid); err != nil {
		t.Fatalf("name the namespace of container %s: %v", container, err)
	}
	var err error
	if ns.handle, err = netns.GetFromPath(ns.Path()); err != nil {
		t.Fatalf("open %s: %v", ns.Path(), err)
	}
	return ns
}

// ServeTCP greets each connection to addr with a Reply and echoes what it
// sends, in the namespace, until the test ends.
func ServeTCP(t testing.TB, ns *NS, addr string) {
	t.Helper()
	l := ns.Listen(t, "tcp", addr)
	serve(t, func() error { return wire.ServeTCP(l) }, l.Close)
}
