// Package option reads what users ask for by -o and driver-opt, and what
// libnetwork says of a network, into desired state: one table names each
// option, what it takes and what it does.
package option

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
	"nftnet/plugin/libnetwork"
)

// Names by which --aux-address gives the containers another router than the
// bridge (moby daemon/libnetwork/drivers/bridge).
const (
	auxRouter4 = "DefaultGatewayIPv4"
	auxRouter6 = "DefaultGatewayIPv6"
)

// Bounds of an MTU in bytes: IPv4 needs 68 (RFC 791), IPv6 1280 (RFC 8200), an
// Ethernet device of Linux takes 65535.
const (
	minMTU     = 68
	minMTUIPv6 = 1280
	maxMTU     = 65535
)

// Choices is what a request asks for beside the network itself.
type Choices struct {
	// Overlap lets the network have a subnet that the host has a route to.
	Overlap bool
	// ipv4, ipv6 are what options say of the families; nil where none does.
	ipv4, ipv6 *bool
}

// ParseNetwork returns the network that a request asks for.
func (d Defaults) ParseNetwork(req libnetwork.CreateNetworkRequest) (desired.Network, Choices, error) {
	var c Choices
	n := desired.Network{
		ID: req.NetworkID, Bridge: layout.BridgeName(req.NetworkID), ICC: true, Masquerade: true, IfacePrefix: "eth",
		AntiSpoof: desired.SpoofNeighbours,
	}
	if d.Closed {
		n.Allow = desired.Allow{desired.AllPorts: desired.Sources{Limited: true}}
	}
	var err error
	if n.Internal, err = req.Options.Flag(libnetwork.Internal, false); err != nil {
		return n, c, err
	}
	if n.IPv4, err = parseSubnet(req.IPv4Data, "IPv4", auxRouter4); err != nil {
		return n, c, err
	}
	if n.IPv6, err = parseSubnet(req.IPv6Data, "IPv6", auxRouter6); err != nil {
		return n, c, err
	}
	if err := parseGeneric(&n, &c, req.Options[libnetwork.Generic]); err != nil {
		return n, c, err
	}
	return n, c, checkOptions(&n, c)
}

// ParseGateways returns what options alone say of a network and its gateways,
// before it has addresses.
func ParseGateways(options libnetwork.NetworkOptions) (desired.Network, error) {
	var n desired.Network
	var err error
	if n.Internal, err = options.Flag(libnetwork.Internal, false); err != nil {
		return n, err
	}
	return n, parseGeneric(&n, &Choices{}, options[libnetwork.Generic])
}

// Defaults are what the administrator chose for all networks.
type Defaults struct {
	// Closed publishes ports to nobody who is not named.
	Closed bool
}

// checkOptions refuses options that contradict each other, or the network.
func checkOptions(n *desired.Network, c Choices) error {
	if !n.IPv4.IsValid() && !n.IPv6.IsValid() {
		return errors.New("the network has no subnet: IPv4 or IPv6 must be enabled")
	}
	for _, f := range []struct {
		option string
		want   *bool
		have   bool
		flag   string
	}{{libnetwork.EnableIPv4, c.ipv4, n.IPv4.IsValid(), "--ipv4"}, {libnetwork.EnableIPv6, c.ipv6, n.IPv6.IsValid(), "--ipv6"}} {
		if f.want != nil && *f.want != f.have {
			return fmt.Errorf("option %s: %q is not what this Docker engine made of the network: allowed is the flag %s",
				f.option, strconv.FormatBool(*f.want), f.flag)
		}
	}
	if n.IPv6.IsValid() && n.MTU != 0 && n.MTU < minMTUIPv6 {
		return fmt.Errorf("option %s: %d is too small for IPv6: allowed is %d to %d", optionMTU, n.MTU, minMTUIPv6, maxMTU)
	}
	for _, f := range []struct {
		option string
		subnet *desired.Subnet
		aux    string
	}{{optionGatewayMode4, &n.IPv4, auxRouter4}, {optionGatewayMode6, &n.IPv6, auxRouter6}} {
		s := f.subnet
		if s.Mode == desired.ModeIsolated {
			if !n.Internal {
				return fmt.Errorf("option %s: %q is not allowed: only an internal network (--internal) can have it", f.option, s.Mode)
			}
			s.Gateway = netip.Addr{}
		}
		if n.Internal && s.Router.IsValid() {
			return fmt.Errorf("auxiliary address %s=%s is not allowed: an internal network has no default route", f.aux, s.Router)
		}
		if s.Mode == desired.ModeUnprotected && len(n.Allow) > 0 {
			return fmt.Errorf("option %s: %q is not allowed together with %s or %s: it opens every port to everybody",
				f.option, s.Mode, Allow, optionPublish)
		}
	}
	if n.Internal && n.InhibitIPv4 {
		n.IPv4.Gateway = netip.Addr{}
	}
	return nil
}

