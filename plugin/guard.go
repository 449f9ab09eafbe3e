package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// keeper is a table that keeps connection tracking and NAT of running
// connections alive while ours is flushed: without any NAT chain and any rule
// that uses conntrack the kernel unhooks both, and translated connections die
// before the table is back. It belongs to a socket of the daemon and goes with it.
func keeper() rs.Ruleset {
	nat := func(name string, h rs.Hook, priority int32) rs.Chain {
		return rs.Chain{Name: name, Base: &rs.Base{Type: "nat", Hook: h, Priority: priority, Policy: rs.Accept}}
	}
	pre := nat(layout.KeeperPre, rs.HookPrerouting, rs.PriorityDstNAT)
	pre.Rules = []rs.Rule{rs.NewRule(rs.Has(rs.Ct{Key: rs.CtState}, rs.HostUint32(rs.TypeCtState, rs.StateEstablished)))}
	return rs.Ruleset{Tables: []rs.Table{{
		Family: rs.FamilyInet, Name: layout.KeeperTable, Flags: []string{"owner"},
		Chains: []rs.Chain{
			pre, nat("in", rs.HookInput, rs.PrioritySrcNAT), nat("out", rs.HookOutput, rs.PriorityDstNAT),
			nat(layout.KeeperPost, rs.HookPostrouting, rs.PrioritySrcNAT),
		},
	}}}
}

// openKeeper makes the keeper table on a connection of its own. On a kernel
// older than 5.12 there is none, and nil is returned.
func openKeeper(log *slog.Logger) (*kernel.Conn, error) {
	conn, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	err = conn.Apply(rs.Diff(rs.Ruleset{}, keeper()))
	if err == nil {
		return conn, nil
	}
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
		log.Warn("this kernel has no tables with an owner (5.12 has): running connections break when somebody flushes the ruleset")
		return nil, conn.Close()
	}
	return nil, errors.Join(fmt.Errorf("make the keeper table: %w", err), conn.Close())
}

// hasBridgeFamily finds out whether the kernel has tables of family bridge
// (CONFIG_NF_TABLES_BRIDGE), which anti-spoofing needs.
func hasBridgeFamily(conn *kernel.Conn, log *slog.Logger) bool {
	probe := rs.Ruleset{Tables: []rs.Table{{Family: rs.FamilyBridge, Name: "nftnet-probe", Chains: []rs.Chain{{
		Name: "probe", Base: &rs.Base{Type: "filter", Hook: rs.HookPrerouting, Policy: rs.Accept},
	}}}}}
	make, remove := rs.Diff(rs.Ruleset{}, probe), rs.Diff(probe, rs.Ruleset{})
	if err := conn.Apply(append(make, remove...)); err != nil {
		log.Warn("this kernel has no nftables of family bridge: containers are not kept from using addresses of others", "error", err)
		return false
	}
	return true
}

// guard watches the table, and makes it whole when somebody else changed it.
type guard struct {
	watch *kernel.Watch
	done  sync.WaitGroup
}

// start begins to watch; d.mu is not held.
func (g *guard) start(d *Driver) {
	g.done.Go(func() {
		for failures := 0; failures < watchTries; {
			e, err := g.watch.Next()
			if errors.Is(err, kernel.ErrClosed) {
				return
			}
			if err != nil {
				failures++
				d.log.Error("watch the table", "error", err)
				time.Sleep(repairPause)
				e = kernel.Event{Overrun: true}
			}
			if e.Port != d.nft.Port() && (e.Touches(rs.FamilyInet, layout.Table) || e.Touches(rs.FamilyBridge, layout.Table)) {
				d.repairAfter(e)
			}
			if e.Port != d.nft.Port() && touchesForeign(e) {
				d.mu.Lock()
				d.openForeign()
				d.mu.Unlock()
			}
		}
	})
}

func (g *guard) stop() error {
	err := g.watch.Close()
	g.done.Wait()
	return err
}

// How often, and how long apart, a repair is tried that the kernel refuses: the
// other program may be at work still.
const (
	repairTries = 5
	repairPause = 20 * time.Millisecond
	// After so many errors there is no watch any more: each call still mends
	// what it meets.
	watchTries = 100
)

// repairAfter makes the table whole after a change by somebody else.
func (d *Driver) repairAfter(e kernel.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	by := fmt.Sprintf("%s (pid %d)", e.Generation.Process, e.Generation.PID)
	if e.Overrun {
		by = "unknown"
	}
	for try := 1; ; try++ {
		missing, err := d.reconcileRules()
		if err == nil {
			if missing != "" {
				d.log.Warn("table was changed by another process, made it whole", "table", layout.Table, "by", by, "changed", missing)
			}
			return
		}
		if try == repairTries {
			d.log.Error("make the table whole", "table", layout.Table, "changed_by", by, "error", err)
			return
		}
		time.Sleep(repairPause)
	}
}

