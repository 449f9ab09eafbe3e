package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// Saved is a copy of a chain and of all that its rules refer to, in the
// kernel's own encoding: it is put back byte for byte, whatever a user wrote.
type Saved struct {
	Sets   []SavedSet   `json:"sets,omitempty"`
	Chains []SavedChain `json:"chains,omitempty"`
}

// SavedSet is a set or map with its elements.
type SavedSet struct {
	Name      string `json:"name"`
	Anonymous bool   `json:"anonymous,omitempty"`
	// Definition and Elements are attributes as the kernel listed them; Elements
	// has one list for each message.
	Definition []byte   `json:"definition"`
	Elements   [][]byte `json:"elements,omitempty"`
}

// SavedChain is a regular chain with its rules, the first of a [Saved] the one
// that was asked for.
type SavedChain struct {
	Name  string      `json:"name"`
	Rules []SavedRule `json:"rules,omitempty"`
}

// SavedRule is a rule.
type SavedRule struct {
	Expressions []byte `json:"expressions"`
	Userdata    []byte `json:"userdata,omitempty"`
}

// Save copies a chain, and the chains and sets that its rules refer to, except
// those that own says are not the user's.
func (c *Conn) Save(family rs.Family, table, chain string, own func(name string) bool) (Saved, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range readTries {
		var s saver
		s, err = c.saveOnce(family, table, chain, own)
		switch {
		case err == nil:
			return s.out, nil
		case errors.Is(err, errInterrupted):
			c.sock.drain()
		default:
			c.sock.drain()
			return Saved{}, fmt.Errorf("copy chain %s: %w", chain, err)
		}
	}
	return Saved{}, fmt.Errorf("copy chain %s, tried %d times: %w", chain, readTries, err)
}

func (c *Conn) saveOnce(family rs.Family, table, chain string, own func(string) bool) (saver, error) {
	before, err := c.sock.generation()
	if err != nil {
		return saver{}, err
	}
	s := saver{sock: c.sock, family: families[family], table: table, own: own, seen: map[string]bool{}}
	if err := s.find(chain); err != nil {
		return s, err
	}
	if err := s.listSets(); err != nil {
		return s, err
	}
	if err := s.chain(chain); err != nil {
		return s, err
	}
	after, err := c.sock.generation()
	if err == nil && after.ID != before.ID {
		err = errInterrupted
	}
	return s, err
}

// saver follows references from rules to chains and sets.
type saver struct {
	sock   *socket
	family uint8
	table  string
	own    func(string) bool
	sets   map[string]SavedSet
	seen   map[string]bool
	out    Saved
}

// definingAttributes are the attributes of a set that its maker gives.
var definingAttributes = []uint16{
	unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
	unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT,
	unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA, unix.NFTA_SET_OBJ_TYPE, nftaSetExpr, nftaSetExpressions,
}

func (s *saver) listSets() error {
	s.sets = map[string]SavedSet{}
	return s.sock.dump(unix.NFT_MSG_GETSET, s.family, nil, func(_ uint8, as attrs, _ []byte) error {
		if as.str(unix.NFTA_SET_TABLE) != s.table {
			return nil
		}
		var m message
		for _, a := range as {
			// The rest the kernel gives a set itself, and refuses to be told.
			if slices.Contains(definingAttributes, a.typ) {
				m.raw(a.typ, a.data)
			}
		}
		name := as.str(unix.NFTA_SET_NAME)
		s.sets[name] = SavedSet{
			Name: name, Anonymous: as.u32(unix.NFTA_SET_FLAGS)&unix.NFT_SET_ANONYMOUS != 0, Definition: m.b,
		}
		return nil
	})
}

// find fails where the chain is not there: the kernel lists the rules of a
// missing chain as it does those of an empty one, and the copy of a chain that
// was flushed away must not take the place of the copy of its rules.
func (s *saver) find(chain string) error {
	var m message
	m.str(unix.NFTA_CHAIN_TABLE, s.table)
	m.str(unix.NFTA_CHAIN_NAME, chain)
	return s.sock.get(unix.NFT_MSG_GETCHAIN, s.family, m.b, func(uint8, attrs, []byte) error { return nil })
}

