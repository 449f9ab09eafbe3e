package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
)

// The store reads the pages of a file itself before it hands the file to bbolt:
// bbolt trusts them, and a wrong number in one makes it panic, loop for ever or
// read memory that is not the file's. The layout is bbolt's
// (internal/common/page.go, meta.go, bucket.go), in the machine's byte order.
const (
	headerLen  = 16 // id u64, flags u16, count u16, overflow u32
	elementLen = 16 // of a leaf: flags, position, key length, value length, u32 each
	bucketLen  = 16 // root page u64, sequence u64
	metaLen    = 64
	sumAt      = 56 // of the checksum in a meta

	isBranch   = 0x01
	isLeaf     = 0x02
	isFreelist = 0x10
	isBucket   = 0x01 // of an element

	boltMagic   = 0xed0cdaed
	boltVersion = 2
	noFreelist  = math.MaxUint64

	minPage = 1 << 10
	maxPage = 1 << 24
	// maxDepth bounds the height of a tree: one of 64 levels is beyond any disk.
	maxDepth = 64
	// maxFaults is how many faults of a file are told.
	maxFaults = 3
)

var order = binary.NativeEndian

// entry is a value of one of the file's buckets.
type entry struct {
	bucket, key string
	value       []byte
}

// contents is what the pages of a file hold.
type contents struct {
	entries []entry
	// faults say what is wrong with the file; none where it is whole.
	faults []string
	// stale says that one of the two headers is damaged, so that the last change
	// may be missing: bbolt goes on from the other one.
	stale   string
	buckets []string
	// txid is the number of the transaction that wrote the file last.
	txid uint64
}

func (c *contents) fault(format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

// errLaterFormat is a file that a later bbolt wrote.
var errLaterFormat = errors.New("it has a later format of bbolt")

// meta is a header of the file: there are two, written in turn.
type meta struct {
	at       int64
	page     int64
	root     uint64
	freelist uint64
	end      uint64 // the first page that was never used
	txid     uint64
	valid    bool
	// later is one of a later bbolt; odd is one that bbolt takes for good and that
	// does not fit its place.
	later, odd bool
}

// readPages reads all that can be read of a file of size bytes. It returns an
// error only where the file cannot be read, or must not be judged.
func readPages(f io.ReaderAt, size int64) (contents, error) {
	metas, err := readMetas(f, size)
	if err != nil {
		return contents{}, err
	}
	valid := slices.DeleteFunc(slices.Clone(metas), func(m meta) bool { return !m.valid })
	if slices.ContainsFunc(metas, func(m meta) bool { return m.later }) && len(valid) == 0 {
		return contents{}, errLaterFormat
	}
	odd := slices.ContainsFunc(metas, func(m meta) bool { return m.odd || m.valid && m.page != valid[0].page })
	if len(valid) > 0 && !odd {
		c, err := readTree(f, size, valid[0])
		if len(valid) < 2 {
			c.stale = "one of its two headers is damaged: the last change may be missing"
		}
		if err != nil || len(c.faults) == 0 || len(c.entries) > 0 {
			return c, err
		}
	}
	// What the newest header leads to is lost: an older one may lead to something
	// that is worth a look.
	best := contents{}
	switch {
	case odd:
		best.fault("its headers contradict each other")
	case len(valid) == 0:
		best.fault("neither of its headers is valid")
	}
	for _, m := range slices.DeleteFunc(metas, func(m meta) bool { return m.odd || m.later }) {
		c, err := readTree(f, size, m)
		if err != nil {
			return contents{}, err
		}
		best.faults = append(best.faults, c.faults...)
		if len(c.entries) > len(best.entries) {
			best.entries = c.entries
		}
	}
	best.faults = best.faults[:min(len(best.faults), maxFaults)]
	return best, nil
}

// readMetas reads the headers, the newest valid one first. The second lies at
// the page size, which the first may not tell any more.
func readMetas(f io.ReaderAt, size int64) ([]meta, error) {
	var out []meta
	for at := int64(0); at <= maxPage && at+headerLen+metaLen <= size; at = max(minPage, at*2) {
		m, ok, err := readMeta(f, at)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b meta) int {
		if a.valid != b.valid {
			return map[bool]int{true: -1, false: 1}[a.valid]
		}
		return cmp.Compare(b.txid, a.txid)
	})
	return out, nil
}

