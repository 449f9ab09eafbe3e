package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"nftnet/internal/desired"
)

// unit is a set of changes that are made all or not at all.
type unit struct {
	// seq orders units by when they were asked for.
	seq     uint64
	changes []change
	// buckets are made where they are missing.
	buckets []string
	// owed says that the changes are debts: they are tried again until they are
	// written.
	owed bool

	done bool
	err  error
}

// debt is a value that the file should have and has not yet.
type debt struct {
	seq   uint64
	value []byte
}

// queue is what waits for the disk.
type queue struct {
	mu      sync.Mutex
	seq     uint64
	waiting []*unit
	debts   map[place]debt
	// refused is why the debts were not written.
	refused error
}

// add puts a unit in the queue; one that is owed is remembered as debts.
func (q *queue) add(u *unit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seq++
	u.seq = q.seq
	if u.owed {
		for _, c := range u.changes {
			q.debts[c.place] = debt{u.seq, c.value}
		}
		u.changes = nil
	}
	q.waiting = append(q.waiting, u)
}

// take empties the queue: what is asked for now, and all that is to be written,
// the debts included, in order.
func (q *queue) take() (asked, units []*unit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	asked, q.waiting = q.waiting, nil
	owed := map[uint64]*unit{}
	for p, d := range q.debts {
		if owed[d.seq] == nil {
			owed[d.seq] = &unit{seq: d.seq, owed: true}
			units = append(units, owed[d.seq])
		}
		owed[d.seq].changes = append(owed[d.seq].changes, change{p, d.value})
	}
	for _, u := range asked {
		if !u.owed {
			units = append(units, u)
		}
	}
	slices.SortFunc(units, func(a, b *unit) int { return cmp.Compare(a.seq, b.seq) })
	return asked, units
}

// settle ends units. Where they were written, no older debt of the same entries
// is left.
func (q *queue) settle(units []*unit, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range units {
		u.done, u.err = true, err
		if err != nil {
			if u.owed {
				q.refused = err
			}
			continue
		}
		for _, c := range u.changes {
			if q.debts[c.place].seq <= u.seq {
				delete(q.debts, c.place)
			}
		}
	}
	if len(q.debts) == 0 {
		q.refused = nil
	}
}

// Save replaces what before holds by what after holds, all or nothing, and
// returns when it is on disk. Entries that are equal in both are left alone.
//
// A change that the disk refuses is a *[RefusedError]; the file and the store
// are as before, and the next Save works as soon as the disk takes it.
func (s *Store) Save(before, after desired.State) error {
	changes, err := allChanges(before, after)
	if err != nil || len(changes) == 0 {
		return s.wrap(err)
	}
	return s.write(&unit{changes: changes})
}

// SaveUserRules replaces the copy of the user's rules; see [Store.Save].
func (s *Store) SaveUserRules(text []byte) error {
	if text == nil {
		text = []byte{}
	}
	return s.write(&unit{changes: []change{{place{bucketMeta, keyUserRules}, text}}})
}

// Owe is Save of what is so already, whatever the disk says: it never fails.
// It makes one attempt to write, and returns after it: in the ordinary case the
// change is on disk then, and Owe takes as long as Save. What the disk refused
// is kept in memory, the newest value of each entry, and is written before the
// next Save in the same transaction, or by [Store.Settle]. A process that ends
// before loses it.
func (s *Store) Owe(before, after desired.State) {
	changes, err := allChanges(before, after)
	if err != nil {
		// None of the program's own states is one that cannot be encoded.
		s.queue.mu.Lock()
		s.queue.refused = s.wrap(err)
		s.queue.mu.Unlock()
		return
	}
	if len(changes) > 0 {
		_ = s.write(&unit{changes: changes, owed: true})
	}
}

// Settle makes one attempt to write what is owed.
func (s *Store) Settle() error {
	if s.Owed() == 0 {
		return nil
	}
	_ = s.write(&unit{owed: true})
	if s.Owed() == 0 {
		return nil
	}
	return s.OwedError()
}

// Owed is the number of entries whose last change is not on disk yet.
func (s *Store) Owed() int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.debts)
}

// OwedError is why the last attempt to write what is owed failed; nil where
// nothing is owed.
func (s *Store) OwedError() error {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.refused
}

// write waits for the disk, and writes what waits with it: all that came while
// the disk was busy is one transaction.
func (s *Store) write(u *unit) error {
	s.queue.add(u)
	s.disk.Lock()
	defer s.disk.Unlock()
	if !u.done {
		asked, units := s.queue.take()
		s.writeUnits(units)
		// Those without changes, as the debts have them now.
		s.queue.settle(slices.DeleteFunc(asked, func(u *unit) bool { return u.done }), nil)
	}
	return u.err
}

