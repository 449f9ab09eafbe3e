package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"nftnet/inspect"
	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

// liveSource names the running kernel's ruleset among sources.
const liveSource = "live"

// source is where a ruleset comes from.
type source interface {
	inspect.Source
	io.Closer
}

// openSource opens what the user names: "live" for the running kernel, else a
// file: one that "nftnet inspect --save" wrote, or one in nft's text or JSON.
func openSource(spec string) (source, error) {
	if spec == liveSource {
		conn, err := kernel.Open()
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	if spec == "-" {
		return nftFile(spec), nil
	}
	f, err := os.Open(spec)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, len(kernel.SnapshotHead))
	if n, _ := io.ReadFull(f, head); string(head[:n]) != kernel.SnapshotHead {
		return nftFile(spec), nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	s, err := kernel.ReadSnapshot(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec, err)
	}
	return savedSource{s}, nil
}

// savedSource is a snapshot in a file, which needs no closing.
type savedSource struct{ kernel.Snapshot }

func (savedSource) Close() error { return nil }

// nftFile is a file that the nft program reads for us.
type nftFile string

// Read implements source; the whole file is read, whatever the filter.
func (f nftFile) Read(kernel.Filter) (ruleset.Ruleset, error) {
	return readFile(context.Background(), string(f))
}

func (nftFile) Close() error { return nil }

// readSource reads the ruleset of a source.
func readSource(ctx context.Context, spec string) (ruleset.Ruleset, error) {
	s, err := openSource(spec)
	if err != nil {
		return ruleset.Ruleset{}, err
	}
	defer s.Close()
	rs, err := inspect.Read(ctx, s)
	if spec != liveSource {
		return rs, err
	}
	return rs, needsRoot(err)
}

// needsRoot says what it takes where the kernel refused to tell.
func needsRoot(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("reading the ruleset needs root, or CAP_NET_ADMIN: %w", err)
	}
	return err
}

// readRuleset reads the running kernel's ruleset.
func readRuleset(ctx context.Context) (ruleset.Ruleset, error) { return readSource(ctx, liveSource) }
