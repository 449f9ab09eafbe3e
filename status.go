package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/message"
	"nftnet/inspect/view"
	"nftnet/internal/control"
	"nftnet/internal/ruleset"
)

// errObstacle ends the program with a failure that is printed already.
var errObstacle = errors.New("something is in the way")

func statusCommand() *cobra.Command {
	var socket, docker, format, color, lang string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether the networks work and, if not, what is in the way",
		Long: `Tell whether the driver answers, which networks it has, and what is in the way of
their packets: forwarding that is switched off, a table that is missing, and
chains of other tables that drop what the driver's own table accepts. An accept
ends one chain only: who has a chain of their own with policy drop has to accept
there, too.

All chains of other tables are looked at that packets to and from containers
meet: connections from outside to published ports, from containers to the
outside, the answers to both, and those between containers where the host sends
bridged frames through the IP hooks. A chain that drops them is named, with the
rule or policy, and with the line that mends it. An "error" drops them for
certain. A "warn" may: it depends on something that cannot be known here, such
as who asks. Rules that drop some packets only are no obstacle.

Nothing is changed. Needs root, or CAP_NET_ADMIN. The exit status is 0 where no
error was found, and 1 where one was, or where the state could not be read.`,
		Example: `  nftnet status
  nftnet status --format json | jq -r '.findings[].mend'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			options, err := inspectFlags{color: color}.options()
			if err != nil {
				return err
			}
			say, err := language(lang)
			if err != nil {
				return err
			}
			s, err := readStatus(cmd.Context(), socket, docker, say, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), s.json())
			} else {
				err = s.print(cmd.OutOrStdout(), options)
			}
			if err == nil && s.found(inspect.Error) {
				err = errObstacle
			}
			return err
		},
	}
	socketFlag(cmd, &socket)
	languageFlag(cmd, &lang)
	dockerFlag(cmd, &docker)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().StringVar(&color, "color", "auto", "auto, always or never; auto is for a terminal without NO_COLOR")
	completeWords(cmd, map[string][]string{"format": {"text", "json"}, "color": {"auto", "always", "never"}})
	return cmd
}

// status is what the command tells.
type status struct {
	host          inspect.Host
	table, keeper bool
	// published counts the ports, served ones among them.
	published int
	findings  []inspect.Finding
}

func readStatus(ctx context.Context, socket, docker string, say *message.Catalogue, errOut io.Writer) (status, error) {
	rs, err := readRuleset(ctx)
	if err != nil {
		return status{}, err
	}
	ports, driverErr := control.Client{Socket: socket}.Ports(ctx)
	names, err := dockerNames(ctx, docker)
	if err != nil {
		fmt.Fprintln(errOut, "nftnet: names are missing:", err)
	}
	names.Language = say
	s := status{published: len(ports)}
	s.table = rs.Table(ruleset.FamilyInet, inspect.OwnTable) != nil
	s.keeper = rs.Table(ruleset.FamilyInet, inspect.KeeperTable) != nil
	s.host = inspect.Host{Driver: cause(driverErr), Socket: socket, Sites: sites(rs, names, ports)}
	for _, n := range others(names) {
		if slices.ContainsFunc(s.host.Sites, func(o inspect.Site) bool { return o.Network.Bridge == n.Bridge }) {
			continue
		}
		s.host.Inside = append(s.host.Inside, n.Bridge)
		for _, p := range n.Subnets {
			s.host.Subnets = append(s.host.Subnets, p.Prefix)
		}
	}
	s.host.IPv4 = inspect.Sysctls{Forward: isOn("net/ipv4/ip_forward"), Bridged: isOn("net/bridge/bridge-nf-call-iptables")}
	s.host.IPv6 = inspect.Sysctls{Forward: isOn("net/ipv6/conf/all/forwarding"), Bridged: isOn("net/bridge/bridge-nf-call-ip6tables")}
	s.host.Legacy = append(legacyTables("iptables-legacy", "ip_tables_names"), legacyTables("ip6tables-legacy", "ip6_tables_names")...)
	s.findings = inspect.NewModel(rs, names).Findings(s.host)
	return s, nil
}

// cause is what the kernel says about a socket that cannot be reached; the rest
// of such an error repeats where that is.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

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
			if strings.HasPrefix(n.Bridge, "nft-") {
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

// found says whether there is a finding of a level.
func (s status) found(level inspect.Level) bool {
	return slices.ContainsFunc(s.findings, func(f inspect.Finding) bool { return f.Level == level })
}

func (s status) print(w io.Writer, o view.Options) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "driver\t%s\n", either(s.host.Driver == nil, "answers on ", "does not answer on ")+s.host.Socket)
	fmt.Fprintf(t, "tables\tinet %s %s, inet %s %s\n", inspect.OwnTable, there(s.table), inspect.KeeperTable, there(s.keeper))
	fmt.Fprintf(t, "forwarding\tIPv4 %s, IPv6 %s\n", onOff(s.host.IPv4.Forward), onOff(s.host.IPv6.Forward))
	fmt.Fprintf(t, "bridged frames in the IP hooks\tIPv4 %s, IPv6 %s\n", yesNo(s.host.IPv4.Bridged), yesNo(s.host.IPv6.Bridged))
	fmt.Fprintf(t, "networks\t%d\n", len(s.host.Sites))
	fmt.Fprintf(t, "published ports\t%s\n", either(s.host.Driver == nil, strconv.Itoa(s.published), "unknown"))
	if err := t.Flush(); err != nil {
		return err
	}
	if err := s.printNetworks(w); err != nil {
		return err
	}
	if err := view.Findings(w, s.findings, o); err != nil {
		return err
	}
	if s.found(inspect.Error) || s.found(inspect.Warn) {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nno obstacle was found\n")
	return err
}

func (s status) printNetworks(w io.Writer) error {
	if len(s.host.Sites) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tBRIDGE\tSUBNETS")
	for _, n := range s.host.Sites {
		fmt.Fprintf(t, "%s\t%s\t%s\n", cmp.Or(n.Network.Name, n.Network.ID, "-"), n.Network.Bridge, strings.Join(subnetTexts(n), " "))
	}
	return t.Flush()
}

func subnetTexts(s inspect.Site) []string {
	out := make([]string, len(s.Network.Subnets))
	for i, n := range s.Network.Subnets {
		out[i] = n.Prefix.String()
	}
	return out
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

func there(b bool) string { return either(b, "is there", "is missing") }
func onOff(b bool) string { return either(b, "on", "off") }
func yesNo(b bool) string { return either(b, "yes", "no") }

// statusJSON is the status for programs.
type statusJSON struct {
	Version    string             `json:"version"`
	Driver     bool               `json:"driver"`
	Table      bool               `json:"table"`
	Keeper     bool               `json:"keeper"`
	Forwarding families           `json:"forwarding"`
	Bridged    families           `json:"bridge_nf_call"`
	Networks   []networkJSON      `json:"networks"`
	Ports      int                `json:"ports"`
	OK         bool               `json:"ok"`
	Findings   []view.FindingJSON `json:"findings"`
}

type families struct {
	IPv4 bool `json:"ipv4"`
	IPv6 bool `json:"ipv6"`
}

type networkJSON struct {
	ID       string   `json:"id"`
	Name     string   `json:"name,omitempty"`
	Bridge   string   `json:"bridge"`
	Internal bool     `json:"internal,omitempty"`
	Subnets  []string `json:"subnets"`
}

func (s status) json() statusJSON {
	out := statusJSON{
		Version: version, Driver: s.host.Driver == nil, Table: s.table, Keeper: s.keeper, Ports: s.published,
		Forwarding: families{s.host.IPv4.Forward, s.host.IPv6.Forward},
		Bridged:    families{s.host.IPv4.Bridged, s.host.IPv6.Bridged},
		Networks:   []networkJSON{}, OK: !s.found(inspect.Error), Findings: view.FindingsJSON(s.findings),
	}
	for _, n := range s.host.Sites {
		out.Networks = append(out.Networks, networkJSON{
			ID: n.Network.ID, Name: n.Network.Name, Bridge: n.Network.Bridge, Internal: n.Internal, Subnets: subnetTexts(n),
		})
	}
	return out
}
