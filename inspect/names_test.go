package inspect_test

import (
	"net/netip"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// TestNames: what two things could be called by has no name.
func TestNames(t *testing.T) {
	names := inspect.Names{
		Networks: []inspect.Network{
			{ID: "aaaaaaaaaaaa1111", Name: "one", Bridge: "br-one", Subnets: []inspect.Subnet{{Prefix: prefix("10.0.0.0/24"), Gateway: addr("10.0.0.1")}}},
			{ID: "aaaaaaaaaaaa2222", Name: "two", Bridge: "br-same", Subnets: []inspect.Subnet{{Prefix: prefix("10.9.0.0/24")}}},
			{ID: "bbbbbbbbbbbb3333", Name: "three", Bridge: "br-same", Subnets: []inspect.Subnet{{Prefix: prefix("10.9.0.0/24")}}},
			{ID: "cccccccccccc4444", Name: "host"},
		},
		Endpoints: []inspect.Endpoint{
			{ID: "e1e1e1e1e1e1", Container: "a", Addrs: []netip.Addr{addr("10.0.0.2"), addr("10.9.0.2"), {}}},
			{ID: "e2e2e2e2e2e2", Container: "b", Addrs: []netip.Addr{addr("10.9.0.2")}},
		},
	}
	rows := []struct {
		name string
		r    ruleset.Rule
		want []string
	}{
		{"bridge", rule(ruleset.Is(oifname, ruleset.Iface("br-one")), drop), []string{"A packet that leaves by bridge br-one (network one) is dropped. Nothing later sees it."}},
		{"bridge of two", rule(ruleset.Is(oifname, ruleset.Iface("br-same")), drop), []string{"A packet that leaves by interface br-same is dropped. Nothing later sees it."}},
		{"no name", rule(ruleset.Is(oifname, ruleset.Iface("")), drop), []string{"A packet that leaves by no interface is dropped. Nothing later sees it."}},
		{"address", rule(ruleset.Is(ruleset.IPDaddr, ruleset.Addr(addr("10.0.0.2"))), drop), []string{"A packet that goes to 10.0.0.2 (container a) is dropped. Nothing later sees it."}},
		{"address of two", rule(ruleset.Is(ruleset.IPDaddr, ruleset.Addr(addr("10.9.0.2"))), drop), []string{"A packet that goes to 10.9.0.2 is dropped. Nothing later sees it."}},
		{"subnet", rule(ruleset.InPrefix{Left: ruleset.IPDaddr, Prefix: prefix("10.0.0.0/24")}, drop), []string{"A packet that goes to an address in 10.0.0.0/24 (network one) is dropped. Nothing later sees it."}},
		{"subnet of two", rule(ruleset.InPrefix{Left: ruleset.IPDaddr, Prefix: prefix("10.9.0.0/24")}, drop), []string{"A packet that goes to an address in 10.9.0.0/24 is dropped. Nothing later sees it."}},
		{"owner", rule(drop).Because("net=bbbbbbbbbbbb ep=e1e1e1e1e1e1"), []string{"Every packet that gets here is dropped. Nothing later sees it.", "It is there for container a of network three."}},
		{"owner by an id of two", rule(drop).Because("net=aaaaaaaaaaaa"), []string{"Every packet that gets here is dropped. Nothing later sees it.", "It is there for network aaaaaaaaaaaa."}},
		{"owner unknown", rule(drop).Because("net=dddddddddddd ep=eeeeeeeeeeee"), []string{"Every packet that gets here is dropped. Nothing later sees it.", "It is there for endpoint eeeeeeeeeeee of network dddddddddddd."}},
		{"no owner", rule(drop).Because("keep out"), []string{"Every packet that gets here is dropped. Nothing later sees it."}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := named(names, table(ruleset.FamilyIP, "t", nil, base("f", "filter", ruleset.HookForward, 0, row.r)))
			o := object(inspect.KindRule, "f", 0)
			o.Family = ruleset.FamilyIP
			check(t, say(m, o), row.want...)
		})
	}
}
