package view_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"

	"nftnet/inspect"
	"nftnet/inspect/message"
	"nftnet/inspect/view"
	"nftnet/internal/desired"
	"nftnet/internal/layout"
	"nftnet/internal/nstest/golden"
	"nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"
)

const (
	webID = "4f2a9c01d3e5b6a7889900112233445566778899aabbccddeeff001122334455"
	labID = "b7d0e88812ab34cd56ef77889900aabbccddeeff00112233445566778899aabb"
	endID = "e1c0ffee00112233445566778899aabbccddeeff00112233445566778899aabb"
)

// hostState is a host with two networks: web has both families and a
// container with published ports; lab is internal and its containers may not
// reach each other.
func hostState() desired.State {
	prefix, addr, at := netip.MustParsePrefix, netip.MustParseAddr, netip.MustParseAddrPort
	s := desired.New()
	s.Networks[webID] = desired.Network{
		ID: webID, Bridge: layout.BridgeName(webID), ICC: true, Masquerade: true,
		IPv4: desired.Subnet{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")},
		IPv6: desired.Subnet{Prefix: prefix("fd00:1::/64"), Gateway: addr("fd00:1::1")},
	}
	s.Networks[labID] = desired.Network{
		ID: labID, Bridge: layout.BridgeName(labID), Internal: true,
		IPv4: desired.Subnet{Prefix: prefix("10.0.2.0/24"), Gateway: addr("10.0.2.1")},
	}
	s.Endpoints[endID] = desired.Endpoint{
		ID: endID, NetworkID: webID, IPv4: addr("10.0.1.2"), IPv6: addr("fd00:1::2"),
		Published: []desired.Port{
			{Proto: 6, Host: at("0.0.0.0:8080"), Container: at("10.0.1.2:80")},
			{Proto: 6, Host: at("[::]:8080"), Container: at("[fd00:1::2]:80")},
			{Proto: 17, Host: at("127.0.0.1:5353"), Container: at("10.0.1.2:53")},
		},
	}
	return s
}

func hostNames() inspect.Names {
	s := hostState()
	n := inspect.Names{Endpoints: []inspect.Endpoint{{
		ID: endID, NetworkID: webID, Container: "web-1", Addrs: s.Endpoints[endID].Addrs(),
	}}}
	for id, name := range map[string]string{webID: "web", labID: "lab"} {
		net := inspect.Network{ID: id, Name: name, Driver: "nftnet", Bridge: s.Networks[id].Bridge}
		for _, sub := range s.Networks[id].Subnets() {
			net.Subnets = append(net.Subnets, inspect.Subnet{Prefix: sub.Prefix, Gateway: sub.Gateway})
		}
		n.Networks = append(n.Networks, net)
	}
	return n
}

// hostModel is what is read back from that host, with some counts, handles, a
// rule of the user's and a firewall of somebody else's.
func hostModel(n inspect.Names) *inspect.Model {
	rs := ruleset.Merge(nat.Ruleset(hostState()), isolation.Ruleset(hostState())).Sorted()
	t := rs.Table(ruleset.FamilyInet, "nftnet")
	t.Handle = 3
	for i := range t.Chains {
		t.Chains[i].Handle = uint64(10 + i)
	}
	t.Set("publish4").Elements[0].Counter = &ruleset.Counter{Packets: 7, Bytes: 420}
	t.Chain("DOCKER-ISOLATION-STAGE-2").Rules[4] = ruleset.NewRule(
		ruleset.Counter{Packets: 1234, Bytes: 74040}, ruleset.Verdict{Kind: ruleset.Drop})
	t.Chain("DOCKER-USER").Rules = []ruleset.Rule{{Handle: 99, Comment: "not from there", Parts: []ruleset.Part{
		ruleset.InPrefix{Left: ruleset.IPSaddr, Prefix: netip.MustParsePrefix("192.0.2.0/24")}, ruleset.Verdict{Kind: ruleset.Drop},
	}}}
	rs.Tables = append(rs.Tables, ruleset.Table{Family: ruleset.FamilyIP, Name: "filter", Chains: []ruleset.Chain{{
		Name: "FORWARD", Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookForward, Policy: ruleset.Drop},
		Rules: []ruleset.Rule{
			ruleset.NewRule(ruleset.Compat{Name: "recent"}, ruleset.Verdict{Kind: ruleset.Accept}),
			ruleset.NewRule(ruleset.Is(ruleset.Meta{Key: ruleset.MetaIIFName}, ruleset.Iface("eth0")), ruleset.Verdict{Kind: ruleset.Accept}),
		},
	}}})
	return inspect.NewModel(rs, n)
}

