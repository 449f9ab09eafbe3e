package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/layout"
)

// found says whether there is a finding of a level.
func (s status) found(level inspect.Level) bool {
	return slices.ContainsFunc(s.findings, func(f inspect.Finding) bool { return f.Level == level })
}

func (s status) print(w io.Writer, o view.Options) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "driver\t%s\n", either(s.host.Driver == nil, "answers on ", "does not answer on ")+s.host.Socket)
	fmt.Fprintf(t, "tables\tinet %s %s, inet %s %s\n", layout.Table, there(s.table), layout.KeeperTable, there(s.keeper))
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

func (s status) json(version string) statusJSON {
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
