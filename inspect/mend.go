package inspect

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// dialect is the language of whoever keeps a table: what is not written in it
// is lost, or makes its keeper refuse the table.
type dialect string

const (
	dialectNft       dialect = "nft"
	dialectIptables  dialect = "iptables"
	dialectUFW       dialect = "ufw"
	dialectFirewalld dialect = "firewalld"
)

func dialectOf(b *BaseChain) dialect {
	t := b.Table
	switch {
	case t.Family == ruleset.FamilyInet:
		if t.Name == "firewalld" {
			return dialectFirewalld
		}
		return dialectNft
	case t.Chain("ufw-user-forward") != nil, t.Chain("ufw6-user-forward") != nil:
		return dialectUFW
	case b.Chain.Name == strings.ToUpper(string(b.Chain.Base.Hook)):
		return dialectIptables
	}
	return dialectNft
}

// mend is the line that lets an obstacle's packets pass; empty where there is
// none. It lets them pass where they are dropped and no earlier, so that what
// the user drops before stays dropped.
func (m *Model) mend(h Host, o *obstacle) string {
	switch dialectOf(o.base) {
	case dialectFirewalld:
		return firewalldLine(o)
	case dialectUFW:
		return ufwLine(o)
	case dialectIptables:
		return iptablesLine(h, o)
	}
	return m.nftLine(h, o)
}

// plain are names that mean nothing to a shell or to nft.
var plain = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]*$`)

func (m *Model) nftLine(h Host, o *obstacle) string {
	var commands []string
	for _, n := range o.needs {
		r, ok := o.pass(h, n.stage)
		t, chain := o.base.Table, n.at.chain.Chain
		if !ok || !plain.MatchString(t.Name) || !plain.MatchString(chain) {
			return ""
		}
		command := fmt.Sprintf("add rule %s %s %s %s", t.Family, t.Name, chain, ruleText(r))
		if n.at.rule != none {
			handle := m.chains[n.at.chain].chain.Rules[n.at.rule].Handle
			command = fmt.Sprintf("insert rule %s %s %s handle %d %s", t.Family, t.Name, chain, handle, ruleText(r))
		}
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	line := strings.Join(commands, "; ")
	if strings.ContainsAny(line, `"*{};<>&|!`) {
		line = "'" + line + "'"
	}
	return "nft " + line
}

func ruleText(r ruleset.Rule) string {
	words := make([]string, len(r.Parts))
	for i, p := range r.Parts {
		words[i] = p.String()
	}
	return strings.Join(words, " ")
}

// pass is the rule that lets packets of a stage pass; false where nothing in
// them could tell them from others.
func (o *obstacle) pass(h Host, s stage) (ruleset.Rule, bool) {
	prerouting := o.base.Chain.Base.Hook == ruleset.HookPrerouting
	accept := ruleset.Verdict{Kind: ruleset.Accept}
	known := ruleset.Has(ruleset.Ct{Key: ruleset.CtState},
		ruleset.HostUint32(ruleset.TypeCtState, ruleset.StateEstablished|ruleset.StateRelated))
	from, to := o.bridges(h, iifname), o.bridges(h, oifname)
	switch {
	case o.flow == FlowPublished && translated(o.base):
		return ruleset.NewRule(ruleset.Has(ruleset.Ct{Key: ruleset.CtStatus},
			ruleset.HostUint32(ruleset.TypeCtStatus, ruleset.StatusDNAT)), accept), true
	case o.flow == FlowNeighbours && !prerouting:
		return ruleset.NewRule(from, to, accept), true
	case !s.inward, o.flow == FlowNeighbours:
		return ruleset.NewRule(from, accept), true
	case s.state == ruleset.StateNew:
		return o.passPorts(accept)
	case !tracked(o.base):
		return ruleset.Rule{}, false
	case prerouting:
		return ruleset.NewRule(known, accept), true
	}
	return ruleset.NewRule(to, known, accept), true
}

// passPorts is the rule for host ports where they are not translated yet.
func (o *obstacle) passPorts(accept ruleset.Verdict) (ruleset.Rule, bool) {
	var ports []ruleset.Value
	for _, p := range o.ports {
		ports = append(ports, ruleset.Concat(ruleset.Proto(p.Proto), ruleset.Port(p.Host.Port())))
	}
	if len(ports) == 0 {
		return ruleset.Rule{}, false
	}
	return ruleset.NewRule(oneOf(ruleset.ConcatOf(l4proto, ruleset.THDport), ports), accept), true
}

