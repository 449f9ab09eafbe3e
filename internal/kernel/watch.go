package kernel

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// watchBuffer holds the messages of a large change: the deletion of a rule or
// an element takes some 200 bytes.
const watchBuffer = 64 << 20

// nfnlGroupNFTables is NFNLGRP_NFTABLES: changes to the ruleset.
const nfnlGroupNFTables = 7

// Event is a change to the ruleset, as the kernel tells it after the fact.
type Event struct {
	// Generation is the one that the change made, with the process that did it;
	// zero after an overrun.
	Generation Generation
	// Tables are the tables that the change touched.
	Tables []TableName
	// Sets are the sets that the change touched, they themselves or their elements.
	Sets []SetName
	// Overrun says that messages were lost: anything may have changed.
	Overrun bool
	// Port is the netlink port of the socket that sent the change.
	Port uint32
}

// TableName names a table.
type TableName struct {
	Family rs.Family
	Name   string
}

// SetName names a set or map.
type SetName struct {
	Table TableName
	Name  string
}

// Touches says whether the event may have changed a table.
func (e Event) Touches(family rs.Family, name string) bool {
	if e.Overrun {
		return true
	}
	for _, t := range e.Tables {
		if t.Family == family && t.Name == name {
			return true
		}
	}
	return false
}

// Watch is a subscription to changes of the ruleset.
type Watch struct {
	sock   *socket
	closed atomic.Bool
	// pending are the tables of a change whose end was not seen yet.
	pending map[TableName]bool
	sets    map[SetName]bool
	queue   []Event
}

// OpenWatch subscribes to changes in the caller's network namespace.
func OpenWatch() (*Watch, error) {
	s, err := openSocket(0)
	if err != nil {
		return nil, err
	}
	_ = s.conn.SetReadBuffer(watchBuffer)
	if err := s.conn.JoinGroup(nfnlGroupNFTables); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of the ruleset: %w", err), s.close())
	}
	return &Watch{sock: s, pending: map[TableName]bool{}, sets: map[SetName]bool{}}, nil
}

// Close ends the subscription, and a Next that waits.
func (w *Watch) Close() error {
	w.closed.Store(true)
	return w.sock.close()
}

// ErrClosed says that a subscription has ended.
var ErrClosed = errors.New("the subscription to the ruleset is closed")

// Next waits for the next change. After Close it returns ErrClosed.
func (w *Watch) Next() (Event, error) {
	for len(w.queue) == 0 {
		err := w.sock.receiveBy(time.Time{}, w.message)
		if errors.Is(err, syscall.ENOBUFS) {
			clear(w.pending)
			clear(w.sets)
			return Event{Overrun: true}, nil
		}
		if w.closed.Load() {
			return Event{}, ErrClosed
		}
		if err != nil {
			return Event{}, fmt.Errorf("watch the ruleset: %w", err)
		}
	}
	e := w.queue[0]
	w.queue = w.queue[1:]
	return e, nil
}

// message notes the table that a message is about; the message of the new
// generation ends a change.
func (w *Watch) message(h header, body []byte) error {
	if h.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(body) < 4 {
		return nil
	}
	list, _ := parseAttrs(body[4:])
	as := attrs(list)
	if h.typ&0xff != unix.NFT_MSG_NEWGEN {
		// The first attribute of every object names its table, that of a table
		// itself.
		t := TableName{familyByNum[body[0]], as.str(unix.NFTA_TABLE_NAME)}
		w.pending[t] = true
		switch h.typ & 0xff {
		case unix.NFT_MSG_NEWSET, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
			// The second attribute of both names the set.
			w.sets[SetName{t, as.str(unix.NFTA_SET_ELEM_LIST_SET)}] = true
		}
		return nil
	}
	e := Event{Generation: decodeGeneration(as), Port: h.port}
	for t := range w.pending {
		e.Tables = append(e.Tables, t)
	}
	for set := range w.sets {
		e.Sets = append(e.Sets, set)
	}
	clear(w.pending)
	clear(w.sets)
	w.queue = append(w.queue, e)
	return nil
}
