package inspect_test

import (
	"slices"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

const labOwner = "net=b7d0e88812ab"

var twoNetworks = []inspect.Network{
	{ID: "4f2a9c01d3e5b6a7", Name: "web", Bridge: "nft-web", Subnets: []inspect.Subnet{{Prefix: prefix("10.0.1.0/24")}}},
	{ID: "b7d0e88812ab34cd", Name: "lab", Bridge: "br-b7d0e88812ab", Subnets: []inspect.Subnet{{Prefix: prefix("10.0.2.0/24")}}},
}

// hostOfTwo is a ruleset with things of network web, of network lab, and of both.
func hostOfTwo() *inspect.Model {
	drop := ruleset.Verdict{Kind: ruleset.Drop}
	ports := ruleset.Set{Name: "ports", Key: ruleset.TypeInetService, Data: ruleset.TypeIPv4Addr, Elements: []ruleset.Element{
		{Key: ruleset.Port(8080), Data: ruleset.Addr(addr("10.0.1.2"))},
		{Key: ruleset.Port(9090), Data: ruleset.Addr(addr("10.0.2.2"))},
	}}
	guarded := ruleset.Set{Name: "guarded", Key: ruleset.TypeIfname, Data: ruleset.TypeVerdict, Elements: []ruleset.Element{
		{Key: ruleset.Iface("veth1"), Verdict: ruleset.JumpTo("of-web"), Comment: owner},
		{Key: ruleset.Iface("veth2"), Verdict: ruleset.JumpTo("of-lab"), Comment: labOwner + " ep=aaaaaaaaaaaa"},
	}}
	private := ruleset.Set{Name: "private", Key: ruleset.TypeIPv4Addr, Flags: []string{"interval"}, Elements: []ruleset.Element{
		{Key: ruleset.Addr(addr("10.0.1.0")), End: ruleset.Addr(addr("10.255.255.255"))},
	}}
	anonymous := &ruleset.Set{Anonymous: true, Key: ruleset.TypeIfname, Elements: []ruleset.Element{{Key: ruleset.Iface("nft-web")}, {Key: ruleset.Iface("eth9")}}}
	forward := ruleset.Chain{Name: "forward", Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookForward, Policy: ruleset.Accept}, Rules: []ruleset.Rule{
		ruleset.NewRule(ruleset.Counter{}),
		ruleset.NewRule(ruleset.Is(oifname, ruleset.Iface("nft-web")), ruleset.JumpTo("shared")),
		ruleset.NewRule(ruleset.Is(oifname, ruleset.Iface("br-b7d0e88812ab")), ruleset.JumpTo("shared")),
		ruleset.NewRule(ruleset.InPrefix{Left: ruleset.IPSaddr, Prefix: prefix("10.0.1.0/25")}, drop),
		ruleset.NewRule(ruleset.InPrefix{Left: ruleset.IPSaddr, Prefix: prefix("10.0.0.0/8")}, drop),
		ruleset.NewRule(ruleset.Lookup{Left: iifname, Anonymous: anonymous}, drop),
		ruleset.NewRule(drop).Because(labOwner),
		ruleset.NewRule(ruleset.JumpTo("filter-forward-in__br-b7d0e88812ab")),
	}}
	t := ruleset.Table{Family: ruleset.FamilyInet, Name: "t", Sets: []ruleset.Set{ports, guarded, private}, Chains: []ruleset.Chain{
		forward,
		{Name: "shared", Rules: []ruleset.Rule{ruleset.NewRule(ruleset.Verdict{Kind: ruleset.Return})}},
		{Name: "of-web", Rules: []ruleset.Rule{ruleset.NewRule(ruleset.JumpTo("deeper"))}},
		{Name: "of-lab", Rules: []ruleset.Rule{ruleset.NewRule(drop)}},
		{Name: "deeper", Rules: []ruleset.Rule{ruleset.NewRule(drop)}},
		{Name: "filter-forward-in__br-b7d0e88812ab", Rules: []ruleset.Rule{ruleset.NewRule(drop)}},
	}}
	return inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{t}}, inspect.Names{Networks: twoNetworks})
}

func selected(m *inspect.Model, s *inspect.Selection) []string {
	var out []string
	for _, o := range m.Objects() {
		if s.Has(o) && (o.Kind == inspect.KindRule || o.Kind == inspect.KindElement) {
			out = append(out, strings.Replace(o.String(), "inet t ", "", 1))
		}
	}
	return out
}

