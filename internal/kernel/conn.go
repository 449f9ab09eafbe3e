package kernel

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// Conn is a lasting connection to nftables in one network namespace. Its
// methods may be called from several goroutines; they take their turns.
type Conn struct {
	mu    sync.Mutex
	sock  *socket
	links *netlink.Conn
}

// Open connects to nftables in the caller's network namespace.
func Open() (*Conn, error) { return OpenAt(0) }

// OpenAt connects to nftables in the network namespace behind the descriptor
// netns. No thread of the caller changes its namespace.
func OpenAt(netns int) (*Conn, error) {
	s, err := openSocket(netns)
	if err != nil {
		return nil, err
	}
	return &Conn{sock: s, links: openLinks(netns)}, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.sock.close()
	if c.links != nil {
		err = errors.Join(err, c.links.Close())
	}
	return err
}

// ApplyError says which changes of a batch the kernel refused. Nothing of the
// batch was done.
type ApplyError struct {
	// Batch is what was to be applied.
	Batch rs.Batch
	// Failed are the changes that the kernel refused, with its error numbers.
	Failed []FailedChange
}

// FailedChange is a refused change. Index is its place in the batch, or -1
// where the kernel refused the batch as a whole.
type FailedChange struct {
	Index int
	Err   error
}

// Error names the first refused change.
func (e *ApplyError) Error() string {
	f := e.Failed[0]
	if f.Index < 0 {
		return fmt.Sprintf("nftables refused the batch of %d changes: %v", len(e.Batch), f.Err)
	}
	c := e.Batch[f.Index]
	what := string(c.Verb) + " " + c.Object()
	if c.Rule != nil {
		what = c.String()
	}
	return fmt.Sprintf("nftables refused to %s: %v", what, f.Err)
}

// Unwrap is the error number of the first refused change.
func (e *ApplyError) Unwrap() error { return e.Failed[0].Err }

// Format writes the whole batch, with the refused changes marked, for %+v.
func (e *ApplyError) Format(s fmt.State, verb rune) {
	_, _ = fmt.Fprint(s, e.Error())
	if verb != 'v' || !s.Flag('+') {
		return
	}
	failed := map[int]error{}
	for _, f := range e.Failed {
		failed[f.Index] = f.Err
	}
	for i, c := range e.Batch {
		_, _ = fmt.Fprintf(s, "\n%s", c)
		if err, ok := failed[i]; ok {
			_, _ = fmt.Fprintf(s, "    <-- %v", err)
		}
	}
}

// Apply makes all changes of a batch, or none. An error is an [*ApplyError]
// where the kernel refused a change. The connection can be used after any
// error.
func (c *Conn) Apply(batch rs.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply(batch, nil)
}

// apply sends a batch, with more messages behind it where more is given; c.mu
// is held.
func (c *Conn) apply(batch rs.Batch, more func(*encoder) []encoded) error {
	out, err := c.encodeBatch(batch, more)
	if err != nil || out.last == 0 {
		return err
	}
	if err := c.sock.send(out.bytes); err != nil {
		return fmt.Errorf("send %d changes to nftables: %w", len(batch), err)
	}
	failed, err := c.answers(out)
	if err != nil {
		c.sock.drain()
		return fmt.Errorf("apply %d changes to nftables: %w", len(batch), err)
	}
	if len(failed) > 0 {
		return &ApplyError{Batch: batch, Failed: failed}
	}
	return nil
}

// outgoing is an encoded batch.
type outgoing struct {
	bytes []byte
	// changeOf maps sequence numbers to changes, -1 for what is none of the
	// batch's own.
	changeOf map[uint32]int
	// first is the number of the begin, by which the kernel answers for the
	// batch as a whole; last that of the last change, 0 where there is none.
	first, last uint32
}

// encodeBatch builds the messages between a begin and an end. Only the last
// change asks to be acknowledged: errors come without asking.
func (c *Conn) encodeBatch(batch rs.Batch, more func(*encoder) []encoded) (outgoing, error) {
	var n encoder
	var all []encoded
	var owner []int
	for i, change := range batch {
		msgs, err := n.change(change)
		if err != nil {
			return outgoing{}, fmt.Errorf("encode %q: %w", change, err)
		}
		for _, m := range msgs {
			all, owner = append(all, m), append(owner, i)
		}
	}
	if more != nil {
		for _, m := range more(&n) {
			all, owner = append(all, m), append(owner, -1)
		}
	}
	if len(all) == 0 {
		return outgoing{}, nil
	}
	out := outgoing{changeOf: map[uint32]int{}}
	out.first = c.sock.nextSeq()
	out.changeOf[out.first] = -1
	out.control(unix.NFNL_MSG_BATCH_BEGIN, out.first)
	for i, m := range all {
		out.last = c.sock.nextSeq()
		out.changeOf[out.last] = owner[i]
		flags := unix.NLM_F_REQUEST | m.flags
		if i == len(all)-1 {
			flags |= unix.NLM_F_ACK
		}
		h := header{typ: nftMessage(m.msg), flags: flags, seq: out.last}
		out.bytes = appendMessage(out.bytes, h, m.family, 0, m.body)
	}
	out.control(unix.NFNL_MSG_BATCH_END, c.sock.nextSeq())
	return out, nil
}

