package realise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// userCopy is the copy of what the user has in DOCKER-USER. It is written to the
// disk beside the repairs, which do not wait for it.
type userCopy struct {
	store UserRules
	log   *slog.Logger

	// saved and text are the copy, and the same as it is written; Kernel.mu
	// protects them.
	saved kernel.Saved
	text  []byte

	// mu protects what the writing goroutine has to do.
	mu      sync.Mutex
	unsaved []byte
	// rules is how many rules DOCKER-USER has in it.
	rules int
	// refused says that the disk did not take the latest copy.
	refused bool
	running bool
	done    sync.WaitGroup
}

// load reads the copy from the disk.
func (u *userCopy) load() error {
	text, err := u.store.UserRules()
	if err != nil || text == nil {
		return err
	}
	if err := json.Unmarshal(text, &u.saved); err != nil {
		return fmt.Errorf("read the copy of the user's rules: %w", err)
	}
	u.text = text
	return nil
}

// keep replaces the copy.
func (u *userCopy) keep(saved kernel.Saved) error {
	text, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if bytes.Equal(text, u.text) && !u.refused {
		return nil
	}
	u.saved, u.text = saved, text
	u.unsaved, u.rules, u.refused = text, len(saved.Chains[0].Rules), false
	if !u.running {
		u.running = true
		u.done.Go(u.write)
	}
	return nil
}

// write writes the latest copy, until there is no later one. What the disk
// refuses is written with the next copy.
func (u *userCopy) write() {
	for {
		u.mu.Lock()
		text, rules := u.unsaved, u.rules
		u.unsaved = nil
		if text == nil {
			u.running = false
			u.mu.Unlock()
			return
		}
		u.mu.Unlock()
		if err := u.store.SaveUserRules(text); err != nil {
			u.log.Warn("keep the user's rules", "chain", layout.UserChain, "error", err)
			u.mu.Lock()
			u.refused = true
			u.mu.Unlock()
			continue
		}
		u.log.Info("kept a copy of the user's rules", "chain", layout.UserChain, "rules", rules)
	}
}

// wait returns when the copy is on the disk, or was refused.
func (u *userCopy) wait() { u.done.Wait() }

// restoreUserRules applies a batch that makes DOCKER-USER anew, together with
// the user's rules as they were copied last; k.mu is held.
func (k *Kernel) restoreUserRules(batch rs.Batch) error {
	if len(k.user.saved.Chains) == 0 {
		return k.nft.Apply(batch)
	}
	err := k.nft.Restore(batch, rs.FamilyInet, layout.Table, k.user.saved)
	var refused *kernel.ApplyError
	if !errors.As(err, &refused) {
		return err
	}
	// The containers' network matters more than rules that the kernel does not
	// take back; the copy stays in the state file.
	k.log.Error("rules of the user cannot be restored", "chain", layout.UserChain, "error", err.Error())
	return k.nft.Apply(batch)
}

// copyUserRules keeps what the user has in DOCKER-USER now; k.mu is held.
func (k *Kernel) copyUserRules(want rs.Ruleset) {
	ours := mainTable(want)
	own := func(name string) bool { return ours.Chain(name) != nil || ours.Set(name) != nil }
	saved, err := k.nft.Save(rs.FamilyInet, layout.Table, layout.UserChain, own)
	if err == nil {
		err = k.user.keep(saved)
	}
	if err != nil {
		k.log.Warn("copy the user's rules", "chain", layout.UserChain, "error", err)
	}
}

// keepUserRules copies DOCKER-USER as it is at a stop: the watch may not have
// come to the latest change.
func (k *Kernel) keepUserRules() {
	defer k.mu.Lock("copy the user's rules")()
	have, err := k.nft.Read(kernel.Filter{Family: rs.FamilyInet, Table: layout.Table})
	want := k.wholeRuleset()
	if err == nil && !flushed(have.Table(rs.FamilyInet, layout.Table), mainTable(want)) {
		k.copyUserRules(want)
	}
}
