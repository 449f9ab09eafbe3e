package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"syscall"

	"nftnet/internal/desired"
	rs "nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"
	"nftnet/plugin/link"
	"nftnet/plugin/port"
)

// Ruleset is what a state asks for: the table of both IP families, and the one
// of family bridge.
func Ruleset(s desired.State) rs.Ruleset { return rs.Merge(nat.Ruleset(s), isolation.Ruleset(s)) }

// rules is the ruleset of a state, as far as this kernel can have it.
func (d *Driver) rules(s desired.State) rs.Ruleset {
	r := Ruleset(s)
	r.Tables = slices.DeleteFunc(r.Tables, func(t rs.Table) bool { return t.Family == rs.FamilyBridge && !d.bridgeFamily })
	return r
}

// wholeRuleset is the table that the whole state asks for. It is kept until the
// state changes: to make it for ten thousand ports takes longer than to apply
// it. d.mu is held.
func (d *Driver) wholeRuleset() rs.Ruleset {
	if d.whole == nil {
		w := d.rules(d.state)
		d.whole = &w
	}
	return *d.whole
}

// change alters the state of a network, or of one of its endpoints, and makes
// the kernel follow: the state on disk first. Where the kernel refuses, state
// and kernel go back to what they were. d.mu is held.
func (d *Driver) change(networkID, endpointID string, alter func(*desired.State)) error {
	return d.changePart(d.state.Part(networkID, endpointID), alter)
}

// changePart is change of any part of the state.
func (d *Driver) changePart(before desired.State, alter func(*desired.State)) error {
	after := before.Clone()
	alter(&after)
	if reflect.DeepEqual(before, after) {
		return nil
	}
	if err := d.store.Save(before, after); err != nil {
		return err
	}
	d.assume(before, after)
	err := d.realise(before, after)
	if err == nil {
		d.followBridges(before, after)
		return nil
	}
	undo := errors.Join(d.store.Save(after, before), d.realise(after, before))
	d.assume(after, before)
	if undo != nil {
		d.log.Error("undo a change that failed", "error", undo)
	}
	return err
}

// assume replaces a part of the state in memory.
func (d *Driver) assume(before, after desired.State) {
	d.whole = nil
	for id := range before.Networks {
		delete(d.state.Networks, id)
	}
	for id := range before.Endpoints {
		delete(d.state.Endpoints, id)
	}
	for name := range before.Redirects {
		delete(d.state.Redirects, name)
	}
	maps.Copy(d.state.Redirects, after.Redirects)
	for id, n := range after.Networks {
		d.state.Networks[id] = n
	}
	for id, e := range after.Endpoints {
		d.state.Endpoints[id] = e
	}
}

// realise brings links, rules and port sockets from one state of a part to
// another: what is made has its links first, so that rules find their bridge;
// what is removed loses its rules first.
func (d *Driver) realise(before, after desired.State) error {
	if err := d.makeLinks(before, after); err != nil {
		return err
	}
	if err := d.applyRules(before, after); err != nil {
		return err
	}
	d.settlePorts(before, after)
	return d.removeLinks(before, after)
}