// readMeta reads the header at an offset, and reports whether there is one.
func readMeta(f io.ReaderAt, at int64) (meta, bool, error) {
	b := make([]byte, headerLen+metaLen)
	if _, err := f.ReadAt(b, at); err != nil {
		return meta{}, false, err
	}
	b = b[headerLen:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:sumAt])
	m := meta{
		at:       at,
		page:     int64(order.Uint32(b[8:])),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		end:      order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}
	whole := order.Uint32(b) == boltMagic && order.Uint64(b[sumAt:]) == sum.Sum64()
	fits := m.page >= minPage && m.page <= maxPage && m.page&(m.page-1) == 0 && (at == 0 || m.page == at)
	format := order.Uint32(b[4:])
	m.later = whole && format > boltVersion
	m.valid = whole && format == boltVersion && fits
	m.odd = whole && format == boltVersion && !fits
	return m, fits || m.odd || m.later, nil
}

// tree reads the pages that one header leads to.
type tree struct {
	file io.ReaderAt
	size int64
	meta meta
	seen map[uint64]bool
	out  contents
	// err is why the file cannot be read.
	err error
}

func readTree(f io.ReaderAt, size int64, m meta) (contents, error) {
	t := &tree{file: f, size: size, meta: m, seen: map[uint64]bool{}, out: contents{txid: m.txid}}
	if uint64(size/m.page) < m.end {
		t.out.fault("the file is cut off at %d bytes", size)
	}
	t.walk(m.root, 0, &floor{}, t.bucket)
	t.free()
	return t.out, t.err
}

// page is one page with those that continue it.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte
}

// load reads a page that no other place of the file leads to.
func (t *tree) load(id uint64) (page, bool) {
	if t.err != nil {
		return page{}, false
	}
	if id < 2 || id >= t.meta.end || id >= uint64(t.size/t.meta.page) {
		t.out.fault("page %d is outside of the file", id)
		return page{}, false
	}
	header, ok := t.read(id, headerLen)
	if !ok {
		return page{}, false
	}
	p := page{id: id, flags: order.Uint16(header[8:]), count: int(order.Uint16(header[10:]))}
	last := id + uint64(order.Uint32(header[12:]))
	if order.Uint64(header) != id || last >= t.meta.end {
		t.out.fault("page %d is damaged", id)
		return page{}, false
	}
	for i := id; i <= last; i++ {
		if t.seen[i] {
			t.out.fault("page %d is used twice", i)
			return page{}, false
		}
		t.seen[i] = true
	}
	p.data, ok = t.read(id, int64(last-id+1)*t.meta.page)
	return p, ok
}

func (t *tree) read(id uint64, n int64) ([]byte, bool) {
	at := int64(id) * t.meta.page
	if n > t.size || at > t.size-n {
		t.out.fault("page %d is cut off", id)
		return nil, false
	}
	b := make([]byte, n)
	if _, err := t.file.ReadAt(b, at); err != nil {
		if !errors.Is(err, io.EOF) {
			t.err = err
			return nil, false
		}
		t.out.fault("page %d is cut off", id)
		return nil, false
	}
	return b, true
}

// floor is the key below which no further key of a tree may be: bbolt finds a
// key by their order.
type floor struct {
	key       []byte
	exclusive bool
}

// raise reports whether key is in order behind the keys before it.
func (f *floor) raise(key []byte, exclusive bool) bool {
	c := bytes.Compare(key, f.key)
	if c < 0 || c == 0 && f.exclusive {
		return false
	}
	f.key, f.exclusive = key, exclusive
	return true
}

