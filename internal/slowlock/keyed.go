package slowlock

import "sync"

// Keyed is a lock for each key: those who hold different keys do not wait for
// each other. Its zero value is ready for use.
type Keyed struct {
	mu   sync.Mutex
	keys map[string]*keyed
}

// keyed is the lock of a key, with the number of those who hold or want it.
type keyed struct {
	sync.RWMutex
	users int
}

// Lock takes the key alone.
func (k *Keyed) Lock(key string) (unlock func()) {
	l := k.use(key)
	l.Lock()
	return func() {
		l.Unlock()
		k.leave(key, l)
	}
}

// RLock takes the key together with others who do.
func (k *Keyed) RLock(key string) (unlock func()) {
	l := k.use(key)
	l.RLock()
	return func() {
		l.RUnlock()
		k.leave(key, l)
	}
}

func (k *Keyed) use(key string) *keyed {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = map[string]*keyed{}
	}
	l := k.keys[key]
	if l == nil {
		l = &keyed{}
		k.keys[key] = l
	}
	l.users++
	return l
}

func (k *Keyed) leave(key string, l *keyed) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.keys, key)
	}
}
