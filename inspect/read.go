package inspect

import (
	"context"

	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

// Source is a ruleset that can be read; [*kernel.Conn] is one.
type Source interface {
	Read(kernel.Filter) (ruleset.Ruleset, error)
}

// Read reads the whole ruleset. It reads all tables even where the reader
// wants to see one: what a verdict means for a packet depends on the chains of
// other tables on the same hook. Where ctx ends first the read goes on without
// us and its result is dropped.
func Read(ctx context.Context, from Source) (ruleset.Ruleset, error) {
	type result struct {
		rs  ruleset.Ruleset
		err error
	}
	done := make(chan result, 1)
	go func() {
		rs, err := from.Read(kernel.Filter{})
		done <- result{rs, err}
	}()
	select {
	case r := <-done:
		return r.rs, r.err
	case <-ctx.Done():
		return ruleset.Ruleset{}, ctx.Err()
	}
}
