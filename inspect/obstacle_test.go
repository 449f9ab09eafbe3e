package inspect_test

import (
	"fmt"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// theHost is one with two networks of both families, of which the first
// publishes a port, and a network of Docker's own.
func theHost() inspect.Host {
	site := func(id, bridge, v4, v6 string) inspect.Site {
		return inspect.Site{Network: inspect.Network{ID: id, Name: id, Bridge: bridge, Subnets: []inspect.Subnet{
			{Prefix: prefix(v4)}, {Prefix: prefix(v6)},
		}}}
	}
	web := site("web", "nft-web", "10.81.0.0/24", "fd00:81::/64")
	for host, container := range map[string]string{"0.0.0.0:8080": "10.81.0.2:80", "[::]:8080": "[fd00:81::2]:80"} {
		web.Ports = append(web.Ports, inspect.Port{Proto: ruleset.ProtoTCP, Host: addrPort(host), Container: addrPort(container)})
	}
	return inspect.Host{
		Sites:  []inspect.Site{web, site("db", "nft-db", "10.82.0.0/24", "fd00:82::/64")},
		Inside: []string{"docker0"},
		IPv4:   inspect.Sysctls{Forward: true}, IPv6: inspect.Sysctls{Forward: true},
	}
}

// verdicts lists findings in short, those that only explain left out.
func verdicts(list []inspect.Finding) []string {
	var out []string
	for _, f := range list {
		if f.Level == inspect.Info || f.Object.Kind == inspect.KindRuleset {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s %s: %s", f.Level, f.Flow, strings.Join(f.Networks, ","), strings.Join(f.Families, ","), f.Mend))
	}
	return out
}

// Short words for the rows below.
var (
	established = ruleset.Has(ctState, state(ruleset.StateEstablished|ruleset.StateRelated))
	isNew       = ruleset.Has(ctState, state(ruleset.StateNew))
	isDNAT      = ruleset.Has(ctStat, ruleset.HostUint32(ruleset.TypeCtStatus, ruleset.StatusDNAT))
	nftBridges  = ruleset.Value{Type: ruleset.TypeIfname, Data: "nft-"}
	marked      = ruleset.Is(mark, ruleset.HostUint32(ruleset.TypeMark, 1))
)

func handled(r ruleset.Rule, handle uint64) ruleset.Rule {
	r.Handle = handle
	return r
}

// forwardDrop is a chain of policy drop at hook forward.
func forwardDrop(rules ...ruleset.Rule) ruleset.Chain {
	c := base("forward", "filter", ruleset.HookForward, 0, rules...)
	c.Base.Policy = ruleset.Drop
	return c
}

const (
	mendPublished = "nft add rule inet filter forward ct status dnat accept"
	mendOutgoing  = `nft 'add rule inet filter forward iifname "nft-*" accept; add rule inet filter forward oifname "nft-*" ct state established,related accept'`
)

func TestObstacles(t *testing.T) {
	published := "error published web,db IPv4,IPv6: " + mendPublished
	outgoing := "error outgoing web,db IPv4,IPv6: " + mendOutgoing
	rows := []struct {
		name   string
		chains []ruleset.Chain
		want   []string
	}{
		{"no rules", []ruleset.Chain{forwardDrop()}, []string{published, outgoing}},
		{"policy accept", []ruleset.Chain{base("forward", "filter", ruleset.HookForward, 0)}, nil},
		{"translated passes", []ruleset.Chain{forwardDrop(rule(isDNAT, accept))}, []string{outgoing}},
		{"all of ours passes", []ruleset.Chain{forwardDrop(
			rule(ruleset.Is(iifname, nftBridges), accept), rule(ruleset.Is(oifname, nftBridges), accept))}, nil},
		{"answers pass", []ruleset.Chain{forwardDrop(rule(established, accept))}, []string{published,
			`error outgoing web,db IPv4,IPv6: nft 'add rule inet filter forward iifname "nft-*" accept'`}},
		{"one network passes", []ruleset.Chain{forwardDrop(rule(established, accept), rule(isDNAT, accept),
			rule(ruleset.Is(iifname, ruleset.Iface("nft-web")), accept))},
			[]string{`error outgoing db IPv4,IPv6: nft 'add rule inet filter forward iifname "nft-db" accept'`}},
		{"one family passes", []ruleset.Chain{forwardDrop(rule(ruleset.Is(nfproto, ruleset.NFProto(ruleset.NFProtoIPv4)), accept),
			rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept))},
			[]string{"error published web,db IPv6: " + mendPublished}},
		{"by what is not known", []ruleset.Chain{forwardDrop(rule(marked, accept))}, []string{
			"warn published web,db IPv4,IPv6: " + mendPublished, "warn outgoing web,db IPv4,IPv6: " + mendOutgoing}},
		{"a rule that is not understood", []ruleset.Chain{base("forward", "filter", ruleset.HookForward, 0,
			handled(rule(isNew, ruleset.Opaque{Name: "x"}, drop), 7))}, []string{
			"warn published web,db IPv4,IPv6: nft insert rule inet filter forward handle 7 ct status dnat accept",
			`warn outgoing web,db IPv4,IPv6: nft 'insert rule inet filter forward handle 7 iifname "nft-*" accept'`}},
		{"some are dropped", []ruleset.Chain{base("forward", "filter", ruleset.HookForward, 0,
			rule(ruleset.InPrefix{Left: ruleset.IPSaddr, Prefix: prefix("198.51.100.0/24")}, drop),
			rule(marked, drop), rule(ruleset.Has(ctState, state(ruleset.StateInvalid)), drop))}, nil},
		{"unless they come by an interface", []ruleset.Chain{base("forward", "filter", ruleset.HookForward, 0,
			handled(rule(ruleset.IsNot(iifname, ruleset.Iface("eth0")), isDNAT, isNew, drop), 4))}, []string{
			"warn published web,db IPv4,IPv6: nft insert rule inet filter forward handle 4 ct status dnat accept"}},
		{"our subnets are dropped", []ruleset.Chain{base("forward", "filter", ruleset.HookForward, 0,
			handled(rule(ruleset.InPrefix{Left: ruleset.IPDaddr, Prefix: prefix("10.81.0.0/16")}, isNew, drop), 4))}, []string{
			"error published web IPv4: nft insert rule inet filter forward handle 4 ct status dnat accept"}},
		{"the port is open", []ruleset.Chain{forwardDrop(rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept),
			rule(ruleset.Is(field("tcp", "dport"), ruleset.Port(80)), ruleset.Is(oifname, ruleset.Iface("nft-web")), accept),
			rule(ruleset.Is(oifname, ruleset.Iface("nft-db")), accept))}, nil},
		{"the host port is no port of the container", []ruleset.Chain{forwardDrop(rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept),
			rule(ruleset.Is(field("tcp", "dport"), ruleset.Port(8080)), accept), rule(ruleset.Is(oifname, ruleset.Iface("nft-db")), accept))},
			[]string{"error published web IPv4,IPv6: " + mendPublished}},
		{"in a chain that is jumped to", []ruleset.Chain{
			base("forward", "filter", ruleset.HookForward, 0, rule(isDNAT, ruleset.JumpTo("deep"))),
			chain("deep", rule(established, ret), handled(rule(counter, ruleset.Reject{}), 9))},
			[]string{"error published web,db IPv4,IPv6: nft insert rule inet filter deep handle 9 ct status dnat accept"}},
		{"the policy behind a goto", []ruleset.Chain{
			forwardDrop(rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept), rule(isNew, ruleset.GotoChain("other"))), chain("other")},
			[]string{"error published web,db IPv4,IPv6: nft add rule inet filter other ct status dnat accept"}},
		{"the policy behind a return", []ruleset.Chain{
			forwardDrop(rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept), handled(rule(isNew, ret), 5), rule(accept))},
			[]string{"error published web,db IPv4,IPv6: nft insert rule inet filter forward handle 5 ct status dnat accept"}},
		{"a jump that comes back", []ruleset.Chain{
			forwardDrop(rule(marked, ruleset.JumpTo("other")), rule(accept)), chain("other", rule(isNew, ret))}, nil},
		{"a verdict map", []ruleset.Chain{forwardDrop(
			rule(ruleset.VMap{Key: ctState, Anonymous: &ruleset.Set{Anonymous: true, Key: ruleset.TypeCtState, Elements: []ruleset.Element{
				{Key: state(ruleset.StateEstablished), Verdict: accept}, {Key: state(ruleset.StateInvalid), Verdict: drop}}}}),
			rule(ruleset.VMap{Key: iifname, Anonymous: &ruleset.Set{Anonymous: true, Key: ruleset.TypeIfname, Elements: []ruleset.Element{
				{Key: ruleset.Iface("nft-web"), Verdict: accept}, {CatchAll: true, Verdict: ruleset.GotoChain("other")}}}})),
			chain("other", rule(isDNAT, accept))}, []string{
			`error outgoing db IPv4,IPv6: nft 'add rule inet filter other iifname "nft-db" accept'`}},
		{"before translation", []ruleset.Chain{func() ruleset.Chain {
			c := base("early", "filter", ruleset.HookPrerouting, -150, rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept))
			c.Base.Policy = ruleset.Drop
			return c
		}()}, []string{
			"error published web IPv4,IPv6: nft 'add rule inet filter early meta l4proto . th dport { tcp . 8080 } accept'"}},
		{"a name that a shell would read", []ruleset.Chain{{Name: "a;b", Base: forwardDrop().Base, Rules: []ruleset.Rule{
			rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept)}}}, []string{"error published web,db IPv4,IPv6: "}},
		{"nat chains translate only", []ruleset.Chain{func() ruleset.Chain {
			c := base("n", "nat", ruleset.HookPostrouting, 100)
			c.Base.Policy = ruleset.Drop
			return c
		}()}, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			check(t, verdicts(model(table(ruleset.FamilyInet, "filter", nil, r.chains...)).Findings(theHost())), r.want...)
		})
	}
}

