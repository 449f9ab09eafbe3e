package cli

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"nftnet/inspect"
	"nftnet/internal/control"
	"nftnet/internal/host"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// others are the networks with a bridge that Docker tells of, and where it does
// not answer the bridges that have a name of Docker's kind.
func others(names inspect.Names) []inspect.Network {
	var out []inspect.Network
	for _, n := range names.Networks {
		if n.Bridge != "" {
			out = append(out, n)
		}
	}
	for _, bridge := range host.DockerBridges() {
		if !slices.ContainsFunc(out, func(n inspect.Network) bool { return n.Bridge == bridge }) {
			out = append(out, inspect.Network{Bridge: bridge, Subnets: subnetsOf(bridge)})
		}
	}
	return out
}

// sites are the driver's networks: those that its table tells of, and where the
// table is gone those that Docker does.
func sites(rs ruleset.Ruleset, names inspect.Names, ports []control.Port) []inspect.Site {
	out := inspect.OwnSites(rs)
	if len(out) == 0 {
		for _, n := range names.Networks {
			if strings.HasPrefix(n.Bridge, layout.BridgePrefix) {
				out = append(out, inspect.Site{Network: n})
			}
		}
	}
	for i := range out {
		s := &out[i]
		for _, n := range names.Networks {
			if s.Network.ID != "" && strings.HasPrefix(n.ID, s.Network.ID) {
				s.Network.ID, s.Network.Name, s.Network.Driver, s.Network.Subnets = n.ID, n.Name, n.Driver, n.Subnets
			}
		}
		if subnets := subnetsOf(s.Network.Bridge); len(subnets) > 0 {
			s.Network.Subnets = subnets
		}
		s.Ports = portsOf(s.Network.ID, ports)
	}
	slices.SortFunc(out, func(a, b inspect.Site) int { return cmp.Compare(a.Network.Bridge, b.Network.Bridge) })
	return out
}

// subnetsOf reads the subnets of a bridge from its own addresses.
func subnetsOf(bridge string) []inspect.Subnet {
	var out []inspect.Subnet
	for _, a := range host.Addresses(bridge) {
		out = append(out, inspect.Subnet{Prefix: a.Masked(), Gateway: a.Addr()})
	}
	return out
}

// protocols are those that Docker can publish.
var protocols = map[string]uint8{"tcp": ruleset.ProtoTCP, "udp": ruleset.ProtoUDP, "sctp": ruleset.ProtoSCTP}

// portsOf are the ports of a network that the kernel translates. What is
// published on a loopback address alone nobody outside asks for.
func portsOf(network string, ports []control.Port) []inspect.Port {
	var out []inspect.Port
	for _, p := range ports {
		from, err1 := netip.ParseAddrPort(p.Host)
		container, err2 := netip.ParseAddrPort(p.Container)
		if err1 != nil || err2 != nil || p.Served || from.Addr().IsLoopback() || network == "" || !strings.HasPrefix(p.Network, network) {
			continue
		}
		out = append(out, inspect.Port{Proto: protocols[p.Proto], Host: from, Container: container})
	}
	return out
}