func TestSelectNetwork(t *testing.T) {
	m := hostOfTwo()
	rows := []struct {
		network string
		want    []string
	}{
		{"web", []string{
			"rule forward 2", "rule forward 4", "rule forward 6", "rule of-web 1", "rule deeper 1", "element ports 1", "element guarded 1",
		}},
		{"lab", []string{
			"rule forward 3", "rule forward 7", "rule forward 8", "rule of-lab 1", "rule filter-forward-in__br-b7d0e88812ab 1",
			"element ports 2", "element guarded 2",
		}},
	}
	for _, r := range rows {
		n, err := inspect.FindNetwork(twoNetworks, r.network)
		if err != nil {
			t.Fatal(err)
		}
		s := m.SelectNetwork(n)
		got := selected(m, s)
		slices.Sort(got)
		slices.Sort(r.want)
		if !slices.Equal(got, r.want) {
			t.Errorf("%s: selected\n%q, want\n%q", r.network, got, r.want)
		}
	}
	web := m.SelectNetwork(twoNetworks[0])
	const says = "Shown is what names network web: 4f2a9c01d3e5 in a comment, bridge nft-web or 10.0.1.0/24. " +
		"8 rules and 3 elements that do not are left out, though packets of the network may meet them too: rules for all networks are among them."
	if got := web.Notes()[0].Sentence; got != says {
		t.Errorf("it says %q", got)
	}
	text := web.Table(m.Ruleset.Tables[0]).Text(ruleset.Format{})
	if !strings.Contains(text, "10.0.1.2") || strings.Contains(text, "10.0.2.2") || strings.Contains(text, "lab") {
		t.Errorf("the table's text is\n%s", text)
	}
	nobody := m.SelectNetwork(inspect.Network{ID: "ffff", Name: "nobody"})
	if got := nobody.Notes()[0].Sentence; len(selected(m, nobody)) > 0 || !strings.HasPrefix(got, "Nothing names network nobody: ffff in a comment.") {
		t.Errorf("of nobody: %q, %q", selected(m, nobody), got)
	}
}

func TestFindNetwork(t *testing.T) {
	twins := append(slices.Clone(twoNetworks), inspect.Network{ID: "4f2a00000000ffff", Name: "lab"})
	rows := []struct {
		networks    []inspect.Network
		query, want string
	}{
		{twoNetworks, "web", "web"},
		{twoNetworks, "4f", "web"},
		{twoNetworks, "br-b7d0e88812ab", "lab"},
		{twoNetworks, "nope", `no network "nope": there are lab, web`},
		{twoNetworks, "", `no network "": there are lab, web`},
		{nil, "web", `no network "web": there are none`},
		{twins, "lab", `network "lab" is not one: there are lab (4f2a00000000), lab (b7d0e88812ab); say more of the id`},
		{twins, "4f2a", `network "4f2a" is not one: there are lab (4f2a00000000), web (4f2a9c01d3e5); say more of the id`},
	}
	for _, r := range rows {
		n, err := inspect.FindNetwork(r.networks, r.query)
		got := n.Name
		if err != nil {
			got = err.Error()
		}
		if got != r.want {
			t.Errorf("%q: %s, want %s", r.query, got, r.want)
		}
	}
}

func TestSelectChain(t *testing.T) {
	m := hostOfTwo()
	m.Ruleset.Tables[0].Chains[1].Rules[0].Parts = []ruleset.Part{ruleset.In(ruleset.IPSaddr, "private")}
	s, err := m.SelectChain("", "", "shared")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := selected(m, s), []string{"rule shared 1", "element private 1"}; !slices.Equal(got, want) {
		t.Errorf("selected %q, want %q", got, want)
	}
	_, err = m.SelectChain(ruleset.FamilyInet, "t", "SHARED")
	if err == nil || !strings.HasPrefix(err.Error(), `no chain "SHARED": there are forward, `) || !strings.HasSuffix(err.Error(), "(table inet t)") {
		t.Errorf("of a chain that is not there: %v", err)
	}
	if _, err = m.SelectChain(ruleset.FamilyIP, "t", "shared"); err == nil || err.Error() != `no chain "shared": there are no chains` {
		t.Errorf("of a table without chains: %v", err)
	}
}
