package kernel

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// Conn is a lasting connection to nftables in one network namespace. Its
// methods may be called from several goroutines; they take their turns.
type Conn struct {
	mu   sync.Mutex
	sock *socket
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
	return &Conn{sock: s}, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sock.close()
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
	if len(batch) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, changeOf, last, err := c.encodeBatch(batch)
	if err != nil {
		return err
	}
	if err := c.sock.send(b); err != nil {
		return fmt.Errorf("send %d changes to nftables: %w", len(batch), err)
	}
	failed, err := c.answers(changeOf, last)
	if err != nil {
		c.sock.drain()
		return fmt.Errorf("apply %d changes to nftables: %w", len(batch), err)
	}
	if len(failed) > 0 {
		return &ApplyError{Batch: batch, Failed: failed}
	}
	return nil
}

// encodeBatch builds the messages between a begin and an end. changeOf maps
// sequence numbers to changes, the begin's to -1. Only the last change asks to
// be acknowledged: errors come without asking.
func (c *Conn) encodeBatch(batch rs.Batch) (b []byte, changeOf map[uint32]int, last uint32, err error) {
	changeOf = map[uint32]int{}
	control := func(b []byte, typ uint16) []byte {
		h := header{typ: typ, flags: unix.NLM_F_REQUEST, seq: c.sock.nextSeq()}
		changeOf[h.seq] = -1
		return appendMessage(b, h, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	var n encoder
	var all []encoded
	var owner []int
	for i, change := range batch {
		msgs, err := n.change(change)
		if err != nil {
			return nil, nil, 0, fmt.Errorf("encode %q: %w", change, err)
		}
		for _, m := range msgs {
			all, owner = append(all, m), append(owner, i)
		}
	}
	b = control(b, unix.NFNL_MSG_BATCH_BEGIN)
	for i, m := range all {
		last = c.sock.nextSeq()
		changeOf[last] = owner[i]
		flags := unix.NLM_F_REQUEST | m.flags
		if i == len(all)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = appendMessage(b, header{typ: nftMessage(m.msg), flags: flags, seq: last}, m.family, 0, m.body)
	}
	return control(b, unix.NFNL_MSG_BATCH_END), changeOf, last, nil
}

// answers collects the errors of a batch until its last change is answered.
func (c *Conn) answers(changeOf map[uint32]int, last uint32) ([]FailedChange, error) {
	var failed []FailedChange
	for done := false; !done; {
		err := c.sock.receive(func(h header, body []byte) error {
			change, ours := changeOf[h.seq]
			if !ours || h.typ != unix.NLMSG_ERROR {
				return nil
			}
			if err := errnoOf(body); err != nil {
				failed = append(failed, FailedChange{Index: change, Err: err})
			}
			done = done || h.seq == last || change == -1
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
	// PID and Process made the latest change; both are empty before the first.
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
		g = Generation{
			ID: as.u32(unix.NFTA_GEN_ID), PID: as.u32(unix.NFTA_GEN_PROC_PID), Process: as.str(unix.NFTA_GEN_PROC_NAME),
		}
		return nil
	})
	if err != nil {
		return Generation{}, fmt.Errorf("read the ruleset's generation: %w", err)
	}
	return g, nil
}

// Filter limits what [Conn.Read] reads; its zero value reads everything.
type Filter struct {
	// Family and Table name one table, or one family where Table is empty.
	Family rs.Family
	Table  string
}

func (f Filter) takes(family rs.Family, table string) bool {
	return (f.Family == "" || f.Family == family) && (f.Table == "" || f.Table == table)
}

// readTries bounds how often a read starts again because the ruleset changed.
const readTries = 20

// Read reads the ruleset as it is at one moment: a read during which the
// ruleset changed is made again.
func (c *Conn) Read(f Filter) (rs.Ruleset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range readTries {
		var out rs.Ruleset
		out, err = c.readOnce(f)
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, errInterrupted), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINTR):
			c.sock.drain()
		default:
			c.sock.drain()
			return rs.Ruleset{}, fmt.Errorf("read the ruleset: %w", err)
		}
	}
	return rs.Ruleset{}, fmt.Errorf("read the ruleset, tried %d times: %w", readTries, err)
}

