package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// smallDisks are file systems that are quickly full.
var smallDisks = map[string]func(t *testing.T) string{
	"tmpfs": func(t *testing.T) string { return mountTmpfs(t, 160<<10) },
	"ext4":  func(t *testing.T) string { return newImage(t, t.TempDir(), 8<<20).dir },
	// Without extents there is no fallocate.
	"ext2": func(t *testing.T) string { return newImage(t, t.TempDir(), 2<<20, "-t", "ext2").dir },
}

// onSmallDisks runs a test on each, with a store that holds six containers.
func onSmallDisks(t *testing.T, test func(t *testing.T, dir string, s *Store, want desired.State)) {
	for name, disk := range smallDisks {
		t.Run(name, func(t *testing.T) {
			dir := disk(t)
			s := opened(t, filepath.Join(dir, "state.db"))
			want := state()
			save(t, s, desired.New(), want)
			for i := range 6 {
				id := fmt.Sprintf("c%063d", i)
				after := want.Clone()
				after.Endpoints[id] = endpoint(id)
				save(t, s, want, after)
				want = after
			}
			test(t, dir, s, want)
			// The file systems are unmounted before the clean-up that closes it.
			closed(t, s)
		})
	}
}

// untilRefused adds networks until the disk refuses one, then smaller and
// smaller entries, and adds those that were saved to state.
func untilRefused(t *testing.T, s *Store, name string, state desired.State) (saved int, err error) {
	t.Helper()
	for _, ports := range []int{700, 40, 10, 0} {
		for i := range 100_000 {
			e := large(fmt.Sprintf("%s%060d", name, ports*100_000+i), ports)
			if err = s.Save(desired.New(), ofEndpoints(e)); err != nil {
				break
			}
			state.Endpoints[e.ID] = e
			saved++
		}
	}
	if err == nil {
		t.Fatal("the disk never refused anything")
	}
	return saved, err
}

// TestDiskFull is A74: what is refused changes nothing, removals still fit, and
// all goes on once there is space again.
func TestDiskFull(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, dir string, s *Store, want desired.State) {
		empty := fill(t, dir)
		n, err := untilRefused(t, s, "full", want)
		t.Logf("%d endpoints fitted on the full disk; then: %v", n, err)
		var refused *RefusedError
		if !errors.As(err, &refused) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %#v", err)
		}
		plain := regexp.MustCompile(`^state file ` + s.path + ` cannot be written: no space left on device(: .* more are needed)? \(.* of .* left on its file system\): free some space for ` + dir + ` and try again$`)
		if !plain.MatchString(err.Error()) {
			t.Errorf("not plain: %v", err)
		}
		holds(t, s, want)
		// What happened already may use what is kept for removals.
		longer := large("e1", 20)
		s.Owe(ofEndpoints(want.Endpoints["e1"]), ofEndpoints(longer))
		if s.Owed() != 0 {
			t.Errorf("a change that is owed did not fit: %v", s.OwedError())
		}
		want.Endpoints["e1"] = longer
		for _, e := range want.SortedEndpoints() {
			s.Owe(ofEndpoints(e), desired.New())
			if s.Owed() != 0 || s.OwedError() != nil {
				t.Errorf("the removal of %s did not fit: %v", e.ID, s.OwedError())
			}
			delete(want.Endpoints, e.ID)
		}
		if err := s.Save(want.Part("n1", ""), desired.New()); err != nil {
			t.Errorf("the removal of a network did not fit: %v", err)
		}
		delete(want.Networks, "n1")
		holds(t, s, want)
		empty()
		save(t, s, desired.New(), state())
		maps.Copy(want.Networks, state().Networks)
		maps.Copy(want.Endpoints, state().Endpoints)
		holds(t, s, want)
		closed(t, s)
		holds(t, opened(t, s.path), want)
	})
}

