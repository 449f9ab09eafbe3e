package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"nftnet/internal/desired"
)

// BenchmarkSave makes one change at a time: an endpoint comes, and goes.
func BenchmarkSave(b *testing.B) {
	s := opened(b, filepath.Join(b.TempDir(), "state.db"))
	save(b, s, desired.New(), state())
	with, without := state().Part("n1", "e1"), state().Part("n1", "")
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			save(b, s, with, without)
		} else {
			save(b, s, without, with)
		}
	}
}

// BenchmarkSave50 makes fifty changes at once.
func BenchmarkSave50(b *testing.B) {
	s := opened(b, filepath.Join(b.TempDir(), "state.db"))
	for i := 0; b.Loop(); i++ {
		var all sync.WaitGroup
		for k := range 50 {
			all.Go(func() {
				before, after := desired.New(), ofEndpoints(endpoint(fmt.Sprint("e", k)))
				if i%2 == 1 {
					before, after = after, before
				}
				if err := s.Save(before, after); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
	}
}

// BenchmarkOpen opens a file with ten thousand endpoints.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.db")
	s := opened(b, path)
	all := desired.New()
	for i := range 10_000 {
		e := endpoint(fmt.Sprintf("%064x", i))
		all.Endpoints[e.ID] = e
	}
	save(b, s, desired.New(), all)
	closed(b, s)
	for b.Loop() {
		s, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		closed(b, s)
	}
}
