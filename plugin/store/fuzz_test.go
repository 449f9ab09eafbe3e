package store

import (
	"bytes"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"nftnet/internal/desired"
)

// FuzzOpen opens any bytes: it never panics, and never loses them. They are in
// the file, or in the one put aside.
func FuzzOpen(f *testing.F) {
	small, large := goodFile(f, state()), goodFile(f, many())
	page := os.Getpagesize()
	f.Add([]byte{}, false)
	f.Add([]byte("garbage"), false)
	f.Add(small, false)
	f.Add(small[:6*page], true)
	f.Add(large[:3*page], true)
	for _, header := range []int{0, page} {
		for at := headerLen; at < headerLen+sumAt; at += 8 {
			f.Add(flipped(small[:7*page], header+at), true)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, sealed bool) {
		if sealed {
			text = seal(bytes.Clone(text))
		}
		path := filepath.Join(t.TempDir(), "state.db")
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
		before, err := s.Load()
		if err != nil {
			t.Fatalf("found %s, and cannot be read: %v", s.Origin().Found, err)
		}
		if o := s.Origin(); o.Found == Damaged {
			if kept, err := os.ReadFile(o.Aside); err != nil || !bytes.Equal(kept, text) {
				t.Fatalf("the damaged file was changed: %v", err)
			}
			if len(before.Endpoints)+len(before.Networks)+len(before.Redirects) > 0 {
				t.Fatal("the new file is not empty")
			}
		}
		// What was opened can be written, all of it.
		if err := s.Save(before, desired.New()); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(desired.New(), many()); err != nil {
			t.Fatal(err)
		}
		fileHolds(t, path, many())
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
