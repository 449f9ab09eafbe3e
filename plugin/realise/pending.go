package realise

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"nftnet/internal/desired"
)

// pending is what could not be done when it was asked for, and is tried again.
type pending struct {
	mu sync.Mutex
	// removals are states of parts whose links are to go.
	removals []removal
	// ports are published, and their sockets could not be had.
	ports map[string]unheldPort
}

type removal struct{ before, after desired.State }

type unheldPort struct {
	hostPort
	err error
}

func (p *pending) add(before, after desired.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removals = append(p.removals, removal{before, after})
}

func (p *pending) unheld(h hostPort, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports == nil {
		p.ports = map[string]unheldPort{}
	}
	p.ports[h.port.Key()] = unheldPort{h, err}
}

// take returns what is to be tried: the removals are the caller's then, the ports
// stay listed until [pending.done].
func (p *pending) take() ([]removal, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	removals := p.removals
	p.removals = nil
	return removals, slices.Sorted(maps.Keys(p.ports))
}

func (p *pending) done(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ports, key)
}

func (p *pending) problems() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Problem
	for key, u := range p.ports {
		out = append(out, Problem{
			Code: ProblemPort, Object: key, Text: fmt.Sprintf("host port %s is published, and nftnet does not hold it: %v", key, u.err),
			Fix: "end the program that has the port",
		})
	}
	for range p.removals {
		out = append(out, Problem{Code: ProblemLeftover, Text: "links of a removed container or network could not be deleted yet"})
	}
	return out
}

// retryPending tries again what could not be done.
func (k *Kernel) retryPending() {
	removals, ports := k.pending.take()
	for _, r := range removals {
		k.retryRemoval(r)
	}
	if len(ports) == 0 {
		return
	}
	wanted := hostPorts(k.snapshot())
	for _, key := range ports {
		// It may lead elsewhere by now.
		w, ok := wanted[key]
		if !ok {
			k.pending.done(key)
			continue
		}
		if err := k.ports.Hold(w.port, w.owner); err != nil {
			k.pending.unheld(w, err)
			continue
		}
		k.serveAsWanted(key, w)
		k.pending.done(key)
	}
}

// serveAsWanted serves a port that was just held, or gives it back where the
// state does not publish it any more: then nobody else will.
func (k *Kernel) serveAsWanted(key string, held hostPort) {
	k.settling.Lock()
	defer k.settling.Unlock()
	now, ok := hostPorts(k.snapshot())[key]
	if !ok || now.owner != held.owner {
		k.ports.Release(held.port, held.owner)
		return
	}
	k.log.Info("holds a port that was taken", "port", key)
	k.ports.Serve(now.port, now.clients)
}

// retryRemoval removes links again, but for what was made anew meanwhile.
func (k *Kernel) retryRemoval(r removal) {
	defer k.shareNetworks(r.before, r.after)()
	now := k.snapshot()
	for id := range r.before.Networks {
		if _, back := now.Networks[id]; back {
			r.after.Networks[id] = r.before.Networks[id]
		}
	}
	for id, e := range r.before.Endpoints {
		if now.Endpoints[id].HostLink != "" {
			r.after.Endpoints[id] = e
		}
	}
	if err := k.removeLinks(r.before, r.after); err != nil {
		k.pending.add(r.before, r.after)
	}
}
