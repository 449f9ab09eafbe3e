package ruleset

import (
	"fmt"
	"slices"
	"strings"
)

// IPTables writes the rule as iptables-save does; false where a part of it has
// no words there, or is not understood.
func (r Rule) IPTables() (string, bool) {
	w := iptablesWords{}
	for _, p := range r.Parts {
		if !w.part(p) {
			return "", false
		}
	}
	slices.SortStableFunc(w.head, func(a, b iptablesOption) int { return a.place - b.place })
	var out []string
	for _, o := range w.head {
		out = append(out, o.words)
	}
	return strings.Join(append(out, w.rest...), " "), true
}

// iptablesWords gathers a rule: first the options that every rule may have, in
// the order in which iptables-save writes them.
type iptablesWords struct {
	head []iptablesOption
	rest []string
	// proto is the protocol that was named, module the one whose options come
	// last.
	proto, module string
}

type iptablesOption struct {
	place int
	words string
}

// iptablesOptions are the options for what iptables-nft stores as nft's own
// expressions.
var iptablesOptions = map[Expr]iptablesOption{
	IPSaddr: {0, "-s"}, IP6Saddr: {0, "-s"}, IPDaddr: {1, "-d"}, IP6Daddr: {1, "-d"},
	Meta{Key: MetaIIFName}: {2, "-i"}, Meta{Key: MetaOIFName}: {3, "-o"},
	Meta{Key: MetaL4Proto}: {4, "-p"}, IPProtocol: {4, "-p"}, IP6NextHdr: {4, "-p"},
}

func (w *iptablesWords) option(left Expr, op Op, value string) bool {
	switch left.(type) {
	case Meta, Payload:
	default:
		return false
	}
	o, ok := iptablesOptions[left]
	if !ok || op != Equal && op != NotEqual {
		return false
	}
	if o.words == "-p" {
		w.proto = value
	}
	w.head = append(w.head, iptablesOption{o.place, not(op == NotEqual, o.words+" "+value)})
	return true
}

// moduleOption is an option of the module of a protocol, which it names where
// the rule did not.
func (w *iptablesWords) moduleOption(proto, option string) {
	if w.proto == "" {
		w.proto = proto
		w.head = append(w.head, iptablesOption{4, "-p " + proto})
	}
	if w.module != proto {
		option = "-m " + proto + " " + option
	}
	w.module = proto
	w.rest = append(w.rest, option)
}

func (w *iptablesWords) part(p Part) bool {
	switch p := p.(type) {
	case Counter:
		return true
	case InPrefix:
		return w.option(p.Left, p.Op, p.Prefix.String())
	case Compare:
		return w.compare(p)
	case HasAny:
		f, ok := p.Left.(Payload)
		if ok = ok && f.Typ == TypeTCPFlag; ok {
			w.moduleOption("tcp", not(p.Op != NotEqual, "--tcp-flags "+tcpFlagWords(p.Flags)+" NONE"))
		}
		return ok
	case InRange:
		f, ok := p.Left.(Payload)
		if ok = ok && f.Typ == TypeInetService; ok {
			w.moduleOption(f.Proto, not(p.Op == NotEqual, "--"+f.Field+" "+p.From.String()+":"+p.To.String()))
		}
		return ok
	}
	words, ok := iptablesStatement(p)
	w.module = ""
	w.rest = append(w.rest, words)
	return ok
}

func (w *iptablesWords) compare(c Compare) bool {
	inverted := c.Op == NotEqual
	if words, ok := markWords(c); ok {
		w.module = ""
		w.rest = append(w.rest, words)
		return true
	}
	switch left := c.Left.(type) {
	case Masked:
		f, ok := left.Expr.(Payload)
		switch {
		case ok && f.Typ == TypeTCPFlag && (c.Op == Equal || inverted):
			w.moduleOption("tcp", not(inverted, "--tcp-flags "+tcpFlagWords(left.Mask)+" "+tcpFlagWords(c.Right)))
			return true
		case ok && f.Proto == "ip" && f.Field == "frag-off" && strings.Trim(c.Right.Data, "\x00") == "":
			// A fragment that is not the first.
			w.head = append(w.head, iptablesOption{5, not(!inverted, "-f")})
			return true
		}
		return false
	case Payload:
		if left.Typ == TypeInetService && (c.Op == Equal || inverted) {
			w.moduleOption(left.Proto, not(inverted, "--"+left.Field+" "+c.Right.String()))
			return true
		}
	}
	value := c.Right.String()
	if c.Right.Type == TypeIfname {
		value = c.Right.Name()
		if c.Right.isWildcard() {
			value += "+"
		}
	}
	return w.option(c.Left, c.Op, value)
}

// markWords is a test of a mark.
func markWords(c Compare) (string, bool) {
	modules := map[Expr]string{Meta{Key: MetaMark}: "mark", Ct{Key: CtMark}: "connmark"}
	left, mask := c.Left, ""
	if m, ok := left.(Masked); ok {
		n, _ := m.Mask.Uint()
		left, mask = m.Expr, fmt.Sprintf("/0x%x", n)
	}
	switch left.(type) {
	case Meta, Ct:
	default:
		return "", false
	}
	n, ok := c.Right.Uint()
	words := fmt.Sprintf("--mark 0x%x%s", n, mask)
	return "-m " + modules[left] + " " + not(c.Op == NotEqual, words), ok && modules[left] != "" && (c.Op == Equal || c.Op == NotEqual)
}

// limitWords is a limit as iptables writes it, which leaves its default burst
// out.
func limitWords(rate string, burst uint32) string {
	const byDefault = 5 // XT_LIMIT_BURST of iptables' libxt_limit.c
	words := "--limit " + strings.NewReplacer("/second", "/sec", "/minute", "/min").Replace(rate)
	if burst != byDefault {
		words += fmt.Sprintf(" --limit-burst %d", burst)
	}
	return words
}

func tcpFlagWords(v Value) string {
	if strings.Trim(v.Data, "\x00") == "" {
		return "NONE"
	}
	return strings.ToUpper(v.String())
}

func iptablesStatement(p Part) (string, bool) {
	switch p := p.(type) {
	case Compat:
		return p.IPTables()
	case Log:
		if !p.HasGroup {
			return "", false
		}
		prefix := ""
		if p.Prefix != "" {
			prefix = "--nflog-prefix " + xtQuote(p.Prefix)
		}
		return joined("-j NFLOG", prefix, fmt.Sprintf("--nflog-group %d", p.Group)), p.Snaplen == 0 && p.Threshold == 0
	case Limit:
		return "-m limit " + limitWords(fmt.Sprintf("%d/%s", p.Rate, p.Unit), p.Burst), !p.Over && !p.Bytes
	case Verdict:
		switch p.Kind {
		case Accept, Drop, Return:
			return "-j " + strings.ToUpper(string(p.Kind)), true
		case Jump:
			return "-j " + p.Chain, p.Anonymous == nil
		case Goto:
			return "-g " + p.Chain, true
		}
	}
	return "", false
}
