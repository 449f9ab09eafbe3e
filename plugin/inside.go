package plugin

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

// absentFor is how long a container may be without an address that it never had:
// Docker sets it a moment after it attaches the container.
const absentFor = time.Second

// inside follows whether containers have the IPv6 address that Docker gave them:
// one that switches IPv6 off answers by IPv4 alone.
type inside struct {
	log     *slog.Logger
	changed func(endpointID string)
	// links is nil where containers cannot be followed: they are taken to have
	// their addresses.
	links *link.Inside

	mu        sync.Mutex
	followed  map[string]*insideEndpoint
	ended     bool
	beginning sync.WaitGroup
}

// insideEndpoint is an endpoint that is followed.
type insideEndpoint struct {
	stop func()
	// seen says that the container has had its address, absent that it is off.
	seen, absent bool
	late         *time.Timer
}

func openInside(log *slog.Logger, changed func(string)) *inside {
	i := &inside{log: log, changed: changed, followed: map[string]*insideEndpoint{}}
	links, err := link.OpenInside()
	if err != nil {
		log.Warn("ports do not follow IPv6 that is switched off inside a container", "error", err)
		return i
	}
	i.links = links
	return i
}

// follow begins to follow an endpoint.
func (i *inside) follow(e desired.Endpoint) {
	if i.links == nil || !e.IPv6.IsValid() || e.HostLink == "" {
		return
	}
	i.forget(e.ID)
	x := &insideEndpoint{}
	i.mu.Lock()
	i.followed[e.ID] = x
	i.mu.Unlock()
	stop, err := i.links.Watch(e, func(a netip.Addr, present bool) {
		if a == e.IPv6 {
			i.note(e.ID, x, present)
		}
	})
	if err != nil {
		i.log.Debug("follow the IPv6 address inside a container", "endpoint", e.ID, "error", err)
		return
	}
	i.mu.Lock()
	x.stop = stop
	gone := i.followed[e.ID] != x
	i.mu.Unlock()
	if gone {
		stop()
	}
}

// note takes down what a container has.
func (i *inside) note(id string, x *insideEndpoint, present bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || i.followed[id] != x {
		return
	}
	if !present && !x.seen {
		if x.late == nil {
			x.late = time.AfterFunc(absentFor, func() { i.tooLate(id, x) })
		}
		return
	}
	first := !x.seen
	x.seen = x.seen || present
	if x.absent == !present && !first {
		return
	}
	x.absent = !present
	i.beginning.Go(func() { i.changed(id) })
}

// tooLate takes an address that did not come for one that does not.
func (i *inside) tooLate(id string, x *insideEndpoint) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || i.followed[id] != x || x.seen {
		return
	}
	x.absent = true
	i.beginning.Go(func() { i.changed(id) })
}

// forget ends following an endpoint.
func (i *inside) forget(id string) {
	i.mu.Lock()
	x := i.followed[id]
	delete(i.followed, id)
	end := x.ending()
	i.mu.Unlock()
	end()
}

// ending returns what ends following an endpoint; inside.mu is held, and must not
// be when that is called.
func (x *insideEndpoint) ending() func() {
	if x == nil {
		return func() {}
	}
	late, stop := x.late, x.stop
	return func() {
		if late != nil {
			late.Stop()
		}
		if stop != nil {
			stop()
		}
	}
}

// off are the endpoints whose container has IPv6 switched off.
func (i *inside) off() map[string]bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string]bool{}
	for id, x := range i.followed {
		if x.absent {
			out[id] = true
		}
	}
	return out
}

func (i *inside) close() {
	i.mu.Lock()
	i.ended = true
	var ends []func()
	for _, x := range i.followed {
		ends = append(ends, x.ending())
	}
	i.followed = map[string]*insideEndpoint{}
	i.mu.Unlock()
	for _, end := range ends {
		end()
	}
	if i.links != nil {
		_ = i.links.Close()
	}
	i.beginning.Wait()
}

// familyChanged gives a container's ports to the family that it has now.
func (d *Driver) familyChanged(endpointID string) {
	defer d.lockEndpoint(endpointID)()
	e, ok := d.endpoint(endpointID)
	if !ok {
		return
	}
	if err := d.reassign("IPv6 inside", e.Owner(), lenient, func(*desired.State) {}); err != nil {
		d.log.Error("ports follow the families of a container", "endpoint", endpointID, "error", err)
	}
}
