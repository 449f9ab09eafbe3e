package realise

import (
	"errors"
	"slices"
	"syscall"

	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/link"
)

// The one foreign place that the driver writes to. dockerd gives the chain
// FORWARD of iptables the policy drop where it switches forwarding on itself
// (moby daemon/libnetwork/drivers/bridge/setup_ip_forwarding.go), and so do
// others: what our own table has accepted would be dropped there.
const (
	foreignTable = "filter"
	foreignChain = "FORWARD"
)

var foreignFamilies = []rs.Family{rs.FamilyIP, rs.FamilyIP6}

// touchesForeign says whether an event may have changed that chain.
func touchesForeign(e kernel.Event) bool {
	return slices.ContainsFunc(foreignFamilies, func(f rs.Family) bool { return e.Touches(f, foreignTable) })
}

// foreignRules let packets of our bridges pass a policy. They stand behind all
// other rules of the chain, so behind the user's in Docker's DOCKER-USER. What is
// for a bridge of ours our own table decides; what comes from one goes
// everywhere but to other bridges, whose owners' rules came before: there the
// policy stays.
func foreignRules(ours, others []string) []rs.Rule {
	iif, oif := rs.Meta{Key: rs.MetaIIFName}, rs.Meta{Key: rs.MetaOIFName}
	var out []rs.Rule
	add := func(v rs.VerdictKind, matches ...rs.Part) {
		out = append(out, rs.NewRule(append(matches, rs.Counter{}, rs.Verdict{Kind: v})...).Because(layout.ForeignComment))
	}
	for _, br := range ours {
		add(rs.Accept, rs.Is(oif, rs.Iface(br)))
	}
	for _, br := range ours {
		for _, other := range others {
			add(rs.Return, rs.Is(iif, rs.Iface(br)), rs.Is(oif, rs.Iface(other)))
		}
		add(rs.Accept, rs.Is(iif, rs.Iface(br)))
	}
	return out
}

// openForeign lets our bridges' packets pass the policy drop of iptables'
// FORWARD, and takes back what it wrote where the policy is none.
func (k *Kernel) openForeign() {
	k.foreign.Lock()
	defer k.foreign.Unlock()
	ours := bridges(k.snapshot())
	for _, family := range foreignFamilies {
		err := k.openForeignIn(family, ours)
		// Its owner is at work: an event will follow.
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EEXIST) {
			continue
		}
		if err != nil {
			k.log.Warn("let packets pass the policy of iptables", "family", family, "chain", foreignChain, "error", err)
		}
	}
}

func (k *Kernel) openForeignIn(family rs.Family, ours []string) error {
	have, err := k.nft.Read(kernel.Filter{Family: family, Table: foreignTable, Chain: foreignChain})
	if err != nil {
		return err
	}
	t := have.Table(family, foreignTable)
	if t == nil || t.Chain(foreignChain) == nil {
		return nil
	}
	chain := t.Chain(foreignChain)
	var want []rs.Rule
	if chain.Base != nil && chain.Base.Policy == rs.Drop {
		others, err := link.OtherBridges(ours)
		if err != nil {
			return err
		}
		want = foreignRules(ours, others)
	}
	batch := foreignBatch(family, *chain, want)
	if len(batch) == 0 {
		return nil
	}
	k.log.Info("let packets of our bridges pass the policy of iptables", "family", family, "chain", foreignChain, "rules", len(want))
	return k.nft.Apply(batch)
}

// foreignBatch is what makes the driver's rules the last ones of the chain;
// nothing where they are.
func foreignBatch(family rs.Family, chain rs.Chain, want []rs.Rule) rs.Batch {
	end := chain.Rules[max(0, len(chain.Rules)-len(want)):]
	var batch rs.Batch
	change := func(v rs.Verb, r rs.Rule) {
		batch = append(batch, rs.Change{Verb: v, Family: family, Table: foreignTable, Chain: &rs.Chain{Name: foreignChain}, Rule: &r})
	}
	owned := 0
	for _, r := range chain.Rules {
		if r.Comment == layout.ForeignComment {
			owned++
			change(rs.Delete, r)
		}
	}
	if owned == len(want) && slices.EqualFunc(end, want, rs.Rule.Equal) {
		return nil
	}
	for _, r := range want {
		change(rs.Add, r)
	}
	return batch
}
