package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
)

// together calls fn n times at once while the disk is busy, and returns the
// results once all have queued and were written.
func together(t *testing.T, s *Store, n int, fn func(i int) error) []error {
	t.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	s.disk.Lock()
	for i := range n {
		all.Go(func() { errs[i] = fn(i) })
	}
	for deadline := time.Now().Add(time.Minute); waiting(s) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d calls wait for the disk", waiting(s), n)
		}
	}
	s.disk.Unlock()
	all.Wait()
	return errs
}

// waiting is the number of calls that wait for the disk.
func waiting(s *Store) int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.waiting)
}

func txid(t testing.TB, s *Store) uint64 {
	t.Helper()
	c, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	return c.txid
}

// TestSavesShareTransaction asserts that calls that wait for the disk are one
// transaction: two fsyncs for all of them.
func TestSavesShareTransaction(t *testing.T) {
	s := opened(t, filepath.Join(t.TempDir(), "state.db"))
	save(t, s, desired.New(), state())
	before := txid(t, s)
	want := state()
	errs := together(t, s, 50, func(i int) error {
		e := endpoint(fmt.Sprint("e", i))
		switch i {
		case 1:
			s.Owe(ofEndpoints(e), desired.New())
			return nil
		case 2:
			return s.SaveUserRules([]byte("accept"))
		}
		return s.Save(desired.New(), ofEndpoints(e))
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		want.Endpoints[fmt.Sprint("e", i)] = endpoint(fmt.Sprint("e", i))
	}
	delete(want.Endpoints, "e1")
	delete(want.Endpoints, "e2")
	if n := txid(t, s) - before; n != 1 {
		t.Errorf("50 calls made %d transactions", n)
	}
	holds(t, s, want)
}

// TestRefusedAlone asserts that a change that does not fit does not take along
// those that share its transaction.
func TestRefusedAlone(t *testing.T) {
	dir := mountTmpfs(t, 1<<20)
	s := opened(t, filepath.Join(dir, "state.db"))
	want := state()
	save(t, s, desired.New(), want)
	fill(t, dir)
	// Of what the file had in store some is left for small ones.
	errs := together(t, s, 12, func(i int) error {
		e := endpoint(fmt.Sprint("small", i))
		if i == 5 {
			e = large("large", 3000)
		}
		return s.Save(desired.New(), ofEndpoints(e))
	})
	for i, err := range errs {
		if i == 5 {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the large one: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("small one %d: %v", i, err)
		}
		want.Endpoints[fmt.Sprint("small", i)] = endpoint(fmt.Sprint("small", i))
	}
	holds(t, s, want)
	closed(t, s)
}

// TestOwedInOrder asserts that what is owed and what is saved of one entry is
// written in the order of the calls, whatever waits together.
func TestOwedInOrder(t *testing.T) {
	e1, newer := ofEndpoints(endpoint("e1")), ofEndpoints(large("e1", 3))
	for name, c := range map[string]struct {
		first, then func(*Store)
		want        desired.State
	}{
		"removal after save": {
			func(s *Store) { _ = s.Save(e1, newer) },
			func(s *Store) { s.Owe(newer, desired.New()) },
			desired.New(),
		},
		"save after removal": {
			func(s *Store) { s.Owe(e1, desired.New()) },
			func(s *Store) { _ = s.Save(desired.New(), newer) },
			newer,
		},
		"removal after removal": {
			func(s *Store) { s.Owe(e1, newer) },
			func(s *Store) { s.Owe(newer, desired.New()) },
			desired.New(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := opened(t, filepath.Join(t.TempDir(), "state.db"))
			save(t, s, desired.New(), e1)
			together(t, s, 2, func(i int) error {
				if i == 0 {
					c.first(s)
					return nil
				}
				// Queue behind the first; together bounds the wait.
				for waiting(s) == 0 {
					time.Sleep(time.Millisecond)
				}
				c.then(s)
				return nil
			})
			if s.Owed() != 0 {
				t.Errorf("%d owed", s.Owed())
			}
			holds(t, s, c.want)
		})
	}
}

// TestOwedMeanwhile asserts that what is owed while an older value is written
// is not taken for it.
func TestOwedMeanwhile(t *testing.T) {
	q := queue{debts: map[place]debt{}}
	one := place{bucketEndpoints, "e1"}
	q.add(&unit{changes: []change{{one, []byte("{}")}}})
	_, units := q.take()
	q.add(&unit{owed: true, changes: []change{{place: one}}})
	q.settle(units, nil)
	if len(q.debts) != 1 {
		t.Error("what is owed is forgotten")
	}
}

// TestAllAtOnce calls everything from many goroutines while the disk is now
// full, now not; in the end the file holds what each was told.
func TestAllAtOnce(t *testing.T) {
	dir := mountTmpfs(t, 1<<20)
	s := opened(t, filepath.Join(dir, "state.db"))
	const workers, rounds = 16, 40
	results := make([]desired.State, workers)
	var writers, others sync.WaitGroup
	for w := range workers {
		writers.Go(func() {
			mine := desired.New()
			for i := range rounds {
				e := large(fmt.Sprintf("w%d-%d", w, i%3), i%60)
				old, had := mine.Endpoints[e.ID]
				before := desired.New()
				if had {
					before = ofEndpoints(old)
				}
				switch i % 4 {
				case 3:
					s.Owe(before, desired.New())
					delete(mine.Endpoints, e.ID)
				default:
					if err := s.Save(before, ofEndpoints(e)); err == nil {
						mine.Endpoints[e.ID] = e
					} else if !errors.Is(err, syscall.ENOSPC) {
						t.Error(err)
					}
				}
			}
			results[w] = mine
		})
	}
	stop := make(chan struct{})
	others.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			path := filepath.Join(dir, "fill")
			// What fits of it takes the rest of the disk.
			_ = os.WriteFile(path, make([]byte, 1<<20), 0o600)
			_ = s.Settle()
			if _, err := s.Load(); err != nil {
				t.Error(err)
			}
			if err := s.SaveUserRules(fmt.Append(nil, n)); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			_, _ = s.Owed(), s.OwedError()
			_ = os.Remove(path)
		}
	})
	writers.Wait()
	close(stop)
	others.Wait()
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	want := desired.New()
	for _, r := range results {
		for id, e := range r.Endpoints {
			want.Endpoints[id] = e
		}
	}
	if diff := cmp.Diff(want, load(t, s), netipValues); diff != "" {
		t.Errorf("the store holds something else:\n%s", diff)
	}
	holds(t, s, want)
	closed(t, s)
}
