package kernel

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// RawObject is an object as the kernel dumps it, attribute by attribute and
// without what differs from one load of the same text to the next: handles,
// and the numbers of counters of use.
type RawObject struct {
	Kind, Name string
	Lines      []string
}

// Raw dumps the chains, sets, elements and rules of a table without decoding
// them.
func (c *Conn) Raw(family rs.Family, table string) ([]RawObject, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []RawObject
	dumps := []struct {
		kind             string
		msg              int
		table, name      uint16
		leftOut, nesting []uint16
	}{
		{kind: "set", msg: unix.NFT_MSG_GETSET, table: unix.NFTA_SET_TABLE, name: unix.NFTA_SET_NAME,
			leftOut: []uint16{nftaSetHandle, unix.NFTA_SET_ID}},
		{kind: "chain", msg: unix.NFT_MSG_GETCHAIN, table: unix.NFTA_CHAIN_TABLE, name: unix.NFTA_CHAIN_NAME,
			leftOut: []uint16{unix.NFTA_CHAIN_HANDLE}},
		{kind: "rule", msg: unix.NFT_MSG_GETRULE, table: unix.NFTA_RULE_TABLE, name: unix.NFTA_RULE_CHAIN,
			leftOut: []uint16{unix.NFTA_RULE_HANDLE, unix.NFTA_RULE_POSITION}},
	}
	for _, d := range dumps {
		err := c.sock.dump(d.msg, families[family], nil, func(_ uint8, as attrs, _ []byte) error {
			if as.str(d.table) != table {
				return nil
			}
			o := RawObject{Kind: d.kind, Name: as.str(d.name)}
			for _, a := range as {
				if !slices.Contains(d.leftOut, a.typ) {
					o.Lines = append(o.Lines, tree(a, "")...)
				}
			}
			out = append(out, o)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, s := range slices.Clone(out) {
		if s.Kind != "set" {
			continue
		}
		elements, err := c.rawElements(family, table, s.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, elements)
	}
	// Rules keep their order.
	slices.SortStableFunc(out, func(a, b RawObject) int { return strings.Compare(a.Kind+" "+a.Name, b.Kind+" "+b.Name) })
	return out, nil
}

func (c *Conn) rawElements(family rs.Family, table, set string) (RawObject, error) {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	var elements []string
	err := c.sock.dump(unix.NFT_MSG_GETSETELEM, families[family], m.b, func(_ uint8, as attrs, _ []byte) error {
		list, _ := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for _, e := range list.nested() {
			elements = append(elements, strings.Join(tree(e, ""), "\n"))
		}
		return nil
	})
	slices.Sort(elements)
	return RawObject{Kind: "elements of", Name: set, Lines: elements}, err
}

// tree writes an attribute and what is nested in it, a line each. Bytes that
// happen to look like attributes are the same bytes all the same.
func tree(a attr, indent string) []string {
	inside, err := parseAttrs(a.data)
	if err != nil || len(inside) == 0 {
		return []string{fmt.Sprintf("%s%d: %s", indent, a.typ, hex.EncodeToString(a.data))}
	}
	lines := []string{fmt.Sprintf("%s%d:", indent, a.typ)}
	for _, i := range inside {
		lines = append(lines, tree(i, indent+"  ")...)
	}
	return lines
}
