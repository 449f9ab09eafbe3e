package cli

import (
	"cmp"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"nftnet/inspect"
	"nftnet/internal/control"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// dockerBridge is how Docker's own driver names its bridges.
var dockerBridge = regexp.MustCompile(`^(docker0|br-[0-9a-f]{12})$`)

// others are the networks with a bridge that Docker tells of, and where it does
// not answer the bridges that have a name of Docker's kind.
func others(names inspect.Names) []inspect.Network {
	var out []inspect.Network
	for _, n := range names.Networks {
		if n.Bridge != "" {
			out = append(out, n)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return out
	}
	for _, l := range links {
		known := slices.ContainsFunc(out, func(n inspect.Network) bool { return n.Bridge == l.Name })
		if dockerBridge.MatchString(l.Name) && !known {
			out = append(out, inspect.Network{Bridge: l.Name, Subnets: subnetsOf(l.Name)})
		}
	}
	return out
}

// legacyTables are the tables of the old iptables that filter what is passed on.
func legacyTables(program, names string) []string {
	b, err := os.ReadFile("/proc/net/" + names)
	if err != nil {
		return nil
	}
	var out []string
	for _, t := range strings.Fields(string(b)) {
		if t != "nat" {
			out = append(out, program+" -t "+t)
		}
	}
	slices.Sort(out)
	return out
}

// isOn says whether a switch of the kernel is on; one that is not there, such
// as those of br_netfilter before it is loaded, is off.
func isOn(name string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) != "0"
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
	link, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil
	}
	var out []inspect.Subnet
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, inspect.Subnet{Prefix: p.Masked(), Gateway: p.Addr()})
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
		host, err1 := netip.ParseAddrPort(p.Host)
		container, err2 := netip.ParseAddrPort(p.Container)
		if err1 != nil || err2 != nil || p.Served || host.Addr().IsLoopback() || network == "" || !strings.HasPrefix(p.Network, network) {
			continue
		}
		out = append(out, inspect.Port{Proto: protocols[p.Proto], Host: host, Container: container})
	}
	return out
}
