package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"nftnet/inspect/view"
	"nftnet/internal/kernel"
)

// streamNFT writes the live ruleset in nft's words, without keeping it.
func streamNFT(ctx context.Context, options view.Options, out io.Writer) error {
	conn, err := kernel.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	s := view.NewStream(options)
	done := make(chan error, 1)
	go func() { done <- conn.Visit(kernel.Filter{}, s) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case err != nil:
		return needsRoot(err)
	case options.Table != "" && !s.Found:
		return fmt.Errorf("there is no table %q: the ruleset has %s", options.Table, strings.Join(s.Tables, ", "))
	}
	_, err = s.WriteTo(out)
	return err
}
