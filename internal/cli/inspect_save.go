package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nftnet/internal/kernel"
)

// saveSnapshot writes the live ruleset to a file, whole or not at all.
func saveSnapshot(path string) error {
	conn, err := kernel.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	s, err := conn.Snapshot()
	if err != nil {
		return needsRoot(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save the ruleset: %w", err)
	}
	err = errors.Join(s.Write(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save the ruleset: %w", err), os.Remove(f.Name()))
	}
	return nil
}