func text(t *testing.T, m *inspect.Model, o view.Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := view.Text(&b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	rows := []struct {
		name  string
		names inspect.Names
		o     view.Options
	}{
		{"text", hostNames(), view.Options{Width: 100}},
		{"without-names", inspect.Names{}, view.Options{Width: 100, HideCounters: true}},
		{"narrow", hostNames(), view.Options{Width: 50, Brief: true}},
		{"handles", hostNames(), view.Options{Handles: true, HideNotes: true}},
		{"one-table", hostNames(), view.Options{Family: ruleset.FamilyIP, Table: "filter"}},
		{"color", hostNames(), view.Options{Width: 100, Color: true, Brief: true, Family: ruleset.FamilyIP}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := text(t, hostModel(row.names), row.o)
			golden.Check(t, filepath.Join("testdata", row.name+".golden"), got)
			if !row.o.Color && strings.ContainsRune(got, '\x1b') {
				t.Error("there are escape sequences")
			}
		})
	}
}

// smallModel has one of each kind of object.
func smallModel() *inspect.Model {
	l4proto := ruleset.Meta{Key: ruleset.MetaL4Proto}
	publish := ruleset.Set{
		Name: "publish4", Handle: 5, Counter: true, Key: ruleset.ConcatTypes(ruleset.TypeInetProto, ruleset.TypeInetService),
		Data: ruleset.ConcatTypes(ruleset.TypeIPv4Addr, ruleset.TypeInetService),
		Elements: []ruleset.Element{{
			Key:     ruleset.Concat(ruleset.Proto(ruleset.ProtoTCP), ruleset.Port(8080)),
			Data:    ruleset.Concat(ruleset.Addr(netip.MustParseAddr("10.0.1.2")), ruleset.Port(80)),
			Counter: &ruleset.Counter{Packets: 7, Bytes: 420}, Comment: layout.NewOwner(webID, endID).Comment(),
		}},
	}
	base := &ruleset.Base{Type: "nat", Hook: ruleset.HookPrerouting, Priority: ruleset.PriorityDstNAT, Policy: ruleset.Accept}
	return inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{
		Family: ruleset.FamilyInet, Name: "t", Handle: 1, Sets: []ruleset.Set{publish},
		Chains: []ruleset.Chain{
			{Name: "PREROUTING", Handle: 2, Base: base, Rules: []ruleset.Rule{
				{Handle: 4, Parts: []ruleset.Part{ruleset.Counter{Packets: 9, Bytes: 540}, ruleset.JumpTo("DOCKER")}},
			}},
			{Name: "DOCKER", Handle: 3, Rules: []ruleset.Rule{
				{Handle: 6, Parts: []ruleset.Part{ruleset.NAT{Kind: ruleset.DNAT, Family: "ip", Key: ruleset.ConcatOf(l4proto, ruleset.THDport), Map: "publish4"}}},
				{Handle: 7, Parts: []ruleset.Part{ruleset.Compat{Name: "recent"}, ruleset.Verdict{Kind: ruleset.Return}}},
			}},
		},
	}}}, hostNames())
}

func TestDocument(t *testing.T) {
	var b bytes.Buffer
	if err := view.WriteDocument(&b, smallModel(), view.Options{}); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join("testdata", "document.json"), b.String())
	var d view.Document
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Version != view.Version || len(d.Tables) != 1 || len(d.Hooks) != 5 {
		t.Errorf("version %d, %d tables, %d hooks", d.Version, len(d.Tables), len(d.Hooks))
	}
	plain := view.NewDocument(hostModel(hostNames()), view.Options{HideCounters: true, HideNotes: true, Family: ruleset.FamilyInet})
	for _, c := range plain.Tables[0].Chains {
		for _, r := range c.Rules {
			if r.Counter != nil || len(r.Notes) > 0 || strings.Contains(r.NFT, "packets") {
				t.Errorf("shows what it should not: %+v", r)
			}
		}
	}
}

func TestNFT(t *testing.T) {
	m := hostModel(inspect.Names{})
	var all, one bytes.Buffer
	if err := view.NFT(&all, m, view.Options{}); err != nil {
		t.Fatal(err)
	}
	if all.String() != m.Ruleset.String() {
		t.Error("differs from the ruleset's own text")
	}
	if err := view.NFT(&one, m, view.Options{Table: "filter", Handles: true, HideCounters: true}); err != nil {
		t.Fatal(err)
	}
	if want := m.Ruleset.Table(ruleset.FamilyIP, "filter").Text(ruleset.Format{Handles: true, Stateless: true}); one.String() != want {
		t.Errorf("got %s\nwant %s", one.String(), want)
	}
}

