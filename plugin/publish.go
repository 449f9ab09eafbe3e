package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/port"
	"nftnet/plugin/portmap"
)

func (d *Driver) programExternalConnectivity(ctx context.Context, req libnetwork.ConnectivityRequest) (libnetwork.Empty, error) {
	err := d.pastDead(ctx, func() error { return d.publish(req) })
	return libnetwork.Empty{}, d.named(ctx, err)
}

// publish makes an endpoint its container's gateway, in the families that it
// has.
func (d *Driver) publish(req libnetwork.ConnectivityRequest) error {
	defer d.lockEndpoint(req.EndpointID)()
	n, ok := d.network(req.NetworkID)
	if !ok {
		return unknownNetwork(req.NetworkID)
	}
	e, ok := d.endpointOf(req.NetworkID, req.EndpointID)
	if !ok {
		return unknownEndpoint(req.NetworkID, req.EndpointID)
	}
	// Docker sends the ports of containers on internal networks too.
	if n.Internal {
		return nil
	}
	turn := d.nextTurn()
	return d.reassign("publish", e.Owner(), strict, func(s *desired.State) {
		e := s.Endpoints[e.ID]
		e.Gateway, e.Revoked, e.Asked = turn, false, bindings(req.Options.PortMap)
		e.NoRelay = req.Options.NoProxy6To4 && !portmap.Of(*s).Explains(e.ID)
		s.Endpoints[e.ID] = e
	})
}

// bindings are the ports of a request as the state keeps them.
func bindings(list []libnetwork.PortBinding) []desired.Binding {
	var out []desired.Binding
	for _, b := range list {
		out = append(out, desired.Binding{Proto: b.Proto, Port: b.Port, HostIP: b.HostIP, HostPort: b.HostPort, HostPortEnd: b.HostPortEnd})
	}
	return out
}

func (d *Driver) revokeExternalConnectivity(_ context.Context, req libnetwork.EndpointRequest) (libnetwork.Empty, error) {
	defer d.lockEndpoint(req.EndpointID)()
	if _, ok := d.endpointOf(req.NetworkID, req.EndpointID); !ok {
		return libnetwork.Empty{}, nil
	}
	return libnetwork.Empty{}, d.part("revoke", req.EndpointID, func(s *desired.State) {
		e := s.Endpoints[req.EndpointID]
		e.Gateway, e.Revoked, e.NoRelay = 0, true, false
		s.Endpoints[e.ID] = e
	})
}

// heirPause is how long Docker has to name another gateway where one went.
const heirPause = 500 * time.Millisecond

// inherit makes others gateways where one went and Docker names none: after a
// restart with live-restore it does not know which endpoint was one. Docker's own
// driver may be the next gateway, and then holds the ports.
func (d *Driver) inherit(owner string) {
	d.goBeside(func() {
		select {
		case <-d.ctx.Done():
			return
		case <-time.After(heirPause):
		}
		heirs := func(s desired.State) []string {
			c := portmap.Of(s)
			c.Off = d.inside.off()
			return slices.DeleteFunc(c.Heirs(desired.Endpoint{Gateway: 1}), func(id string) bool { return isDead(s.Endpoints[id]) })
		}
		part := read(d, "inherit", func(s desired.State) desired.State { return s.ContainerPart(owner) })
		for _, id := range heirs(part) {
			unlock := d.lockEndpoint(id)
			now := read(d, "inherit", func(s desired.State) desired.State { return s.ContainerPart(owner) })
			err := error(nil)
			if slices.Contains(heirs(now), id) {
				turn := d.nextTurn()
				err = d.reassign("inherit", owner, strict, func(s *desired.State) {
					e := s.Endpoints[id]
					e.Gateway = turn
					s.Endpoints[id] = e
				})
			}
			unlock()
			if err != nil {
				d.log.Debug("no endpoint takes over the ports of another", "endpoint", id, "error", err)
			}
		}
	})
}

// How a container's ports are assigned: with strict, a port that cannot be had is
// an error and nothing changes; with lenient, which is for what Docker does not
// ask again, the port is left out.
type strictness bool

const (
	strict  strictness = true
	lenient strictness = false
)

// reassign alters the endpoints of a container, and gives its ports to those
// that are its gateways then. The container's key is held.
func (d *Driver) reassign(by, owner string, how strictness, alter func(*desired.State)) error {
	defer d.calls.RLock(redirectsKey)()
	before := read(d, by, func(s desired.State) desired.State { return s.ContainerPart(owner) })
	after := before.Clone()
	alter(&after)
	c := portmap.Of(after)
	c.Off, c.HasIPv6 = d.inside.off(), port.HasIPv6()
	shed, err := d.shed(by, before, c)
	if err != nil {
		return err
	}
	a := assignment{driver: d, owner: owner, how: how, had: portmap.Of(before).Had(), held: heldBy(shed)}
	ports, err := a.ports(c)
	if err == nil {
		for id, e := range after.Endpoints {
			e.Published = ports[id]
			after.Endpoints[id] = e
		}
		err = d.commit(by, shed, after, how)
	}
	if err != nil {
		a.giveBack()
		d.putBack(by, owner, shed, before)
	}
	return err
}

func (d *Driver) commit(by string, before, after desired.State, how strictness) error {
	to := func(s *desired.State) { *s = after }
	if how == lenient {
		return d.settle(by, before, to)
	}
	return d.change(by, before, nil, to)
}

// heldBy are the keys of the host ports that a container has.
func heldBy(part desired.State) map[string]bool {
	out := map[string]bool{}
	for _, e := range part.Endpoints {
		for _, p := range e.Published {
			if p.Kind() != desired.Direct {
				out[p.Key()] = true
			}
		}
	}
	return out
}

