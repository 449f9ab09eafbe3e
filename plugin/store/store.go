// Package store keeps desired state on disk, in one bbolt file: networks,
// endpoints and redirects as JSON, so that people can read them too.
//
// What the disk refuses changes nothing, and the store goes on working once the
// disk does. What cannot be refused, because it happened already, is owed
// ([Store.Owe]). All methods may be called from several goroutines at once.
package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"

	"nftnet/internal/desired"
)

// Store is an open state file. No other process can open it meanwhile.
type Store struct {
	path   string
	origin Origin
	queue  queue

	// disk is held by whoever uses the database; the fields behind it go with it.
	disk sync.Mutex
	// file is open, and locked, as long as the store is.
	file *os.File
	db   *bbolt.DB
	// dbFile is bbolt's own descriptor of file.
	dbFile *os.File
	page   int64
	// used is how much of the file the last transaction found in use, or used
	// once, and blocks how much surely has blocks on the disk, both in bytes.
	used, blocks int64
	// txid is the number of the transaction that the file is of.
	txid int
	// sum is the sum over the entries of the file, and largest the length of the
	// longest that it had, in bytes.
	sum     uint64
	largest int64
	// doubt is not nil where a transaction ended so that bbolt must not go on
	// from what it has in memory.
	doubt *doubt
}

// doubt is what is known of the file when a transaction fails at the disk.
type doubt struct {
	// before is what was at the place of the header that it wrote.
	before header
	// reopen says that bbolt cannot go on from what it has in memory.
	reopen bool
	// panicked says that bbolt panicked, and may hold its own lock for ever.
	panicked bool
}

var errClosed = errors.New("it is closed")

// Origin tells how the file was found when it was opened.
func (s *Store) Origin() Origin { return s.origin }

// wrap names the file in an error, where a RefusedError does not.
func (s *Store) wrap(err error) error {
	var already *RefusedError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return fmt.Errorf("state file %s: %w", s.path, err)
}

// Close makes one attempt to write what is owed, and closes the file. The error
// says how much of it is lost.
func (s *Store) Close() error {
	lost := s.Settle()
	s.disk.Lock()
	defer s.disk.Unlock()
	if s.file == nil {
		return nil
	}
	if lost != nil {
		lost = fmt.Errorf("the last change of %d entries is lost: %w", s.Owed(), lost)
	}
	err := errors.Join(lost, s.wrap(s.closeDB()), s.wrap(s.file.Close()))
	s.file = nil
	return err
}

// closeDB ends bbolt's use of the file, not the lock.
func (s *Store) closeDB() error {
	var err error
	if s.dbFile != nil {
		// bbolt would unlock the file by its own descriptor, which shares the lock.
		err = s.dbFile.Close()
	}
	if s.db != nil && (s.doubt == nil || !s.doubt.panicked) {
		// It says that its descriptor is closed.
		_ = guarded(s.db.Close)
	}
	s.db, s.dbFile = nil, nil
	if errors.Is(err, os.ErrClosed) {
		return nil // bbolt did it, when it could not open the file.
	}
	return err
}

// Load reads the whole state; what is owed counts as written.
func (s *Store) Load() (desired.State, error) {
	c, err := s.read()
	if err != nil {
		return desired.State{}, s.wrap(err)
	}
	state, wrong := decodeEntries(s.queue.over(c.entries))
	if len(wrong) > 0 {
		return desired.State{}, s.wrap(wrong[0])
	}
	return state, nil
}

// UserRules reads the copy of the user's rules; nil where there is none.
func (s *Store) UserRules() ([]byte, error) {
	c, err := s.read()
	if err != nil {
		return nil, s.wrap(err)
	}
	text, _ := find(c.entries, bucketMeta, keyUserRules)
	return text, nil
}

// read reads what is in the file. It needs no bbolt, and works where the disk
// takes nothing.
func (s *Store) read() (contents, error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if s.file == nil {
		return contents{}, errClosed
	}
	return s.readWhole()
}

func (s *Store) readWhole() (contents, error) {
	info, err := s.file.Stat()
	if err != nil {
		return contents{}, err
	}
	var from io.ReaderAt = s.file
	if s.doubt != nil {
		from = &underHeader{s.file, s.doubt.before}
	}
	c, err := readPages(from, info.Size())
	if err != nil {
		return contents{}, err
	}
	if len(c.faults) > 0 {
		return contents{}, fmt.Errorf("it was damaged while nftnet was running: %s", c.why())
	}
	return c, nil
}

