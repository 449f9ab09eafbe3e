package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
	"nftnet/plugin/port"
	"nftnet/plugin/portmap"
	"nftnet/plugin/realise"
	"nftnet/plugin/store"
)

// errAdrift answers calls while the state is lost and Docker has not told yet
// what it was.
var errAdrift = errors.New("the state file was lost, and Docker cannot be asked yet what was in it: nftnet changes nothing until it can")

// ready reports whether calls may change anything.
func (d *Driver) ready() error {
	defer d.mu.Lock("ready")()
	if d.adrift {
		return errAdrift
	}
	return nil
}

// startAskTimeout bounds how long a start without a state waits for Docker, which
// may itself wait for the driver.
const startAskTimeout = 2 * time.Second

// recover begins with a state file that is missing or damaged: where the kernel
// has networks of ours, they are kept, and the state is made anew from what
// Docker believes, at once or when Docker can be asked.
func (d *Driver) recover(origin store.Origin) error {
	found := d.kernel.Found()
	if origin.Found == store.Missing && found.Empty() {
		return d.begin(desired.New())
	}
	d.log.Error("the state file was lost, it is rebuilt from what is left, the kernel and Docker",
		"file", origin.Found, "why", origin.Why, "aside", origin.Aside, "bridges", found.Bridges, "ports", len(found.Ports))
	known := origin.Salvaged
	if known.Networks == nil {
		known = desired.New()
	}
	d.forgetDead(known)
	// Docker does not know them.
	for _, r := range found.Redirects {
		if _, have := known.Redirects[r.Name]; !have {
			known.Redirects[r.Name] = r
			d.log.Warn("rebuilt redirect from the rules in the kernel", "redirect", r.String())
		}
	}
	if d.docker != nil {
		ctx, cancel := context.WithTimeout(d.ctx, startAskTimeout)
		b, err := d.believes(ctx)
		cancel()
		if err == nil {
			return d.begin(d.rebuilt(known, b))
		}
		d.log.Warn("Docker cannot be asked yet", "error", err)
		if !covers(known, found) {
			d.log.Error("networks of running containers are left as they are until Docker can be asked")
			d.adrift, d.salvaged = true, known
			return nil
		}
	}
	d.store.Owe(desired.New(), known)
	return d.begin(known)
}

// covers reports whether a state has all bridges and ports that the kernel has of
// ours: others would go where it is realised.
func covers(s desired.State, f realise.Found) bool {
	bridges, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, n := range s.Networks {
		bridges[n.Bridge] = true
	}
	for _, e := range s.Endpoints {
		addrs[e.IPv4], addrs[e.IPv6] = true, true
	}
	return !slices.ContainsFunc(f.Bridges, func(name string) bool { return !bridges[name] }) &&
		!slices.ContainsFunc(f.Ports, func(p desired.Port) bool { return !addrs[p.Container.Addr()] })
}

// land ends the time without a state.
func (d *Driver) land(b Belief) error {
	d.forgetDead(d.salvaged)
	state := d.rebuilt(d.salvaged, b)
	if err := d.begin(state); err != nil {
		return err
	}
	defer d.mu.Lock("land")()
	d.adrift, d.salvaged = false, desired.State{}
	return nil
}

// rebuilt is a state with what Docker believes beside what is known already. It
// is on disk when it returns.
func (d *Driver) rebuilt(known desired.State, b Belief) desired.State {
	state := known.Clone()
	for _, n := range b.Networks {
		if _, ok := state.Networks[n.Create.NetworkID]; ok {
			continue
		}
		if r, err := d.rebuiltNetwork(n); err != nil {
			d.log.Error("rebuild network", "network", n.Name, "error", err)
		} else {
			state.Networks[r.ID] = r
			d.log.Warn("rebuilt network from what Docker knows", "network", n.Name, "bridge", r.Bridge)
		}
	}
	for _, e := range b.Endpoints {
		n, ok := state.Networks[e.NetworkID]
		if _, have := state.Endpoints[e.ID]; !ok || have || !e.Running {
			continue
		}
		if r, err := d.rebuiltEndpoint(n, e); err != nil {
			d.log.Error("rebuild endpoint", "container", e.Container, "network", n.ID, "error", err)
		} else {
			state.Endpoints[r.ID] = r
			d.log.Warn("rebuilt endpoint from what Docker and the kernel know", "container", e.Container, "ports", len(r.Published))
		}
	}
	d.assignPorts(state)
	d.store.Owe(desired.New(), state)
	return state
}

// rebuiltNetwork is a network as Docker would ask for it again. A bridge that is
// there is the user's own unless it has the MAC address of ours.
func (d *Driver) rebuiltNetwork(b BelievedNetwork) (desired.Network, error) {
	n, _, err := d.defaults.ParseNetwork(b.Create)
	if err != nil {
		return n, err
	}
	ours, err := link.IsOurs(n)
	if err != nil {
		return n, err
	}
	if !ours {
		if err := fit(&n, overlapping); err != nil {
			return n, err
		}
	}
	if n.MTU == 0 && !n.Internal {
		n.MTU, err = link.RouteMTU(n.IPv6.IsValid())
	}
	return n, err
}

// callsTimeout bounds how long Docker may take to tell of one container.
const callsTimeout = 5 * time.Second