func (s *saver) chain(name string) error {
	s.seen[name] = true
	c := SavedChain{Name: name}
	var next []attr
	var m message
	m.str(unix.NFTA_RULE_TABLE, s.table)
	m.str(unix.NFTA_RULE_CHAIN, name)
	err := s.sock.dump(unix.NFT_MSG_GETRULE, s.family, m.b, func(_ uint8, as attrs, _ []byte) error {
		list, _ := as.get(unix.NFTA_RULE_EXPRESSIONS)
		user, _ := as.get(unix.NFTA_RULE_USERDATA)
		r := SavedRule{Expressions: slices.Clone(list.data), Userdata: slices.Clone(user.data)}
		c.Rules = append(c.Rules, r)
		next = append(next, attr{data: r.Expressions})
		return nil
	})
	if err != nil {
		return err
	}
	s.out.Chains = append(s.out.Chains, c)
	for _, list := range next {
		for _, x := range list.nested() {
			if err := s.follow(x.nested()); err != nil {
				return err
			}
		}
	}
	return nil
}

// setReference is the attribute by which an expression names a set, 0 for one
// that names none (NFTA_LOOKUP_SET, NFTA_DYNSET_SET_NAME, NFTA_OBJREF_SET_NAME).
func setReference(expression string) uint16 {
	switch expression {
	case "lookup", "dynset":
		return 1
	case "objref":
		return 4
	}
	return 0
}

// setReferenceID is the attribute that names a set by its number in a batch.
func setReferenceID(expression string) uint16 {
	if expression == "objref" {
		return 5
	}
	return map[string]uint16{"lookup": unix.NFTA_LOOKUP_SET_ID, "dynset": 2}[expression]
}

func (s *saver) follow(x attrs) error {
	name := x.str(unix.NFTA_EXPR_NAME)
	data, _ := x.get(unix.NFTA_EXPR_DATA)
	as := data.nested()
	if ref := setReference(name); ref != 0 {
		return s.set(as.str(ref))
	}
	if name != "immediate" {
		return nil
	}
	value, _ := as.get(unix.NFTA_IMMEDIATE_DATA)
	return s.verdict(value)
}

// verdict follows the chain that a verdict names.
func (s *saver) verdict(data attr) error {
	v, ok := data.nested().get(unix.NFTA_DATA_VERDICT)
	if !ok {
		return nil
	}
	to := v.nested().str(unix.NFTA_VERDICT_CHAIN)
	if to == "" || s.seen[to] || s.own(to) {
		return nil
	}
	return s.chain(to)
}

