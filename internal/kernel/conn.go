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
	var out rs.Ruleset
	err := c.retried(func() (err error) {
		r := reader{sock: c.sock, filter: f, known: map[string]knownSet{}}
		err = c.readOnce(&r)
		out = r.out
		return err
	})
	if err != nil {
		return rs.Ruleset{}, err
	}
	c.nameInterfaces(&out)
	return out, nil
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

// retried reads until the ruleset held still meanwhile.
func (c *Conn) retried(read func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range readTries {
		err = read()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errInterrupted), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EINTR):
			c.sock.drain()
		default:
			c.sock.drain()
			return fmt.Errorf("read the ruleset: %w", err)
		}
	}
	return fmt.Errorf("read the ruleset, tried %d times: %w", readTries, err)
}

func (c *Conn) readOnce(r *reader) error {
	before, err := c.sock.generation()
	if err != nil {
		return err
	}
	if err := r.read(); err != nil {
		return err
	}
	after, err := c.sock.generation()
	if err != nil {
		return err
	}
	if before.ID != after.ID {
		return errInterrupted
	}
	return nil
}

// reader reads one generation of the ruleset.
type reader struct {
	sock   *socket
	filter Filter
	out    rs.Ruleset
	// known is what the kernel says of each set, by family, table and name.
	known map[string]knownSet
	// visitor gets the rules one by one, where there is one; links are the names
	// of interfaces for them.
	visitor Visitor
	links   func(uint64) string
}

func (r *reader) read() error {
	number := families[r.filter.Family]
	if err := r.sock.dump(unix.NFT_MSG_GETTABLE, number, nil, r.table); err != nil {
		return err
	}
	if err := r.sock.dump(unix.NFT_MSG_GETOBJ, number, nil, r.object); err != nil {
		return err
	}
	if err := r.sock.dump(unix.NFT_MSG_GETSET, number, nil, r.set); err != nil {
		return err
	}
	if err := r.sock.dump(unix.NFT_MSG_GETFLOWTABLE, number, nil, r.flowtable); err != nil {
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
	r.out.Tables = append(r.out.Tables, decodeTable(family, as))
	return nil
}

func (r *reader) object(number uint8, as attrs, _ []byte) error {
	if t := r.out.Table(familyByNum[number], as.str(unix.NFTA_OBJ_TABLE)); t != nil {
		t.Objects = append(t.Objects, decodeObject(as))
	}
	return nil
}

func (r *reader) set(number uint8, as attrs, _ []byte) error {
	if t := r.out.Table(familyByNum[number], as.str(unix.NFTA_SET_TABLE)); t != nil {
		s := decodeSet(as)
		t.Sets = append(t.Sets, *s.Set)
		r.known[setKey(t, s.Name)] = s
	}
	return nil
}

func (r *reader) flowtable(number uint8, as attrs, _ []byte) error {
	const table = 1 // NFTA_FLOWTABLE_TABLE
	if t := r.out.Table(familyByNum[number], as.str(table)); t != nil {
		t.Flowtables = append(t.Flowtables, decodeFlowtable(as))
	}
	return nil
}

func setKey(t *rs.Table, set string) string { return string(t.Family) + " " + t.Name + " " + set }

func (r *reader) chain(number uint8, as attrs, _ []byte) error {
	if r.filter.Chain != "" && as.str(unix.NFTA_CHAIN_NAME) != r.filter.Chain {
		return nil
	}
	if t := r.out.Table(familyByNum[number], as.str(unix.NFTA_CHAIN_TABLE)); t != nil {
		t.Chains = append(t.Chains, decodeChain(t.Family, as))
	}
	return nil
}

// fill reads the elements of a table's sets, then the rules chain by chain: the
// kernel walks a dump from its first rule for each message.
func (r *reader) fill(t *rs.Table) error {
	sets := make(map[string]knownSet, len(t.Sets))
	for i := range t.Sets {
		s := &t.Sets[i]
		known := r.known[setKey(t, s.Name)]
		known.Set = s
		sets[s.Name] = known
		if err := r.elements(t, s); err != nil {
			return err
		}
	}
	if r.visitor != nil {
		return r.visit(t, sets)
	}
	for i := range t.Chains {
		c := &t.Chains[i]
		if err := r.rules(t, c, sets, func(rule rs.Rule) { c.Rules = append(c.Rules, rule) }); err != nil {
			return err
		}
	}
	joinAnonymous(t)
	return nil
}

func (r *reader) elements(t *rs.Table, s *rs.Set) error {
	lists, err := r.sock.elements(families[t.Family], t.Name, s.Name)
	if err != nil {
		return err
	}
	var all []rawElement
	for _, list := range lists {
		elements, err := parseAttrs(list.data)
		if err != nil {
			return err
		}
		for _, e := range elements {
			all = append(all, decodeElement(s, e.nested()))
		}
	}
	s.Elements = joinIntervals(s, all)
	sortListed(s)
	return nil
}

func (r *reader) rules(t *rs.Table, c *rs.Chain, sets map[string]knownSet, each func(rs.Rule)) error {
	var m message
	m.str(unix.NFTA_RULE_TABLE, t.Name)
	m.str(unix.NFTA_RULE_CHAIN, c.Name)
	return r.sock.dump(unix.NFT_MSG_GETRULE, families[t.Family], m.b, func(_ uint8, as attrs, _ []byte) error {
		list, err := parseAttrs(as.bytes(unix.NFTA_RULE_EXPRESSIONS))
		if err != nil {
			return err
		}
		rule := rs.Rule{Handle: as.u64(unix.NFTA_RULE_HANDLE), Parts: decodeRule(t.Family, sets, list)}
		if u, ok := as.get(unix.NFTA_RULE_USERDATA); ok {
			rule.Comment = readComment(u.data, udataRuleComment)
		}
		each(rule)
		return nil
	})
}