func TestObstaclesInSets(t *testing.T) {
	wild := ruleset.Element{Key: ruleset.Iface("nft-"), End: ruleset.Value{Type: ruleset.TypeIfname, Data: "nft-" + strings.Repeat("\xff", 12)}}
	sets := []ruleset.Set{
		{Name: "ours", Key: ruleset.TypeIfname, Flags: []string{"interval"}, Elements: []ruleset.Element{wild}},
		{Name: "nets", Key: ruleset.TypeIPv4Addr, Elements: []ruleset.Element{
			{Key: ruleset.Addr(addr("10.80.0.0")), End: ruleset.Addr(addr("10.95.255.255"))}}},
		{Name: "pairs", Key: ruleset.ConcatTypes(ruleset.TypeIfname, ruleset.TypeIPv4Addr), Elements: []ruleset.Element{
			{Key: ruleset.Concat(ruleset.Iface("nft-web"), ruleset.Addr(addr("10.81.0.2")))}}},
		{Name: "empty", Key: ruleset.TypeIPv4Addr},
	}
	rest := []ruleset.Rule{rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept), rule(ruleset.Is(oifname, ruleset.Iface("nft-db")), accept)}
	rows := []struct {
		match ruleset.Match
		want  []string
	}{
		{ruleset.In(oifname, "ours"), nil},
		{ruleset.In(ruleset.IPDaddr, "nets"), []string{"error published web IPv6: " + mendPublished}},
		{ruleset.In(ruleset.ConcatOf(oifname, ruleset.IPDaddr), "pairs"), []string{"error published web IPv6: " + mendPublished}},
		{ruleset.In(ruleset.IPSaddr, "empty"), []string{"error published web IPv4,IPv6: " + mendPublished}},
		{ruleset.Lookup{Left: ruleset.IPDaddr, Op: ruleset.NotEqual, Set: "nets"}, []string{"error published web IPv4,IPv6: " + mendPublished}},
		{ruleset.Lookup{Left: ruleset.IPSaddr, Op: ruleset.NotEqual, Set: "empty"}, []string{"error published web IPv6: " + mendPublished}},
		{ruleset.InRange{Left: field("tcp", "dport"), From: ruleset.Port(1), To: ruleset.Port(1023)}, nil},
		{ruleset.Compare{Left: field("tcp", "dport"), Op: ruleset.Less, Right: ruleset.Port(80)}, []string{"error published web IPv4,IPv6: " + mendPublished}},
		{ruleset.Compare{Left: field("tcp", "dport"), Op: ruleset.GreaterOrEqual, Right: ruleset.Port(80)}, nil},
		{ruleset.Is(field("udp", "dport"), ruleset.Port(80)), []string{"error published web IPv4,IPv6: " + mendPublished}},
		{ruleset.Is(ruleset.Masked{Expr: ctStat, Mask: ruleset.HostUint32(ruleset.TypeCtStatus, 32)}, ruleset.HostUint32(ruleset.TypeCtStatus, 32)), nil},
		{ruleset.HasAny{Left: ctStat, Op: ruleset.NotEqual, Flags: ruleset.HostUint32(ruleset.TypeCtStatus, 32)},
			[]string{"error published web IPv4,IPv6: " + mendPublished}},
		{ruleset.Is(ruleset.Ct{Key: ruleset.CtProtoDst, Dir: ruleset.Original}, ruleset.Port(8080)), nil},
	}
	for _, r := range rows {
		t.Run(r.match.String(), func(t *testing.T) {
			m := model(table(ruleset.FamilyInet, "filter", sets, forwardDrop(append(rest[:3:3], rule(r.match, accept))...)))
			check(t, verdicts(m.Findings(theHost())), r.want...)
		})
	}
}