func (s *saver) set(name string) error {
	set, ok := s.sets[name]
	if !ok || s.seen["@"+name] || s.own(name) {
		return nil
	}
	s.seen["@"+name] = true
	lists, err := s.sock.elements(s.family, s.table, name)
	if err != nil {
		return err
	}
	for _, list := range lists {
		set.Elements = append(set.Elements, list.data)
	}
	s.out.Sets = append(s.out.Sets, set)
	for _, list := range set.Elements {
		for _, e := range (attr{data: list}).nested() {
			if data, ok := e.nested().get(unix.NFTA_SET_ELEM_DATA); ok {
				if err := s.verdict(data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Restore applies a batch and, in the same step, puts back what was saved: the
// batch makes the table and the first chain, which must be empty. Sets and
// chains that are there already stay.
func (c *Conn) Restore(batch rs.Batch, family rs.Family, table string, saved Saved) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apply(batch, func(n *encoder) []encoded { return n.saved(families[family], table, saved) })
}

// saved is the messages that put back a copy.
func (n *encoder) saved(family uint8, table string, saved Saved) []encoded {
	ids := map[string]uint32{}
	var out []encoded
	add := func(msg int, flags uint16, m message) {
		out = append(out, encoded{msg: msg, flags: flags, family: family, body: m.b})
	}
	for _, s := range saved.Sets {
		n.setID++
		ids[s.Name] = n.setID
		add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, savedDefinition(s, n.setID))
	}
	for _, c := range saved.Chains[min(1, len(saved.Chains)):] {
		var m message
		m.str(unix.NFTA_CHAIN_TABLE, table)
		m.str(unix.NFTA_CHAIN_NAME, c.Name)
		add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, m)
	}
	for _, s := range saved.Sets {
		for _, list := range s.Elements {
			var m message
			m.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
			m.str(unix.NFTA_SET_ELEM_LIST_SET, batchName(s))
			m.u32(unix.NFTA_SET_ELEM_LIST_SET_ID, ids[s.Name])
			m.raw(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
			add(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, m)
		}
	}
	anonymous := map[string]bool{}
	for _, s := range saved.Sets {
		anonymous[s.Name] = s.Anonymous
	}
	for _, c := range saved.Chains {
		for _, r := range c.Rules {
			var m message
			m.str(unix.NFTA_RULE_TABLE, table)
			m.str(unix.NFTA_RULE_CHAIN, c.Name)
			m.nest(unix.NFTA_RULE_EXPRESSIONS, func(m *message) {
				for _, x := range (attr{data: r.Expressions}).nested() {
					m.nest(unix.NFTA_LIST_ELEM, func(m *message) { savedExpression(m, x.nested(), ids, anonymous) })
				}
			})
			if len(r.Userdata) > 0 {
				m.raw(unix.NFTA_RULE_USERDATA, r.Userdata)
			}
			add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, m)
		}
	}
	return out
}

// batchName is how a set is named in a batch: the kernel chooses the names of
// anonymous ones.
func batchName(s SavedSet) string {
	if !s.Anonymous {
		return s.Name
	}
	return strings.TrimRight(s.Name, "0123456789") + "%d"
}

func savedDefinition(s SavedSet, id uint32) message {
	var m message
	for _, a := range (attr{data: s.Definition}).nested() {
		if a.typ == unix.NFTA_SET_NAME {
			m.str(a.typ, batchName(s))
			continue
		}
		m.raw(a.typ|nestedFlag(a.typ), a.data)
	}
	m.u32(unix.NFTA_SET_ID, id)
	return m
}

// nestedFlag marks the attributes of a set that hold others.
func nestedFlag(typ uint16) uint16 {
	switch typ {
	case unix.NFTA_SET_DESC, nftaSetExpr, nftaSetExpressions:
		return unix.NLA_F_NESTED
	}
	return 0
}

// savedExpression writes an expression back. One that refers to an anonymous
// set names it by its number in the batch.
func savedExpression(m *message, x attrs, ids map[string]uint32, anonymous map[string]bool) {
	name := x.str(unix.NFTA_EXPR_NAME)
	data, hasData := x.get(unix.NFTA_EXPR_DATA)
	m.str(unix.NFTA_EXPR_NAME, name)
	if !hasData {
		return
	}
	ref := setReference(name)
	list := data.nested()
	set := list.str(ref)
	inBatch := ref != 0 && anonymous[set]
	if !inBatch && !slices.ContainsFunc(list, func(a attr) bool { return refused(name, list, a) }) {
		m.raw(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data.data)
		return
	}
	m.nest(unix.NFTA_EXPR_DATA, func(m *message) {
		for _, a := range list {
			switch {
			case inBatch && a.typ == ref:
				m.str(ref, batchName(SavedSet{Name: set, Anonymous: true}))
			case inBatch && a.typ == setReferenceID(name), refused(name, list, a):
			default:
				m.raw(a.typ, a.data)
			}
		}
		if inBatch {
			m.u32(setReferenceID(name), ids[set])
		}
	})
}

// Attributes of dynset and exthdr that golang.org/x/sys/unix lacks
// (linux/netfilter/nf_tables.h).
const (
	nftaDynsetTimeout = 6
	nftaExthdrOffset  = 3
	nftaExthdrLen     = 4
	nftaExthdrFlags   = 5
	nftaExthdrDreg    = 1
	nftaExthdrSreg    = 7
)

// refused says whether the kernel lists an attribute that it does not take
// back: no timeout for elements of a set without timeouts, and what only the
// reading of a header's option has, for its writing and removal.
func refused(name string, list attrs, a attr) bool {
	switch name {
	case "dynset":
		return a.typ == nftaDynsetTimeout && a.u64() == 0
	case "exthdr":
		writes, removes := list.has(nftaExthdrSreg), !list.has(nftaExthdrSreg) && !list.has(nftaExthdrDreg)
		return a.typ == nftaExthdrFlags && (writes || removes) ||
			removes && (a.typ == nftaExthdrOffset || a.typ == nftaExthdrLen)
	}
	return false
}
