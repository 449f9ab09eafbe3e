package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"nftnet/internal/desired"
)

// version is the layout of the file. A file of a later version is refused.
const version = "1"

// The buckets of the file and the keys that are not names of entries.
const (
	bucketMeta      = "meta"
	bucketNetworks  = "networks"
	bucketEndpoints = "endpoints"
	bucketRedirects = "redirects"
	bucketSum       = "sum"

	keyVersion   = "version"
	keyUserRules = "user-rules"
	keySum       = "entries"
)

// kind is a kind of entry that a state has: a bucket of JSON by id.
type kind struct {
	bucket string
	// changes lists what differs between two states.
	changes func(before, after desired.State) ([]change, error)
	// decode reads an entry into a state.
	decode func(into desired.State, id string, text []byte) error
}

var kinds = []kind{
	newKind(bucketNetworks, func(s desired.State) map[string]desired.Network { return s.Networks }, nil),
	newKind(bucketEndpoints, func(s desired.State) map[string]desired.Endpoint { return s.Endpoints }, nil),
	newKind(bucketRedirects, func(s desired.State) map[string]desired.Redirect { return s.Redirects }, checkRedirect),
}

func newKind[T any](bucket string, of func(desired.State) map[string]T, check func(string, T) error) kind {
	return kind{
		bucket: bucket,
		changes: func(before, after desired.State) ([]change, error) {
			return changes(bucket, of(before), of(after))
		},
		decode: func(into desired.State, id string, text []byte) error {
			var x T
			err := json.Unmarshal(text, &x)
			if err == nil && check != nil {
				err = check(id, x)
			}
			if err != nil {
				return fmt.Errorf("entry %q of %s: %w", id, bucket, err)
			}
			of(into)[id] = x
			return nil
		},
	}
}

// checkRedirect checks a redirect: a person may have edited it, and the kernel
// would refuse the whole table for one.
func checkRedirect(name string, r desired.Redirect) error {
	if r.Name != name {
		return fmt.Errorf("it calls itself %q", r.Name)
	}
	return r.Validate()
}

// place is where a value is in the file.
type place struct{ bucket, key string }

// change gives a place of the file another value; nil removes it.
type change struct {
	place
	value []byte
}

// allChanges lists what differs between two states of a part.
func allChanges(before, after desired.State) ([]change, error) {
	var out []change
	for _, k := range kinds {
		c, err := k.changes(before, after)
		if err != nil {
			return nil, err
		}
		out = append(out, c...)
	}
	return out, nil
}

// longestKey is what bbolt takes for a key, in bytes (bbolt.MaxKeySize).
const longestKey = 32768

func changes[T any](bucket string, before, after map[string]T) ([]change, error) {
	var out []change
	for id := range before {
		if _, stays := after[id]; !stays {
			out = append(out, change{place: place{bucket, id}})
		}
	}
	for id, x := range after {
		if old, had := before[id]; had && reflect.DeepEqual(old, x) {
			continue
		}
		if id == "" || len(id) > longestKey {
			return nil, fmt.Errorf("id %.80q of %s cannot be stored: it must have 1 to %d bytes", id, bucket, longestKey)
		}
		text, err := json.Marshal(x)
		if err != nil {
			return nil, fmt.Errorf("encode %q of %s: %w", id, bucket, err)
		}
		out = append(out, change{place{bucket, id}, text})
	}
	return out, nil
}

// decodeEntries reads the entries of a state, and lists what is wrong with the
// others.
func decodeEntries(entries []entry) (desired.State, []error) {
	state := desired.New()
	var wrong []error
	for _, e := range entries {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.bucket == e.bucket })
		if i < 0 {
			continue
		}
		if err := kinds[i].decode(state, e.key, e.value); err != nil {
			wrong = append(wrong, err)
		}
	}
	return state, wrong
}

// The file holds a sum over its entries, so that a damaged byte is noticed that
// leaves the entry readable, such as one of an address. It is the sum of a
// number for each entry: a change of one does not need the others.
type checksum struct {
	// Tx is the transaction that the sum was made in: where another program
	// changed the file since, it says nothing.
	Tx  int    `json:"tx"`
	Sum string `json:"sum"`
}

func newChecksum(tx int, sum uint64) []byte {
	return fmt.Appendf(nil, `{"tx":%d,"sum":"%x"}`, tx, sum)
}

// weight is the number that stands for an entry in the sum.
func weight(bucket, key string, value []byte) uint64 {
	b := make([]byte, 0, len(bucket)+len(key)+len(value)+8)
	b = append(b, bucket...)
	b = order.AppendUint64(b, uint64(len(key)))
	b = append(b, key...)
	sum := sha256.Sum256(append(b, value...))
	return order.Uint64(sum[:])
}

// sumOf is the sum over entries.
func sumOf(entries []entry) uint64 {
	var sum uint64
	for _, e := range entries {
		if e.bucket != bucketSum {
			sum += weight(e.bucket, e.key, e.value)
		}
	}
	return sum
}

// find is the value at a place.
func find(entries []entry, bucket, key string) ([]byte, bool) {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.bucket == bucket && e.key == key })
	if i < 0 {
		return nil, false
	}
	return entries[i].value, true
}

// judge adds to the faults of a file those of its entries.
func (c *contents) judge() {
	for _, bucket := range []string{bucketNetworks, bucketEndpoints} {
		if !slices.Contains(c.buckets, bucket) {
			c.fault("it has no bucket %s", bucket)
		}
	}
	_, wrong := decodeEntries(c.entries)
	for _, err := range wrong {
		c.fault("%v", err)
	}
	text, ok := find(c.entries, bucketSum, keySum)
	if !ok {
		return // nftnet wrote none at first.
	}
	var have checksum
	if err := json.Unmarshal(text, &have); err != nil {
		c.fault("its checksum cannot be read: %v", err)
		return
	}
	if uint64(have.Tx) == c.txid && have.Sum != strconv.FormatUint(sumOf(c.entries), 16) {
		c.fault("the checksum of its entries is wrong")
	}
}