// underHeader is a file with another header.
type underHeader struct {
	file   io.ReaderAt
	header header
}

func (u *underHeader) ReadAt(b []byte, at int64) (int, error) {
	n, err := u.file.ReadAt(b, at)
	if from := at - u.header.at; from >= 0 && from < int64(len(u.header.bytes)) {
		copy(b[:n], u.header.bytes[from:])
	}
	return n, err
}

// over is the entries as they are once all debts are written.
func (q *queue) over(entries []entry) []entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []entry
	for _, e := range entries {
		if _, owed := q.debts[place{e.bucket, e.key}]; !owed {
			out = append(out, e)
		}
	}
	for p, d := range q.debts {
		if d.value != nil {
			out = append(out, entry{p.bucket, p.key, d.value})
		}
	}
	return out
}

// panicError is what bbolt panicked with.
type panicError struct{ reason any }

func (e *panicError) Error() string {
	if fault, ok := e.reason.(interface{ Addr() uintptr }); ok {
		return fmt.Sprintf("a page cannot be read (at %#x): it is cut off, or the disk fails", fault.Addr())
	}
	return fmt.Sprintf("damaged: %v", e.reason)
}

func isPanic(err error) bool {
	var p *panicError
	return errors.As(err, &p)
}

// guarded calls fn, which uses the file. A damaged page makes bbolt panic, and
// the kernel faults the read of one that it cannot fetch: both are errors here.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r}
		}
	}()
	return fn()
}

// header is one of the two headers of the file, and where it is.
type header struct {
	at    int64
	bytes [headerLen + metaLen]byte
}

// nextHeader reads the header that the next transaction writes: they take turns
// (bbolt's Meta.Write), and the other one is of the last.
func (s *Store) nextHeader() (header, error) {
	return s.readHeader(int64((s.txid+1)%2) * s.page)
}

func (s *Store) readHeader(at int64) (header, error) {
	h := header{at: at}
	if _, err := s.file.ReadAt(h.bytes[:], at); err != nil {
		return header{}, fmt.Errorf("read a header: %w", err)
	}
	return h, nil
}

// distrust notes that a transaction failed at the disk or in bbolt.
func (s *Store) distrust(before header, err error) {
	s.doubt = &doubt{before: before, reopen: isPanic(err), panicked: isPanic(err)}
}

// usable makes the database usable again after a transaction that failed.
//
// A transaction whose last fsync failed is one for bbolt, which reads the new
// header from the page cache, and none for its caller; nobody knows what of it
// is on the disk. What was there before is therefore written and synced before
// anything else: only then may the pages of the failed transaction be used anew.
func (s *Store) usable() error {
	if s.file == nil {
		return errClosed
	}
	if s.doubt == nil {
		return nil
	}
	if err := s.restoreHeader(); err != nil {
		return err
	}
	// bbolt has no mapping any more where it could not make a larger one.
	if s.doubt.reopen || guarded(func() error { return s.db.View(nothing) }) != nil {
		s.doubt.reopen = true
		if err := s.reopen(); err != nil {
			return err
		}
	}
	s.doubt = nil
	return nil
}

func nothing(*bbolt.Tx) error { return nil }

func (s *Store) restoreHeader() error {
	before := s.doubt.before
	have, err := s.readHeader(before.at)
	if err != nil {
		return err
	}
	s.doubt.reopen = s.doubt.reopen || have != before
	// Also where it is so in the page cache: an fsync that failed does not try
	// again what it did not write (fsync(2)), be it the header or the file's inode,
	// which the write makes dirty again.
	if _, err := s.file.WriteAt(before.bytes[:], before.at); err != nil {
		return err
	}
	return s.file.Sync()
}

// reopen reads the file anew and hands it to bbolt.
func (s *Store) reopen() error {
	if err := s.closeDB(); err != nil {
		return err
	}
	// bbolt unlocks the file where it cannot open it.
	if err := s.lock(); err != nil && !errors.Is(err, errReplaced) {
		return err
	}
	c, err := s.readWhole()
	if err != nil {
		return err
	}
	return s.openDB(c.entries)
}
