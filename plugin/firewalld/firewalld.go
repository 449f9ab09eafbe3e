// Package firewalld keeps bridges in a zone of firewalld that accepts, so that
// firewalld leaves what containers send and get to the driver's own table.
//
// Without that firewalld 1.3 lets published ports through (its chain
// filter_FORWARD accepts what was translated), and rejects what containers send
// to the outside, to the host, and where bridged frames take the IP hooks, to
// each other.
//
// Only the zone and a policy are permanent. The interfaces are put into the
// running configuration, which a reload or a restart of firewalld forgets: they
// are put there again then, and those of deleted networks are not.
//
// The interface is described in firewalld.dbus(5).
package firewalld

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long Set waits, as Docker waits for its caller.
	patience = time.Second
	// retryPause is how soon a thing is tried again that failed.
	retryPause = 10 * time.Second
)

// Zone keeps the wanted bridges in the zone.
type Zone struct {
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	wake   chan struct{}

	mu      sync.Mutex
	want    []string
	waiting []chan struct{}
	// late says that a caller waited in vain: the next ones do not wait.
	late bool

	// failure is the last failure that was logged, so that the same one is not
	// logged at each try.
	failure string
}

// Watch begins to keep the bridges given by Set in the zone, with the firewalld
// that is on the system bus or comes there later.
func Watch(log *slog.Logger) *Zone {
	z := &Zone{log: log, wake: make(chan struct{}, 1)}
	z.ctx, z.cancel = context.WithCancel(context.Background())
	z.done.Go(z.run)
	return z
}

// Close ends the watch. The bridges stay in the zone: the containers go on.
func (z *Zone) Close() {
	z.cancel()
	z.done.Wait()
}

// Set says which bridges are wanted in the zone, and returns when they are
// there, or firewalld refused, or is not running. It does not wait for long:
// what takes longer goes on beside its caller.
func (z *Zone) Set(bridges []string) {
	met := make(chan struct{})
	z.mu.Lock()
	z.want = slices.Clone(bridges)
	z.waiting = append(z.waiting, met)
	late := z.late
	z.mu.Unlock()
	select {
	case z.wake <- struct{}{}:
	default:
	}
	if late {
		return
	}
	select {
	case <-met:
	case <-z.ctx.Done():
	case <-time.After(patience):
		z.mu.Lock()
		z.late = true
		z.mu.Unlock()
		z.log.Warn("firewalld takes long to answer: until it does, it may reject packets of containers on new networks", "waited", patience)
	}
}

// take returns what is wanted, and what to close when that is met.
func (z *Zone) take() ([]string, []chan struct{}) {
	z.mu.Lock()
	defer z.mu.Unlock()
	waiting := z.waiting
	z.waiting = nil
	return z.want, waiting
}

func (z *Zone) meet(waiting []chan struct{}) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.late = false
	for _, met := range waiting {
		close(met)
	}
}

// run connects to the bus whenever there is one.
func (z *Zone) run() {
	f := &firewall{log: z.log}
	for z.ctx.Err() == nil {
		err := f.connect(z.ctx)
		if err == nil {
			z.follow(f)
			f.close()
		} else {
			z.log.Debug("no system bus, so no firewalld", "error", err)
			_, waiting := z.take()
			z.meet(waiting)
		}
		select {
		case <-z.ctx.Done():
		case <-z.wake:
		case <-time.After(retryPause):
		}
	}
}

// follow settles whenever something may have changed, until the bus is lost.
func (z *Zone) follow(f *firewall) {
	for {
		retry := z.settle(f)
		select {
		case <-z.ctx.Done():
			return
		case <-f.lost():
			return
		case <-f.signals:
		case <-z.wake:
		case <-retry:
		}
	}
}

// settle brings the zone to what is wanted. It returns when to try again, nil
// for not at all.
func (z *Zone) settle(f *firewall) <-chan time.Time {
	want, waiting := z.take()
	err := f.settle(z.ctx, want)
	z.meet(waiting)
	if err == nil || z.ctx.Err() != nil {
		z.failure = ""
		return nil
	}
	if text := err.Error(); text != z.failure {
		z.failure = text
		z.log.Warn("firewalld may reject packets of containers: cannot keep their bridges in its zone, trying again",
			"zone", zoneName, "error", err, "every", retryPause)
	}
	return time.After(retryPause)
}
