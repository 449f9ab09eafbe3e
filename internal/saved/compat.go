package saved

import (
	"bytes"
	"fmt"
	"regexp"

	"nftnet/internal/ruleset"
)

// nft lists some extensions of iptables by name, without their parameters, and
// does not take them back. A match that no file has by itself stands for each
// while nft loads the file, and is changed back behind it: so the rule is
// there, in its place, with a part that is shown as not understood.

// foreign is how nft writes such a part in text (in messages between the lines,
// too, where those are in the file) and in JSON.
var (
	foreign     = regexp.MustCompile(`xt (match|target) "?([\w-]+)"?|XT (match|target) ([\w-]+) not found`)
	foreignJSON = regexp.MustCompile(`\{\s*"xt":\s*(?:null|\{\s*"type":\s*"(\w+)",\s*"name":\s*"([\w-]+)"\s*\})\s*\}`)
)

// firstMark is the first number that stands for a part; control groups, which
// the marks ask for, are numbered from 1.
const firstMark = 0xf1e00000

// takeOut puts a mark for each part that nft does not take, and lists them.
func takeOut(text []byte) ([]byte, []ruleset.Compat) {
	var marks []ruleset.Compat
	note := func(kind, name []byte) int {
		marks = append(marks, ruleset.Compat{Target: string(kind) == "target", Name: string(name)})
		return firstMark + len(marks) - 1
	}
	if isJSON(text) {
		return foreignJSON.ReplaceAllFunc(text, func(part []byte) []byte {
			m := foreignJSON.FindSubmatch(part)
			return fmt.Appendf(nil, `{"match": {"op": "==", "left": {"meta": {"key": "cgroup"}}, "right": %d}}`, note(m[1], m[2]))
		}), marks
	}
	var out []byte
	for line := range bytes.Lines(text) {
		from := 0
		for _, m := range foreign.FindAllSubmatchIndex(line, -1) {
			before := line[:m[0]]
			if bytes.Count(before, []byte(`"`))%2 == 1 || bytes.HasPrefix(bytes.TrimSpace(before), []byte("#")) {
				// A comment speaks of it.
				continue
			}
			kind, name := m[2:4], m[4:6]
			if kind[0] < 0 {
				kind, name = m[6:8], m[8:10]
			}
			out = append(out, line[from:m[0]]...)
			out = fmt.Appendf(out, "meta cgroup %d", note(line[kind[0]:kind[1]], line[name[0]:name[1]]))
			from = m[1]
		}
		out = append(out, line[from:]...)
	}
	return out, marks
}

// putBack changes the marks back.
func putBack(r ruleset.Ruleset, marks []ruleset.Compat) {
	if len(marks) == 0 {
		return
	}
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			for _, rule := range c.Rules {
				for k, p := range rule.Parts {
					if n, ok := markOf(p); ok && n < len(marks) {
						marks[n].Family = t.Family
						rule.Parts[k] = marks[n]
					}
				}
			}
		}
	}
}

func markOf(p ruleset.Part) (int, bool) {
	c, ok := p.(ruleset.Compare)
	if !ok || c.Left != ruleset.Expr(ruleset.Meta{Key: ruleset.MetaCGroup}) {
		return 0, false
	}
	n, ok := c.Right.Uint()
	return int(n) - firstMark, ok && n >= firstMark
}
