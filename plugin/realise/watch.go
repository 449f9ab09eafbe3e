package realise

import (
	"context"
	"errors"
	"nftnet/internal/desired"
	"os"
	"sync"
	"time"

	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/link"
)

// sysctlPause is how often the kernel parameters are compared: of some of them
// the kernel sends no message.
const sysctlPause = 500 * time.Millisecond

// watchTries bounds the errors in a row after which a watch gives up: each call
// still repairs what it meets.
const watchTries = 100

// watch follows what others change: rules, links and addresses by the kernel's
// messages, kernel parameters by looking.
type watch struct {
	rules *kernel.Watch
	links *link.Watch
	ctx   context.Context
	end   context.CancelFunc
	// done counts the goroutines. None begins once ctx has ended, which mu keeps
	// from happening meanwhile.
	mu   sync.Mutex
	done sync.WaitGroup
}

func openWatch() (*watch, error) {
	rules, err := kernel.OpenWatch()
	if err != nil {
		return nil, err
	}
	links, err := link.OpenWatch()
	if err != nil {
		return nil, errors.Join(err, rules.Close())
	}
	w := &watch{rules: rules, links: links}
	w.ctx, w.end = context.WithCancel(context.Background())
	return w, nil
}

func (w *watch) close() error {
	w.mu.Lock()
	w.end()
	w.mu.Unlock()
	err := errors.Join(w.rules.Close(), w.links.Close())
	w.done.Wait()
	return err
}

// start begins to watch; k.mu is not held.
func (w *watch) start(k *Kernel) {
	w.run(func() { w.followRules(k) })
	w.run(func() { w.followLinks(k) })
	w.run(func() { w.followSysctls(k) })
}

// run calls fn in a goroutine, unless the watch is closed.
func (w *watch) run(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil {
		w.done.Go(fn)
	}
}

// pause waits between tries; it reports whether the watch goes on.
func (w *watch) pause(d time.Duration) bool {
	select {
	case <-w.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (w *watch) followRules(k *Kernel) {
	for failures := 0; failures < watchTries; {
		e, err := w.rules.Next()
		if errors.Is(err, kernel.ErrClosed) {
			return
		}
		if err != nil {
			failures++
			k.log.Error("watch the rules", "error", err)
			w.pause(repairPause)
			e = kernel.Event{Overrun: true}
		} else {
			failures = 0
		}
		if e.Port == k.nft.Port() {
			continue
		}
		if e.Touches(rs.FamilyInet, layout.Table) || e.Touches(rs.FamilyBridge, layout.Table) {
			k.repairRules(e)
		}
		if touchesForeign(e) {
			k.openForeign()
		}
	}
}

func (w *watch) followLinks(k *Kernel) {
	for failures := 0; failures < watchTries; {
		c, err := w.links.Next()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			failures++
			k.log.Error("watch the links", "error", err)
			w.pause(repairPause)
			c = link.Change{Overrun: true, Links: true, Addresses: true, Parameters: true, Rules: true}
		} else {
			failures = 0
		}
		k.linksChanged(c)
	}
}

// followSysctls compares the kernel parameters, and tries again what could not
// be repaired when it was met.
func (w *watch) followSysctls(k *Kernel) {
	sysctls := link.NewSysctls(desired.New())
	defer sysctls.Close()
	var of uint64
	for w.pause(sysctlPause) {
		if s, version, changed := k.stateSince(of); changed {
			of = version
			sysctls.Follow(s)
		}
		drifted, err := sysctls.Drifted()
		if err != nil {
			k.log.Debug("compare kernel parameters", "error", err)
		}
		if drifted || k.forwarding.Drifted() || k.repairs.due() {
			k.repairLinks(names(nil))
		}
		if k.broken.Load() != nil {
			k.repairRules(kernel.Event{Overrun: true})
		}
		k.retryPending()
	}
}
