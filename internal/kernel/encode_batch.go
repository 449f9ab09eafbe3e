package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// encoder numbers the new sets of a batch.
type encoder struct{ setID uint32 }

// elementsPerMessage keeps the list of elements of a message well below the
// 64 KiB that a netlink attribute can hold: an element takes at most some
// 350 bytes with its comment and the end of its range.
const elementsPerMessage = 150

// encoded is one message of a batch before it has its sequence number.
type encoded struct {
	msg    int
	flags  uint16
	family uint8
	body   []byte
}

// change is the messages of one change.
func (n *encoder) change(c rs.Change) ([]encoded, error) {
	family, ok := families[c.Family]
	if !ok {
		return nil, fmt.Errorf("unknown family %q", c.Family)
	}
	e := encoded{family: family}
	var m message
	var err error
	switch {
	case c.Rule != nil && c.Verb == rs.Add:
		e.msg, e.flags = unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND
		err = rule(&m, c)
	case c.Rule != nil && c.Verb == rs.Delete:
		e.msg = unix.NFT_MSG_DELRULE
		m.str(unix.NFTA_RULE_TABLE, c.Table)
		m.str(unix.NFTA_RULE_CHAIN, c.Chain.Name)
		m.raw(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, c.Rule.Handle))
	case c.Chain != nil:
		err = chain(&e, &m, c)
	case c.Elements != nil:
		return n.elements(e, c)
	case c.Set != nil:
		err = n.set(&e, &m, c)
	case c.Verb == rs.Add:
		e.msg, e.flags = unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE
		m.str(unix.NFTA_TABLE_NAME, c.Table)
		flags := uint32(0)
		for _, f := range tableFlags {
			if slices.Contains(c.Flags, f.word) {
				flags |= f.bit
			}
		}
		m.u32(unix.NFTA_TABLE_FLAGS, flags)
	case c.Verb == rs.Delete:
		e.msg = unix.NFT_MSG_DELTABLE
		m.str(unix.NFTA_TABLE_NAME, c.Table)
	default:
		err = fmt.Errorf("cannot %s a table", c.Verb)
	}
	if err != nil {
		return nil, err
	}
	e.body = m.b
	return []encoded{e}, nil
}

