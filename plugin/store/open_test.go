package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

// many is a state whose endpoints need several pages and a branch above them.
func many() desired.State {
	s := state()
	for i := range 60 {
		id := fmt.Sprintf("%064x", i)
		s.Endpoints[id] = endpoint(id)
	}
	s.Endpoints["large"] = large("large", 200)
	return s
}

// goodFile is the bytes of a file that holds a state.
func goodFile(t testing.TB, want desired.State) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s := opened(t, path)
	// In several transactions, so that there are old pages too.
	first := desired.New()
	for id, e := range want.Endpoints {
		e.Sandbox = "old"
		first.Endpoints[id] = e
	}
	save(t, s, desired.New(), first)
	save(t, s, first, want)
	closed(t, s)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// openDamaged opens a file with the bytes given, which were those of a file
// with the state want, and asserts that nothing is lost in silence: either all
// of it is there, or the bytes are put aside.
func openDamaged(t testing.TB, name string, text []byte, want desired.State) Origin {
	t.Helper()
	s := openBytes(t, text)
	defer func() { _ = s.Close() }()
	o := s.Origin()
	switch o.Found {
	case Read:
		if diff := cmp.Diff(want, load(t, s), netipValues); diff != "" && o.Why == "" {
			t.Errorf("%s: the file is opened with a loss:\n%s", name, diff)
		}
	case Damaged:
		if kept, err := os.ReadFile(o.Aside); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s: %s is not the damaged file: %v", name, o.Aside, err)
		}
		if o.Why == "" {
			t.Errorf("%s: nothing says why", name)
		}
		if diff := cmp.Diff(desired.New(), load(t, s), netipValues); diff != "" {
			t.Errorf("%s: the new file is not empty:\n%s", name, diff)
		}
		save(t, s, desired.New(), want)
	default:
		t.Errorf("%s: origin %+v", name, o)
	}
	return o
}

// salvaged asserts that what was salvaged is a part of want, but for some
// entries that are wrong.
func salvaged(t testing.TB, name string, o Origin, want desired.State, wrong int) {
	t.Helper()
	for id, e := range o.Salvaged.Endpoints {
		if e.Sandbox == "" && !reflect.DeepEqual(e, want.Endpoints[id]) {
			if wrong--; wrong < 0 {
				t.Errorf("%s: endpoint %s is salvaged as %+v", name, id, e)
			}
		}
	}
}

func TestDamagedFile(t *testing.T) {
	want := many()
	whole := goodFile(t, want)
	page := os.Getpagesize()
	overwritten := func(from, n int) []byte {
		b := bytes.Clone(whole)
		copy(b[from:from+n], bytes.Repeat([]byte{0xa5}, n))
		return b
	}
	random := make([]byte, 65536)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for name, c := range map[string]struct {
		text []byte
		why  string
		all  bool // is salvaged
	}{
		"empty":         {nil, "it is empty", false},
		"text":          {[]byte(strings.Repeat("no database\n", 1000)), "neither of its headers is valid", false},
		"zeros":         {make([]byte, len(whole)), "neither of its headers is valid", false},
		"random":        {random, "neither of its headers is valid", false},
		"short":         {whole[:100], "cut off", false},
		"truncated":     {whole[:3*page], "cut off", false},
		"pages garbled": {overwritten(2*page, len(whole)-2*page), "page", false},
		"entry garbled": {bytes.ReplaceAll(whole, []byte(`{"id"`), []byte(`{"xd`)), "page", false},
		"entry no JSON": {bytes.ReplaceAll(whole, []byte(`"network_id":`), []byte(`"network_id" `)), "invalid character", false},
		// An address of one digit less is a good address.
		"digit changed":    {bytes.ReplaceAll(whole, []byte(`10.1.0.2:80`), []byte(`10.1.0.3:80`)), "checksum", false},
		"key changed":      {bytes.ReplaceAll(whole, []byte("web{"), []byte("wed{")), `it calls itself "web"`, false},
		"version garbled":  {bytes.ReplaceAll(whole, []byte("version1"), []byte("version\xff")), `it has version "\xff"`, true},
		"bucket renamed":   {bytes.ReplaceAll(whole, []byte("networks"), []byte("networkz")), "it has no bucket networks", false},
		"metas garbled":    {overwritten(0, 2*page), "neither of its headers is valid", false},
		"checksums broken": {flipped(flipped(whole, headerLen+sumAt), page+headerLen+sumAt), "neither of its headers is valid", true},
		"nothing written":  {emptyBolt(t), "nothing was ever written", false},
		"other page size":  {seal(flipped(whole, page+headerLen+8)), "its headers contradict each other", false},
		"page in a circle": {edited(t, whole, isBranch, circle), "is used twice", false},
		"used page free": {edited(t, whole, isFreelist, func(p []byte) {
			order.PutUint64(p[headerLen:], newest(t, whole).root)
		}), "is listed as free and is not", true},
		"free page twice": {edited(t, whole, isFreelist, func(p []byte) {
			copy(p[headerLen+8:headerLen+16], p[headerLen:])
		}), "is listed as free and is not", true},
		"keys out of order": {edited(t, whole, isBranch, func(p []byte) {
			first, second := p[headerLen:headerLen+elementLen], p[headerLen+elementLen:headerLen+2*elementLen]
			child := bytes.Clone(first[8:])
			copy(first[8:], second[8:])
			copy(second[8:], child)
		}), "is damaged", false},
	} {
		t.Run(name, func(t *testing.T) {
			o := openDamaged(t, name, c.text, want)
			if o.Found != Damaged || !strings.Contains(o.Why, c.why) {
				t.Errorf("found %s, because %q, want %q", o.Found, o.Why, c.why)
			}
			if diff := cmp.Diff(want, o.Salvaged, netipValues); c.all && diff != "" {
				t.Errorf("salvaged:\n%s", diff)
			}
		})
	}
}