// TestRemovalsOnFullDisk removes all of many entries from a large file, one by
// one and all at once, and entries beside such that take many pages.
func TestRemovalsOnFullDisk(t *testing.T) {
	small := func(i int) desired.Endpoint { return large(fmt.Sprintf("e%063d", i*7919%300), i%40) }
	for name, c := range map[string]struct {
		n      int
		entry  func(i int) desired.Endpoint
		atOnce bool
	}{
		"one by one": {300, small, false},
		"at once":    {300, small, true},
		"large neighbours": {24, func(i int) desired.Endpoint {
			return large(fmt.Sprintf("e%063d", i), i%2*1500)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, 6<<20)
			s := opened(t, filepath.Join(dir, "state.db"))
			want := desired.New()
			for i := range c.n {
				e := c.entry(i)
				want.Endpoints[e.ID] = e
				save(t, s, desired.New(), ofEndpoints(e))
			}
			empty := fill(t, dir)
			if _, err := untilRefused(t, s, "full", want); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			gone := []desired.State{want}
			if !c.atOnce {
				gone = nil
				for _, e := range want.SortedEndpoints() {
					gone = append(gone, ofEndpoints(e))
				}
			}
			for i, g := range gone {
				if s.Owe(g, desired.New()); s.Owed() != 0 {
					t.Fatalf("removal %d of %d did not fit: %v", i, len(gone), s.OwedError())
				}
			}
			holds(t, s, desired.New())
			empty()
			closed(t, s)
		})
	}
}

// TestRemovalsAgain takes all that the file has left again and again, after each
// removal: what is kept for the next one stays.
func TestRemovalsAgain(t *testing.T) {
	for name, ports := range map[string]int{"small": 3, "large": 700} {
		t.Run(name, func(t *testing.T) {
			s := opened(t, filepath.Join(mountTmpfs(t, 2<<20), "state.db"))
			want := desired.New()
			for i := range 12 {
				e := large(fmt.Sprintf("e%063d", i), ports)
				want.Endpoints[e.ID] = e
				save(t, s, desired.New(), ofEndpoints(e))
			}
			fill(t, filepath.Dir(s.path))
			for round := range 12 {
				if _, err := untilRefused(t, s, fmt.Sprint(round), want); !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				gone := want.Endpoints[fmt.Sprintf("e%063d", round)]
				if s.Owe(ofEndpoints(gone), desired.New()); s.Owed() != 0 {
					t.Fatalf("removal %d did not fit: %v", round, s.OwedError())
				}
				delete(want.Endpoints, gone.ID)
			}
			holds(t, s, want)
			closed(t, s)
		})
	}
}

// TestOpenOnFullDisk opens a good file, which needs no space; there is no room
// for a new one, and a damaged one stays.
func TestOpenOnFullDisk(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, dir string, s *Store, want desired.State) {
		closed(t, s)
		fill(t, dir)
		s = opened(t, s.path)
		holds(t, s, want)
		s.Owe(want, desired.New())
		if s.Owed() != 0 {
			t.Errorf("%d removals did not fit: %v", s.Owed(), s.OwedError())
		}
		closed(t, s)
		holds(t, opened(t, s.path), desired.New())

		missing := filepath.Join(dir, "missing.db")
		if _, err := Open(missing); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
		damaged := filepath.Join(dir, "damaged.db")
		if err := os.Truncate(filepath.Join(dir, "fill"), 8192); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(damaged, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		refill(t, dir)
		before := listing(t, dir)
		if _, err := Open(damaged); !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "state file "+damaged+" is damaged (neither of its headers is valid), and a new one cannot be made: ") {
			t.Errorf("error %v", err)
		}
		if after := listing(t, dir); len(after) != len(before) || after["damaged.db"] != "garbage" {
			t.Errorf("the folder had %d files, and has %d", len(before), len(after))
		}
	})
}

// TestNewOnNearlyFullDisk begins: there is room for a new file, though not for
// what it should keep free.
func TestNewOnNearlyFullDisk(t *testing.T) {
	for name, text := range map[string][]byte{"missing": nil, "damaged": []byte("garbage")} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, 160<<10)
			path := filepath.Join(dir, "state.db")
			if text != nil {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fill(t, dir)
			if err := os.Truncate(filepath.Join(dir, "fill"), 100<<10); err != nil {
				t.Fatal(err)
			}
			s := opened(t, path)
			if err := s.Save(desired.New(), state()); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v", err)
			}
			holds(t, s, desired.New())
			if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
				t.Fatal(err)
			}
			save(t, s, desired.New(), state())
			holds(t, s, state())
			closed(t, s)
		})
	}
}

// refill fills what was given back of a full disk.
func refill(t *testing.T, dir string) {
	t.Helper()
	more := filepath.Join(dir, "more")
	if err := os.Mkdir(more, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, more)
}

