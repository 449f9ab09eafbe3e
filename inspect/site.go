package inspect

import (
	"net/netip"
	"slices"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// Port is a published port: what a client asks for on Host, a container answers
// at Container.
type Port struct {
	Proto           uint8
	Host, Container netip.AddrPort
}

// Site is one of the driver's networks with what [Model.Findings] has to know
// of it.
type Site struct {
	Network Network
	// Internal networks have no way out or in.
	Internal bool
	// Isolated says that its containers may not reach each other.
	Isolated bool
	// Ports are those that the kernel translates to the network's containers.
	Ports []Port
}

// has says whether the network has addresses of a family.
func (s Site) has(v6 bool) bool {
	return slices.ContainsFunc(s.Network.Subnets, func(n Subnet) bool { return n.Prefix.Addr().Is6() == v6 })
}

// OwnSites lists the networks that the driver's own table tells of, by bridge
// and id; their names, subnets and ports do not stand there.
func OwnSites(rs ruleset.Ruleset) []Site {
	t := rs.Table(ruleset.FamilyInet, layout.Table)
	if t == nil || t.Set(layout.SetBridges) == nil {
		return nil
	}
	internal, isolated := map[string]bool{}, map[string]bool{}
	if s := t.Set(layout.SetInternal); s != nil {
		for _, e := range s.Elements {
			internal[e.Key.Name()] = true
		}
	}
	if s := t.Set(layout.MapSame); s != nil {
		for _, e := range s.Elements {
			isolated[e.Key.Parts()[0].Name()] = e.Verdict.Kind != ruleset.Accept
		}
	}
	var out []Site
	for _, e := range t.Set(layout.SetBridges).Elements {
		bridge := e.Key.Name()
		owner, _ := layout.ParseOwner(e.Comment)
		out = append(out, Site{
			Network: Network{ID: owner.Network, Bridge: bridge}, Internal: internal[bridge], Isolated: isolated[bridge],
		})
	}
	return out
}

// Host is what [Model.Findings] has to know beside the ruleset.
type Host struct {
	// Driver is why the driver does not answer on Socket; nil where it does.
	Driver error
	Socket string
	Sites  []Site
	// Inside are further interfaces that lead to containers: the bridges of other
	// drivers.
	Inside []string
	// Subnets behind Inside.
	Subnets []netip.Prefix
	IPv4    Sysctls
	IPv6    Sysctls
	// Legacy lists tables of the old iptables, which do not stand in the ruleset,
	// by the program that shows them: "iptables-legacy -t filter".
	Legacy []string
}

// Sysctls are the kernel's settings for one family.
type Sysctls struct {
	// Forward says that the host passes packets on.
	Forward bool
	// Bridged says that frames between the ports of a bridge meet the hooks of
	// this family.
	Bridged bool
}

func (h Host) sysctls(v6 bool) Sysctls {
	if v6 {
		return h.IPv6
	}
	return h.IPv4
}