// newest is the header that counts in a file.
func newest(t testing.TB, text []byte) meta {
	t.Helper()
	metas, err := readMetas(bytes.NewReader(text), int64(len(text)))
	if err != nil || len(metas) == 0 {
		t.Fatal(metas, err)
	}
	return metas[0]
}

// edited is a file with a page changed: the list of free pages, or the branch of
// the endpoints.
func edited(t *testing.T, text []byte, flags uint16, edit func(page []byte)) []byte {
	t.Helper()
	m := newest(t, text)
	tr := &tree{file: bytes.NewReader(text), size: int64(len(text)), meta: m, seen: map[uint64]bool{}}
	id := m.freelist
	if flags == isBranch {
		tr.walk(m.root, 0, &floor{}, func(e element) {
			if string(e.key) == bucketEndpoints {
				id = order.Uint64(e.value)
			}
		})
	}
	b := bytes.Clone(text)
	p := b[int64(id)*m.page:][:m.page]
	if got := order.Uint16(p[8:]); got != flags {
		t.Fatalf("page %d has flags %#x, want %#x", id, got, flags)
	}
	edit(p)
	return b
}

// circle lets a branch lead to nothing but itself.
func circle(p []byte) {
	for i := range int(order.Uint16(p[10:])) {
		copy(p[headerLen+i*elementLen+8:][:8], p[:8])
	}
}

func flipped(text []byte, at int) []byte {
	b := bytes.Clone(text)
	b[at] ^= 0x10
	return b
}

// emptyBolt is a file of bbolt that has no bucket.
func emptyBolt(t *testing.T) []byte { return boltFile(t, func(*bbolt.Tx) error { return nil }) }

