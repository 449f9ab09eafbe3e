package kernel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	rs "nftnet/internal/ruleset"
)

// SnapshotVersion is the version of the encoding of a [Snapshot]. It changes
// when older programs could not read a newer snapshot right.
const SnapshotVersion = 1

// SnapshotHead is how the encoding of a [Snapshot] begins: no file of nft's does.
const SnapshotHead = `{"nftnet_snapshot":`

// Snapshot is the whole ruleset as it was at one moment, in the kernel's own
// answers: a program that understands more reads more from an old one.
type Snapshot struct {
	// Version is [SnapshotVersion]; it comes first in the file, so that a file
	// tells by its beginning what it is.
	Version int       `json:"nftnet_snapshot"`
	Taken   time.Time `json:"taken"`
	// Generation is the kernel's count of changes.
	Generation uint32 `json:"generation"`
	// ByteOrder is that of the machine, which the kernel's answers have: little or
	// big.
	ByteOrder string `json:"byte_order"`
	// Interfaces are the names of interfaces by their numbers.
	Interfaces map[uint64]string `json:"interfaces,omitempty"`
	Answers    []SnapshotAnswer  `json:"answers"`
}

// SnapshotAnswer is what the kernel answered to a question for a list.
type SnapshotAnswer struct {
	// Message, Family and Question are what was asked: the kind of message, the
	// number of the address family, and the attributes of the question. The
	// elements of a set are asked for by Table and Set instead.
	Message  int    `json:"message,omitempty"`
	Family   uint8  `json:"family"`
	Question []byte `json:"question,omitempty"`
	Table    string `json:"table,omitempty"`
	Set      string `json:"set,omitempty"`
	// Objects are the attributes of what was listed, with the families of all.
	Families []uint16 `json:"families,omitempty"`
	Objects  [][]byte `json:"objects,omitempty"`
}

// machineOrder names the order of bytes of this machine.
func machineOrder() string {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return "little"
	}
	return "big"
}

// lister lists the objects of a ruleset: the kernel's, or those of a snapshot.
type lister interface {
	dump(msg int, family uint8, body []byte, fn func(family uint8, as attrs, raw []byte) error) error
	elements(family uint8, table, set string) ([]attr, error)
}

// recorder is a lister that keeps what another one answers.
type recorder struct {
	from    lister
	answers []SnapshotAnswer
}

func (r *recorder) dump(msg int, family uint8, body []byte, fn func(uint8, attrs, []byte) error) error {
	a := SnapshotAnswer{Message: msg, Family: family, Question: slices.Clone(body)}
	err := r.from.dump(msg, family, body, func(family uint8, as attrs, raw []byte) error {
		a.Families = append(a.Families, uint16(family))
		a.Objects = append(a.Objects, slices.Clone(raw))
		return fn(family, as, raw)
	})
	r.answers = append(r.answers, a)
	return err
}

func (r *recorder) elements(family uint8, table, set string) ([]attr, error) {
	lists, err := r.from.elements(family, table, set)
	a := SnapshotAnswer{Family: family, Table: table, Set: set}
	for _, l := range lists {
		a.Objects = append(a.Objects, slices.Clone(l.data))
	}
	r.answers = append(r.answers, a)
	return lists, err
}

// Snapshot copies the ruleset as it is at one moment.
func (c *Conn) Snapshot() (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rec *recorder
	_, gen, err := c.readRetried(func() (rs.Ruleset, error) {
		rec = &recorder{from: c.sock}
		return readAll(rec, Filter{})
	})
	if err != nil {
		return Snapshot{}, err
	}
	return Snapshot{
		Version: SnapshotVersion, Taken: time.Now(), Generation: gen.ID, ByteOrder: machineOrder(),
		Interfaces: c.interfaceNames(), Answers: rec.answers,
	}, nil
}

// Write writes the snapshot; [ReadSnapshot] reads it.
func (s Snapshot) Write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(s); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return nil
}

// ReadSnapshot reads a snapshot that [Snapshot.Write] wrote, on this kind of
// machine.
func ReadSnapshot(r io.Reader) (Snapshot, error) {
	var s Snapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return Snapshot{}, fmt.Errorf("read the snapshot: %w", err)
	}
	if s.Version != SnapshotVersion {
		return Snapshot{}, fmt.Errorf("read the snapshot: version %d is not allowed, %d is", s.Version, SnapshotVersion)
	}
	if s.ByteOrder != machineOrder() {
		return Snapshot{}, fmt.Errorf("read the snapshot: it was taken on a %s-endian machine, this one is %s-endian", s.ByteOrder, machineOrder())
	}
	return s, nil
}

// Read reads the ruleset of the snapshot, as [Conn.Read] does that of the
// kernel.
func (s Snapshot) Read(f Filter) (rs.Ruleset, error) {
	out, err := readAll(s.replay(), f)
	if err != nil {
		return rs.Ruleset{}, fmt.Errorf("read the ruleset from the snapshot: %w", err)
	}
	out.NameInterfaces(func(index uint64) string { return s.Interfaces[index] })
	return out, nil
}

// replayed is the answers of a snapshot by their questions.
type replayed map[string]SnapshotAnswer

func (s Snapshot) replay() replayed {
	out := replayed{}
	for _, a := range s.Answers {
		out[a.question()] = a
	}
	return out
}

func (a SnapshotAnswer) question() string {
	if a.Set != "" {
		return "elements " + strconv.Itoa(int(a.Family)) + " " + a.Table + "\x00" + a.Set
	}
	return strconv.Itoa(a.Message) + " " + strconv.Itoa(int(a.Family)) + " " + string(a.Question)
}

var errIncomplete = errors.New("it lacks a part: the file is damaged")

// find is the answer to a question. What one family has is part of what all
// have.
func (r replayed) find(q SnapshotAnswer) (SnapshotAnswer, error) {
	a, ok := r[q.question()]
	if !ok {
		q.Family = 0
		a, ok = r[q.question()]
	}
	if !ok {
		return a, errIncomplete
	}
	return a, nil
}

func (r replayed) dump(msg int, family uint8, body []byte, fn func(uint8, attrs, []byte) error) error {
	a, err := r.find(SnapshotAnswer{Message: msg, Family: family, Question: body})
	if err != nil {
		return err
	}
	if len(a.Families) != len(a.Objects) {
		return errIncomplete
	}
	for i, raw := range a.Objects {
		as, err := parseAttrs(raw)
		if err != nil {
			return err
		}
		if of := uint8(a.Families[i]); family == 0 || family == of {
			if err := fn(of, as, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r replayed) elements(family uint8, table, set string) ([]attr, error) {
	a, err := r.find(SnapshotAnswer{Family: family, Table: table, Set: set})
	if err != nil {
		return nil, err
	}
	lists := make([]attr, len(a.Objects))
	for i, o := range a.Objects {
		lists[i] = attr{data: o}
	}
	return lists, nil
}