// TestOwedOnFullDisk is more than the reserve: it is remembered, in force at
// once, and written with the next Save or by Settle.
func TestOwedOnFullDisk(t *testing.T) {
	more := ofEndpoints(large("large", 3000))
	for name, settle := range map[string]func(*Store, desired.State) error{
		"settle": func(s *Store, _ desired.State) error { return s.Settle() },
		"save": func(s *Store, want desired.State) error {
			want.Endpoints["next"] = endpoint("next")
			return s.Save(desired.New(), ofEndpoints(endpoint("next")))
		},
		"close": func(s *Store, _ desired.State) error { return s.Close() },
		"superseded": func(s *Store, want desired.State) error {
			want.Endpoints["large"] = endpoint("large")
			return s.Save(more, ofEndpoints(endpoint("large")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, 1<<20)
			s := opened(t, filepath.Join(dir, "state.db"))
			save(t, s, desired.New(), state())
			empty := fill(t, dir)
			s.Owe(ofEndpoints(endpoint("e1")), more)
			if s.Owed() != 2 || !errors.Is(s.OwedError(), syscall.ENOSPC) {
				t.Fatalf("%d owed, %v", s.Owed(), s.OwedError())
			}
			if err := s.Settle(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("settle: %v", err)
			}
			// What comes later may rest on what is owed.
			if err := s.Save(desired.New(), ofEndpoints(endpoint("next"))); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("save: %v", err)
			}
			want := state()
			delete(want.Endpoints, "e1")
			want.Endpoints["large"] = more.Endpoints["large"]
			if diff := len(load(t, s).Endpoints) - len(want.Endpoints); diff != 0 {
				t.Errorf("what is owed is not in force")
			}
			fileHolds(t, s.path, state())
			empty()
			if err := settle(s, want); err != nil {
				t.Fatal(err)
			}
			if s.Owed() != 0 || s.OwedError() != nil {
				t.Errorf("%d owed, %v", s.Owed(), s.OwedError())
			}
			fileHolds(t, s.path, want)
			closed(t, s)
		})
	}
}

// TestLostOnClose says how much is lost.
func TestLostOnClose(t *testing.T) {
	dir := mountTmpfs(t, 1<<20)
	s := opened(t, filepath.Join(dir, "state.db"))
	fill(t, dir)
	s.Owe(desired.New(), ofEndpoints(large("large", 3000)))
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "the last change of 1 entries is lost") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
	if err := s.Save(desired.New(), state()); err == nil || !strings.Contains(err.Error(), "it is closed") {
		t.Errorf("error %v", err)
	}
	fileHolds(t, s.path, desired.New())
}

// failingDisk is a file system without a journal: with one the kernel makes it
// read-only for good when a write fails. The disk fails every write from fail
// on until works.
func failingDisk(t *testing.T) (i *image, fail, works func()) {
	t.Helper()
	outer := newImage(t, t.TempDir(), 32<<20)
	i = newImage(t, outer.dir, 16<<20, "-O", "^has_journal")
	// A loop device writes to its file by write(2), which checks this each time.
	return i, func() { run(t, "chattr", "+i", i.file) }, func() { run(t, "chattr", "-i", i.file) }
}

// TestSyncFails on the data: the change is none, now and after a restart.
func TestSyncFails(t *testing.T) {
	i, fail, works := failingDisk(t)
	s := opened(t, filepath.Join(i.dir, "state.db"))
	want := state()
	save(t, s, desired.New(), want)
	fail()
	for range 3 {
		err := s.Save(desired.New(), ofEndpoints(large("lost", 500)))
		var refused *RefusedError
		if !errors.As(err, &refused) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "check the disk of "+i.dir) {
			t.Fatalf("error %v", err)
		}
		holds(t, s, want)
	}
	s.Owe(ofEndpoints(endpoint("e1")), desired.New())
	if s.Owed() != 1 || !errors.Is(s.OwedError(), syscall.EIO) {
		t.Errorf("%d owed, %v", s.Owed(), s.OwedError())
	}
	fileHolds(t, s.path, want)
	works()
	delete(want.Endpoints, "e1")
	goesOn(t, s, i, want)
}

