package plugin

import (
	"maps"

	"nftnet/internal/desired"
	"nftnet/plugin/firewalld"
)

// startZones tells firewalld of the bridges, and again whenever it forgets them.
func (d *Driver) startZones(wanted bool) {
	if !wanted {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zones = firewalld.Watch(d.log)
	d.zones.Set(bridges(d.state))
}

// followBridges tells other firewalls of a bridge that was made or removed. d.mu
// is held.
func (d *Driver) followBridges(before, after desired.State) {
	sameBridge := func(a, b desired.Network) bool { return a.Bridge == b.Bridge }
	if maps.EqualFunc(before.Networks, after.Networks, sameBridge) {
		return
	}
	d.openForeign()
	if d.zones != nil {
		d.zones.Set(bridges(d.state))
	}
}

func (d *Driver) stopZones() {
	if d.zones != nil {
		d.zones.Close()
	}
}

// bridges are those of all networks, also of internal ones: their containers
// reach each other and the host.
func bridges(s desired.State) []string {
	var names []string
	for _, n := range s.SortedNetworks() {
		names = append(names, n.Bridge)
	}
	return names
}
