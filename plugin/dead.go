package plugin

import (
	"context"
	"errors"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
	"nftnet/plugin/port"
)

// Docker tells nobody of the containers that died with it: their networks'
// namespaces go when it starts again, and the links with them a moment later.
const (
	deadTries = 15
	deadPause = 20 * time.Millisecond
)

// maxDead bounds how many dead owners of ports one call drops.
const maxDead = 64

// pastDead calls take, which takes ports, and again for as long as it fails for
// a port of a container that is dead, which loses it, or of one that is about to
// take it or to give it back.
func (d *Driver) pastDead(ctx context.Context, take func() error) error {
	err := take()
	for range maxDead {
		if !d.awaitOwner(err) && !d.dropDead(ctx, err) {
			break
		}
		err = take()
	}
	return err
}

// dropDead drops the endpoint that an error says has a port, where its
// container is dead. It reports whether it did.
func (d *Driver) dropDead(ctx context.Context, err error) bool {
	owner, ok := ownerOf(err)
	if !ok || !d.dies(ctx, owner) && !d.isUnknown(ctx, owner) {
		return false
	}
	d.log.Info("drop endpoint whose container is dead, another wants its port", "endpoint", owner.ID, "error", err)
	if err := d.dropEndpoint("dead owner", owner.ID); err != nil {
		d.log.Error("drop endpoint of a dead container", "endpoint", owner.ID, "error", err)
		return false
	}
	return true
}

// awaitOwner waits for the change under way of a container that holds a port
// which the state does not say it has: it takes the port now, or gives it back. It
// reports whether there is one. No key is held.
func (d *Driver) awaitOwner(err error) bool {
	var held *port.InUseError
	if _, known := ownerOf(err); known || !errors.As(err, &held) || held.Owner == "" {
		return false
	}
	d.calls.Lock(held.Owner)()
	return true
}

// dies reports whether an endpoint's container is dead, or its link goes away
// within a moment.
func (d *Driver) dies(ctx context.Context, e desired.Endpoint) bool {
	for try := range deadTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return false
			case <-time.After(deadPause):
			}
		}
		if _, there := d.endpoint(e.ID); !there || isDead(e) {
			return true
		}
	}
	return false
}

// knownTimeout bounds how long a call waits for Docker's word on an endpoint that
// is in its way.
const knownTimeout = time.Second

// isUnknown reports whether Docker does not know an endpoint without a container,
// which has been there for longer than Docker takes to know it.
func (d *Driver) isUnknown(ctx context.Context, e desired.Endpoint) bool {
	if d.docker == nil || d.isYoung(e.ID) || isLive(e) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	b, err := d.believes(ctx)
	return err == nil && d.compare.isOurs() && b.Endpoint(e.NetworkID, e.ID) == Unknown
}

// isDead reports whether an endpoint that had a link has none any more, or its
// container's namespace is gone. What cannot be known lives.
func isDead(e desired.Endpoint) bool {
	if e.HostLink == "" {
		return false
	}
	if attached, err := link.Attached(e); err == nil && !attached {
		return true
	}
	return link.SandboxAlive(e.Sandbox) == link.Dead
}

// linkGone drops an endpoint whose link went away: its container died, or
// somebody removed the link, which then cannot be brought back from here.
func (d *Driver) linkGone(endpointID, by string) {
	if d.ctx.Err() != nil {
		return
	}
	unlock := d.lockEndpoint(endpointID)
	e, ok := d.endpoint(endpointID)
	attached, err := link.Attached(e)
	if !ok || e.HostLink == "" || err != nil || attached {
		unlock()
		return
	}
	d.inside.forget(endpointID)
	err = d.part("link gone", endpointID, func(s *desired.State) { delete(s.Endpoints, endpointID) })
	unlock()
	d.log.Warn("the link of an endpoint went away, its ports are free", "endpoint", endpointID, "link", e.HostLink, "by", orUnknown(by))
	if err != nil {
		d.log.Error("drop endpoint whose link went away", "endpoint", endpointID, "error", err)
	}
}

func orUnknown(by string) string {
	if by == "" {
		return "unknown"
	}
	return by
}
