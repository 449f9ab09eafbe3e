package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Format says how a ruleset is written.
type Format struct {
	// Handles adds the kernel's handle behind each object, as nft -a does.
	Handles bool
	// Stateless leaves out what changes by itself, as nft -s does: the numbers
	// of counters, times to live.
	Stateless bool
}

// String writes the ruleset as nft list ruleset does.
func (rs Ruleset) String() string { return rs.Text(Format{}) }

// Text writes the ruleset as nft list ruleset does.
func (rs Ruleset) Text(f Format) string {
	var b strings.Builder
	p := NewPrinter(&b, f)
	for i := range rs.Tables {
		p.table(&rs.Tables[i])
	}
	return b.String()
}

// Text writes the table as nft list table does.
func (t Table) Text(f Format) string {
	var b strings.Builder
	NewPrinter(&b, f).table(&t)
	return b.String()
}

func (f Format) handle(h uint64) string {
	if !f.Handles || h == 0 {
		return ""
	}
	return fmt.Sprintf(" # handle %d", h)
}

// Text writes the object as it stands in a table.
func (o Object) Text(f Format) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s %s {%s\n", o.Kind, o.Name, f.handle(o.Handle))
	if o.Comment != "" {
		fmt.Fprintf(&b, "\t\tcomment %s\n", quote(o.Comment))
	}
	for _, line := range stateLines(o.State, f) {
		fmt.Fprintf(&b, "\t\t%s\n", line)
	}
	b.WriteString("\t}\n")
	return b.String()
}

// Text writes the set as it stands in a table.
func (s Set) Text(f Format) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%s %s {%s\n", s.kind(), s.Name, f.handle(s.Handle))
	for _, line := range s.definition() {
		fmt.Fprintf(&b, "\t\t%s\n", line)
	}
	if len(s.Elements) > 0 {
		fmt.Fprintf(&b, "\t\telements = { %s }\n", s.elementText(f))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// definition is what a set says of itself beside its elements, a line each.
func (s Set) definition() []string {
	typ := "type " + string(s.Key)
	if s.KeyOf != nil {
		typ = "typeof " + s.KeyOf.String()
	}
	if s.Data != "" {
		typ += " : "
		if s.DataInterval {
			typ += "interval "
		}
		if s.KeyOf != nil && s.DataOf != nil {
			typ += s.DataOf.String()
		} else {
			typ += string(s.Data)
		}
	}
	lines := []string{typ}
	line := func(given bool, text string) {
		if given {
			lines = append(lines, text)
		}
	}
	line(s.Policy != "", "policy "+s.Policy)
	line(s.Size != 0 && !slices.Contains(s.Flags, "constant"), fmt.Sprintf("size %d", s.Size))
	// A timeout of the set's own implies the flag.
	implied := s.Timeout != 0 && len(s.Flags) == 1 && s.Flags[0] == "timeout"
	line(len(s.Flags) > 0 && !implied, "flags "+strings.Join(s.Flags, ","))
	state := partTexts(s.Extra, Format{Stateless: true})
	if s.Counter {
		state = withCounter("counter", state, s.CounterLast)
	}
	line(len(state) > 0, strings.Join(state, " "))
	line(s.Timeout != 0, "timeout "+duration(s.Timeout))
	line(s.GCInterval != 0, "gc-interval "+duration(s.GCInterval))
	line(s.AutoMerge, "auto-merge")
	line(s.Comment != "", "comment "+quote(s.Comment))
	return lines
}

// elementsPerLine is how many elements nft writes on a line, by the type of
// the key (calculate_delim in nft's expression.c); one for every other type.
var elementsPerLine = map[Type]int{
	TypeNFProto: 5, TypeInteger: 5, TypeARPOp: 5, TypeInetProto: 5, TypeInetService: 5, TypeTCPFlag: 5,
	TypeMark: 5, TypeIfIndex: 5, TypeClassID: 5, TypeUID: 5, TypeGID: 5, TypeCtDir: 5,
	TypeHostInteger: 5, TypeRaw: 5, TypeMHType: 5, TypeTime: 5,
	TypeIPv4Addr: 2, TypeCtState: 2, TypeCtStatus: 2, TypePktType: 2,
}

func (s Set) elementText(f Format) string {
	perLine := 1
	if !s.Key.IsConcat() {
		perLine = max(elementsPerLine[s.Key.Base()], 1)
	}
	var b strings.Builder
	for i, e := range s.Elements {
		switch {
		case i == 0:
		case i%perLine == 0:
			b.WriteString(",\n\t\t\t     ")
		default:
			b.WriteString(", ")
		}
		if s.Counter && e.Counter == nil && f.Stateless {
			// What is not yet in the kernel has no numbers, but will have a counter.
			e.Counter = &Counter{}
		}
		b.WriteString(e.text(f))
	}
	return b.String()
}

// String writes the element as it stands between the braces of a set.
func (e Element) String() string { return e.text(Format{}) }

// Text writes the element in nft's words.
func (e Element) Text(f Format) string { return e.text(f) }

func (e Element) text(f Format) string {
	words := []string{e.KeyText()}
	state := partTexts(e.Extra, f)
	if e.Counter != nil {
		state = withCounter(partText(*e.Counter, f), state, e.CounterLast)
	}
	words = append(words, state...)
	if e.Timeout != 0 {
		words = append(words, "timeout "+duration(e.Timeout))
	}
	if e.Expires != 0 && !f.Stateless {
		words = append(words, "expires "+duration(e.Expires))
	}
	if e.Comment != "" {
		words = append(words, "comment "+quote(e.Comment))
	}
	text := strings.Join(words, " ")
	if to := e.DataText(); to != "" {
		text += " : " + to
	}
	return text
}

func partTexts(parts []Part, f Format) []string {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = partText(p, f)
	}
	return texts
}

func withCounter(counter string, others []string, last bool) []string {
	if last {
		return append(others, counter)
	}
	return append([]string{counter}, others...)
}

// KeyText writes the element's key: a value, a range, or * for every other.
func (e Element) KeyText() string {
	switch {
	case e.CatchAll:
		return "*"
	case e.End.Data == "":
		return memberText(e.Key)
	}
	return intervalText(e.Key, e.End)
}

// memberText writes a value as a member of a set.
func memberText(v Value) string {
	parts := v.Parts()
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.String()
		if p.Type.IsFlags() {
			texts[i] = alternatives(p)
		}
	}
	return strings.Join(texts, concatSeparator)
}

