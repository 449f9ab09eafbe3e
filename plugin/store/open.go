package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"nftnet/internal/desired"
	"nftnet/internal/lockfile"
)

// Found is how a state file was found.
type Found int

// The ways to find it.
const (
	// Read is a good file.
	Read Found = iota
	// Missing says that there was none: a new one was begun.
	Missing
	// Damaged says that there was one that cannot be trusted: it was moved aside,
	// and a new one was begun.
	Damaged
)

func (f Found) String() string { return [...]string{"read", "missing", "damaged"}[f] }

// Origin is where the state of a store comes from.
type Origin struct {
	Found Found
	// Why says what is wrong with a file that is Damaged. One that was Read may
	// have a fault too, which Why says then: its last change may be missing.
	Why string
	// Aside is where the file that was Damaged is now.
	Aside string
	// Salvaged is what could still be read of a file that was Damaged. It is not
	// to be trusted: entries are missing, may be outdated, and may be wrong.
	Salvaged desired.State
}

const (
	// lockTimeout bounds the wait for another process that has the file open.
	lockTimeout = time.Second
	// openTries bounds how often Open begins again because the file was replaced
	// while it waited.
	openTries = 10
	// keepDamaged is how many damaged files are kept.
	keepDamaged = 5
	asideInfix  = ".damaged-"
	asideTime   = "20060102T150405"
)

// Open opens the state file at path, and makes it and its folder where they are
// missing. [Store.Origin] tells which of that happened. A damaged file is moved
// aside, beside its path, and a new one begun.
//
// What is no damage is an error, and the file stays as it is: one that another
// process has open, that cannot be read or written, that a later nftnet or
// another program made, and anything that is not a regular file.
func Open(path string) (*Store, error) {
	path, err := followLinks(path)
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the state file: %w", err)
	}
	for range openTries {
		s := &Store{path: path, queue: queue{debts: map[place]debt{}}}
		err := s.open()
		if err == nil {
			return s, nil
		}
		err = s.wrap(errors.Join(err, s.abandon()))
		if !errors.Is(err, errReplaced) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("state file %s: it was replaced %d times while it was opened", path, openTries)
}

// errReplaced says that another process put another file at the path.
var errReplaced = errors.New("another process replaced it")

// followLinks is the path that a symbolic link leads to, which may be missing.
func followLinks(path string) (string, error) {
	for range openTries {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // No link; what else it is shows when it is opened.
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// open is one try to open the file.
func (s *Store) open() error {
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.origin = Origin{Found: Missing}
		return s.create(func() error { return nil })
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a folder: name a file in it")
	case !info.Mode().IsRegular():
		return fmt.Errorf("it is not a regular file (%s)", info.Mode())
	}
	if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errReplaced
		}
		return refused(s.path, err)
	}
	if err := s.lock(); err != nil {
		return err
	}
	return s.begin()
}

// lock locks the open file, which must still be at its path then.
func (s *Store) lock() error {
	err := lockfile.Acquire(s.file, lockTimeout)
	var held *lockfile.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("it is open in %s: is nftnet running already?", held.Holder())
	}
	if err != nil {
		return err
	}
	if there, err := lockfile.IsAt(s.file, s.path); err != nil || !there {
		return errors.Join(err, errReplaced)
	}
	return nil
}

// abandon closes a store that was not opened.
func (s *Store) abandon() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.closeDB(), s.file.Close())
	s.file = nil
	return err
}

// begin finds out what the locked file is, and makes the store ready.
func (s *Store) begin() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	c := contents{faults: []string{"it is empty"}}
	if info.Size() > 0 {
		if c, err = readPages(s.file, info.Size()); err != nil {
			return err
		}
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	if len(c.faults) == 0 {
		c.judge()
	}
	if len(c.faults) > 0 {
		return s.startAnew(c)
	}
	s.origin = Origin{Found: Read, Why: c.stale}
	return s.openDB(c.entries)
}

// why is what is wrong with the file.
func (c *contents) why() string { return strings.Join(c.faults, "; ") }

// checkVersion returns an error where the file is not this nftnet's to judge.
func (c *contents) checkVersion() error {
	have, ok := find(c.entries, bucketMeta, keyVersion)
	_, err := strconv.Atoi(string(have))
	switch {
	case string(have) == version:
	case ok && err == nil:
		return fmt.Errorf("it has version %s, this nftnet reads version %s", have, version)
	case ok:
		c.fault("it has version %q", have)
	case len(c.faults) > 0:
	case len(c.buckets) > 0:
		return errors.New("another program made it: name another file")
	default:
		c.fault("nothing was ever written to it")
	}
	return nil
}

// create makes a new file, under a name of its own until it is complete. What
// clear does comes last before it gets its path, and only then.
func (s *Store) create(clear func() error) error {
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".new-*")
	if err != nil {
		return refused(s.path, err)
	}
	s.file = f
	err = s.prepare()
	if err == nil {
		err = clear()
	}
	if err == nil {
		err = move(f.Name(), s.path)
	}
	if errors.Is(err, fs.ErrExist) {
		err = errReplaced
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(s.path)
}

