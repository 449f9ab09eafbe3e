package realise

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"nftnet/internal/desired"
	rs "nftnet/internal/ruleset"
	"nftnet/nat"
	"nftnet/plugin/link"
)

// uplinks are what the host has of uplinks with routing tables of their own. On
// hosts with one uplink there are none, and nothing of them in the kernel.
type uplinks struct {
	// mask are the bits of marks that are the driver's; 0 leaves uplinks alone.
	mask uint32
	// mu keeps two from following the host at once.
	mu sync.Mutex
	// told is what the log says already.
	told string
	// list is what the table has chains for; Kernel.mu protects it.
	list []nat.Uplink
}

// followUplinks brings routing rules and chains to what the host has of uplinks
// now, as long as a network or a redirect needs them.
func (k *Kernel) followUplinks() {
	k.uplinks.mu.Lock()
	defer k.uplinks.mu.Unlock()
	now := k.findUplinks(k.snapshot())
	defer k.mu.Lock("uplinks")()
	batch := rs.Diff(nat.Uplinks(k.uplinks.list), nat.Uplinks(now))
	if len(batch) == 0 {
		return
	}
	k.uplinks.list, k.whole = now, nil
	err := k.nft.Apply(batch)
	if err != nil {
		_, err = k.reconcileRules()
	}
	if err != nil {
		k.log.Error("have answers leave by the uplink that they are asked by", "error", err)
	}
}

// findUplinks looks for the uplinks that a state needs, and has the routing rules
// follow them. k.uplinks.mu is held.
func (k *Kernel) findUplinks(s desired.State) []nat.Uplink {
	var found []link.Uplink
	var problem error
	if k.uplinks.mask != 0 && len(s.Networks)+len(s.Redirects) > 0 {
		found, problem = link.Uplinks(k.uplinks.mask, s)
	}
	if err := link.RuleUplinks(found, k.uplinks.mask); err != nil {
		problem = errors.Join(problem, err)
	}
	var out []nat.Uplink
	for _, u := range found {
		n := nat.Uplink{Mark: u.Mark, Mask: k.uplinks.mask}
		for _, w := range u.Ways {
			n.Ways = append(n.Ways, nat.Way(w))
		}
		for _, o := range u.OnLink {
			n.OnLink = append(n.OnLink, nat.Neighbours(o))
		}
		out = append(out, n)
	}
	k.tellOfUplinks(found, problem)
	return out
}

// tellOfUplinks logs what there is of uplinks where it is news.
func (k *Kernel) tellOfUplinks(found []link.Uplink, problem error) {
	var words []string
	for _, u := range found {
		for _, w := range u.Ways {
			words = append(words, fmt.Sprintf("%s on %s by table %d", w.Addr, w.Iface, u.Table))
		}
	}
	strict := link.StrictUplinks(found)
	told := fmt.Sprint(words, strict, problem)
	if told == k.uplinks.told || k.uplinks.told == "" && len(words) == 0 && problem == nil {
		return
	}
	k.uplinks.told = told
	if problem != nil {
		k.log.Error("answers may leave by another uplink than they are asked by", "error", problem)
	}
	if len(words) == 0 {
		k.log.Info("no uplink with a routing table of its own needs marks any more")
		return
	}
	k.log.Info("answers leave by the uplink that they are asked by", "uplinks", strings.Join(words, ", "), "mask", fmt.Sprintf("%#x", k.uplinks.mask))
	if len(strict) > 0 {
		k.log.Warn("the kernel drops what published ports are asked by an uplink whose rp_filter is 1; with 2 it checks the source, too, and does not",
			"interfaces", strings.Join(strict, ","), "fix", "sysctl -w net.ipv4.conf."+strict[0]+".rp_filter=2")
	}
}
