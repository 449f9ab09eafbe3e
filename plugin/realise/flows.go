package realise

import (
	"log/slog"
	"sync"

	"nftnet/plugin/link"
)

// flows forgets the flows of clients that go elsewhere than their port leads
// now. To find their conntrack entries the kernel walks its whole table, tens
// of milliseconds: that happens beside the calls, once for all ports that have
// come together meanwhile.
type flows struct {
	log *slog.Logger

	mu      sync.Mutex
	waiting []link.Lead
	running bool
	done    sync.WaitGroup
}

// forget queues ports.
func (f *flows) forget(leads []link.Lead) {
	if len(leads) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, leads...)
	if !f.running {
		f.running = true
		f.done.Go(f.run)
	}
}

func (f *flows) run() {
	for {
		f.mu.Lock()
		leads := f.waiting
		f.waiting = nil
		if len(leads) == 0 {
			f.running = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		if err := link.ForgetFlows(leads); err != nil {
			f.log.Warn("forget earlier flows to published ports", "error", err)
		}
	}
}

// wait returns when all queued ports are done.
func (f *flows) wait() { f.done.Wait() }
