package inspect

import (
	"cmp"
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

var layers = []Layer{LayerDevice, LayerBridge, LayerARP, LayerIP}

// ipHooks are shown even where no chain is called at them.
var ipHooks = hookOrder[1:6]

// hookOrder is the order in which a packet may meet hooks.
var hookOrder = []ruleset.Hook{
	ruleset.HookIngress, ruleset.HookPrerouting, ruleset.HookInput, ruleset.HookForward, ruleset.HookOutput,
	ruleset.HookPostrouting, ruleset.HookEgress,
}

func layerOf(f ruleset.Family, h ruleset.Hook) Layer {
	switch {
	case h == ruleset.HookIngress || h == ruleset.HookEgress:
		return LayerDevice
	case f == ruleset.FamilyBridge:
		return LayerBridge
	case f == ruleset.FamilyARP:
		return LayerARP
	}
	return LayerIP
}

func (m *Model) addHooks() {
	byHook := map[Object][]*BaseChain{}
	for _, h := range ipHooks {
		byHook[Object{Kind: KindHook, Layer: LayerIP, Hook: h}] = nil
	}
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		for j := range t.Chains {
			c := &t.Chains[j]
			info := m.chains[tableObject(t).chain(c.Name)]
			if info.chain != c || c.Base == nil || Dormant(t) {
				continue
			}
			info.base = newBaseChain(t, c)
			info.hooks = hooksOf(t.Family, c.Base)
			info.base.Hook = info.hooks[0]
			for _, h := range info.hooks {
				byHook[h] = append(byHook[h], info.base)
			}
		}
	}
	for h, chains := range byHook {
		m.Hooks = append(m.Hooks, Hook{Object: h, Chains: sortChains(chains)})
	}
	slices.SortFunc(m.Hooks, func(a, b Hook) int { return compareHooks(a.Object, b.Object) })
}

func hooksOf(f ruleset.Family, b *ruleset.Base) []Object {
	h := Object{Kind: KindHook, Layer: layerOf(f, b.Hook), Hook: b.Hook}
	if h.Layer != LayerDevice || len(b.Devices) == 0 {
		return []Object{h}
	}
	out := make([]Object, len(b.Devices))
	for i, d := range b.Devices {
		out[i] = h
		out[i].Device = d
	}
	return out
}

func newBaseChain(t *ruleset.Table, c *ruleset.Chain) *BaseChain {
	return &BaseChain{
		Object: tableObject(t).chain(c.Name), Table: t, Chain: c,
		IPv4: t.Family == ruleset.FamilyIP || t.Family == ruleset.FamilyInet,
		IPv6: t.Family == ruleset.FamilyIP6 || t.Family == ruleset.FamilyInet,
		At:   calledAt(c.Base),
	}
}

// calledAt is the priority at which the kernel calls a base chain. Since Linux
// 4.18 nat chains hang below one hook function of the kernel's own, which has
// the standard priority (nf_nat_ipv4_ops in net/netfilter/nf_nat_proto.c).
func calledAt(b *ruleset.Base) int32 {
	if b.Type != "nat" {
		return b.Priority
	}
	switch b.Hook {
	case ruleset.HookPrerouting, ruleset.HookOutput:
		return ruleset.PriorityDstNAT
	case ruleset.HookInput, ruleset.HookPostrouting:
		return ruleset.PrioritySrcNAT
	}
	return b.Priority
}

// compareChains orders base chains of one hook; 0 where the order cannot be
// known.
func compareChains(a, b *BaseChain) int {
	if a.At != b.At {
		return cmp.Compare(a.At, b.At)
	}
	if a.Chain.Base.Type == "nat" && b.Chain.Base.Type == "nat" {
		return cmp.Compare(a.Chain.Base.Priority, b.Chain.Base.Priority)
	}
	return 0
}

func sortChains(chains []*BaseChain) []*BaseChain {
	// Nat chains are called one behind the other: other chains of their priority
	// must not come to stand between them.
	isNAT := func(b *BaseChain) int {
		if b.Chain.Base.Type == "nat" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(chains, func(a, b *BaseChain) int {
		if a.At == b.At && isNAT(a) != isNAT(b) {
			return isNAT(a) - isNAT(b)
		}
		return compareChains(a, b)
	})
	for _, a := range chains {
		for _, b := range chains {
			a.Unordered = a.Unordered || a != b && compareChains(a, b) == 0 && a.meets(b)
		}
	}
	return chains
}

func compareHooks(a, b Object) int {
	if c := slices.Index(layers, a.Layer) - slices.Index(layers, b.Layer); c != 0 {
		return c
	}
	if c := hookIndex(a.Hook) - hookIndex(b.Hook); c != 0 {
		return c
	}
	return strings.Compare(string(a.Hook)+" "+a.Device, string(b.Hook)+" "+b.Device)
}

// hookIndex puts a hook that is not known behind all others.
func hookIndex(h ruleset.Hook) int {
	if i := slices.Index(hookOrder, h); i >= 0 {
		return i
	}
	return len(hookOrder)
}

// Hook finds the base chains that are called at a hook.
func (m *Model) Hook(o Object) (Hook, bool) {
	i := slices.IndexFunc(m.Hooks, func(h Hook) bool { return h.Object == o })
	if i < 0 {
		return Hook{}, false
	}
	return m.Hooks[i], true
}

// neighbours are the base chains that a packet which meets b meets before and
// after it at the same hook. Those whose order cannot be known are in neither.
func (m *Model) neighbours(b *BaseChain) (before, after, unordered []*BaseChain) {
	h, _ := m.Hook(b.Hook)
	for _, o := range h.Chains {
		if o == b || !b.meets(o) {
			continue
		}
		switch c := compareChains(o, b); {
		case c < 0:
			before = append(before, o)
		case c > 0:
			after = append(after, o)
		default:
			unordered = append(unordered, o)
		}
	}
	return before, after, unordered
}