func rule(m *message, c rs.Change) error {
	exprs, err := encodeRule(c.Family, *c.Rule)
	if err != nil {
		return err
	}
	m.str(unix.NFTA_RULE_TABLE, c.Table)
	m.str(unix.NFTA_RULE_CHAIN, c.Chain.Name)
	var marshalErr error
	m.nest(unix.NFTA_RULE_EXPRESSIONS, func(m *message) {
		for _, x := range exprs {
			b, err := expr.Marshal(families[c.Family], x)
			if err != nil {
				marshalErr = err
				return
			}
			m.raw(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
		}
	})
	if c.Rule.Comment != "" {
		m.raw(unix.NFTA_RULE_USERDATA, userComment(udataRuleComment, c.Rule.Comment))
	}
	return marshalErr
}

func chain(e *encoded, m *message, c rs.Change) error {
	if c.Verb == rs.Flush {
		e.msg = unix.NFT_MSG_DELRULE
		m.str(unix.NFTA_RULE_TABLE, c.Table)
		m.str(unix.NFTA_RULE_CHAIN, c.Chain.Name)
		return nil
	}
	m.str(unix.NFTA_CHAIN_TABLE, c.Table)
	m.str(unix.NFTA_CHAIN_NAME, c.Chain.Name)
	if c.Verb == rs.Delete {
		e.msg = unix.NFT_MSG_DELCHAIN
		return nil
	}
	e.msg, e.flags = unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE
	b := c.Chain.Base
	if b == nil {
		return nil
	}
	num, ok := hooks[c.Family][b.Hook]
	if !ok || len(b.Devices) > 0 {
		return fmt.Errorf("cannot write a base chain of family %s: %s", c.Family, b)
	}
	m.nest(unix.NFTA_CHAIN_HOOK, func(m *message) {
		m.u32(unix.NFTA_HOOK_HOOKNUM, num)
		m.u32(unix.NFTA_HOOK_PRIORITY, uint32(b.Priority))
	})
	policy := uint32(1)
	if b.Policy == rs.Drop {
		policy = 0
	}
	m.u32(unix.NFTA_CHAIN_POLICY, policy)
	m.str(unix.NFTA_CHAIN_TYPE, b.Type)
	return nil
}

// Attributes and flags of sets that golang.org/x/sys/unix lacks
// (linux/netfilter/nf_tables.h).
const (
	nftaSetExpr            = 0x11
	nftaSetExpressions     = 0x12
	nftaSetType            = 0x13
	nftaSetCount           = 0x14
	nftaSetDescConcat      = 0x2
	nftaSetFieldLen        = 0x1
	nftSetConcat           = 0x80
	nftSetExpr             = 0x100
	nftaSetElemKeyEnd      = 0xa
	nftaSetElemExpressions = 0xb
	nftSetElemCatchAll     = 0x2
	nftaSetHandle          = 0x10
	nftaTableHandle        = 0x4
	nftaTableFlagOwner     = 0x2
	nftaTableFlagPersist   = 0x4
	nftDataVerdict         = 0xffffff00
)

// tableFlags are the flags of a table that have a word in nft. The kernel knows
// owner from 5.12 on, persist from 6.9 on.
var tableFlags = []struct {
	bit  uint32
	word string
}{{unix.NFT_TABLE_F_DORMANT, "dormant"}, {nftaTableFlagOwner, "owner"}, {nftaTableFlagPersist, "persist"}}

func (n *encoder) set(e *encoded, m *message, c rs.Change) error {
	s := c.Set
	m.str(unix.NFTA_SET_TABLE, c.Table)
	m.str(unix.NFTA_SET_NAME, s.Name)
	if c.Verb == rs.Delete {
		e.msg = unix.NFT_MSG_DELSET
		return nil
	}
	flags, err := setFlags(s)
	if err != nil {
		return err
	}
	n.setID++
	e.msg, e.flags = unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE
	m.u32(unix.NFTA_SET_FLAGS, flags)
	m.u32(unix.NFTA_SET_KEY_TYPE, s.Key.ID())
	m.u32(unix.NFTA_SET_KEY_LEN, uint32(s.Key.Size()))
	switch s.Data {
	case "":
	case rs.TypeVerdict:
		m.u32(unix.NFTA_SET_DATA_TYPE, nftDataVerdict)
		m.u32(unix.NFTA_SET_DATA_LEN, 0)
	default:
		m.u32(unix.NFTA_SET_DATA_TYPE, s.Data.ID())
		m.u32(unix.NFTA_SET_DATA_LEN, uint32(s.Data.Size()))
	}
	if s.Timeout != 0 {
		m.raw(unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, s.Timeout))
	}
	if s.GCInterval != 0 {
		m.u32(unix.NFTA_SET_GC_INTERVAL, uint32(s.GCInterval))
	}
	if s.Policy != "" {
		m.u32(unix.NFTA_SET_POLICY, unix.NFT_SET_POL_MEMORY)
	}
	if flags&nftSetConcat != 0 || s.Size != 0 {
		m.nest(unix.NFTA_SET_DESC, func(m *message) { describeSet(m, s, flags&nftSetConcat != 0) })
	}
	m.u32(unix.NFTA_SET_ID, n.setID)
	m.raw(unix.NFTA_SET_USERDATA, setUserdata(s))
	if s.Counter {
		m.nest(nftaSetExpr, func(m *message) {
			m.str(unix.NFTA_EXPR_NAME, "counter")
			m.nest(unix.NFTA_EXPR_DATA, func(*message) {})
		})
	}
	return nil
}

// setFlags are the flags of a set; an error where it is of a kind that cannot
// be written.
func setFlags(s *rs.Set) (uint32, error) {
	var flags uint32
	words := slices.Clone(s.Flags)
	for _, w := range setWords {
		if i := slices.Index(words, w.word); i >= 0 {
			flags |= w.bit
			words = slices.Delete(words, i, i+1)
		}
	}
	if s.Data != "" {
		flags |= unix.NFT_SET_MAP
	}
	if s.Key.IsConcat() && flags&unix.NFT_SET_INTERVAL != 0 {
		flags |= nftSetConcat
	}
	sized := func(t rs.Type) bool {
		return !slices.ContainsFunc(t.Parts(), func(p rs.Type) bool { return p.Size() == 0 })
	}
	switch {
	case s.Anonymous, len(words) > 0, len(s.Extra) > 0, s.DataInterval, s.Policy != "" && s.Policy != "memory",
		!sized(s.Key), s.Data != "" && s.Data != rs.TypeVerdict && !sized(s.Data):
		return 0, fmt.Errorf("cannot write a set of this kind: %s", s.Text(rs.Format{}))
	}
	return flags, nil
}

