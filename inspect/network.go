package inspect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nftnet/internal/ruleset"
)

// FindNetwork finds a network by its name, its id or the beginning of it, or
// its bridge.
func FindNetwork(networks []Network, query string) (Network, error) {
	ways := []func(Network) bool{
		func(n Network) bool { return n.ID == query },
		func(n Network) bool { return n.Name == query },
		func(n Network) bool { return n.Bridge == query },
		func(n Network) bool { return strings.HasPrefix(n.ID, query) },
	}
	for _, is := range ways {
		var found []Network
		for _, n := range networks {
			if query != "" && is(n) {
				found = append(found, n)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return Network{}, fmt.Errorf("network %q is not one: there are %s; say more of the id", query, networkList(found, Network.title))
		}
	}
	if len(networks) == 0 {
		return Network{}, fmt.Errorf("no network %q: there are none", query)
	}
	return Network{}, fmt.Errorf("no network %q: there are %s", query, networkList(networks, Network.shortTitle))
}

func networkList(networks []Network, title func(Network) string) string {
	names := make([]string, len(networks))
	for i, n := range networks {
		names[i] = title(n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// shortTitle is what a person calls a network by.
func (n Network) shortTitle() string { return cmp.Or(n.Name, n.Bridge, n.ID) }

// title tells networks of one name apart.
func (n Network) title() string { return fmt.Sprintf("%s (%.12s)", n.shortTitle(), n.ID) }

// SelectNetwork selects what is there for a network: rules and elements whose
// comment says so, or that name its bridge or addresses in its subnets; chains
// that packets get to from there alone; and the sets that nobody else looks up.
func (m *Model) SelectNetwork(n Network) *Selection {
	b := belongings{
		Selection: &Selection{m: m, objects: map[Object]bool{}}, net: n,
		callers: map[Object][]Object{}, targets: map[Object][]Object{},
	}
	for i := range m.Ruleset.Tables {
		b.table(&m.Ruleset.Tables[i])
	}
	for b.spread() {
	}
	b.sets()
	b.describe()
	return b.Selection
}

// belongings collects what belongs to a network.
type belongings struct {
	*Selection
	net Network
	// callers are the rules and elements whose verdicts lead to a chain, targets
	// the chains that those of a rule or element lead to.
	callers, targets map[Object][]Object
}

// table selects what names the network by itself.
func (b *belongings) table(t *ruleset.Table) {
	o := tableObject(t)
	for _, c := range t.Chains {
		chain := o.chain(c.Name)
		for i, r := range c.Rules {
			found := b.search(r.Parts)
			b.link(chain.rule(i), found.chains)
			if found.network || b.owns(r.Comment) {
				b.add(chain.rule(i))
			}
		}
		if b.names(c.Name) || b.owns(c.Comment) {
			b.addWhole(chain)
		}
	}
	for _, s := range t.Sets {
		if s.Anonymous {
			continue
		}
		set := o.set(s.Name)
		for i, e := range s.Elements {
			found := b.search(e)
			b.link(set.element(i), found.chains)
			if found.network {
				b.add(set.element(i))
			}
		}
		if b.names(s.Name) || b.owns(s.Comment) {
			b.addSet(set)
		}
	}
}

func (b *belongings) link(from Object, chains []string) {
	for _, name := range chains {
		to := from.chain(name)
		b.callers[to] = append(b.callers[to], from)
		b.targets[from] = append(b.targets[from], to)
	}
}

// addWhole selects a chain with all of its rules; it tells whether that is new.
func (b *belongings) addWhole(chain Object) bool {
	info := b.m.chains[chain]
	if info == nil {
		return false
	}
	fresh := !b.objects[chain]
	b.add(chain)
	for i := range info.chain.Rules {
		fresh = fresh || !b.objects[chain.rule(i)]
		b.add(chain.rule(i))
	}
	return fresh
}

// spread selects chains that packets get to from what is selected alone, and
// what leads to a chain that is selected as a whole. It tells whether there was
// anything new: each round selects something, so that rounds come to an end.
func (b *belongings) spread() bool {
	fresh := false
	for chain, callers := range b.callers {
		info := b.m.chains[chain]
		others := slices.ContainsFunc(callers, func(o Object) bool { return !b.objects[o] })
		switch {
		case info == nil || info.base != nil:
		case !others:
			fresh = b.addWhole(chain) || fresh
		case b.names(chain.Chain):
			for _, o := range callers {
				fresh = fresh || !b.objects[o]
				b.add(o)
			}
		}
	}
	return fresh
}

// sets selects the sets that nothing but what is selected looks up.
func (b *belongings) sets() {
	for set, info := range b.m.sets {
		others := slices.ContainsFunc(info.users, func(u Use) bool { return !b.objects[u.Rule] })
		if !info.set.Anonymous && len(info.users) > 0 && !others {
			b.addSet(set)
		}
	}
}

// describe says what is selected, and counts what is left out.
func (b *belongings) describe() {
	say := b.m.say
	var rules, elements uint64
	for _, o := range b.m.Objects() {
		switch {
		case b.Has(o):
		case o.Kind == KindRule:
			rules++
		case o.Kind == KindElement:
			elements++
		}
	}
	signs := []string{say.Say("select.id", "id", fmt.Sprintf("%.12s", b.net.ID))}
	if b.net.ID == "" {
		signs = nil
	}
	if b.net.Bridge != "" {
		signs = append(signs, say.Say("iface.bridge.bare", "name", b.net.Bridge))
	}
	for _, s := range b.net.Subnets {
		signs = append(signs, s.Prefix.String())
	}
	what := say.Say("select.network", "network", b.net.shortTitle(), "signs", say.Or(signs))
	left := say.Say("select.left", "rules", say.Count("rules", rules), "elements", say.Count("elements", elements))
	if len(b.objects) == 0 {
		what = say.Say("select.nothing", "network", b.net.shortTitle(), "signs", say.Or(signs))
	}
	b.sentence = what + say.Say("sentence.join") + left
}
