// Package slowlock has a mutex that says who held it for long. A lock of the
// driver guards memory, or a change to the kernel that takes milliseconds: who
// waits for a disk, a peer or another program under it stops every other call.
package slowlock

import (
	"log/slog"
	"sync"
	"time"
)

// limit is how long a lock may be held before the log names its holder.
const limit = 100 * time.Millisecond

// Held is the message of that line, for tests that look for it.
const Held = "lock held too long"

// Mutex is a lock whose holders are named.
type Mutex struct {
	log  *slog.Logger
	name string
	mu   sync.Mutex
}

// New returns a lock with the name that the log calls it.
func New(log *slog.Logger, name string) *Mutex { return &Mutex{log: log, name: name} }

// Lock takes the lock for a holder. The function that it returns gives it back,
// and logs the holder if that took longer than 100 ms.
func (m *Mutex) Lock(holder string) (unlock func()) {
	m.mu.Lock()
	since := time.Now()
	return func() {
		held := time.Since(since)
		m.mu.Unlock()
		if held > limit {
			m.log.Warn(Held, "lock", m.name, "by", holder, "held", held.Round(time.Millisecond))
		}
	}
}