// intervalText writes the values from a to b; those of a concatenation part by
// part.
func intervalText(a, b Value) string {
	from, to := a.Parts(), b.Parts()
	texts := make([]string, len(from))
	for i := range from {
		texts[i] = rangeText(from[i], to[i])
	}
	return strings.Join(texts, concatSeparator)
}

// rangeText writes the values from a to b: one value, a prefix, or a range.
func rangeText(a, b Value) string {
	if a == b {
		return memberText(a)
	}
	if p, ok := PrefixOf(a, b); ok {
		return p.String()
	}
	if names, ok := WildcardOf(a, b); ok {
		return names.String()
	}
	return a.numeric() + "-" + b.numeric()
}

// DataText writes what a map holds for the element; empty in a set.
func (e Element) DataText() string {
	switch {
	case e.Verdict.Kind != "":
		return e.Verdict.String()
	case e.Object != "":
		return quote(e.Object)
	case e.DataEnd.Data != "":
		return intervalText(e.Data, e.DataEnd)
	case e.Data.Data != "":
		return e.Data.String()
	}
	return ""
}

// duration writes milliseconds as nft does: 1d2h3m4s5ms.
func duration(ms uint64) string {
	d := time.Duration(ms) * time.Millisecond
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d %= u.unit
		}
	}
	return b.String()
}

// Text writes the chain as it stands in a table.
func (c Chain) Text(f Format) string {
	var b strings.Builder
	NewPrinter(&b, f).chain(&c)
	return b.String()
}

// String writes the line of a base chain that says where it is called.
func (b Base) String() string {
	devices := ""
	switch {
	case len(b.Devices) == 1:
		devices = " device " + quote(b.Devices[0])
	case len(b.Devices) > 1:
		devices = " devices = { " + strings.Join(slices.Sorted(slices.Values(b.Devices)), ", ") + " }"
	}
	return fmt.Sprintf("type %s hook %s%s priority %s; policy %s;", b.Type, b.Hook, devices, b.PriorityText(), b.Policy)
}

// standardPriority is a priority that nft has a name for, at one hook or at all.
type standardPriority struct {
	name  string
	value int32
	hook  Hook
}

// standardPriorities lists the priorities that nft 1.0.6 names, by the family
// of the table; those of inet are those of ip and ip6 too.
var standardPriorities = map[Family][]standardPriority{
	FamilyInet: {
		{"raw", PriorityRaw, ""}, {"mangle", PriorityMangle, ""}, {"dstnat", PriorityDstNAT, HookPrerouting},
		{"filter", PriorityFilter, ""}, {"security", PrioritySecurity, ""}, {"srcnat", PrioritySrcNAT, HookPostrouting},
	},
	FamilyBridge: {
		{"dstnat", -300, HookPrerouting}, {"filter", -200, ""}, {"out", 100, HookOutput}, {"srcnat", 300, HookPostrouting},
	},
	FamilyARP:    {{"filter", 0, ""}},
	FamilyNetdev: {{"filter", 0, ""}},
}

// PriorityText writes the priority as nft 1.0.6 does: a standard name, a name
// and a distance of at most 10, or the number.
func (b Base) PriorityText() string {
	named, ok := standardPriorities[b.Family]
	if !ok {
		named = standardPriorities[FamilyInet]
	}
	for _, p := range named {
		if p.hook != "" && p.hook != b.Hook {
			continue
		}
		switch d := b.Priority - p.value; {
		case d == 0:
			return p.name
		case d > 0 && d <= 10:
			return fmt.Sprintf("%s + %d", p.name, d)
		case d < 0 && d >= -10:
			return fmt.Sprintf("%s - %d", p.name, -d)
		}
	}
	return strconv.Itoa(int(b.Priority))
}

// String writes the rule in nft's words.
func (r Rule) String() string { return r.text(Format{}) }

// Text writes the rule in nft's words.
func (r Rule) Text(f Format) string { return r.text(f) }

func (r Rule) text(f Format) string {
	words := make([]string, 0, len(r.Parts)+1)
	for _, p := range r.Parts {
		words = append(words, partText(p, f))
	}
	if r.Comment != "" {
		words = append(words, "comment "+quote(r.Comment))
	}
	return strings.Join(words, " ")
}

// partText writes a part; nft -s leaves out the numbers of counters.
func partText(p Part, f Format) string {
	switch p := p.(type) {
	case Verdict:
		return p.text(f)
	case Counter:
		if f.Stateless {
			return "counter"
		}
	case Quota:
		if f.Stateless {
			p.Used = 0
		}
		return p.String()
	case Last:
		if f.Stateless {
			return "last"
		}
	}
	return p.String()
}
