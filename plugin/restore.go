package plugin

import (
	"net/netip"
	"time"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
	"nftnet/plugin/store"
)

// restore brings the kernel to the stored state at the start.
func (d *Driver) restore() error {
	if origin := d.store.Origin(); origin.Found != store.Read {
		return d.recover(origin)
	}
	state, err := d.store.Load()
	if err != nil {
		return err
	}
	d.upgrade(state)
	d.forgetDead(state)
	d.removeOrphans(state)
	return d.begin(state)
}

// upgrade fills in what an older version did not store of endpoints with ports:
// that they are gateways, and what their container's user publishes, as far as
// ports show it.
func (d *Driver) upgrade(state desired.State) {
	before := state.Clone()
	var turn uint64
	asked := map[string][]desired.Binding{}
	for _, e := range state.SortedEndpoints() {
		turn = max(turn, e.Gateway)
		for _, p := range e.Published {
			asked[e.Owner()] = append(asked[e.Owner()], askedFor(p))
		}
	}
	for _, e := range state.SortedEndpoints() {
		if len(e.Published) > 0 && len(e.Asked) == 0 {
			turn++
			e.Gateway, e.Asked = turn, asked[e.Owner()]
			state.Endpoints[e.ID] = e
		}
	}
	d.store.Owe(before, state)
}

// askedFor is what a user publishes who has a port: no more than that.
func askedFor(p desired.Port) desired.Binding {
	b := desired.Binding{Proto: p.Proto, Port: p.Container.Port(), HostPort: p.Host.Port(), HostPortEnd: p.Host.Port()}
	host := p.Host.Addr()
	if p.Kind() == desired.Direct {
		host = netip.IPv4Unspecified()
		if p.Container.Addr().Is6() {
			host = netip.IPv6Unspecified()
		}
	}
	b.HostIP = host.String()
	return b
}

// begin takes up a state.
func (d *Driver) begin(state desired.State) error {
	unlock := d.mu.Lock("begin")
	for _, e := range state.Endpoints {
		d.turn = max(d.turn, e.Gateway)
	}
	d.state = state.Clone()
	unlock()
	if err := d.kernel.Restore(state); err != nil {
		return err
	}
	for _, e := range state.Endpoints {
		d.inside.follow(e)
	}
	return nil
}

// forgetDead drops the endpoints that are gone: those whose network is unknown,
// and those whose veth pair went with their container while nobody told us.
func (d *Driver) forgetDead(state desired.State) {
	for _, e := range state.SortedEndpoints() {
		alive := state.Networks[e.NetworkID].ID != ""
		if alive && e.HostLink != "" {
			attached, err := link.Attached(e)
			if err != nil {
				d.log.Error("look for the link of an endpoint", "endpoint", e.ID, "error", err)
			}
			alive = attached || err != nil
		}
		if alive {
			continue
		}
		d.log.Info("forget endpoint whose container is gone", "endpoint", e.ID, "network", e.NetworkID)
		part := desired.New()
		part.Endpoints[e.ID] = e
		d.store.Owe(part, desired.New())
		delete(state.Endpoints, e.ID)
	}
}

// removeOrphans removes bridges and links that have names of ours and that the
// state does not know: the driver was killed between the disk and the kernel.
func (d *Driver) removeOrphans(state desired.State) {
	removed, err := link.RemoveOrphans(state)
	for _, name := range removed {
		d.log.Info("removed an interface that no network has any more", "interface", name)
	}
	if err != nil {
		d.log.Error("remove interfaces that no network has any more", "error", err)
	}
}

// settlePause is how often what the disk refused is tried again.
const settlePause = time.Second

// settleDebts writes what the disk refused, when it allows.
func (d *Driver) settleDebts() {
	failing := false
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-time.After(settlePause):
		}
		if d.store.Owed() == 0 && !failing {
			continue
		}
		err := d.store.Settle()
		if err != nil && !failing {
			d.log.Error("the disk refuses what containers and networks that went leave to be written, it is tried again", "error", err)
		}
		if err == nil && failing {
			d.log.Info("wrote what the disk had refused")
		}
		failing = err != nil
	}
}