func boltFile(t *testing.T, fn func(*bbolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bolt.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestFileCutOff cuts a file at every page and at odd places.
func TestFileCutOff(t *testing.T) {
	want := many()
	whole := goodFile(t, want)
	cuts := []int{0, 1, 79, 80, 100, 4095, 4097, 8191, 8193}
	for at := 4096; at < len(whole); at += 4096 {
		cuts = append(cuts, at, at+1234)
	}
	read := 0
	for _, at := range cuts {
		name := fmt.Sprintf("cut at %d of %d", at, len(whole))
		o := openDamaged(t, name, whole[:min(at, len(whole))], want)
		salvaged(t, name, o, want, 0)
		if o.Found == Read {
			read++
		}
	}
	if read == 0 || read == len(cuts) {
		t.Errorf("%d of %d cuts left a good file: some must, at the reserve, and some must not", read, len(cuts))
	}
}

// TestFlippedBytes flips one bit at a time, in all parts of the file.
func TestFlippedBytes(t *testing.T) {
	want := many()
	whole := goodFile(t, want)
	random := rand.New(rand.NewPCG(1, 2))
	var places []int
	for _, header := range []int{0, os.Getpagesize()} {
		for at := range headerLen + metaLen {
			places = append(places, header+at)
		}
	}
	for range 200 {
		places = append(places, random.IntN(len(whole)))
	}
	found := map[Found]int{}
	for _, at := range places {
		name := fmt.Sprintf("byte %d flipped", at)
		o := openDamaged(t, name, flipped(whole, at), want)
		salvaged(t, name, o, want, 1)
		found[o.Found]++
	}
	t.Logf("%d places: %v", len(places), found)
	if found[Read] == 0 || found[Damaged] == 0 {
		t.Errorf("found %v", found)
	}
}

// TestOldHeader is told: the last change may be missing.
func TestOldHeader(t *testing.T) {
	whole := goodFile(t, many())
	for i := range 2 {
		o := openBytes(t, flipped(whole, i*os.Getpagesize()+headerLen+sumAt)).Origin()
		if o.Found != Read || !strings.Contains(o.Why, "the last change may be missing") {
			t.Errorf("header %d: %+v", i, o)
		}
	}
}

// TestDamagedFileStaysBeside asserts what a user finds in the folder.
func TestDamagedFileStaysBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	foreign := []string{"state.db.damaged-by-me", "state.db.damaged-20200101T000000x", "other.db.damaged-20200101T000000"}
	for _, name := range foreign {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One that is ours by its name, and a folder that has such a name.
	if err := os.WriteFile(filepath.Join(dir, "state.db.damaged-20200101T000001"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state.db.damaged-20200101T000002"), 0o700); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for i := range 8 {
		text := fmt.Sprintf("garbage %d", i)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		s := opened(t, path)
		aside := s.Origin().Aside
		closed(t, s)
		if info, err := os.Stat(aside); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if got, err := os.ReadFile(aside); err != nil || string(got) != text {
			t.Errorf("%s holds %q, %v", aside, got, err)
		}
		if _, err := time.Parse("state.db.damaged-20060102T150405", filepath.Base(aside)[:32]); err != nil {
			t.Error(err)
		}
		kept = append(kept, filepath.Base(aside))
	}
	want := append(kept[len(kept)-keepDamaged:], append(foreign, "state.db", "state.db.damaged-20200101T000002")...)
	slices.Sort(want)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("in the folder:\n%s", diff)
	}
}

// TestMoveAside never replaces anything, whatever has the name already.
func TestMoveAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	now := time.Date(2026, 11, 27, 17, 1, 2, 0, time.FixedZone("east", 3600))
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := path + ".damaged-20261127T160102"
	if err := os.Symlink("mine", link); err != nil {
		t.Fatal(err)
	}
	got, err := moveAside(path, now)
	if err != nil || got != link+"-2" {
		t.Errorf("moved to %s, %v", got, err)
	}
	if to, err := os.Readlink(link); err != nil || to != "mine" {
		t.Errorf("the link leads to %s, %v", to, err)
	}
}

// TestRefusedFile is an error, and the file stays as it is.
func TestRefusedFile(t *testing.T) {
	whole := goodFile(t, state())
	later := bytes.ReplaceAll(whole, []byte("version1"), []byte("version2"))
	for name, c := range map[string]struct {
		make func(t *testing.T, path string) error
		want string
	}{
		"later version": {
			func(_ *testing.T, path string) error { return os.WriteFile(path, later, 0o600) },
			"it has version 2, this nftnet reads version 1",
		},
		"later version, damaged": {
			func(_ *testing.T, path string) error {
				return os.WriteFile(path, bytes.ReplaceAll(later, []byte(`"id":`), []byte(`"xx":`)), 0o600)
			},
			"it has version 2, this nftnet reads version 1",
		},
		"another program": {
			func(t *testing.T, path string) error {
				return os.WriteFile(path, boltFile(t, func(tx *bbolt.Tx) error {
					_, err := tx.CreateBucket([]byte("libnetwork"))
					return err
				}), 0o600)
			},
			"another program made it",
		},
		"folder": {
			func(_ *testing.T, path string) error { return os.Mkdir(path, 0o700) },
			"it is a folder",
		},
		"pipe": {
			func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o600) },
			"it is not a regular file",
		},
		"links in a circle": {
			func(_ *testing.T, path string) error { return os.Symlink(path, path) },
			"too many levels of symbolic links",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			if err := c.make(t, path); err != nil {
				t.Fatal(err)
			}
			before := listing(t, filepath.Dir(path))
			_, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if diff := cmp.Diff(before, listing(t, filepath.Dir(path))); diff != "" {
				t.Errorf("the folder has changed:\n%s", diff)
			}
		})
	}
}

