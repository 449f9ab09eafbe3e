// Package host reads facts of this host that are no part of its ruleset:
// settings of the kernel, addresses of interfaces, sockets that listen, and
// processes. It reads /proc and asks for interfaces, and changes nothing; the
// network namespace is the caller's.
package host

import (
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

// IsOn reports whether a switch below /proc/sys is on, such as
// "net/ipv4/ip_forward". One that is not there, such as those of br_netfilter
// before it is loaded, is off.
func IsOn(name string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// Switches are the kernel's settings for the packets of one family.
type Switches struct {
	// Forward reports whether the host passes packets on.
	Forward bool
	// Bridged reports whether frames between the ports of a bridge meet the hooks
	// of this family.
	Bridged bool
}

// IPv4 reads the settings for IPv4.
func IPv4() Switches {
	return Switches{Forward: IsOn("net/ipv4/ip_forward"), Bridged: IsOn("net/bridge/bridge-nf-call-iptables")}
}

// IPv6 reads the settings for IPv6.
func IPv6() Switches {
	return Switches{Forward: IsOn("net/ipv6/conf/all/forwarding"), Bridged: IsOn("net/bridge/bridge-nf-call-ip6tables")}
}

// LegacyTables lists the tables of the old iptables that filter what is passed
// on, by the program that shows them: "iptables-legacy -t filter". They are no
// part of the nftables ruleset.
func LegacyTables() []string {
	return append(legacyTables("iptables-legacy", "ip_tables_names"), legacyTables("ip6tables-legacy", "ip6_tables_names")...)
}

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

// dockerBridge is how Docker's own driver names its bridges
// (moby daemon/libnetwork/drivers/bridge/bridge_linux.go).
var dockerBridge = regexp.MustCompile(`^(docker0|br-[0-9a-f]{12})$`)

// DockerBridges lists the interfaces that are called as Docker's own driver
// calls its bridges; none where interfaces cannot be listed.
func DockerBridges() []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range links {
		if dockerBridge.MatchString(l.Name) {
			out = append(out, l.Name)
		}
	}
	return out
}

// Addresses lists the addresses of an interface but link-local ones, each with
// the length of its prefix; none where there is no such interface.
func Addresses(name string) []netip.Prefix {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p)
		}
	}
	return out
}
