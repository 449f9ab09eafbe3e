// Package store keeps desired state on disk, in one bbolt file: networks,
// endpoints and redirects as JSON, so that people can read them too.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"nftnet/internal/desired"
)

// version is the layout of the file. A file of a later version is refused.
const version = "1"

var (
	bucketMeta      = []byte("meta")
	bucketNetworks  = []byte("networks")
	bucketEndpoints = []byte("endpoints")
	bucketRedirects = []byte("redirects")
	keyVersion      = []byte("version")
	keyUserRules    = []byte("user-rules")
)

// lockTimeout bounds the wait for another process that has the file open.
const lockTimeout = time.Second

// Store is an open state file. No other process can open it meanwhile.
type Store struct {
	db   *bbolt.DB
	path string
}

// Open opens the state file at path, and makes it and its folder where they are
// missing. A damaged file is an error, and stays as it is.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the state file: %w", err)
	}
	var db *bbolt.DB
	err := guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("state file %s is open in another process: is nftnet running already?", path)
	case err != nil:
		return nil, unreadable(path, err)
	}
	s := &Store{db: db, path: path}
	if err := s.check(); err != nil {
		return nil, errors.Join(unreadable(path, err), db.Close())
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func unreadable(path string, err error) error {
	return fmt.Errorf("state file %s cannot be read (move it away to start without any network): %w", path, err)
}

// guarded calls fn, which reads the file. A damaged page makes bbolt panic, and
// a truncated file makes the kernel fault the read: both are errors here.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return fn()
}

// check reads every page of the file.
func (s *Store) check() error {
	return guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, v []byte) error {
					if bytes.Equal(name, bucketMeta) || json.Valid(v) {
						return nil
					}
					return fmt.Errorf("an entry of %s is not JSON", name)
				})
			})
		})
	})
}

func (s *Store) prepare() error {
	return s.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketNetworks, bucketEndpoints, bucketRedirects} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if have := string(meta.Get(keyVersion)); have != "" && have != version {
			return fmt.Errorf("it has version %s, this nftnet reads version %s", have, version)
		}
		return meta.Put(keyVersion, []byte(version))
	})
}

func (s *Store) update(fn func(*bbolt.Tx) error) error {
	if err := s.db.Update(fn); err != nil {
		return fmt.Errorf("state file %s: %w", s.path, err)
	}
	return nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Load reads the whole state.
func (s *Store) Load() (desired.State, error) {
	state := desired.New()
	err := s.db.View(func(tx *bbolt.Tx) error {
		if err := read(tx.Bucket(bucketNetworks), state.Networks); err != nil {
			return err
		}
		if err := read(tx.Bucket(bucketEndpoints), state.Endpoints); err != nil {
			return err
		}
		return readRedirects(tx, state.Redirects)
	})
	if err != nil {
		return desired.State{}, fmt.Errorf("state file %s: %w", s.path, err)
	}
	return state, nil
}

// readRedirects reads the redirects, and checks each: a person may have edited
// them, and the kernel would refuse the whole table for one.
func readRedirects(tx *bbolt.Tx, into map[string]desired.Redirect) error {
	if err := read(tx.Bucket(bucketRedirects), into); err != nil {
		return err
	}
	for name, r := range into {
		if r.Name != name {
			return fmt.Errorf("redirect %s: it calls itself %q", name, r.Name)
		}
		if err := r.Validate(); err != nil {
			return fmt.Errorf("redirect %s: %w", name, err)
		}
	}
	return nil
}

func read[T any](b *bbolt.Bucket, into map[string]T) error {
	return b.ForEach(func(k, v []byte) error {
		var x T
		if err := json.Unmarshal(v, &x); err != nil {
			return fmt.Errorf("entry %s: %w", k, err)
		}
		into[string(k)] = x
		return nil
	})
}

// Save replaces what before holds by what after holds, all or nothing, and
// returns when it is on disk.
func (s *Store) Save(before, after desired.State) error {
	return s.update(func(tx *bbolt.Tx) error {
		if err := write(tx.Bucket(bucketNetworks), before.Networks, after.Networks); err != nil {
			return err
		}
		if err := write(tx.Bucket(bucketEndpoints), before.Endpoints, after.Endpoints); err != nil {
			return err
		}
		return write(tx.Bucket(bucketRedirects), before.Redirects, after.Redirects)
	})
}

func write[T any](b *bbolt.Bucket, before, after map[string]T) error {
	for id := range before {
		if _, stays := after[id]; !stays {
			if err := b.Delete([]byte(id)); err != nil {
				return fmt.Errorf("delete %s: %w", id, err)
			}
		}
	}
	for id, x := range after {
		text, err := json.Marshal(x)
		if err != nil {
			return fmt.Errorf("encode %s: %w", id, err)
		}
		if err := b.Put([]byte(id), text); err != nil {
			return fmt.Errorf("write %s: %w", id, err)
		}
	}
	return nil
}

// UserRules reads the copy of the user's rules; nil where there is none.
func (s *Store) UserRules() ([]byte, error) {
	var out []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		out = bytes.Clone(tx.Bucket(bucketMeta).Get(keyUserRules))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", s.path, err)
	}
	return out, nil
}

// SaveUserRules replaces the copy of the user's rules.
func (s *Store) SaveUserRules(text []byte) error {
	return s.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyUserRules, text) })
}