// writeUnits writes units in one transaction. Where that fails, but not because
// the disk does, it tries the halves, in order: what fits is written, and one
// that is refused does not take others along. It returns why a debt was not
// written: nothing newer may be written before it.
func (s *Store) writeUnits(units []*unit) error {
	if len(units) == 0 {
		return nil
	}
	err := s.commit(units)
	if err == nil || len(units) == 1 || s.doubt != nil && (!isFull(err) || s.usable() != nil) {
		s.queue.settle(units, err)
		if err != nil && slices.ContainsFunc(units, func(u *unit) bool { return u.owed }) {
			return err
		}
		return nil
	}
	half := len(units) / 2
	if err := s.writeUnits(units[:half]); err != nil {
		s.queue.settle(units[half:], err)
		return err
	}
	return s.writeUnits(units[half:])
}

// commit writes units in one transaction, or nothing.
func (s *Store) commit(units []*unit) error {
	if err := s.usable(); err != nil {
		return refused(s.path, err)
	}
	for more := s.page; ; more *= 2 {
		err := s.attempt(units)
		if !errors.Is(err, bolterrors.ErrMaxSizeReached) {
			return refused(s.path, err)
		}
		if err := s.extend(more); err != nil {
			return refused(s.path, err)
		}
	}
}

// errSame says that a transaction would change nothing.
var errSame = errors.New("nothing to change")

// attempt is one transaction.
func (s *Store) attempt(units []*unit) error {
	before, err := s.nextHeader()
	if err != nil {
		return err
	}
	var made effect
	begun := false
	err = guarded(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			s.used, s.db.MaxSize = tx.Size(), int(s.blocks)
			if made, err = s.apply(tx, units); err != nil {
				return err
			}
			begun = true
			return nil
		})
	})
	switch {
	case err == nil:
		s.txid++
		s.sum += made.weight
		s.largest = max(s.largest, made.largest)
	case errors.Is(err, errSame):
		return nil
	case errors.Is(err, bolterrors.ErrMaxSizeReached):
		// bbolt found no page for it before it wrote anything.
	case begun || isPanic(err):
		s.distrust(before, err)
	}
	return err
}

// effect is what changes do to the file.
type effect struct {
	// weight is what they add to its checksum.
	weight uint64
	// growth is how many bytes longer the entries are; debts do not count: there
	// is no refusing them.
	growth int64
	// largest is the length of the longest of them in bytes.
	largest int64
	changed bool
}

// apply makes the changes of units in a transaction.
func (s *Store) apply(tx *bbolt.Tx, units []*unit) (effect, error) {
	var sum effect
	for _, u := range units {
		for _, name := range u.buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return effect{}, fmt.Errorf("bucket %s: %w", name, err)
			}
		}
		for _, c := range u.changes {
			old, err := put(tx, c)
			if err != nil {
				return effect{}, err
			}
			before := change{c.place, old}
			sum.changed = sum.changed || !c.equal(before)
			sum.weight += c.weight() - before.weight()
			sum.largest = max(sum.largest, c.size())
			if !u.owed {
				sum.growth += c.size() - before.size()
			}
		}
	}
	if !sum.changed {
		return effect{}, errSame
	}
	if _, err := put(tx, change{place{bucketSum, keySum}, newChecksum(tx.ID(), s.sum+sum.weight)}); err != nil {
		return effect{}, err
	}
	if sum.growth > 0 {
		return sum, s.makeRoom(sum.growth)
	}
	return sum, nil
}

func (c change) equal(other change) bool {
	return (c.value == nil) == (other.value == nil) && bytes.Equal(c.value, other.value)
}

// size is what a change takes in the file, in bytes.
func (c change) size() int64 {
	if c.value == nil {
		return 0
	}
	return int64(len(c.key) + len(c.value))
}

// weight is what a change adds to the file's checksum.
func (c change) weight() uint64 {
	if c.value == nil {
		return 0
	}
	return weight(c.bucket, c.key, c.value)
}

// put makes a change, and returns the value that was there before, which is
// valid until the transaction ends.
func put(tx *bbolt.Tx, c change) (old []byte, err error) {
	b := tx.Bucket([]byte(c.bucket))
	if b == nil {
		if b, err = tx.CreateBucket([]byte(c.bucket)); err != nil {
			return nil, fmt.Errorf("bucket %s: %w", c.bucket, err)
		}
	}
	key := []byte(c.key)
	old = b.Get(key)
	switch {
	case c.equal(change{c.place, old}):
	case c.value == nil:
		err = b.Delete(key)
	default:
		err = b.Put(key, c.value)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s of %s: %w", c.key, c.bucket, err)
	}
	return old, nil
}