// goesOn asserts that the store works, and that the disk, not only the page
// cache, has what it says.
func goesOn(t *testing.T, s *Store, i *image, want desired.State) {
	t.Helper()
	save(t, s, desired.New(), ofEndpoints(endpoint("next")))
	want.Endpoints["next"] = endpoint("next")
	holds(t, s, want)
	closed(t, s)
	i.unmount(t)
	i.mount(t)
	s = opened(t, s.path)
	if o := s.Origin(); o.Found != Read || o.Why != "" {
		t.Errorf("origin %+v", o)
	}
	holds(t, s, want)
	closed(t, s)
}

// TestSyncOfHeaderFails is the last moment of a transaction: bbolt reads the
// new header from the page cache, and only the store knows that it is none.
func TestSyncOfHeaderFails(t *testing.T) {
	outer := mountTmpfs(t, 3<<20)
	i := newImage(t, outer, 16<<20, "-O", "^has_journal")
	s := opened(t, filepath.Join(i.dir, "state.db"))
	want := state()
	save(t, s, desired.New(), want)
	// Every block that the next transactions take is on the disk then.
	for range 20 {
		save(t, s, want, desired.New())
		save(t, s, desired.New(), want)
	}
	// The disk loses the block of the header that is written next, and is full.
	c, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	bmap := run(t, "debugfs", "-R", fmt.Sprintf("bmap /state.db %d", (c.txid+1)%2), i.file)
	block, err := strconv.Atoi(regexp.MustCompile(`(?m)^\d+$`).FindString(bmap))
	if err != nil {
		t.Fatal(bmap)
	}
	run(t, "fallocate", "--punch-hole", "--offset", fmt.Sprint(block*4096), "--length", "4096", i.file)
	empty := fill(t, outer)
	var before []byte
	for n := range 3 {
		if err := s.Save(desired.New(), ofEndpoints(endpoint(fmt.Sprint("lost", n)))); !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("error %v", err)
		}
		if diff := cmp.Diff(want, load(t, s), netipValues); diff != "" {
			t.Errorf("the store holds something else:\n%s", diff)
		}
		// Nothing is written to pages that the disk may have a header for.
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		text = text[2*s.page:]
		if n > 0 && !bytes.Equal(text, before) {
			t.Error("pages were written while it is unknown which header the disk has")
		}
		before = text
	}
	s.Owe(ofEndpoints(endpoint("e1")), desired.New())
	if s.Owed() != 1 {
		t.Errorf("%d owed", s.Owed())
	}
	empty()
	delete(want.Endpoints, "e1")
	goesOn(t, s, i, want)
}

// TestReadOnlyLater is what a kernel does that finds its file system broken.
func TestReadOnlyLater(t *testing.T) {
	i := newImage(t, t.TempDir(), 8<<20)
	s := opened(t, filepath.Join(i.dir, "state.db"))
	save(t, s, desired.New(), state())
	run(t, "mount", "-o", "remount,abort", i.dir)
	for range 2 {
		err := s.Save(desired.New(), ofEndpoints(endpoint("e2")))
		var refused *RefusedError
		if !errors.As(err, &refused) || !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EIO) {
			t.Errorf("error %v", err)
		}
		t.Log(err)
	}
	s.Owe(ofEndpoints(endpoint("e1")), desired.New())
	if s.Owed() != 1 || s.OwedError() == nil {
		t.Errorf("%d owed, %v", s.Owed(), s.OwedError())
	}
	want := state()
	delete(want.Endpoints, "e1")
	if got := load(t, s); len(got.Endpoints) != 0 || len(got.Networks) != 1 {
		t.Errorf("the store holds %+v", got)
	}
	if err := s.Close(); err == nil {
		t.Error("nothing says that a change is lost")
	}
	i.unmount(t)
	i.mount(t)
	s = opened(t, s.path)
	holds(t, s, state())
	closed(t, s)
}

// TestBlocksAreThere asserts that the reserve is none of holes.
func TestBlocksAreThere(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, _ string, s *Store, _ desired.State) {
		f, err := os.Open(s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		taken := info.Sys().(*syscall.Stat_t).Blocks * 512
		if taken < info.Size() {
			t.Errorf("the file has %d bytes, and blocks for %d", info.Size(), taken)
		}
		if spare := info.Size() - s.used; spare < reservePages*int64(unix.Getpagesize())/2 {
			t.Errorf("only %d of %d bytes are spare", spare, info.Size())
		}
	})
}
