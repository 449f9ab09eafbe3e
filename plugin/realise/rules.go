package realise

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"
	"nftnet/plugin/link"
)

// changeRules changes the table by what differs between two states of a part,
// and the state with it. Where the table is not what it should be, because
// somebody changed it, it is made whole from the state instead.
func (k *Kernel) changeRules(before, after desired.State) error {
	batch := rs.Diff(k.rules(before), k.rules(after))
	defer k.mu.Lock("change rules")()
	k.assume(before, after)
	err := k.nft.Apply(batch)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.EBUSY) {
		k.log.Warn("table is not as it was left, making it whole", "table", layout.Table, "error", err)
		_, err = k.reconcileRules()
	}
	if err != nil {
		k.assume(after, before)
	}
	return err
}

// wholeRuleset is the table that the whole state asks for. It is kept until the
// state changes: to make it for ten thousand ports takes longer than to apply
// it. k.mu is held.
func (k *Kernel) wholeRuleset() rs.Ruleset {
	if k.whole == nil {
		w := k.rules(k.state)
		if len(k.uplinks.list) > 0 {
			w = rs.Merge(w, nat.Uplinks(k.uplinks.list))
		}
		k.whole = &w
	}
	return *k.whole
}

// How often, and how long apart, a repair is tried that the kernel refuses: the
// other program may be at work still.
const (
	repairTries = 5
	repairPause = 20 * time.Millisecond
)

// Repairs of the rules are made at once, as packets pass where they are missing.
// Who takes them away more often than this within a window waits a little for
// each further repair, so that two programs do not fight for the whole machine.
const (
	ruleRepairsAtOnce = 400
	ruleRepairPause   = 100 * time.Millisecond
)

// contest counts the repairs of the rules within a window.
type contest struct {
	mu    sync.Mutex
	since time.Time
	count int
}

// next counts a repair, and returns how long it is put off, and whether that
// begins now.
func (c *contest) next(now time.Time) (pause time.Duration, begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.since) > repairWindow {
		c.since, c.count = now, 0
	}
	c.count++
	if c.count <= ruleRepairsAtOnce {
		return 0, false
	}
	return ruleRepairPause, c.count == ruleRepairsAtOnce+1
}

// repairRules makes the table whole after a change by somebody else.
func (k *Kernel) repairRules(e kernel.Event) {
	by := fmt.Sprintf("%s (pid %d)", e.Generation.Process, e.Generation.PID)
	if e.Overrun {
		by = "unknown"
	}
	for try := 1; ; try++ {
		unlock := k.mu.Lock("repair rules")
		changed, err := k.reconcileRules()
		unlock()
		if err == nil {
			k.broken.Store(nil)
			if changed != "" {
				k.log.Warn("table was changed by another process, made it whole", "table", layout.Table, "by", by, "changed", changed)
				k.slowDown(by)
			}
			return
		}
		if try == repairTries {
			why := err.Error()
			if k.broken.Swap(&why) == nil {
				k.log.Error("make the table whole, it is tried again", "table", layout.Table, "changed_by", by, "error", why)
			}
			return
		}
		time.Sleep(repairPause)
	}
}

// slowDown puts off the next repair where somebody undoes them all the time.
func (k *Kernel) slowDown(by string) {
	pause, begins := k.contest.next(time.Now())
	if begins {
		k.log.Error("repairs of the table keep being undone, further ones wait", "table", layout.Table, "by", by, "repairs", ruleRepairsAtOnce, "pause", pause)
	}
	if pause > 0 {
		k.watch.pause(pause)
	}
}

// reconcileRules reads the table and brings it to what the state asks for,
// with DOCKER-USER as the user left it. It returns in words what had to change.
// k.mu is held.
func (k *Kernel) reconcileRules() (changed string, err error) {
	have, err := k.nft.Read(kernel.Filter{Table: layout.Table})
	if err != nil {
		return "", err
	}
	want := k.wholeRuleset()
	batch := rs.Diff(k.withoutForeign(have, want), want)
	table := have.Table(rs.FamilyInet, layout.Table)
	lost := flushed(table, mainTable(want))
	if lost {
		err = k.restoreUserRules(batch)
	} else {
		err = k.nft.Apply(batch)
	}
	if err != nil {
		return "", err
	}
	if len(batch) > 0 {
		// Clients knocked in vain meanwhile.
		k.flows.forget(leadsOf(k.state))
	} else {
		k.rememberHandles(have, want)
	}
	if !lost {
		k.copyUserRules(want)
	}
	return summary(table, batch), nil
}