func (o *outgoing) control(typ uint16, seq uint32) {
	h := header{typ: typ, flags: unix.NLM_F_REQUEST, seq: seq}
	o.bytes = appendMessage(o.bytes, h, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
}

// answers collects the errors of a batch until its last change is answered, or
// the batch as a whole.
func (c *Conn) answers(out outgoing) ([]FailedChange, error) {
	var failed []FailedChange
	for done := false; !done; {
		err := c.sock.receive(func(h header, body []byte) error {
			change, ours := out.changeOf[h.seq]
			if !ours || h.typ != unix.NLMSG_ERROR {
				return nil
			}
			if err := errnoOf(body); err != nil {
				failed = append(failed, FailedChange{Index: change, Err: err})
			}
			done = done || h.seq == out.last || h.seq == out.first
			return nil
		})
		if isTimeout(err) && len(failed) > 0 {
			return failed, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return failed, nil
}

// Generation counts the changes to the ruleset of a network namespace.
type Generation struct {
	ID uint32
	// PID and Process made the change, in the generation of an [Event]. Who asks
	// later for the current generation is not told: both are empty.
	PID     uint32
	Process string
}

// Generation reads the current generation.
func (c *Conn) Generation() (Generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sock.generation()
}

func (s *socket) generation() (Generation, error) {
	var g Generation
	err := s.get(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil, func(_ uint8, as attrs, _ []byte) error {
		// The kernel names the process that asks.
		g = Generation{ID: decodeGeneration(as).ID}
		return nil
	})
	if err != nil {
		return Generation{}, fmt.Errorf("read the ruleset's generation: %w", err)
	}
	return g, nil
}

func decodeGeneration(as attrs) Generation {
	return Generation{
		ID: as.u32(unix.NFTA_GEN_ID), PID: as.u32(unix.NFTA_GEN_PROC_PID), Process: as.str(unix.NFTA_GEN_PROC_NAME),
	}
}

// Port is the netlink port of the connection, by which a [Watch] tells its
// changes from those of others.
func (c *Conn) Port() uint32 { return c.sock.conn.PID() }

// Filter limits what [Conn.Read] reads; its zero value reads everything.
type Filter struct {
	// Family and Table name one table, or one family where Table is empty.
	Family rs.Family
	Table  string
	// Chain names the only chain of each table that is read.
	Chain string
}

func (f Filter) takes(family rs.Family, table string) bool {
	return (f.Family == "" || f.Family == family) && (f.Table == "" || f.Table == table)
}

// readTries bounds how often a read starts again because the ruleset changed.
const readTries = 20

// Read reads the ruleset as it is at one moment: a read during which the
// ruleset changed is made again.
func (c *Conn) Read(f Filter) (rs.Ruleset, error) {
	out, _, err := c.ReadAt(f)
	return out, err
}

// ReadAt is Read that says of which generation the ruleset is.
func (c *Conn) ReadAt(f Filter) (rs.Ruleset, Generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, gen, err := c.readRetried(func() (rs.Ruleset, error) { return readAll(c.sock, f) })
	if err == nil {
		c.nameInterfaces(&out)
	}
	return out, gen, err
}

// readRetried reads until the ruleset does not change meanwhile; c.mu is held.
func (c *Conn) readRetried(read func() (rs.Ruleset, error)) (rs.Ruleset, Generation, error) {
	var err error
	for range readTries {
		var out rs.Ruleset
		var gen Generation
		out, gen, err = c.readOnce(read)
		switch {
		case err == nil:
			return out, gen, nil
		case errors.Is(err, errInterrupted), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINTR):
			c.sock.drain()
		default:
			c.sock.drain()
			return rs.Ruleset{}, Generation{}, fmt.Errorf("read the ruleset: %w", err)
		}
	}
	return rs.Ruleset{}, Generation{}, fmt.Errorf("read the ruleset, tried %d times: %w", readTries, err)
}

// nameInterfaces gives the numbers of interfaces their names, which are asked
// for where there is a number.
func (c *Conn) nameInterfaces(out *rs.Ruleset) {
	out.NameInterfaces(c.linkNames())
}

// linkNames finds the name of an interface by its number; all are read when the
// first is asked for.
func (c *Conn) linkNames() func(uint64) string {
	var names map[uint64]string
	return func(index uint64) string {
		if names == nil {
			names = c.interfaceNames()
		}
		return names[index]
	}
}

func (c *Conn) readOnce(read func() (rs.Ruleset, error)) (rs.Ruleset, Generation, error) {
	before, err := c.sock.generation()
	if err != nil {
		return rs.Ruleset{}, Generation{}, err
	}
	out, err := read()
	if err != nil {
		return rs.Ruleset{}, Generation{}, err
	}
	after, err := c.sock.generation()
	if err == nil && before.ID != after.ID {
		err = errInterrupted
	}
	return out, after, err
}