// element is an entry of a leaf: a value, or a bucket.
type element struct {
	bucket     bool
	key, value []byte
}

// walk visits the elements of a tree in their order.
func (t *tree) walk(id uint64, depth int, f *floor, visit func(element)) {
	p, ok := t.load(id)
	switch {
	case !ok:
	case p.flags == isLeaf:
		t.leaf(p, f, visit)
	case p.flags != isBranch || depth > maxDepth || p.count == 0:
		t.out.fault("page %d is damaged", id)
	default:
		t.branch(p, depth, f, visit)
	}
}

func (t *tree) branch(p page, depth int, f *floor, visit func(element)) {
	for i := range p.count {
		at := headerLen + i*elementLen
		if at+elementLen > len(p.data) {
			t.out.fault("page %d is damaged", p.id)
			return
		}
		e := p.data[at:]
		key, ok := cut(p.data, at, order.Uint32(e), order.Uint32(e[4:]), 0)
		if !ok || !f.raise(key, false) {
			t.out.fault("page %d is damaged", p.id)
		}
		t.walk(order.Uint64(e[8:]), depth+1, f, visit)
	}
}

func (t *tree) leaf(p page, f *floor, visit func(element)) {
	for i := range p.count {
		at := headerLen + i*elementLen
		if at+elementLen > len(p.data) {
			t.out.fault("page %d is damaged", p.id)
			return
		}
		e := p.data[at:]
		flags, keyLen := order.Uint32(e), order.Uint32(e[8:])
		both, ok := cut(p.data, at, order.Uint32(e[4:]), keyLen, order.Uint32(e[12:]))
		if !ok || flags > isBucket || keyLen == 0 || !f.raise(both[:keyLen], true) {
			t.out.fault("page %d is damaged", p.id)
			continue
		}
		visit(element{bucket: flags == isBucket, key: both[:keyLen], value: both[keyLen:]})
	}
}

// cut is the key and the value of the element at an offset of a page.
func cut(data []byte, at int, pos, keyLen, valueLen uint32) ([]byte, bool) {
	from := int64(at) + int64(pos)
	to := from + int64(keyLen) + int64(valueLen)
	if pos < elementLen || to > int64(len(data)) {
		return nil, false
	}
	return data[from:to:to], true
}

// bucket visits an element of the file's root, where there are buckets only.
func (t *tree) bucket(e element) {
	if !e.bucket || len(e.value) < bucketLen {
		t.out.fault("entry %q is no bucket", e.key)
		return
	}
	name := string(e.key)
	t.out.buckets = append(t.out.buckets, name)
	visit := func(e element) {
		if e.bucket {
			t.out.fault("entry %q of bucket %q is a bucket", e.key, name)
			return
		}
		t.out.entries = append(t.out.entries, entry{name, string(e.key), e.value})
	}
	if root := order.Uint64(e.value); root != 0 {
		t.walk(root, 1, &floor{}, visit)
		return
	}
	// A small bucket lies in the entry itself.
	data := e.value[bucketLen:]
	if len(data) < headerLen || order.Uint16(data[8:]) != isLeaf {
		t.out.fault("bucket %q is damaged", name)
		return
	}
	t.leaf(page{flags: isLeaf, count: int(order.Uint16(data[10:])), data: data}, &floor{}, visit)
}

// free reads the list of free pages: bbolt overwrites what it names.
func (t *tree) free() {
	if t.meta.freelist == noFreelist {
		return
	}
	p, ok := t.load(t.meta.freelist)
	if !ok {
		return
	}
	ids := p.data[headerLen:]
	count := uint64(p.count)
	if count == 0xffff && len(ids) >= 8 {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if p.flags != isFreelist || count > uint64(len(ids)/8) {
		t.out.fault("page %d is damaged", p.id)
		return
	}
	for i := range count {
		id := order.Uint64(ids[i*8:])
		if id < 2 || id >= t.meta.end || t.seen[id] {
			t.out.fault("page %d is listed as free and is not", id)
			return
		}
		t.seen[id] = true
	}
}