// describeSet gives a set's greatest size, and for ranges of concatenations the
// length of each part.
func describeSet(m *message, s *rs.Set, parts bool) {
	if s.Size != 0 {
		m.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
	}
	if !parts {
		return
	}
	m.nest(nftaSetDescConcat, func(m *message) {
		for _, p := range s.Key.Parts() {
			m.nest(unix.NFTA_LIST_ELEM, func(m *message) { m.u32(nftaSetFieldLen, uint32(p.Size())) })
		}
	})
}

// elements adds or deletes elements, many in a message.
func (n *encoder) elements(e encoded, c rs.Change) ([]encoded, error) {
	e.msg, e.flags = unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE
	if c.Verb == rs.Delete {
		e.msg, e.flags = unix.NFT_MSG_DELSETELEM, 0
	}
	var out []encoded
	for part := range slices.Chunk(c.Elements, elementsPerMessage) {
		var m message
		var err error
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, c.Table)
		m.str(unix.NFTA_SET_ELEM_LIST_SET, c.Set.Name)
		m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(m *message) {
			for _, x := range part {
				err = errors.Join(err, element(m, c.Set, x, c.Verb == rs.Add))
			}
		})
		if err != nil {
			return nil, err
		}
		e.body = m.b
		out = append(out, e)
	}
	return out, nil
}

// element writes an element: its key alone, or whole. In a set of intervals it
// is two, the second for the first key behind the range.
func element(m *message, s *rs.Set, x rs.Element, whole bool) error {
	interval := slices.Contains(s.Flags, "interval")
	pair := interval && !s.Key.IsConcat() && !x.CatchAll
	key, end := x.Key, x.End
	if interval {
		key, end = turnedKey(key), turnedKey(end)
	}
	switch {
	case end.Data != "" && !interval,
		!x.CatchAll && len(key.Data) != s.Key.Size(), end.Data != "" && len(end.Data) != len(key.Data):
		return fmt.Errorf("cannot write %s as an element of a set of %s", x, s.Key)
	case whole && (len(x.Extra) > 0 || x.Object != "" || x.DataEnd.Data != "" || x.Counter != nil && !s.Counter):
		return fmt.Errorf("cannot write the element %s", x)
	}
	behind, hasEnd := rs.Value{}, false
	if pair {
		if end.Data == "" {
			end = key
		}
		behind, hasEnd = after(end)
	}
	m.nest(unix.NFTA_LIST_ELEM, func(m *message) {
		switch {
		case x.CatchAll:
			m.u32(unix.NFTA_SET_ELEM_FLAGS, nftSetElemCatchAll)
		default:
			value(m, unix.NFTA_SET_ELEM_KEY, key)
		}
		if interval && !pair && !x.CatchAll {
			if end.Data == "" {
				end = key
			}
			value(m, nftaSetElemKeyEnd, end)
		}
		if whole {
			elementContent(m, x, pair && !hasEnd)
		}
	})
	if hasEnd {
		m.nest(unix.NFTA_LIST_ELEM, func(m *message) {
			m.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			value(m, unix.NFTA_SET_ELEM_KEY, behind)
		})
	}
	return nil
}

func value(m *message, typ uint16, v rs.Value) {
	m.nest(typ, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, []byte(v.Data)) })
}

// elementContent is what an element has beside its key. open marks a range
// without a key behind it.
func elementContent(m *message, x rs.Element, open bool) {
	switch {
	case x.Verdict.Kind != "":
		m.nest(unix.NFTA_SET_ELEM_DATA, func(m *message) {
			m.nest(unix.NFTA_DATA_VERDICT, func(m *message) {
				m.u32(unix.NFTA_VERDICT_CODE, verdictCode(x.Verdict.Kind))
				if x.Verdict.Chain != "" {
					m.str(unix.NFTA_VERDICT_CHAIN, x.Verdict.Chain)
				}
			})
		})
	case x.Data.Data != "":
		value(m, unix.NFTA_SET_ELEM_DATA, x.Data)
	}
	if x.Timeout != 0 {
		m.raw(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, x.Timeout))
	}
	var user []byte
	if x.Comment != "" {
		user = userComment(udataElementComment, x.Comment)
	}
	if open {
		user = userUint32(user, udataElementFlags, 1)
	}
	if len(user) > 0 {
		m.raw(unix.NFTA_SET_ELEM_USERDATA, user)
	}
}

func verdictCode(k rs.VerdictKind) uint32 { return uint32(int32(verdictKinds[k])) }
