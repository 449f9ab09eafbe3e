package view

import (
	"strings"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// htmlLayer is the hooks of one layer, as the map of the page shows them.
type htmlLayer struct {
	Name string
	// Path says that the hooks are those of a packet's way through a host: one
	// in, one out, and two ways between.
	Path bool
	// Families says that chains of IPv4 and of IPv6 stand side by side.
	Families bool
	Hooks    []htmlHook
}

// htmlHook is a hook and the chains that the kernel calls there, in order.
type htmlHook struct {
	ID, Name, Device string
	Notes            []htmlNote
	Chains           []htmlHookChain
}

type htmlHookChain struct {
	To, Name, Family, Table, Type, Policy string
	At                                    int32
	// Priority is nft's word for the chain's own priority, empty where that is
	// the number At.
	Priority string
	// IPv4 and IPv6 say which packets meet the chain.
	IPv4, IPv6 bool
	Unordered  bool
}

// pathHooks are the hooks that make a layer a way through the host.
var pathHooks = []ruleset.Hook{
	ruleset.HookPrerouting, ruleset.HookInput, ruleset.HookForward, ruleset.HookOutput, ruleset.HookPostrouting,
}

// layers lays out the hooks, the one of IP first: most rulesets have no other.
func (h *htmlBuilder) layers() []htmlLayer {
	var first, rest []htmlLayer
	for _, hooks := range byLayer(h.m.Hooks) {
		l := h.layer(hooks)
		if hooks[0].Object.Layer == inspect.LayerIP {
			first = append(first, l)
			continue
		}
		rest = append(rest, l)
	}
	return append(first, rest...)
}

func (h *htmlBuilder) layer(hooks []inspect.Hook) htmlLayer {
	l := htmlLayer{Name: string(hooks[0].Object.Layer), Path: len(hooks) == len(pathHooks)}
	l.Families = hooks[0].Object.Layer == inspect.LayerIP
	for i, hook := range hooks {
		l.Path = l.Path && hook.Object.Hook == pathHooks[i]
		l.Hooks = append(l.Hooks, h.hook(hook))
	}
	return l
}

func (h *htmlBuilder) hook(hook inspect.Hook) htmlHook {
	out := htmlHook{
		ID: anchor(hook.Object), Name: visible(string(hook.Object.Hook)), Device: visible(hook.Object.Device),
	}
	for _, n := range h.notes(hook.Object) {
		// The order is what the map shows.
		if n.Topic == string(inspect.TopicWhat) {
			out.Notes = append(out.Notes, n)
		}
	}
	for _, b := range hook.Chains {
		base := b.Chain.Base
		c := htmlHookChain{
			To: h.anchorOf(b.Object), Name: visible(b.Chain.Name), Family: string(b.Table.Family), Table: visible(b.Table.Name),
			Type: base.Type, Policy: string(base.Policy), At: b.At, IPv4: b.IPv4, IPv6: b.IPv6, Unordered: b.Unordered,
		}
		if text := base.PriorityText(); strings.Trim(text, "-0123456789") != "" || base.Priority != b.At {
			c.Priority = text
		}
		out.Chains = append(out.Chains, c)
	}
	return out
}
