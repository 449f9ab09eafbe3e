package store

import (
	"bytes"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/desired"
)

// used is the part of a file that is in use.
func used(t testing.TB, text []byte) []byte {
	t.Helper()
	m := newest(t, text)
	return text[:int64(m.end)*m.page]
}

// FuzzOpen opens any bytes: it never panics, and never loses them. They are in
// the file, or in the one put aside.
func FuzzOpen(f *testing.F) {
	small := used(f, goodFile(f, state()))
	page := os.Getpagesize()
	f.Add([]byte{}, false)
	f.Add([]byte("garbage"), false)
	f.Add(small, false)
	f.Add(small[:3*page], true)
	f.Add(used(f, goodFile(f, many())), true)
	for _, header := range []int{0, page} {
		for at := headerLen; at < headerLen+sumAt; at += 8 {
			f.Add(flipped(small, header+at), true)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, sealed bool) {
		if sealed {
			text = seal(bytes.Clone(text))
		}
		// In memory: nothing is slower here than fsync.
		dir, err := os.MkdirTemp("/dev/shm", "nftnet-fuzz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		path := filepath.Join(dir, "state.db")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			if kept, err := os.ReadFile(path); err != nil || !bytes.Equal(kept, text) {
				t.Fatalf("the refused file was changed: %v", err)
			}
			return
		}
		defer func() { _ = s.Close() }()
		before := load(t, s)
		if o := s.Origin(); o.Found == Damaged {
			if kept, err := os.ReadFile(o.Aside); err != nil || !bytes.Equal(kept, text) {
				t.Fatalf("the damaged file was changed: %v", err)
			}
			if len(before.Endpoints)+len(before.Networks)+len(before.Redirects) > 0 {
				t.Fatal("the new file is not empty")
			}
		}
		// What was opened can be changed, all of it.
		save(t, s, before, desired.New())
		save(t, s, desired.New(), state())
		closed(t, s)
		s, err = Open(path)
		if err != nil || s.Origin().Found != Read {
			t.Fatalf("opened again: %+v, %v", s.Origin(), err)
		}
		if diff := cmp.Diff(state(), load(t, s), netipValues); diff != "" {
			t.Fatalf("opened again:\n%s", diff)
		}
		closed(t, s)
	})
}

// seal gives the headers of a file the checksums that they should have, as a
// file must pass that to be looked at further.
func seal(text []byte) []byte {
	for _, at := range []int{headerLen, os.Getpagesize() + headerLen} {
		if at+metaLen > len(text) {
			break
		}
		sum := fnv.New64a()
		_, _ = sum.Write(text[at : at+sumAt])
		order.PutUint64(text[at+sumAt:], sum.Sum64())
	}
	return text
}