func parseSubnet(data []libnetwork.IPAMData, family, aux string) (desired.Subnet, error) {
	if len(data) == 0 {
		return desired.Subnet{}, nil
	}
	if len(data) > 1 {
		return desired.Subnet{}, fmt.Errorf("%d %s subnets: one subnet of each family is allowed", len(data), family)
	}
	pool, err := netip.ParsePrefix(data[0].Pool)
	if err != nil || pool.Addr().Is4() != (family == "IPv4") {
		return desired.Subnet{}, fmt.Errorf("%s subnet %q is not a subnet of that family", family, data[0].Pool)
	}
	s := desired.Subnet{Prefix: pool.Masked()}
	switch {
	case pool.Bits() == 0:
		return s, fmt.Errorf("%s subnet %s: an address pool is needed, as Docker's default IPAM driver gives one", family, pool)
	case pool.Addr().IsMulticast():
		return s, fmt.Errorf("%s subnet %s is not allowed: a subnet of unicast addresses is", family, pool)
	case linkLocal6.Overlaps(pool):
		return s, fmt.Errorf("%s subnet %s is not allowed: it clashes with the link-local addresses %s that every interface has", family, pool, linkLocal6)
	}
	if s.Gateway, err = inSubnet(s, family, "gateway", data[0].Gateway); err != nil {
		return s, err
	}
	s.Router, err = inSubnet(s, family, "auxiliary address "+aux+"=", data[0].AuxAddresses[aux])
	return s, err
}

var linkLocal6 = netip.MustParsePrefix("fe80::/64")

// inSubnet reads an address, given with the length of its subnet; zero where
// there is none.
func inSubnet(s desired.Subnet, family, what, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !s.Prefix.Contains(p.Addr()) {
		return netip.Addr{}, fmt.Errorf("%s %s %q is not an address of subnet %s", family, what, text, s.Prefix)
	}
	return p.Addr(), nil
}

func parseGeneric(n *desired.Network, c *Choices, raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var options map[string]any
	if err := json.Unmarshal(raw, &options); err != nil {
		return fmt.Errorf("option %s: a table of options is needed: %w", libnetwork.Generic, err)
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := parseOption(networkOptionTable, &networkTarget{n, c}, key, fmt.Sprint(options[key])); err != nil {
			return err
		}
	}
	return nil
}

// parseOption reads one option of the user's by a table of those that there are.
func parseOption[T any](table map[string]option[T], into T, key, value string) error {
	o, ok := table[key]
	if head, port, found := strings.Cut(key, Allow+"."); !ok && found && head == "" {
		if o, ok = table[optionAllowPort]; ok && !portName.MatchString(port) {
			return fmt.Errorf("option %s: %q is not a port: allowed is %s.PORT or %s.PORT/PROTOCOL", key, port, Allow, Allow)
		}
	}
	if !ok {
		return fmt.Errorf("option %s=%s: nftnet has no such option: allowed are %s",
			key, value, strings.Join(slices.Sorted(maps.Keys(table)), ", "))
	}
	if o.refused != "" {
		return fmt.Errorf("option %s=%s is not allowed: %s", key, value, o.refused)
	}
	if err := o.set(into, key, value); err != nil {
		return fmt.Errorf("option %s: %q is %w: allowed is %s", key, value, err, o.allowed)
	}
	return nil
}

// ParseEndpoint reads the options of one container on one network.
// Those of Docker's own that are not for the driver are passed over.
func ParseEndpoint(e *desired.Endpoint, options map[string]json.RawMessage) error {
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if _, ours := endpointOptionTable[key]; !ours && !strings.HasPrefix(key, optionPrefix) {
			continue
		}
		var value any
		if err := json.Unmarshal(options[key], &value); err != nil {
			return fmt.Errorf("option %s: %w", key, err)
		}
		if err := parseOption(endpointOptionTable, e, key, fmt.Sprint(value)); err != nil {
			return err
		}
	}
	return nil
}
