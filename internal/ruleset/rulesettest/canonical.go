// Package rulesettest helps tests to compare rulesets and to make up random
// ones.
package rulesettest

import (
	"slices"
	"strings"
)

// Canonical is the text of a ruleset, as nft or this module wrote it, with
// tables, sets, chains and elements in the order of their text and a set's
// elements on one line: two texts that say the same become equal. The kernel
// lists elements in the order of its hash table.
func Canonical(text string) string {
	var tables []string
	for table := range strings.SplitAfterSeq(text, "\n}\n") {
		if strings.TrimSpace(table) != "" {
			tables = append(tables, canonicalTable(table))
		}
	}
	slices.Sort(tables)
	return strings.Join(tables, "")
}

func canonicalTable(table string) string {
	head, rest, _ := strings.Cut(table, "\n")
	var blocks, flags []string
	for block := range strings.SplitAfterSeq(strings.TrimSuffix(rest, "}\n"), "\n\t}\n") {
		block = strings.TrimLeft(block, "\n")
		for strings.HasPrefix(block, "\tflags ") {
			flag, after, _ := strings.Cut(block, "\n")
			flags, block = append(flags, flag+"\n"), strings.TrimLeft(after, "\n")
		}
		if block != "" {
			blocks = append(blocks, sortedElements(block))
		}
	}
	slices.Sort(blocks)
	return head + "\n" + strings.Join(flags, "") + strings.Join(blocks, "") + "}\n"
}

// sortedElements puts the elements of a set in order; a chain stays as it is.
func sortedElements(block string) string {
	const begin, end = "\t\telements = { ", " }\n"
	from := strings.Index(block, begin)
	if from < 0 {
		return block
	}
	list := block[from+len(begin):]
	to := strings.LastIndex(list, end)
	if to < 0 {
		return block
	}
	elements := splitElements(list[:to])
	slices.Sort(elements)
	return block[:from] + begin + strings.Join(elements, ", ") + end + list[to+len(end):]
}

// splitElements splits at the commas outside of quotes.
func splitElements(list string) []string {
	var out []string
	quoted, start := false, 0
	for i, c := range list {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			out, start = append(out, strings.TrimSpace(list[start:i])), i+1
		}
	}
	return append(out, strings.TrimSpace(list[start:]))
}