func (c *Conn) readOnce(f Filter) (rs.Ruleset, error) {
	before, err := c.sock.generation()
	if err != nil {
		return rs.Ruleset{}, err
	}
	r := reader{sock: c.sock, filter: f}
	if err := r.read(); err != nil {
		return rs.Ruleset{}, err
	}
	after, err := c.sock.generation()
	if err != nil {
		return rs.Ruleset{}, err
	}
	if before.ID != after.ID {
		return rs.Ruleset{}, errInterrupted
	}
	return r.out, nil
}

// reader reads one generation of the ruleset.
type reader struct {
	sock   *socket
	filter Filter
	out    rs.Ruleset
}

func (r *reader) read() error {
	number := families[r.filter.Family]
	if err := r.sock.dump(unix.NFT_MSG_GETTABLE, number, nil, r.table); err != nil {
		return err
	}
	if err := r.sock.dump(unix.NFT_MSG_GETSET, number, nil, r.set); err != nil {
		return err
	}
	if err := r.sock.dump(unix.NFT_MSG_GETCHAIN, number, nil, r.chain); err != nil {
		return err
	}
	for i := range r.out.Tables {
		if err := r.fill(&r.out.Tables[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) table(number uint8, as attrs, _ []byte) error {
	family, name := familyByNum[number], as.str(unix.NFTA_TABLE_NAME)
	if !r.filter.takes(family, name) {
		return nil
	}
	t := rs.Table{Family: family, Name: name, Handle: as.u64(nftaTableHandle)}
	flags := as.u32(unix.NFTA_TABLE_FLAGS)
	for _, f := range []struct {
		bit  uint32
		word string
	}{{unix.NFT_TABLE_F_DORMANT, "dormant"}, {nftaTableFlagOwner, "owner"}, {nftaTableFlagPersist, "persist"}} {
		if flags&f.bit != 0 {
			t.Flags = append(t.Flags, f.word)
		}
	}
	r.out.Tables = append(r.out.Tables, t)
	return nil
}

func (r *reader) set(number uint8, as attrs, _ []byte) error {
	if t := r.out.Table(familyByNum[number], as.str(unix.NFTA_SET_TABLE)); t != nil {
		t.Sets = append(t.Sets, decodeSet(as))
	}
	return nil
}

func (r *reader) chain(number uint8, as attrs, _ []byte) error {
	if t := r.out.Table(familyByNum[number], as.str(unix.NFTA_CHAIN_TABLE)); t != nil {
		t.Chains = append(t.Chains, decodeChain(t.Family, as))
	}
	return nil
}

// fill reads the elements of a table's sets, then the rules chain by chain: the
// kernel walks a dump from its first rule for each message.
func (r *reader) fill(t *rs.Table) error {
	sets := make(map[string]*rs.Set, len(t.Sets))
	for i := range t.Sets {
		s := &t.Sets[i]
		sets[s.Name] = s
		if err := r.elements(t, s); err != nil {
			return err
		}
	}
	for i := range t.Chains {
		if err := r.rules(t, &t.Chains[i], sets); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) elements(t *rs.Table, s *rs.Set) error {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	var list []rawElement
	err := r.sock.dump(unix.NFT_MSG_GETSETELEM, families[t.Family], m.b, func(_ uint8, as attrs, _ []byte) error {
		elems, _ := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for _, e := range elems.nested() {
			list = append(list, decodeElement(s, e.nested()))
		}
		return nil
	})
	s.Elements = joinIntervals(s, list)
	rs.SortElements(s.Elements)
	return err
}

func (r *reader) rules(t *rs.Table, c *rs.Chain, sets map[string]*rs.Set) error {
	var m message
	m.str(unix.NFTA_RULE_TABLE, t.Name)
	m.str(unix.NFTA_RULE_CHAIN, c.Name)
	return r.sock.dump(unix.NFT_MSG_GETRULE, families[t.Family], m.b, func(_ uint8, as attrs, _ []byte) error {
		list, _ := as.get(unix.NFTA_RULE_EXPRESSIONS)
		rule := rs.Rule{Handle: as.u64(unix.NFTA_RULE_HANDLE), Parts: decodeRule(t.Family, sets, list.nested())}
		if u, ok := as.get(unix.NFTA_RULE_USERDATA); ok {
			rule.Comment = readComment(u.data, udataRuleComment)
		}
		c.Rules = append(c.Rules, rule)
		return nil
	})
}