func (d *Driver) makeLinks(before, after desired.State) error {
	for id, n := range after.Networks {
		if _, had := before.Networks[id]; !had {
			if err := link.EnsureBridge(n); err != nil {
				return err
			}
		}
	}
	for id, e := range after.Endpoints {
		if e.HostLink != "" && before.Endpoints[id].HostLink == "" {
			if err := link.Attach(after.Networks[e.NetworkID], e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Driver) removeLinks(before, after desired.State) error {
	var errs []error
	for id, e := range before.Endpoints {
		if e.HostLink != "" && after.Endpoints[id].HostLink == "" {
			errs = append(errs, link.Detach(e))
		}
	}
	for id, n := range before.Networks {
		if _, stays := after.Networks[id]; !stays {
			errs = append(errs, link.DeleteBridge(n))
		}
	}
	return errors.Join(errs...)
}

// applyRules changes the table by what differs between two states of a part.
// Where the table is not what it should be, because somebody changed it, it is
// made whole from the state instead.
func (d *Driver) applyRules(before, after desired.State) error {
	err := d.nft.Apply(rs.Diff(d.rules(before), d.rules(after)))
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EBUSY) {
		d.log.Warn("table is not as it was left, making it whole", "table", desired.Table, "error", err)
		_, err = d.reconcileRules()
		return err
	}
	return err
}

// settlePorts lets go of the sockets of ports that are published no more and
// serves the new ones, and has flows forgotten that the change left astray.
func (d *Driver) settlePorts(before, after desired.State) {
	old, now := hostPorts(before), hostPorts(after)
	var leads []link.Lead
	for p, had := range old {
		if _, stays := now[p]; !stays {
			d.ports.Release(p, had.owner)
			leads = append(leads, link.Lead{Port: p, Gone: true})
		}
	}
	for p, has := range now {
		if _, had := old[p]; !had {
			d.ports.Serve(p, has.clients)
			leads = append(leads, link.Lead{Port: p})
		}
	}
	d.flows.forget(leads)
}

// hostPort is who holds a port of the host, and whom its socket serves.
type hostPort struct {
	owner   string
	clients port.Clients
}

// hostPorts are the ports of the host that a state takes, for containers and
// for redirects.
func hostPorts(s desired.State) map[desired.Port]hostPort {
	out := map[desired.Port]hostPort{}
	for _, e := range s.Endpoints {
		for _, p := range e.Published {
			if !p.Direct() {
				out[p] = hostPort{e.ID, port.Clients{
					Neighbours: nat.Relayed(s.Networks[e.NetworkID], p),
					Sources:    e.Allow.For(p.Proto, p.Container.Port()),
				}}
			}
		}
	}
	for _, r := range s.Redirects {
		for _, p := range r.Ports() {
			out[p] = hostPort{owner: redirectOwner(r)}
		}
	}
	return out
}

// restore brings the kernel to the stored state at the start: after a restart
// of the driver that is mostly so already, after one of the host nothing is.
func (d *Driver) restore(context.Context) error {
	state, err := d.store.Load()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = state
	if err := d.loadUserRules(); err != nil {
		return err
	}
	if err := d.forgetDead(); err != nil {
		return err
	}
	for _, n := range d.state.SortedNetworks() {
		if err := link.EnsureBridge(n); err != nil {
			// One network that is in somebody's way must not take the others down.
			d.log.Error("restore network", "network", fmt.Sprintf("%.12s", n.ID), "error", err)
		}
	}
	for _, e := range d.state.SortedEndpoints() {
		for _, p := range e.Published {
			if p.Direct() {
				continue
			}
			if err := d.ports.Hold(p, e.ID); err != nil {
				d.log.Error("a published port was taken while nftnet was not running", "endpoint", e.ID, "error", err)
			}
		}
	}
	d.holdRedirects()
	changed, err := d.reconcileRules()
	if err != nil {
		return err
	}
	if changed != "" {
		d.log.Info("made the table", "table", desired.Table, "changed", changed)
	}
	d.settlePorts(desired.New(), d.state)
	d.ports.DropUnclaimed()
	d.openForeign()
	return nil
}

// forgetDead drops the endpoints that are gone: those whose network is unknown,
// and those whose veth pair went with their container while nobody told us.
func (d *Driver) forgetDead() error {
	for _, e := range d.state.SortedEndpoints() {
		alive := d.state.Networks[e.NetworkID].ID != ""
		if alive && e.HostLink != "" {
			kind, err := link.Kind(e.HostLink)
			if err != nil {
				return err
			}
			alive = kind != ""
		}
		if alive {
			continue
		}
		d.log.Info("forget endpoint whose container is gone", "endpoint", e.ID, "network", e.NetworkID)
		for _, p := range e.Published {
			if !p.Direct() {
				d.flows.forget([]link.Lead{{Port: p, Gone: true}})
			}
		}
		part := desired.New()
		part.Endpoints[e.ID] = e
		if err := d.store.Save(part, desired.New()); err != nil {
			return err
		}
		delete(d.state.Endpoints, e.ID)
		d.whole = nil
	}
	return nil
}