// rebuiltEndpoint is an endpoint of a running container. Its link must be there:
// a container that lost it needs another.
func (d *Driver) rebuiltEndpoint(n desired.Network, b BelievedEndpoint) (desired.Endpoint, error) {
	ctx, cancel := context.WithTimeout(d.ctx, callsTimeout)
	defer cancel()
	calls, err := d.docker.Calls(ctx, b)
	if err != nil {
		return desired.Endpoint{}, err
	}
	e, _, err := parseEndpoint(calls.Create, n)
	if err != nil {
		return e, err
	}
	e.HostLink, e.Sandbox, e.Asked = link.HostName(e.ID), calls.Join.SandboxKey, bindings(calls.Join.Options.PortMap)
	if calls.Program != nil {
		e.Gateway = d.nextTurn()
	}
	attached, err := link.Attached(e)
	if err == nil && !attached {
		err = fmt.Errorf("its link %s is not there", e.HostLink)
	}
	if err != nil {
		return e, err
	}
	// The numbers that its clients know; what does not belong to it any more goes
	// with the first assignment.
	for _, p := range d.kernel.Found().Ports {
		if slices.Contains(e.Addrs(), p.Container.Addr()) {
			e.Published = append(e.Published, p)
		}
	}
	return e, nil
}

// assignPorts gives the containers of a state their ports.
func (d *Driver) assignPorts(s desired.State) {
	owners := map[string]bool{}
	for _, e := range s.Endpoints {
		if e.HostLink != "" && len(e.Asked) > 0 {
			owners[e.Owner()] = true
		}
	}
	for owner := range owners {
		part := s.ContainerPart(owner)
		c := portmap.Of(part)
		c.HasIPv6 = port.HasIPv6()
		a := assignment{driver: d, owner: owner, how: lenient, had: c.Had(), held: map[string]bool{}}
		ports, err := a.ports(c)
		if err != nil {
			d.log.Error("rebuild ports", "container", c, "error", err)
			continue
		}
		for _, e := range c.Endpoints {
			e.Published = ports[e.ID]
			s.Endpoints[e.ID] = e
		}
	}
}

// rebuild takes over what Docker knows and the state does not: networks, and
// endpoints of running containers whose link is there. What went since Docker was
// asked stays away: the answer may be older.
func (d *Driver) rebuild(b Belief, asked time.Time) {
	for _, n := range b.Networks {
		if _, ok := d.network(n.Create.NetworkID); !ok && !d.leftSince(n.Create.NetworkID, asked) {
			d.rebuildNetwork(n)
		}
	}
	for _, e := range b.Endpoints {
		if _, ok := d.endpoint(e.ID); !ok && e.Running && !d.leftSince(e.ID, asked) {
			d.rebuildEndpoint(e)
		}
	}
}

func (d *Driver) rebuildNetwork(b BelievedNetwork) {
	n, err := d.rebuiltNetwork(b)
	if err == nil {
		unlock := d.calls.Lock(n.ID)
		part := read(d, "rebuild", func(s desired.State) desired.State { return s.Part(n.ID, "") })
		if len(part.Networks) == 0 {
			check := func(s desired.State) error { return checkNetwork(s, n) }
			err = d.change("rebuild", part, check, func(s *desired.State) { s.Networks[n.ID] = n })
		}
		unlock()
	}
	if err != nil {
		d.log.Error("rebuild network", "network", b.Name, "error", err)
		return
	}
	d.log.Warn("rebuilt network from what Docker knows", "network", b.Name, "bridge", n.Bridge)
}

func (d *Driver) rebuildEndpoint(b BelievedEndpoint) {
	n, ok := d.network(b.NetworkID)
	if !ok {
		return
	}
	// Docker is asked before the key is taken: it may wait for a call of its own.
	e, err := d.rebuiltEndpoint(n, b)
	if err != nil {
		// status tells of it for as long as it is so.
		d.log.Debug("rebuild endpoint", "container", b.Container, "error", err)
		return
	}
	defer d.lockEndpoint(e.ID, e.Sandbox)()
	defer d.calls.RLock(n.ID)()
	if _, have := d.endpoint(e.ID); have {
		return
	}
	// It may have gone while Docker was asked.
	attached, err := link.Attached(e)
	if _, ok := d.network(n.ID); !ok || err != nil || !attached {
		return
	}
	// Those that it does not get back are assigned anew.
	e.Published = slices.DeleteFunc(e.Published, func(p desired.Port) bool { return d.hold(p, e.Owner()) != nil })
	part := read(d, "rebuild", func(s desired.State) desired.State { return s.Part(n.ID, e.ID) })
	after := part.Clone()
	after.Endpoints[e.ID] = e
	if err = d.assume("rebuild", part, after, nil); err == nil {
		d.store.Owe(desired.Differing(part, after))
		if err = d.kernel.Adopt(part, after); err != nil {
			d.store.Owe(desired.Differing(after, part))
			err = errors.Join(err, d.assume("rebuild", after, part, nil))
			for _, p := range e.Published {
				d.kernel.Release(p, e.Owner())
			}
		}
	}
	if err == nil {
		err = d.reassign("rebuild", e.Owner(), lenient, func(*desired.State) {})
	}
	if err != nil {
		d.log.Error("rebuild endpoint", "container", b.Container, "error", err)
		return
	}
	d.inside.follow(e)
	d.log.Warn("rebuilt endpoint from what Docker and the kernel know", "container", b.Container)
}
