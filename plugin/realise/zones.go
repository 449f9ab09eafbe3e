package realise

import (
	"maps"

	"nftnet/internal/desired"
)

// followBridges tells other firewalls of a bridge that was made or removed. The
// call waits for firewalld, which would reject the network's packets until it
// knows; no other call does.
func (k *Kernel) followBridges(before, after desired.State) {
	sameBridge := func(a, b desired.Network) bool { return a.Bridge == b.Bridge }
	if maps.EqualFunc(before.Networks, after.Networks, sameBridge) {
		return
	}
	k.openForeign()
	if k.zones != nil {
		k.zones.Set(bridges(k.snapshot()))
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
