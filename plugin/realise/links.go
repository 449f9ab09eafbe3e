package realise

import (
	"maps"
	"slices"
	"strings"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

// linksChanged repairs what a change to links, addresses or parameters broke.
func (k *Kernel) linksChanged(c link.Change) {
	if c.Links || c.Addresses || c.Parameters {
		k.repairLinks(names(c.By))
	}
	if c.Rules || c.Addresses {
		k.followUplinks()
	}
	if len(c.Came) > 0 || c.Overrun {
		k.retryPending()
	}
}

// names are processes for the log.
func names(list []link.Process) string {
	if len(list) == 0 {
		return "unknown"
	}
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// repairLinks compares the links with the state, and repairs what differs. by
// names who changed them, where the kernel said so.
func (k *Kernel) repairLinks(by string) {
	// The state comes first: what is made meanwhile is in neither or in both.
	state := k.snapshot()
	survey, err := link.Look()
	if err != nil {
		k.log.Error("compare the links", "error", err)
		return
	}
	if err := k.forwarding.Follow(survey, func() desired.State { return state }); err != nil {
		k.log.Error("keep routes from router advertisements", "error", err)
	}
	faults := survey.Faults(state)
	k.repairs.settle(faults)
	networks := map[string]bool{}
	for _, f := range faults {
		networks[f.Network] = true
	}
	for _, id := range slices.Sorted(maps.Keys(networks)) {
		k.repairNetwork(id, by)
	}
}

// repairNetwork looks again at one network while no call changes it, and
// repairs what is wrong still. The empty id stands for the host's own parameters.
func (k *Kernel) repairNetwork(id, by string) {
	defer k.networks.Lock(id)()
	state := k.snapshot()
	survey, err := link.Look()
	if err != nil {
		k.log.Error("compare the links", "error", err)
		return
	}
	for _, f := range survey.Faults(state) {
		if f.Network == id {
			k.repair(f, state, by)
		}
	}
}

func (k *Kernel) repair(f link.Fault, state desired.State, by string) {
	if f.Kind == link.VethMissing {
		if k.gone != nil {
			k.watch.run(func() { k.gone(f.Endpoint, by) })
		}
		return
	}
	if !f.Repairable() {
		k.repairs.stuck(f, k.log)
		return
	}
	if !k.repairs.allowed(f, k.log) {
		return
	}
	if err := k.repairFault(f, state); err != nil {
		k.repairs.failed(f, err)
		k.log.Error("repair", "fault", f.String(), "by", by, "error", err)
		return
	}
	k.log.Warn("repaired", "fault", f.String(), "kind", f.Kind, "by", by)
}

func (k *Kernel) repairFault(f link.Fault, state desired.State) error {
	if f.Kind == link.HostParameter {
		if err := k.forwarding.Again(func() desired.State { return state }); err != nil {
			return err
		}
	}
	return link.Repair(f, state)
}

// announce tells neighbours of the addresses of containers that were attached:
// an address that another container had before has another MAC address now.
func (k *Kernel) announce(before, after desired.State) {
	for id, e := range after.Endpoints {
		if e.HostLink == "" || before.Endpoints[id].HostLink != "" {
			continue
		}
		k.watch.run(func() {
			if err := link.Announce(after.Networks[e.NetworkID], e); err != nil {
				k.log.Debug("announce", "endpoint", e.ID, "error", err)
			}
		})
	}
}