// chainID knows a chain by what a change of its name leaves.
type chainID struct {
	family rs.Family
	handle uint64
}

// rememberHandles notes the handles of our chains: one that is renamed keeps
// its handle.
func (k *Kernel) rememberHandles(have, want rs.Ruleset) {
	k.handles = map[chainID]bool{}
	for _, ours := range want.Tables {
		if t := have.Table(ours.Family, ours.Name); t != nil {
			for _, c := range t.Chains {
				if ours.Chain(c.Name) != nil {
					k.handles[chainID{t.Family, c.Handle}] = true
				}
			}
		}
	}
}

// flushed says whether DOCKER-USER went with the table, or was emptied with all
// other chains: somebody flushed, and did not mean the user's rules. A chain
// emptied alone, or a rule deleted from it, is the user's will.
func flushed(have *rs.Table, want rs.Table) bool {
	if have == nil || have.Chain(layout.UserChain) == nil {
		return true
	}
	for _, c := range want.Chains {
		if h := have.Chain(c.Name); h != nil && len(h.Rules) > 0 {
			return false
		}
	}
	return true
}

// mainTable is the table of both IP families.
func mainTable(r rs.Ruleset) rs.Table { return *r.Table(rs.FamilyInet, layout.Table) }

// withoutForeign leaves out the tables, chains and sets that are not ours, so
// that they stay as they are: a user makes some to use them in DOCKER-USER. What
// is in ours with a hook of its own decides about packets unasked, and a chain of
// ours that somebody renamed is a copy: neither stays.
func (k *Kernel) withoutForeign(have, want rs.Ruleset) rs.Ruleset {
	var out rs.Ruleset
	for _, ours := range want.Tables {
		h := have.Table(ours.Family, ours.Name)
		if h == nil {
			continue
		}
		t := *h
		t.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c rs.Chain) bool {
			return ours.Chain(c.Name) == nil && !nat.OwnsChain(c.Name) && !isolation.OwnsChain(c.Name) &&
				c.Base == nil && !k.handles[chainID{h.Family, c.Handle}] && !isRenamed(c, *h, ours)
		})
		t.Sets = slices.DeleteFunc(slices.Clone(t.Sets), func(s rs.Set) bool { return ours.Set(s.Name) == nil })
		out.Tables = append(out.Tables, t)
	}
	return out
}

// isRenamed reports whether a chain has the rules of one of ours that is missing:
// of a chain that was made since the table was read last, or while no driver ran,
// no handle is known.
func isRenamed(c rs.Chain, have, ours rs.Table) bool {
	return len(c.Rules) > 0 && slices.ContainsFunc(ours.Chains, func(o rs.Chain) bool {
		return have.Chain(o.Name) == nil && slices.EqualFunc(c.Rules, o.Rules, rs.Rule.Equal)
	})
}

func leadsOf(s desired.State) []link.Lead {
	var out []link.Lead
	for _, h := range hostPorts(s) {
		out = append(out, link.Lead{Port: h.port})
	}
	return out
}

// maxNamed bounds how many chains a summary names.
const maxNamed = 8

// summary says in words what a batch changed in the tables: chains that somebody
// added, renamed or deleted by name, the rest by number.
func summary(table *rs.Table, batch rs.Batch) string {
	if len(batch) == 0 {
		return ""
	}
	if table == nil {
		return "the whole table"
	}
	counts := map[string]int{}
	var words []string
	for _, c := range batch {
		what, n := "elements", len(c.Elements)
		switch {
		case c.Rule != nil:
			what, n = "rules", 1
		case c.Chain != nil && c.Verb != rs.Flush && len(words) < maxNamed:
			words = append(words, string(c.Verb)+" chain "+c.Chain.Name)
			continue
		case c.Chain != nil:
			what, n = "chains", 1
		case c.Elements == nil && c.Set == nil:
			words = append(words, fmt.Sprintf("table %s %s was dormant", c.Family, c.Table))
			continue
		case c.Elements == nil:
			what, n = "sets", 1
		}
		counts[string(c.Verb)+" "+what] += n
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s: %d", what, counts[what]))
	}
	return strings.Join(words, ", ")
}