// reconcileRules reads the table and brings it to what the state asks for,
// with DOCKER-USER as the user left it. It returns in words what had to change.
// d.mu is held.
func (d *Driver) reconcileRules() (changed string, err error) {
	have, err := d.nft.Read(kernel.Filter{Table: layout.Table})
	if err != nil {
		return "", err
	}
	want := d.wholeRuleset()
	batch := rs.Diff(withoutForeign(have, want), want)
	table := have.Table(rs.FamilyInet, layout.Table)
	lost := flushed(table, mainTable(want))
	if lost {
		err = d.restoreUserRules(batch)
	} else {
		err = d.nft.Apply(batch)
	}
	if err != nil {
		return "", err
	}
	if len(batch) > 0 {
		// Clients knocked in vain meanwhile.
		d.flows.forget(leadsOf(d.state))
	}
	if !lost {
		d.copyUserRules(want)
	}
	return summary(table, batch), nil
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
// that they stay as they are: a user makes some to use them in DOCKER-USER.
func withoutForeign(have, want rs.Ruleset) rs.Ruleset {
	var out rs.Ruleset
	for _, ours := range want.Tables {
		h := have.Table(ours.Family, ours.Name)
		if h == nil {
			continue
		}
		t := *h
		t.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c rs.Chain) bool {
			return ours.Chain(c.Name) == nil && !nat.OwnsChain(c.Name) && !isolation.OwnsChain(c.Name)
		})
		t.Sets = slices.DeleteFunc(slices.Clone(t.Sets), func(s rs.Set) bool { return ours.Set(s.Name) == nil })
		out.Tables = append(out.Tables, t)
	}
	return out
}

func leadsOf(s desired.State) []link.Lead {
	var out []link.Lead
	for p := range hostPorts(s) {
		out = append(out, link.Lead{Port: p})
	}
	return out
}

// restoreUserRules applies a batch that makes DOCKER-USER anew, together with
// the user's rules as they were copied last.
func (d *Driver) restoreUserRules(batch rs.Batch) error {
	if len(d.userRules.Chains) == 0 {
		return d.nft.Apply(batch)
	}
	err := d.nft.Restore(batch, rs.FamilyInet, layout.Table, d.userRules)
	var refused *kernel.ApplyError
	if !errors.As(err, &refused) {
		return err
	}
	// The containers' network matters more than rules that the kernel does not
	// take back; the copy stays in the state file.
	d.log.Error("rules of the user cannot be restored", "chain", layout.UserChain, "error", err.Error())
	return d.nft.Apply(batch)
}

// copyUserRules keeps what the user has in DOCKER-USER now, in memory and on
// disk.
func (d *Driver) copyUserRules(want rs.Ruleset) {
	ours := mainTable(want)
	own := func(name string) bool { return ours.Chain(name) != nil || ours.Set(name) != nil }
	saved, err := d.nft.Save(rs.FamilyInet, layout.Table, layout.UserChain, own)
	if err != nil {
		d.log.Warn("copy the user's rules", "chain", layout.UserChain, "error", err)
		return
	}
	text, err := json.Marshal(saved)
	if err == nil && bytes.Equal(text, d.userRulesText) {
		return
	}
	if err == nil {
		err = d.store.SaveUserRules(text)
	}
	if err != nil {
		d.log.Warn("keep the user's rules", "chain", layout.UserChain, "error", err)
		return
	}
	d.userRules, d.userRulesText = saved, text
	d.log.Info("kept a copy of the user's rules", "chain", layout.UserChain, "rules", len(saved.Chains[0].Rules))
}

// keepUserRules copies DOCKER-USER as it is at a stop: the guard may not have
// come to the latest change.
func (d *Driver) keepUserRules() {
	d.mu.Lock()
	defer d.mu.Unlock()
	have, err := d.nft.Read(kernel.Filter{Family: rs.FamilyInet, Table: layout.Table})
	want := d.wholeRuleset()
	if err == nil && !flushed(have.Table(rs.FamilyInet, layout.Table), mainTable(want)) {
		d.copyUserRules(want)
	}
}

// loadUserRules reads the copy from the state file.
func (d *Driver) loadUserRules() error {
	text, err := d.store.UserRules()
	if err != nil || text == nil {
		return err
	}
	if err := json.Unmarshal(text, &d.userRules); err != nil {
		return fmt.Errorf("read the copy of the user's rules: %w", err)
	}
	d.userRulesText = text
	return nil
}

// summary says in words what a batch changed in a table.
func summary(table *rs.Table, batch rs.Batch) string {
	if len(batch) == 0 {
		return ""
	}
	if table == nil {
		return "the whole table"
	}
	counts := map[string]int{}
	for _, c := range batch {
		what, n := "elements", len(c.Elements)
		switch {
		case c.Rule != nil:
			what, n = "rules", 1
		case c.Chain != nil:
			what, n = "chains", 1
		case c.Elements == nil:
			what, n = "sets", 1
		}
		counts[string(c.Verb)+" "+what] += n
	}
	var words []string
	for what, n := range counts {
		words = append(words, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