// assignment takes the host ports that a container is to have.
type assignment struct {
	driver *Driver
	owner  string
	how    strictness
	// had are the numbers that the container's ports have, held the keys.
	had  portmap.Numbers
	held map[string]bool
	// taken are the ports that were taken for this assignment.
	taken []desired.Port
}

// giveBack releases what was taken.
func (a *assignment) giveBack() {
	for _, p := range a.taken {
		a.driver.kernel.Release(p, a.owner)
	}
}

// ports returns the ports of each endpoint, all of them held.
func (a *assignment) ports(c portmap.Container) (map[string][]desired.Port, error) {
	out := map[string][]desired.Port{}
	for _, e := range c.Endpoints {
		direct, err := c.Direct(e)
		if err != nil && a.how == strict && e.Gateway > 0 {
			return nil, err
		}
		out[e.ID] = direct
	}
	wishes, err := c.Wishes()
	if err != nil {
		if a.how == strict {
			return nil, err
		}
		return out, nil
	}
	used := map[string]bool{}
	for _, w := range wishes {
		err := a.grant(w, used, out)
		if err != nil && a.how == strict {
			return nil, err
		}
		if err != nil {
			a.salvage(c, w, used, out)
		}
	}
	return out, nil
}

// grant adds the ports of a wish to those of their endpoints.
func (a *assignment) grant(w portmap.Wish, used map[string]bool, out map[string][]desired.Port) error {
	ports, err := a.wish(w, used)
	for i, p := range ports {
		out[w.Targets[i].Endpoint] = append(out[w.Targets[i].Endpoint], p)
	}
	return err
}

// salvage grants a wish on those addresses where the port can be had.
func (a *assignment) salvage(c portmap.Container, w portmap.Wish, used map[string]bool, out map[string][]desired.Port) {
	for _, t := range w.Targets {
		one := portmap.Wish{Request: w.Request, Targets: []portmap.Target{t}}
		if err := a.grant(one, used, out); err != nil {
			a.driver.log.Error("a port of a container is published no more", "container", c, "error", err)
		}
	}
}

// wish tries the numbers of a wish in turn, until one is free on all of its
// addresses.
func (a *assignment) wish(w portmap.Wish, used map[string]bool) ([]desired.Port, error) {
	var firstErr error
	for _, number := range slices.Concat(a.had.For(w.Request), portmap.Candidates(w.Request)) {
		ports, err := a.holdAll(w, number, used)
		if err == nil {
			return ports, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if w.Exact() || !port.IsTaken(err) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("cannot publish container port %d/%s: no host port from %d to %d is free: %w",
		w.Port, desired.ProtoName(w.Proto), w.First, w.Last, firstErr)
}

// errUsed says that the container itself has a host port for another of its own.
var errUsed = fmt.Errorf("the container publishes it twice: %w", syscall.EADDRINUSE)

// holdAll holds one port number on all addresses of a wish, or none.
func (a *assignment) holdAll(w portmap.Wish, number uint16, used map[string]bool) ([]desired.Port, error) {
	var ports, taken []desired.Port
	for _, t := range w.Targets {
		p := t.Port(w.Proto, number, w.Port)
		err := error(nil)
		if used[p.Key()] {
			err = &port.InUseError{Port: p, Err: errUsed}
		} else if !a.held[p.Key()] {
			if err = a.driver.hold(p, a.owner); err == nil {
				taken = append(taken, p)
			}
		}
		if err != nil {
			for _, p := range taken {
				a.driver.kernel.Release(p, a.owner)
			}
			return nil, err
		}
		ports = append(ports, p)
	}
	for _, p := range ports {
		used[p.Key()] = true
	}
	a.taken = append(a.taken, taken...)
	return ports, nil
}

// publishedError says that another container of ours has a host port.
type publishedError struct {
	port  desired.Port
	owner desired.Endpoint
}

func (e *publishedError) Error() string {
	return fmt.Sprintf("cannot publish host port %s: endpoint %.12s of network %.12s, at %s, publishes it already",
		e.port.Key(), e.owner.ID, e.owner.NetworkID, e.port.Container.Addr())
}

// Unwrap makes the port one that is taken.
func (e *publishedError) Unwrap() error { return syscall.EADDRINUSE }

// hold takes a host port, and names the endpoint that has it where it is one
// of ours.
func (d *Driver) hold(p desired.Port, owner string) error {
	if err := d.redirected(p); err != nil {
		return err
	}
	err := d.kernel.Hold(p, owner)
	if !port.IsTaken(err) {
		return err
	}
	defer d.mu.Lock("look for the owner of a port")()
	for _, e := range d.state.Endpoints {
		for _, other := range e.Published {
			if p.Overlaps(other) && e.Owner() != owner {
				return &publishedError{port: desired.Port{Proto: p.Proto, Host: p.Host, Container: other.Container}, owner: e}
			}
		}
	}
	return err
}

// named adds the container's name to an error that tells of an endpoint.
func (d *Driver) named(ctx context.Context, err error) error {
	owner, ok := ownerOf(err)
	if !ok || d.docker == nil {
		return err
	}
	if name := d.docker.ContainerName(ctx, owner.ID); name != "" {
		return fmt.Errorf("%w (container %s)", err, name)
	}
	return err
}

// ownerOf is the endpoint that an error says has a port.
func ownerOf(err error) (desired.Endpoint, bool) {
	var published *publishedError
	if errors.As(err, &published) {
		return published.owner, true
	}
	var redirect *redirectTakenError
	if errors.As(err, &redirect) {
		return redirect.owner, true
	}
	return desired.Endpoint{}, false
}