// oneOf holds where an expression is one of several values.
func oneOf(x ruleset.Expr, values []ruleset.Value) ruleset.Match {
	set := &ruleset.Set{Anonymous: true, Key: x.Type()}
	for _, v := range values {
		e := ruleset.Element{Key: v}
		if !slices.ContainsFunc(set.Elements, func(o ruleset.Element) bool { return o.Key == v }) {
			set.Elements = append(set.Elements, e)
		}
	}
	if len(set.Elements) == 1 && !x.Type().IsConcat() {
		return ruleset.Is(x, set.Elements[0].Key)
	}
	return ruleset.Lookup{Left: x, Op: ruleset.Equal, Anonymous: set}
}

// bridges tests for the bridges of the obstacle. Where all networks meet it,
// those that are still to come would, too.
func (o *obstacle) bridges(h Host, x ruleset.Expr) ruleset.Match {
	if o.everywhere(h) {
		return ruleset.Is(x, ruleset.Value{Type: ruleset.TypeIfname, Data: layout.BridgePrefix})
	}
	var names []ruleset.Value
	for _, s := range o.sites {
		names = append(names, ruleset.Iface(s.Network.Bridge))
	}
	return oneOf(x, names)
}

func (o *obstacle) everywhere(h Host) bool {
	for _, s := range h.Sites {
		if !strings.HasPrefix(s.Network.Bridge, layout.BridgePrefix) {
			return false
		}
		met := slices.ContainsFunc(o.sites, func(m Site) bool { return m.Network.Bridge == s.Network.Bridge })
		if !met && s.asksLike(h, o) {
			return false
		}
	}
	return true
}

// asksLike says whether a network has connections of the obstacle's flow.
func (s Site) asksLike(h Host, o *obstacle) bool {
	return o.base.IPv4 && o.flow.asked(h, s, false) || o.base.IPv6 && o.flow.asked(h, s, true)
}

// names are the obstacle's bridges as iptables and its kin write them.
func (o *obstacle) names(h Host) []string {
	if o.everywhere(h) {
		return []string{layout.BridgePrefix + "+"}
	}
	var out []string
	for _, s := range o.sites {
		out = append(out, s.Network.Bridge)
	}
	return out
}

// iptablesLine lets everything pass to the networks, as our own table decides
// what enters them, and everything from them but to the bridges of others:
// those may be closed by nothing but this policy.
func iptablesLine(h Host, o *obstacle) string {
	program, table := "iptables", ""
	if o.base.Table.Family == ruleset.FamilyIP6 {
		program = "ip6tables"
	}
	if o.base.Table.Name != "filter" {
		table = " -t " + o.base.Table.Name
	}
	if o.base.Chain.Base.Hook != ruleset.HookForward {
		return ""
	}
	var commands []string
	for _, at := range o.places() {
		where := " -A " + at.chain.Chain
		if at.rule != none {
			where = fmt.Sprintf(" -I %s %d", at.chain.Chain, at.rule+1)
		}
		if !plain.MatchString(at.chain.Chain) {
			return ""
		}
		for _, match := range iptablesMatches(h, o, at.rule == none) {
			commands = append(commands, program+table+where+match)
		}
	}
	return strings.Join(commands, " && ")
}

// iptablesMatches are the conditions and targets of the rules to add. Those
// that are inserted come to stand in the reverse order.
func iptablesMatches(h Host, o *obstacle, appended bool) []string {
	var out []string
	for _, name := range o.names(h) {
		out = append(out, " -o "+name+" -j ACCEPT")
		if len(h.Inside) == 1 {
			out = append(out, " -i "+name+" ! -o "+h.Inside[0]+" -j ACCEPT")
			continue
		}
		for _, other := range h.Inside {
			out = append(out, " -i "+name+" -o "+other+" -j DROP")
		}
		out = append(out, " -i "+name+" -j ACCEPT")
	}
	if !appended {
		slices.Reverse(out)
	}
	return out
}

// places are where packets are dropped, the last rule of a chain first: a rule
// that is inserted moves those behind it.
func (o *obstacle) places() []place {
	var out []place
	for _, n := range o.needs {
		if !slices.Contains(out, n.at) {
			out = append(out, n.at)
		}
	}
	slices.SortStableFunc(out, func(a, b place) int { return b.rule - a.rule })
	return out
}

func ufwLine(o *obstacle) string {
	var commands []string
	for _, s := range o.sites {
		side := "in"
		if o.flow == FlowPublished {
			side = "out"
		}
		commands = append(commands, "ufw route allow "+side+" on "+s.Network.Bridge)
	}
	return strings.Join(commands, " && ")
}

func firewalldLine(o *obstacle) string {
	line := "firewall-cmd --permanent --zone=trusted"
	for _, s := range o.sites {
		line += " --add-interface=" + s.Network.Bridge
	}
	return line + " && firewall-cmd --reload"
}