func TestFindingsOfTheHost(t *testing.T) {
	own := func(names ...string) []ruleset.Table {
		var out []ruleset.Table
		for _, n := range names {
			out = append(out, table(ruleset.FamilyInet, n, nil, base("FORWARD", "filter", ruleset.HookForward, 0, rule(drop))))
		}
		return out
	}
	both := own(layout.Table, layout.KeeperTable)
	rows := []struct {
		name   string
		tables []ruleset.Table
		change func(*inspect.Host)
		want   []string
	}{
		{"all is well", both, func(*inspect.Host) {}, nil},
		{"no driver", both, func(h *inspect.Host) { h.Driver, h.Socket = fmt.Errorf("connect: refused"), "/s" }, []string{
			"error: The driver does not answer on /s: connect: refused. Ports of running containers stay published, but Docker cannot start others, and nobody mends the table. [systemctl start nftnet]"}},
		{"no table", nil, func(*inspect.Host) {}, []string{
			"error: Table inet nftnet is not in the kernel: no port is published, nothing is isolated, and containers do not get out. [systemctl restart nftnet]"}},
		{"no keeper", own(layout.Table), func(*inspect.Host) {}, []string{
			"info: The keeper table, inet nftnet-keep, is not there: connections that stand may break when somebody flushes the ruleset. It takes Linux 5.12. []"}},
		{"no forwarding", both, func(h *inspect.Host) { h.IPv4.Forward = false }, []string{
			"error: The host does not forward IPv4 (net.ipv4.ip_forward is 0): containers do not get out by it, and published ports do not answer. [sysctl -w net.ipv4.ip_forward=1]"}},
		{"old iptables", both, func(h *inspect.Host) { h.Legacy = []string{"iptables-legacy -t filter"} }, []string{
			"warn: Rules of the old iptables are in the kernel beside nftables. They are not seen here, and may drop packets of the networks: iptables-legacy -t filter -S shows them. []"}},
		{"no forwarding, internal networks only", both, func(h *inspect.Host) {
			h.IPv6.Forward, h.Sites[0].Internal, h.Sites[1].Internal = false, true, true
		}, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			h := theHost()
			r.change(&h)
			var got []string
			for _, f := range model(r.tables...).Findings(h) {
				got = append(got, fmt.Sprintf("%s: %s [%s]", f.Level, f.Sentence, f.Mend))
			}
			check(t, got, r.want...)
		})
	}
}

