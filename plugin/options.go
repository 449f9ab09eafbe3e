package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/desired"
	"nftnet/plugin/link"
)

// Labels by which libnetwork names options (moby daemon/libnetwork/netlabel).
const (
	optionGeneric    = "com.docker.network.generic"
	optionInternal   = "com.docker.network.internal"
	optionEnableIPv4 = "com.docker.network.enable_ipv4"
	optionEnableIPv6 = "com.docker.network.enable_ipv6"
)

// Options of docker network create -o. They have the keys that Docker's own
// bridge driver uses.
const (
	optionBridgeName  = "com.docker.network.bridge.name"
	optionMTU         = "com.docker.network.driver.mtu"
	optionICC         = "com.docker.network.bridge.enable_icc"
	optionMasquerade  = "com.docker.network.bridge.enable_ip_masquerade"
	optionHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	optionIfacePrefix = "com.docker.network.container_iface_prefix"
)

// Bounds of an MTU in bytes: IPv4 needs 68 (RFC 791), IPv6 1280 (RFC 8200), an
// Ethernet device of Linux takes 65535.
const (
	minMTU     = 68
	minMTUIPv6 = 1280
	maxMTU     = 65535
)

// networkOption reads one option of the user's into a network.
type networkOption struct {
	// allowed says in words what the option takes.
	allowed string
	set     func(n *desired.Network, value string) error
}

var errNotAllowed = errors.New("not allowed")

var networkOptionTable = map[string]networkOption{
	optionBridgeName: {
		allowed: fmt.Sprintf("1 to %d of the characters a-z A-Z 0-9 . _ -, not beginning with . or -", link.MaxName),
		set: func(n *desired.Network, value string) error {
			if !ifaceName.MatchString(value) || len(value) > link.MaxName {
				return errNotAllowed
			}
			n.Bridge = value
			return nil
		},
	},
	optionMTU: {
		allowed: fmt.Sprintf("a number of bytes from %d to %d, or 0 for the kernel's default", minMTU, maxMTU),
		set: func(n *desired.Network, value string) error {
			mtu, err := strconv.Atoi(value)
			if err != nil || (mtu != 0 && (mtu < minMTU || mtu > maxMTU)) {
				return errNotAllowed
			}
			n.MTU = mtu
			return nil
		},
	},
	optionICC:        boolOption(func(n *desired.Network, v bool) { n.ICC = v }),
	optionMasquerade: boolOption(func(n *desired.Network, v bool) { n.Masquerade = v }),
	optionHostBinding: {
		allowed: "an IPv4 or IPv6 address",
		set: func(n *desired.Network, value string) error {
			a, err := netip.ParseAddr(value)
			if err != nil || a.Zone() != "" || a.IsMulticast() {
				return errNotAllowed
			}
			n.HostBinding = a.Unmap()
			return nil
		},
	},
	optionIfacePrefix: {
		// Docker appends a number to the prefix.
		allowed: fmt.Sprintf("1 to %d of the characters a-z A-Z 0-9 . _ -, not beginning with . or -", link.MaxName-2),
		set: func(n *desired.Network, value string) error {
			if !ifaceName.MatchString(value) || len(value) > link.MaxName-2 {
				return errNotAllowed
			}
			n.IfacePrefix = value
			return nil
		},
	},
}

var ifaceName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)

func boolOption(set func(*desired.Network, bool)) networkOption {
	return networkOption{
		allowed: "true or false",
		set: func(n *desired.Network, value string) error {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return errNotAllowed
			}
			set(n, v)
			return nil
		},
	}
}

// parseNetwork is the network that a request asks for.
func parseNetwork(req createNetworkRequest) (desired.Network, error) {
	n := desired.Network{
		ID: req.NetworkID, Bridge: desired.BridgeName(req.NetworkID), ICC: true, Masquerade: true, IfacePrefix: "eth",
	}
	var err error
	if n.Internal, err = req.Options.flag(optionInternal, false); err != nil {
		return n, err
	}
	if n.IPv4, err = parseSubnet(req.IPv4Data, optionEnableIPv4, "IPv4"); err != nil {
		return n, err
	}
	if n.IPv6, err = parseSubnet(req.IPv6Data, optionEnableIPv6, "IPv6"); err != nil {
		return n, err
	}
	if !n.IPv4.IsValid() && !n.IPv6.IsValid() {
		return n, errors.New("the network has no subnet: IPv4 or IPv6 must be enabled")
	}
	if err := parseGeneric(&n, req.Options[optionGeneric]); err != nil {
		return n, err
	}
	if n.IPv6.IsValid() && n.MTU != 0 && n.MTU < minMTUIPv6 {
		return n, fmt.Errorf("option %s: %d is too small for IPv6: allowed is %d to %d", optionMTU, n.MTU, minMTUIPv6, maxMTU)
	}
	return n, nil
}

// flag reads a boolean of libnetwork's, which sends it as a bool or as text.
func (o networkOptions) flag(key string, absent bool) (bool, error) {
	raw, ok := o[key]
	if !ok {
		return absent, nil
	}
	var b bool
	if json.Unmarshal(raw, &b) == nil {
		return b, nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		if b, err := strconv.ParseBool(s); err == nil {
			return b, nil
		}
	}
	return false, fmt.Errorf("option %s: %s is not allowed: true or false is", key, raw)
}

func parseSubnet(data []ipamData, enable, family string) (desired.Subnet, error) {
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
	if pool.Bits() == 0 {
		return s, fmt.Errorf("%s subnet %s: an address pool is needed, as Docker's default IPAM driver gives one", family, pool)
	}
	if data[0].Gateway == "" {
		return s, nil
	}
	gw, err := netip.ParsePrefix(data[0].Gateway)
	if err != nil || !s.Prefix.Contains(gw.Addr()) {
		return s, fmt.Errorf("%s gateway %q is not an address of subnet %s", family, data[0].Gateway, s.Prefix)
	}
	s.Gateway = gw.Addr()
	return s, nil
}

func parseGeneric(n *desired.Network, raw json.RawMessage) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var options map[string]any
	if err := json.Unmarshal(raw, &options); err != nil {
		return fmt.Errorf("option %s: a table of options is needed: %w", optionGeneric, err)
	}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if err := parseOption(n, key, fmt.Sprint(options[key])); err != nil {
			return err
		}
	}
	return nil
}

func parseOption(n *desired.Network, key, value string) error {
	option, ok := networkOptionTable[key]
	if !ok {
		return fmt.Errorf("option %s=%s: nftnet has no such option: allowed are %s",
			key, value, strings.Join(slices.Sorted(maps.Keys(networkOptionTable)), ", "))
	}
	if err := option.set(n, value); err != nil {
		return fmt.Errorf("option %s: %q is %w: allowed is %s", key, value, err, option.allowed)
	}
	return nil
}
