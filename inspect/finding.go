package inspect

import (
	"fmt"
	"slices"
	"strconv"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// Finding is a note on something that keeps packets from where they should go.
type Finding struct {
	Note
	// Flow, Networks and Families are what it concerns; empty for everything.
	// Networks are names, or ids where there are none; families "IPv4", "IPv6".
	Flow     Flow
	Networks []string
	Families []string
	// Mend is a line for a shell that mends it; empty where none is known.
	Mend string
}

// Findings lists what is in the way of the driver's networks: errors that stop
// what is asked for certainly, and warnings where that depends on something
// that cannot be known from here.
func (m *Model) Findings(h Host) []Finding {
	out, asked := m.hostFindings(h), questions(h)
	for _, hook := range m.Hooks {
		if hook.Object.Layer != LayerIP || !slices.Contains(forwardHooks, hook.Object.Hook) {
			continue
		}
		for _, b := range hook.Chains {
			if b.Chain.Base.Type == "filter" && !isOwn(b.Table) {
				out = append(out, m.obstacles(h, asked, b)...)
			}
		}
	}
	return out
}

// forwardHooks are those that a packet meets which is passed on.
var forwardHooks = []ruleset.Hook{ruleset.HookPrerouting, ruleset.HookForward, ruleset.HookPostrouting}

func isOwn(t *ruleset.Table) bool {
	return t.Family == ruleset.FamilyInet && (t.Name == layout.Table || t.Name == layout.KeeperTable)
}

func (m *Model) hostFindings(h Host) []Finding {
	var out []Finding
	add := func(level Level, mend, sentence string) {
		o := Object{Kind: KindRuleset}
		out = append(out, Finding{Note: Note{Object: o, Level: level, Topic: TopicObstacle, Sentence: sentence}, Mend: mend})
	}
	if h.Driver != nil {
		add(Error, "systemctl start nftnet", m.say.Say("host.driver", "socket", h.Socket, "why", h.Driver.Error()))
	}
	if m.Ruleset.Table(ruleset.FamilyInet, layout.Table) == nil && (h.Driver == nil || len(h.Sites) > 0) {
		add(Error, "systemctl restart nftnet", m.say.Say("host.table", "table", "inet "+layout.Table))
	} else if h.Driver == nil && m.Ruleset.Table(ruleset.FamilyInet, layout.KeeperTable) == nil {
		add(Info, "", m.say.Say("host.keeper", "table", "inet "+layout.KeeperTable))
	}
	for _, table := range h.Legacy {
		add(Warn, "", m.say.Say("host.legacy", "table", table))
	}
	for _, v6 := range []bool{false, true} {
		routed := slices.ContainsFunc(h.Sites, func(s Site) bool { return s.has(v6) && !s.Internal })
		if routed && !h.sysctls(v6).Forward {
			name := "net.ipv4.ip_forward"
			if v6 {
				name = "net.ipv6.conf.all.forwarding"
			}
			add(Error, "sysctl -w "+name+"=1", m.say.Say("host.forward", "family", familyName(v6), "name", name))
		}
	}
	return out
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// obstacle is what a base chain does to one flow, over all networks and
// families to which it does the same.
type obstacle struct {
	base  *BaseChain
	flow  Flow
	level Level
	// missed is the first kind of packet that does not pass.
	missed stage
	sites  []Site
	v6     []bool
	ends   []end
	// needs are the packets to let pass, and where.
	needs []need
	ports []Port
}

// need is a kind of packet that is dropped at a place.
type need struct {
	stage stage
	at    place
}

// obstacles asks what a base chain does to every flow.
func (m *Model) obstacles(h Host, asked []question, b *BaseChain) []Finding {
	var list []*obstacle
	for _, q := range asked {
		if q.meets(b) {
			list = m.ask(list, b, q)
		}
	}
	return m.report(h, list)
}

// missed is a stage of a question that is dropped, or may be.
type missed struct {
	stage stage
	fate  fate
}

// ask enters the answer to a question: a flow works where all its stages do.
func (m *Model) ask(list []*obstacle, b *BaseChain, q question) []*obstacle {
	var failed []missed
	level := Warn
	for _, s := range stages[q.flow] {
		f := m.fate(b, q.packet(s, b))
		if f.vague && len(q.ports) > 1 {
			for _, one := range q.perPort() {
				list = m.ask(list, b, one)
			}
			return list
		}
		if f.drops() {
			level = Error
		}
		if f.drops() || f.mayDrop() {
			failed = append(failed, missed{s, f})
		}
	}
	if len(failed) == 0 {
		return list
	}
	i := slices.IndexFunc(list, func(o *obstacle) bool { return o.flow == q.flow && o.level == level })
	if i < 0 {
		i = len(list)
		list = append(list, &obstacle{base: b, flow: q.flow, level: level, missed: failed[0].stage})
	}
	list[i].add(q, failed)
	return list
}

func (o *obstacle) add(q question, failed []missed) {
	if !slices.ContainsFunc(o.sites, func(s Site) bool { return s.Network.Bridge == q.site.Network.Bridge }) {
		o.sites = append(o.sites, q.site)
	}
	if !slices.Contains(o.v6, q.v6) {
		o.v6 = append(o.v6, q.v6)
	}
	o.ports = append(o.ports, q.ports...)
	for _, f := range failed {
		o.addEnds(f)
	}
}

func (o *obstacle) addEnds(f missed) {
	for _, e := range f.fate.ordinary {
		if e.accept {
			continue
		}
		if !slices.Contains(o.ends, e) {
			o.ends = append(o.ends, e)
		}
		if n := (need{f.stage, e.place}); !slices.Contains(o.needs, n) {
			o.needs = append(o.needs, n)
		}
	}
}

// report puts obstacles into words. Those that one line mends are one finding.
func (m *Model) report(h Host, list []*obstacle) []Finding {
	var out []Finding
	for _, o := range list {
		f := m.finding(h, o)
		same := slices.IndexFunc(out, func(g Finding) bool { return g.Mend != "" && g.Mend == f.Mend })
		if same >= 0 {
			out[same].merge(f, m.say.Say("sentence.join"))
			continue
		}
		out = append(out, f)
	}
	return out
}

// merge adds another finding that the same line mends.
func (f *Finding) merge(o Finding, between string) {
	f.Sentence += between + o.Sentence
	if f.Flow != o.Flow {
		f.Flow = ""
	}
	if o.Level == Error {
		f.Level = Error
	}
	f.Networks = unique(append(f.Networks, o.Networks...))
	f.Families = unique(append(f.Families, o.Families...))
	for _, e := range o.Evidence {
		if !slices.Contains(f.Evidence, e) {
			f.Evidence = append(f.Evidence, e)
		}
	}
}

func (m *Model) finding(h Host, o *obstacle) Finding {
	f := Finding{
		Note: Note{Object: o.base.Object, Level: o.level, Topic: TopicObstacle},
		Flow: o.flow, Mend: m.mend(h, o),
	}
	for _, s := range o.sites {
		f.Networks = append(f.Networks, siteName(s))
	}
	for _, v6 := range o.v6 {
		f.Families = append(f.Families, familyName(v6))
	}
	var by []string
	for _, e := range o.ends {
		by = append(by, m.by(o.base, e))
		f.Evidence = append(f.Evidence, m.proof(o.base, e))
	}
	id := "obstacle.drops"
	if o.level != Error {
		id = "obstacle.perhaps"
	}
	what := "obstacle.what.first"
	switch {
	case o.missed.reply:
		what = "obstacle.what.answer"
	case o.missed.state != ruleset.StateNew:
		what = "obstacle.what.later"
	}
	f.Sentence = m.say.Say(id, "flow", m.flowName(o, f), "chain", o.base.Object.String(), "hook", m.hookName(o.base.Hook),
		"what", m.say.Say(what), "by", m.say.Or(m.shortened(by)))
	return f
}

// flowName names the connections of an obstacle, by their ports where others of
// the same networks pass.
func (m *Model) flowName(o *obstacle, f Finding) string {
	networks := m.say.Count("obstacle.networks", uint64(len(f.Networks)), "networks", m.say.And(m.shortened(f.Networks)))
	families := m.say.And(f.Families)
	if ports := o.portNames(); len(ports) > 0 {
		return m.say.Count("obstacle.ports", uint64(len(ports)), "ports", m.say.And(m.shortened(ports)),
			"networks", networks, "families", families)
	}
	return m.say.Say("obstacle.flow."+string(o.flow), "networks", networks, "families", families)
}

// portNames lists the obstacle's ports; none where it is about all ports of its
// networks.
func (o *obstacle) portNames() []string {
	all := 0
	for _, s := range o.sites {
		for _, p := range s.Ports {
			if slices.Contains(o.v6, p.Container.Addr().Is6()) {
				all++
			}
		}
	}
	if len(o.ports) == all {
		return nil
	}
	var out []string
	for _, p := range o.ports {
		out = append(out, fmt.Sprintf("%d/%s", p.Host.Port(), ruleset.ProtoName(p.Proto)))
	}
	return unique(out)
}

func siteName(s Site) string {
	if s.Network.Name != "" {
		return s.Network.Name
	}
	if s.Network.ID != "" {
		return s.Network.ID
	}
	return s.Network.Bridge
}

// by says what drops the packet.
func (m *Model) by(b *BaseChain, e end) string {
	switch {
	case !e.policy:
		return m.say.Say("obstacle.by.rule", "rule", m.handled(e.place))
	case e.place.rule == none && e.place.chain == b.Object:
		return m.say.Say("obstacle.by.policy")
	case e.place.rule == none:
		return m.say.Say("obstacle.by.end", "chain", e.place.chain.Chain)
	}
	return m.say.Say("obstacle.by.return", "rule", m.handled(e.place))
}

// handled names a rule by its place and the kernel's handle.
func (m *Model) handled(at place) string {
	handle := m.chains[at.chain].chain.Rules[at.rule].Handle
	return m.say.Say("obstacle.rule", "n", strconv.Itoa(at.rule+1), "chain", at.chain.Chain, "handle", strconv.FormatUint(handle, 10))
}

// proof is the part of the ruleset that decides.
func (m *Model) proof(b *BaseChain, e end) Evidence {
	if e.place.rule != none {
		o := e.place.chain.rule(e.place.rule)
		return Evidence{o, m.evidence(o).Text}
	}
	return Evidence{b.Object, fmt.Sprintf("chain %s { %s }", b.Chain.Name, b.Chain.Base)}
}
