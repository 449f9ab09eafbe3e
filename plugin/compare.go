package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

// askTimeout bounds how long Docker may take to tell what it believes.
const askTimeout = 10 * time.Second

// confirmPause lies between two answers of Docker that must agree before
// anything is done about what it does not know: a network that is being created
// is known to the driver first. Tests, whose Docker knows at once, shorten it.
var confirmPause = 2 * time.Second

// comparison is what came of comparing the state with what Docker believes.
type comparison struct {
	mu sync.Mutex
	// running says that a comparison is under way, again that another one is
	// wanted.
	running, again bool
	// unread says that a call came that could not be read: what Docker does not
	// know since is what the call was about.
	unread bool
	// known says that Docker has named a network of ours: it is our engine that
	// answers.
	known bool
}

// followDocker compares the state with what Docker believes whenever that can be
// asked.
func (d *Driver) followDocker() {
	if d.docker == nil {
		return
	}
	d.goBeside(func() { d.docker.Follow(d.ctx, d.compareSoon) })
}

// unreadCall notes that a call could not be read, after which Docker and the
// driver may disagree.
func (d *Driver) unreadCall() {
	d.compare.mu.Lock()
	d.compare.unread = true
	d.compare.mu.Unlock()
	d.compareSoon()
}

// compareSoon compares beside the calls; many requests for it are one.
func (d *Driver) compareSoon() {
	if d.docker == nil || d.ctx.Err() != nil {
		return
	}
	c := d.compare
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		c.again = true
		return
	}
	c.running = true
	d.goBeside(d.compareLoop)
}

func (d *Driver) compareLoop() {
	for {
		d.compareNow()
		c := d.compare
		c.mu.Lock()
		if !c.again || d.ctx.Err() != nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.again = false
		c.mu.Unlock()
	}
}

// compareNow asks Docker twice, and acts upon what both answers say.
func (d *Driver) compareNow() {
	c := d.compare
	c.mu.Lock()
	unread := c.unread
	// A call that comes from now on is for the next comparison.
	c.unread = false
	c.mu.Unlock()
	if err := d.compareOnce(unread); err != nil && unread {
		c.mu.Lock()
		c.unread = true
		c.mu.Unlock()
	}
}

// compareOnce returns an error where Docker could not be asked.
func (d *Driver) compareOnce(unread bool) error {
	first, err := d.believes(d.ctx)
	if err != nil {
		return err
	}
	if d.ready() != nil {
		if err := d.land(first); err != nil {
			d.log.Error("rebuild the state", "error", err)
		}
	}
	if d.agrees(first) {
		return nil
	}
	asked := time.Now()
	ghosts, second, err := d.confirmedGhosts(d.ctx)
	if err != nil {
		return err
	}
	d.rebuild(second, asked)
	for _, g := range ghosts {
		d.log.Warn("Docker does not know what nftnet has", "kind", g.Kind, "id", g.ID)
	}
	if unread && d.compare.isOurs() {
		for _, err := range d.dropGhosts("call that could not be read", slices.DeleteFunc(ghosts, d.isUsed)) {
			d.log.Error("remove what Docker does not know", "error", err)
		}
	}
	return nil
}

// isUsed reports whether a container that lives uses a network or endpoint which
// Docker does not know. It may be another engine's, so the driver does not remove
// it by itself.
func (d *Driver) isUsed(g control.Ghost) bool {
	if g.Kind == "network" {
		return d.hasLive(g.ID)
	}
	e, ok := d.endpoint(g.ID)
	return ok && isLive(e)
}

// hasLive reports whether a network has a container that lives.
func (d *Driver) hasLive(networkID string) bool {
	return slices.ContainsFunc(read(d, "look for containers", func(s desired.State) []desired.Endpoint { return s.EndpointsOf(networkID) }), isLive)
}

// isLive reports whether an endpoint's link leads to the network namespace of a
// container. What cannot be known lives.
func isLive(e desired.Endpoint) bool {
	connected, err := link.Connected(e)
	return (connected || err != nil) && link.SandboxAlive(e.Sandbox) != link.Dead
}

func (c *comparison) isOurs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// believes asks Docker, and notes the answer.
func (d *Driver) believes(ctx context.Context) (Belief, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := d.docker.Believes(ctx)
	networks := read(d, "compare", func(s desired.State) []desired.Network { return s.SortedNetworks() })
	c := d.compare
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		d.log.Debug("ask Docker for its networks", "error", err)
		return b, err
	}
	for _, n := range networks {
		c.known = c.known || b.Network(n.ID) == Known
	}
	return b, nil
}

// agrees reports whether Docker and the driver know the same.
func (d *Driver) agrees(b Belief) bool {
	return len(d.ghosts(b)) == 0 && !d.missing(b)
}

// ghosts are the networks and endpoints of the state that Docker does not know.
func (d *Driver) ghosts(b Belief) []control.Ghost {
	s := read(d, "compare", desired.State.Clone)
	var out []control.Ghost
	for _, n := range s.SortedNetworks() {
		if b.Network(n.ID) == Unknown {
			g := control.Ghost{Kind: "network", ID: n.ID, Bridge: n.Bridge}
			for _, sub := range n.Subnets() {
				g.Subnets = append(g.Subnets, sub.Prefix.String())
			}
			out = append(out, g)
		}
	}
	for _, e := range s.SortedEndpoints() {
		if b.Endpoint(e.NetworkID, e.ID) != Unknown {
			continue
		}
		g := control.Ghost{Kind: "endpoint", ID: e.ID, Network: e.NetworkID}
		for _, a := range e.Addrs() {
			g.Addresses = append(g.Addresses, a.String())
		}
		for _, p := range e.Published {
			g.Ports = append(g.Ports, p.String())
		}
		out = append(out, g)
	}
	return out
}