// listing is what a folder holds, with the contents of its files.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		text := []byte(e.Type().String())
		if e.Type().IsRegular() {
			if text, err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		out[e.Name()] = string(text)
	}
	return out
}

// TestReadOnly is an error, no damage, for a good file, a damaged one and none.
func TestReadOnly(t *testing.T) {
	for name, text := range map[string][]byte{"good": goodFile(t, state()), "damaged": []byte("garbage"), "missing": nil} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, 1<<20)
			path := filepath.Join(dir, "state.db")
			if text != nil {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			_, err := Open(path)
			if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "make the file system of "+dir+" writable") {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
				t.Errorf("the folder has changed:\n%s", diff)
			}
		})
	}
}

// openAs opens a file with the rights of another user.
func openAs(uid int, path string) error {
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, as it is never unlocked.
		runtime.LockOSThread()
		err := unix.Setfsuid(uid)
		if err == nil {
			_, err = Open(path)
		}
		done <- err
	}()
	return <-done
}

// TestNoPermission is an error, no damage.
func TestNoPermission(t *testing.T) {
	nstest.RequireRoot(t)
	// The folders of t.TempDir are closed to others.
	dir, err := os.MkdirTemp("", "nftnet-store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"good": goodFile(t, state()), "damaged": []byte("garbage"), "missing": nil} {
		path := filepath.Join(dir, name)
		if text != nil {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := listing(t, dir)
	for _, name := range []string{"good", "damaged", "missing"} {
		path := filepath.Join(dir, name)
		err := openAs(65534, path)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "run nftnet as root") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
		t.Errorf("the folder has changed:\n%s", diff)
	}
}

// TestSymbolicLink leads to the file, also where that is missing, and stays.
func TestSymbolicLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join("deep", "state.db"), path); err != nil {
		t.Fatal(err)
	}
	s := opened(t, path)
	save(t, s, desired.New(), state())
	closed(t, s)
	fileHolds(t, filepath.Join(dir, "deep", "state.db"), state())
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if aside := opened(t, path).Origin().Aside; filepath.Dir(aside) != filepath.Join(dir, "deep") {
		t.Errorf("the damaged file is at %s", aside)
	}
	if to, err := os.Readlink(path); err != nil || to != filepath.Join("deep", "state.db") {
		t.Errorf("the link leads to %s, %v", to, err)
	}
}

// TestFileOfFirstVersions opens: they wrote no checksum, and the first of them
// no redirects.
func TestFileOfFirstVersions(t *testing.T) {
	text := boltFile(t, func(tx *bbolt.Tx) error {
		for bucket, values := range map[string]map[string]any{
			"meta": {}, "networks": {"n1": network("n1")}, "endpoints": {"e1": endpoint("e1")},
		} {
			b, err := tx.CreateBucket([]byte(bucket))
			if err != nil {
				return err
			}
			for id, v := range values {
				text, err := json.Marshal(v)
				if err = errors.Join(err, b.Put([]byte(id), text)); err != nil {
					return err
				}
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte("1"))
	})
	want := state()
	delete(want.Redirects, "web")
	s := openBytes(t, text)
	if o := s.Origin(); o.Found != Read || o.Why != "" {
		t.Errorf("origin %+v", o)
	}
	holds(t, s, want)
	save(t, s, want, state())
	holds(t, s, state())
}

// TestChangedByAnotherVersion opens: the checksum is of an earlier transaction
// than the file, and says nothing.
func TestChangedByAnotherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := opened(t, path)
	save(t, s, desired.New(), state())
	closed(t, s)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("endpoints")).Delete([]byte("e1")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	want := state()
	delete(want.Endpoints, "e1")
	s = opened(t, path)
	if o := s.Origin(); o.Found != Read {
		t.Errorf("origin %+v", o)
	}
	holds(t, s, want)
	save(t, s, want, state())
	holds(t, s, state())
}
