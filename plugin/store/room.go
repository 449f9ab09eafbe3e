package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A removal must fit where nothing else does, or a full disk keeps what is gone
// alive. bbolt never overwrites a page that is in use, so that a removal needs
// free ones too. The file therefore ends in pages that have blocks on the disk
// and are used by nothing: only the store makes the file longer, and bbolt does
// not get those pages for a change that makes entries longer.

const (
	// reservePages is how many pages are kept for a removal beside the leaf that it
	// rewrites: branches, root, list of free pages.
	reservePages = 8
	// leafEntries is how many of the largest entries may be in that leaf: bbolt
	// splits none of so many (node.go splitTwo).
	leafEntries = 4
	// growPages and growShare are how much more than is needed the file grows by
	// at once: pages, and the part of its length.
	growPages = 16
	growShare = 4
)

// reserve is how many bytes at the end of the file are kept for removals, where
// free bytes are free elsewhere. Its pages follow one another, as those of an
// entry of several pages must.
func (s *Store) reserve(free int64) int64 {
	// The list of free pages has eight bytes for each.
	return s.pages(leafEntries*s.largest) + s.pages(free/s.page*8) + reservePages*s.page
}

// free is how many bytes of the file are in pages that were used once.
func (s *Store) free() int64 {
	stats := s.db.Stats()
	return int64(stats.FreePageN+stats.PendingPageN) * s.page
}

// pages is n bytes, rounded up to pages.
func (s *Store) pages(n int64) int64 { return (n + s.page - 1) / s.page * s.page }

// makeRoom sees to it that a change that adds growth bytes leaves the reserve
// alone, or refuses it before anything is written.
func (s *Store) makeRoom(growth int64) error {
	free, end := s.free(), max(0, s.blocks-s.used-s.page)
	reserve := s.reserve(free)
	// Pages are half full at worst. Some are to be free beside the reserve, so that
	// a removal takes those, and leaves it for the next.
	want := reserve + reservePages*s.page + s.pages(2*growth)
	if short := max(reserve-end, want-free-end); short > 0 {
		if err := s.extend(short); err != nil {
			return err
		}
	}
	s.db.MaxSize = int(s.blocks - reserve)
	return nil
}

// extend gives the file blocks for at least more bytes behind those it has.
func (s *Store) extend(more int64) error {
	// bbolt wants one page behind the last one (db.go allocate).
	from := max(s.blocks, s.used+s.page)
	more = s.pages(more)
	ample := more + max(growPages*s.page, s.pages(s.used/growShare))
	err := s.allocate(from, from+ample)
	if isFull(err) {
		ample = more
		err = s.allocate(from, from+ample)
	}
	if err != nil {
		return fmt.Errorf("%w: %s more are needed", err, amount(uint64(more)))
	}
	s.blocks = from + ample
	return nil
}

// allocate makes the file to bytes long and gives it a block on the disk for
// each. All from the offset from on is used by nothing.
func (s *Store) allocate(from, to int64) error {
	for {
		err := syscall.Fallocate(int(s.file.Fd()), 0, 0, to)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			// ext2, NFS before 4.2: a block is there once it was written.
			return writeZeros(s.file, from, to)
		}
		return err
	}
}

func writeZeros(f *os.File, from, to int64) error {
	zeros := make([]byte, 64<<10)
	for at := from; at < to; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