// isYoung reports whether a network or endpoint was made a moment ago: Docker
// knows of it only after the driver.
func (d *Driver) isYoung(id string) bool { return time.Since(d.born(id)) < confirmPause }

// both are the ghosts of two lists.
func both(a, b []control.Ghost) []control.Ghost {
	return slices.DeleteFunc(b, func(g control.Ghost) bool {
		return !slices.ContainsFunc(a, func(o control.Ghost) bool { return o.Kind == g.Kind && o.ID == g.ID })
	})
}

// dropGhosts removes ghosts, endpoints first.
func (d *Driver) dropGhosts(by string, ghosts []control.Ghost) []error {
	var errs []error
	for _, kind := range []string{"endpoint", "network"} {
		for _, g := range ghosts {
			if g.Kind != kind {
				continue
			}
			d.log.Warn("remove what Docker does not know", "kind", g.Kind, "id", g.ID, "by", by)
			err := error(nil)
			if kind == "network" {
				err = d.dropNetwork(by, g.ID)
			} else {
				err = d.dropEndpoint(by, g.ID)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("remove %s %.12s: %w", g.Kind, g.ID, err))
			}
		}
	}
	return errs
}

// Ghosts are the networks and endpoints that Docker does not know, by two of its
// answers.
func (d *Driver) Ghosts(ctx context.Context) ([]control.Ghost, error) {
	if d.docker == nil {
		return nil, errors.New("nftnet was started without a way to ask Docker")
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	ghosts, _, err := d.confirmedGhosts(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask Docker which networks it knows, so nothing is a ghost: %w", err)
	}
	return ghosts, nil
}

// confirmedGhosts asks Docker, and where it does not know something once more
// after a pause. It returns the last answer too.
func (d *Driver) confirmedGhosts(ctx context.Context) ([]control.Ghost, Belief, error) {
	first, err := d.believes(ctx)
	if err != nil {
		return nil, first, err
	}
	ghosts := d.ghosts(first)
	if len(ghosts) == 0 {
		return []control.Ghost{}, first, nil
	}
	second, err := d.believesLater(ctx)
	if err != nil {
		return nil, second, err
	}
	return both(ghosts, d.ghosts(second)), second, nil
}

// believesLater asks Docker after a pause.
func (d *Driver) believesLater(ctx context.Context) (Belief, error) {
	select {
	case <-ctx.Done():
		return Belief{}, ctx.Err()
	case <-time.After(confirmPause):
		return d.believes(ctx)
	}
}

// Prune removes ghosts that were listed, as far as they are ghosts still.
func (d *Driver) Prune(ctx context.Context, req control.Prune) (control.Pruned, error) {
	ghosts, err := d.Ghosts(ctx)
	if err != nil {
		return control.Pruned{}, err
	}
	wanted := slices.DeleteFunc(ghosts, func(g control.Ghost) bool { return !slices.Contains(req.IDs, g.ID) })
	if errs := d.dropGhosts("prune", wanted); len(errs) > 0 {
		return control.Pruned{}, errors.Join(errs...)
	}
	return control.Pruned{Removed: wanted}, nil
}

// makeRoom removes the networks that clash with a new one and that Docker does not
// know: what a failed call left.
func (d *Driver) makeRoom(n desired.Network) error {
	for {
		var clash *clashError
		err := read(d, "create network", func(s desired.State) error { return checkNetwork(s, n) })
		if !errors.As(err, &clash) {
			return err
		}
		if !d.isGhost(clash.other) {
			return err
		}
		d.log.Warn("remove a network that Docker does not know, another wants its subnet", "network", clash.other.ID, "by", n.ID)
		if err := d.dropNetwork("make room", clash.other.ID); err != nil {
			return err
		}
	}
}

// roomTimeout bounds how long the creation of a network waits for Docker's word
// on another one.
const roomTimeout = 4 * time.Second

// isGhost asks Docker whether it has a network that clashes with a new one.
func (d *Driver) isGhost(n desired.Network) bool {
	if d.docker == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(d.ctx, roomTimeout)
	defer cancel()
	b, err := d.believes(ctx)
	if err != nil || b.Network(n.ID) != Unknown {
		return false
	}
	if age := time.Since(d.born(n.ID)); age < confirmPause {
		// It may be one that Docker is creating.
		select {
		case <-ctx.Done():
			return false
		case <-time.After(confirmPause - age):
		}
		if b, err = d.believes(ctx); err != nil {
			return false
		}
	}
	// The engine that answers may be another than the one that asks: without a
	// network of ours in its answers, what has links is left alone.
	return b.Network(n.ID) == Unknown && !d.hasLive(n.ID) && (d.compare.isOurs() || !d.hasLinks(n.ID))
}

// hasLinks reports whether a network has a container whose link is there.
func (d *Driver) hasLinks(networkID string) bool {
	endpoints := read(d, "make room", func(s desired.State) []desired.Endpoint { return s.EndpointsOf(networkID) })
	return slices.ContainsFunc(endpoints, func(e desired.Endpoint) bool {
		attached, err := link.Attached(e)
		return err != nil || attached
	})
}

// missing reports whether Docker knows a network, or an endpoint of a running
// container, that the state does not.
func (d *Driver) missing(b Belief) bool {
	s := read(d, "compare", desired.State.Clone)
	for _, n := range b.Networks {
		if _, ok := s.Networks[n.Create.NetworkID]; !ok {
			return true
		}
	}
	return slices.ContainsFunc(b.Endpoints, func(e BelievedEndpoint) bool {
		_, ok := s.Endpoints[e.ID]
		return e.Running && !ok
	})
}
