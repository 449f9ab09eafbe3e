package inspect_test

import (
	"context"
	"errors"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

type source func(kernel.Filter) (ruleset.Ruleset, error)

func (s source) Read(f kernel.Filter) (ruleset.Ruleset, error) { return s(f) }

func TestRead(t *testing.T) {
	broken := errors.New("broken")
	_, err := inspect.Read(t.Context(), source(func(f kernel.Filter) (ruleset.Ruleset, error) {
		if f != (kernel.Filter{}) {
			t.Errorf("reads only %v", f)
		}
		return ruleset.Ruleset{}, broken
	}))
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	defer close(hang)
	_, err = inspect.Read(ctx, source(func(kernel.Filter) (ruleset.Ruleset, error) {
		cancel()
		<-hang
		return ruleset.Ruleset{}, nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
