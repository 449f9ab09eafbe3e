package kernel_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	rs "nftnet/internal/ruleset"
)

// TestOpenNamespace reads a namespace by its file, and leaves the caller where
// it is.
func TestOpenNamespace(t *testing.T) {
	ns := nstest.NewNS(t, "inside")
	ns.Exec(t, "nft", "add table inet only-inside")
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := kernel.OpenNamespace(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := conn.Read(kernel.Filter{})
	if err != nil || len(got.Tables) != 1 || got.Table(rs.FamilyInet, "only-inside") == nil {
		t.Errorf("read %v, %v", got, err)
	}
	if after, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || after != before {
		t.Errorf("the caller is in %s, was in %s (%v)", after, before, err)
	}
	pid := os.Getpid()
	for path, want := range map[string]string{
		fmt.Sprintf("/proc/%d/ns/mnt", pid): "is no network namespace",
		"/proc/version":                     "is no network namespace",
		"/nonexistent":                      "no such file",
	} {
		if _, err := kernel.OpenNamespace(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
	if _, err := kernel.OpenNamespace("/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file that is not there: %v", err)
	}
}