// TestNeighbours: containers of one network are asked about only where the IP
// hooks see their frames.
func TestNeighbours(t *testing.T) {
	rules := forwardDrop(rule(isDNAT, accept),
		rule(ruleset.Is(iifname, nftBridges), ruleset.IsNot(oifname, nftBridges), accept), rule(ruleset.IsNot(iifname, nftBridges), accept))
	m := model(table(ruleset.FamilyInet, "filter", nil, rules))
	h := theHost()
	check(t, verdicts(m.Findings(h)))
	h.IPv4.Bridged, h.Sites[1].Isolated = true, true
	check(t, verdicts(m.Findings(h)),
		`error neighbours web IPv4: nft 'add rule inet filter forward iifname "nft-*" oifname "nft-*" accept'`)
}

// TestSomePorts: ports are named where others of the network pass.
func TestSomePorts(t *testing.T) {
	h := theHost()
	h.Sites = h.Sites[:1]
	h.Sites[0].Ports = append(h.Sites[0].Ports,
		inspect.Port{Proto: ruleset.ProtoUDP, Host: addrPort("0.0.0.0:5353"), Container: addrPort("10.81.0.2:53")},
		inspect.Port{Proto: ruleset.ProtoTCP, Host: addrPort("0.0.0.0:8443"), Container: addrPort("10.81.0.3:443")})
	got := model(table(ruleset.FamilyInet, "filter", nil, forwardDrop(rule(established, accept), rule(ruleset.Is(iifname, nftBridges), accept),
		rule(ruleset.Is(field("tcp", "dport"), ruleset.Port(80)), accept)))).Findings(h)
	check(t, verdicts(got), "error published web IPv4: "+mendPublished)
	const want = "Connections from outside to published ports 5353/udp and 8443/tcp of network web (IPv4) do not work: " +
		"chain inet filter forward at hook forward drops their first packets by its policy drop."
	if s := got[len(got)-1].Sentence; s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestOwnSites(t *testing.T) {
	b := ruleset.Iface("nft-web")
	rs := ruleset.Ruleset{Tables: []ruleset.Table{table(ruleset.FamilyInet, layout.Table, []ruleset.Set{
		{Name: "bridges", Key: ruleset.TypeIfname, Elements: []ruleset.Element{{Key: b, Comment: "net=0123456789ab"}}},
		{Name: "internal", Key: ruleset.TypeIfname, Elements: []ruleset.Element{{Key: b}}},
		{Name: "same_if", Key: ruleset.ConcatTypes(ruleset.TypeIfname, ruleset.TypeIfname), Data: ruleset.TypeVerdict,
			Elements: []ruleset.Element{{Key: ruleset.Concat(b, b), Verdict: ruleset.GotoChain("in-internal")}}},
	})}}
	got := inspect.OwnSites(rs)
	if len(got) != 1 || got[0].Network.ID != "0123456789ab" || got[0].Network.Bridge != "nft-web" || !got[0].Internal || !got[0].Isolated {
		t.Errorf("got %+v", got)
	}
	if got := inspect.OwnSites(ruleset.Ruleset{}); got != nil {
		t.Errorf("without a table: %+v", got)
	}
}