// prepare writes to an empty file what every one has.
func (s *Store) prepare() error {
	if err := s.openDB(nil); err != nil {
		return refused(s.path, err)
	}
	// That the reserve does not fit is no reason not to start.
	u := &unit{owed: true, changes: []change{{place{bucketMeta, keyVersion}, []byte(version)}}}
	for _, k := range kinds {
		u.buckets = append(u.buckets, k.bucket)
	}
	return s.commit([]*unit{u})
}

// openDB hands the file, which holds the entries given, to bbolt.
func (s *Store) openDB(entries []entry) error {
	s.sum, s.largest = sumOf(entries), 0
	for _, e := range entries {
		s.largest = max(s.largest, int64(len(e.key)+len(e.value)))
	}
	options := &bbolt.Options{
		Timeout: lockTimeout,
		// A copy of the store's own descriptor has its lock already, and keeps it
		// when bbolt has to begin anew.
		OpenFile: func(string, int, os.FileMode) (*os.File, error) {
			fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, s.file.Fd(), syscall.F_DUPFD_CLOEXEC, 0)
			if errno != 0 {
				return nil, errno
			}
			s.dbFile = os.NewFile(fd, s.path)
			return s.dbFile, nil
		},
	}
	return guarded(func() error {
		db, err := bbolt.Open(s.path, 0o600, options)
		if err != nil {
			return err
		}
		// The store makes the file longer, by itself and in time (extend).
		db.AllocSize = 0
		s.db, s.page = db, int64(db.Info().PageSize)
		return s.measure()
	})
}

// measure finds out how much of the file is in use and has blocks, and tries to
// have the reserve at hand: where the disk is full now, changes are refused
// later.
func (s *Store) measure() error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		s.used, s.txid = tx.Size(), tx.ID()
		return nil
	})
	if err != nil {
		return err
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.blocks = s.used
	// That takes no space where the blocks are there, also on a full disk.
	if end := info.Size() / s.page * s.page; end > s.used && s.allocate(s.used, end) == nil {
		s.blocks = end
	}
	if reserve := s.reserve(s.free()); s.blocks < s.used+s.page+reserve {
		_ = s.extend(reserve)
	}
	return nil
}

// startAnew moves the damaged file aside and begins a new one. The lock of the
// damaged one is held until that has its place.
func (s *Store) startAnew(c contents) error {
	salvaged, _ := decodeEntries(c.entries)
	s.origin = Origin{Found: Damaged, Why: c.why(), Salvaged: salvaged}
	damaged := s.file
	err := s.create(func() (err error) {
		s.origin.Aside, err = moveAside(s.path, time.Now())
		return err
	})
	if err != nil {
		err = fmt.Errorf("state file %s is damaged (%s), and a new one cannot be made: %w", s.path, c.why(), err)
	} else {
		prune(s.path, s.origin.Aside)
	}
	return errors.Join(err, damaged.Close())
}

// moveAside gives the file a name that no other has.
func moveAside(path string, now time.Time) (string, error) {
	a := aside{time: now.UTC().Format(asideTime), n: 1}
	olds, err := asides(path)
	if err != nil {
		return "", err
	}
	for _, old := range olds {
		if old.time == a.time {
			a.n = max(a.n, old.n+1)
		}
	}
	for {
		err := move(path, a.of(path))
		if !errors.Is(err, fs.ErrExist) {
			return a.of(path), err
		}
		a.n++
	}
}

// move renames a file, and never replaces another one: the error is ErrExist.
func move(from, to string) error {
	switch err := os.Link(from, to); {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	// Some file systems have no links.
	if _, err := os.Lstat(to); err == nil {
		return fs.ErrExist
	}
	return os.Rename(from, to)
}

// aside is the rest of the name of a file that was moved aside: when that was,
// and the number among those of the same second.
type aside struct {
	time string
	n    int
}

var asideName = regexp.MustCompile(`^([0-9]{8}T[0-9]{6})(?:-([2-9]|[1-9][0-9]{1,8}))?$`)

// of is the path of the file that was moved from path.
func (a aside) of(path string) string {
	if a.n == 1 {
		return path + asideInfix + a.time
	}
	return path + asideInfix + a.time + "-" + strconv.Itoa(a.n)
}

// asides lists the files that were moved aside from path, the newest first.
func asides(path string) ([]aside, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var out []aside
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), filepath.Base(path)+asideInfix)
		m := asideName.FindStringSubmatch(rest)
		if !ours || m == nil || !e.Type().IsRegular() {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			n = 1
		}
		out = append(out, aside{m[1], n})
	}
	slices.SortFunc(out, func(a, b aside) int {
		return cmp.Or(strings.Compare(b.time, a.time), cmp.Compare(b.n, a.n))
	})
	return out, nil
}

// prune removes the oldest files that were moved aside, and never the one that
// was just now: the clock may go wrong. What cannot be removed stays.
func prune(path, keep string) {
	all, err := asides(path)
	if err != nil {
		return
	}
	all = slices.DeleteFunc(all, func(a aside) bool { return a.of(path) == keep })
	for _, a := range all[min(len(all), keepDamaged-1):] {
		_ = os.Remove(a.of(path))
	}
}

// syncFolder makes the name of a new file outlive a crash.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}
