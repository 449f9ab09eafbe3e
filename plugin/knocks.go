package plugin

import (
	"log/slog"
	"sync"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

// knocks forgets the clients that knocked at ports before these were published
// or after. To find their conntrack entries the kernel walks its whole table,
// tens of milliseconds: that happens beside the calls, once for all ports that
// have come together meanwhile.
type knocks struct {
	log *slog.Logger

	mu      sync.Mutex
	waiting []desired.Port
	running bool
	done    sync.WaitGroup
}

// forget queues ports.
func (k *knocks) forget(ports []desired.Port) {
	if len(ports) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting = append(k.waiting, ports...)
	if !k.running {
		k.running = true
		k.done.Go(k.run)
	}
}

func (k *knocks) run() {
	for {
		k.mu.Lock()
		ports := k.waiting
		k.waiting = nil
		if len(ports) == 0 {
			k.running = false
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		if err := link.ForgetKnocks(ports); err != nil {
			k.log.Warn("forget earlier knocks at published ports", "error", err)
		}
	}
}

// wait returns when all queued ports are done.
func (k *knocks) wait() { k.done.Wait() }