// TestManyElements: a long set is cut in text, and all of it is shown if asked
// for.
func TestManyElements(t *testing.T) {
	set := ruleset.Set{Name: "s", Key: ruleset.TypeInetService}
	for p := range uint16(500) {
		set.Elements = append(set.Elements, ruleset.Element{Key: ruleset.Port(p)})
	}
	m := inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{Family: ruleset.FamilyInet, Name: "t", Sets: []ruleset.Set{set}}}}, inspect.Names{})
	cut := text(t, m, view.Options{})
	if !strings.Contains(cut, "      … and 480 more (use --all)\n") || strings.Contains(cut, "      20\n") {
		t.Errorf("not cut behind 20 elements:\n%s", cut)
	}
	all := text(t, m, view.Options{All: true})
	for p := range 500 {
		if !strings.Contains(all, fmt.Sprintf("\n      %d\n", p)) {
			t.Fatalf("port %d is missing", p)
		}
	}
	if strings.Contains(all, "more") {
		t.Error("something is left out")
	}
}

// TestHostileNames: what a foreign ruleset is called does not reach the
// terminal as an escape sequence.
func TestHostileNames(t *testing.T) {
	rs := ruleset.Ruleset{Tables: []ruleset.Table{{Family: ruleset.FamilyInet, Name: "t", Chains: []ruleset.Chain{
		{Name: "\x1b]0;owned\a", Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookInput, Policy: ruleset.Accept}, Rules: []ruleset.Rule{
			ruleset.NewRule(ruleset.JumpTo("a\x1b[2Jb\u009b")),
		}},
		{Name: "a\x1b[2Jb\u009b"},
	}}}}
	for _, color := range []bool{false, true} {
		got := text(t, inspect.NewModel(rs, inspect.Names{}), view.Options{Color: color})
		if strings.Contains(got, "\x1b]0") || strings.Contains(got, "\x1b[2J") || strings.ContainsAny(got, "\a\u009b") {
			t.Errorf("%q", got)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestErrorsOfTheWriter(t *testing.T) {
	m := hostModel(inspect.Names{})
	for name, err := range map[string]error{
		"text": view.Text(broken{}, m, view.Options{}), "nft": view.NFT(broken{}, m, view.Options{}), "json": view.JSON(broken{}, m, view.Options{}, "devel"), "document": view.WriteDocument(broken{}, m, view.Options{}),
	} {
		if err == nil {
			t.Errorf("%s: the error is lost", name)
		}
	}
}

// TestTextLosesNothing: named objects, flow tables and chains within rules are
// shown too.
func TestTextLosesNothing(t *testing.T) {
	inner := ruleset.Chain{Name: "__chain1", Anonymous: true, Rules: []ruleset.Rule{ruleset.NewRule(ruleset.Verdict{Kind: ruleset.Drop})}}
	jump := ruleset.JumpTo("__chain1")
	jump.Anonymous = &inner
	out := text(t, inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{
		Family: ruleset.FamilyInet, Name: "t",
		Objects:    []ruleset.Object{{Kind: "counter", Name: "web", State: ruleset.Counter{Packets: 3, Bytes: 180}}},
		Flowtables: []ruleset.Flowtable{{Name: "fast", Devices: []string{"eth0"}}},
		Chains: []ruleset.Chain{
			{Name: "input", Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookInput, Policy: ruleset.Accept}, Rules: []ruleset.Rule{ruleset.NewRule(jump)}},
			inner,
		},
	}}}, inspect.Names{}), view.Options{Width: 80})
	for _, want := range []string{"\n  counter web\n    packets 3 bytes 180\n", "\n  flowtable fast\n", "eth0", "     1  jump {\n          drop\n        }\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the text lacks %q:\n%s", want, out)
		}
	}
}

// TestWrapChinese: Chinese has no blanks to break at, and no line begins with a
// closing mark.
func TestWrapChinese(t *testing.T) {
	names := hostNames()
	names.Language = &message.Chinese
	out := text(t, hostModel(names), view.Options{Width: 40})
	for line := range strings.Lines(out) {
		sentence := strings.TrimSpace(line)
		if strings.ContainsAny(sentence, "，。") && lipgloss.Width(strings.TrimRight(line, "\n")) > 42 {
			t.Errorf("the line is %d columns wide: %s", lipgloss.Width(line), sentence)
		}
		for _, mark := range []string{"，", "。", "；", "：", "）", "”"} {
			if strings.HasPrefix(sentence, mark) {
				t.Errorf("a line begins with a closing mark: %s", sentence)
			}
		}
	}
	golden.Check(t, filepath.Join("testdata", "chinese.golden"), text(t, hostModel(names), view.Options{Width: 100}))
}
