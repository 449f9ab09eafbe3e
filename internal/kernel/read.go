package kernel

import (
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// reader reads one generation of the ruleset.
type reader struct {
	sock   lister
	filter Filter
	out    rs.Ruleset
	// known is what the kernel says of each set, by family, table and name.
	known map[string]knownSet
	// visitor gets the rules one by one, where there is one; links are the names
	// of interfaces for them.
	visitor Visitor
	links   func(uint64) string
}

// readAll reads what a lister lists.
func readAll(from lister, f Filter) (rs.Ruleset, error) {
	r := reader{sock: from, filter: f, known: map[string]knownSet{}}
	err := r.read()
	return r.out, err
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
