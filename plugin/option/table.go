package option

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/link"
)

// Options of docker network create -o. Those of Docker's own bridge driver have
// its keys (moby daemon/libnetwork/drivers/bridge/labels.go).
const (
	BridgeName         = "com.docker.network.bridge.name"
	optionMTU          = "com.docker.network.driver.mtu"
	optionICC          = "com.docker.network.bridge.enable_icc"
	optionMasquerade   = "com.docker.network.bridge.enable_ip_masquerade"
	optionHostBinding  = "com.docker.network.bridge.host_binding_ipv4"
	optionIfacePrefix  = "com.docker.network.container_iface_prefix"
	optionGatewayMode4 = "com.docker.network.bridge.gateway_mode_ipv4"
	optionGatewayMode6 = "com.docker.network.bridge.gateway_mode_ipv6"
	optionInhibitIPv4  = "com.docker.network.bridge.inhibit_ipv4"
	optionTrusted      = "com.docker.network.bridge.trusted_host_interfaces"
	optionDefault      = "com.docker.network.bridge.default_bridge"
	optionHostIPv4     = "com.docker.network.host_ipv4"
	optionHostIPv6     = "com.docker.network.host_ipv6"
	// Engines since 28 read these themselves, and send them all the same.
	optionAdvertiseCount = "com.docker.network.advertise_addr_nmsgs"
	optionAdvertiseEvery = "com.docker.network.advertise_addr_ms"
)

// Options of our own.
const (
	optionPrefix    = "nftnet."
	Allow           = "nftnet.allow"
	optionAllowPort = "nftnet.allow.PORT[/PROTOCOL]"
	optionPublish   = "nftnet.publish"
	optionAntiSpoof = "nftnet.antispoof"
	optionRefuse    = "nftnet.unpublished"
	optionClampMSS  = "nftnet.clamp_mss"
	optionFreeBind  = "nftnet.free_bind"
	Overlap         = "nftnet.allow_overlap"
	optionAddresses = "nftnet.addresses"
	optionTypes     = "nftnet.ethertypes"
)

// Options of one container on one network, given as driver-opt.
const (
	optionIfname = "com.docker.network.endpoint.ifname"
)

// option reads one option of the user's into something.
type option[T any] struct {
	// allowed says in words what the option takes.
	allowed string
	set     func(into T, key, value string) error
	// refused says why a driver that is not Docker's own cannot have the option.
	refused string
}

var errNotAllowed = errors.New("not allowed")

// networkTarget is what the options of a network are read into.
type networkTarget struct {
	*desired.Network
	choices *Choices
}

var networkOptionTable = map[string]option[*networkTarget]{
	BridgeName: nameOption(link.MaxName, func(t *networkTarget, v string) { t.Bridge = v }),
	// Docker appends a number to the prefix.
	optionIfacePrefix: nameOption(link.MaxName-2, func(t *networkTarget, v string) { t.IfacePrefix = v }),
	optionMTU: {
		allowed: fmt.Sprintf("a number of bytes from %d to %d, or 0 for that of the host's default route", minMTU, maxMTU),
		set: func(t *networkTarget, _, value string) error {
			mtu, err := strconv.Atoi(value)
			if err != nil || (mtu != 0 && (mtu < minMTU || mtu > maxMTU)) {
				return errNotAllowed
			}
			t.MTU = mtu
			return nil
		},
	},
	optionICC:             boolOption(func(t *networkTarget, v bool) { t.ICC = v }),
	optionMasquerade:      boolOption(func(t *networkTarget, v bool) { t.Masquerade = v }),
	optionInhibitIPv4:     boolOption(func(t *networkTarget, v bool) { t.InhibitIPv4 = v }),
	libnetwork.EnableIPv4: boolOption(func(t *networkTarget, v bool) { t.choices.ipv4 = &v }),
	libnetwork.EnableIPv6: boolOption(func(t *networkTarget, v bool) { t.choices.ipv6 = &v }),
	optionHostBinding:     addrOption("an IPv4 or IPv6 address", isUnicast, func(t *networkTarget, a netip.Addr) { t.HostBinding = a }),
	optionHostIPv4:        addrOption("an IPv4 address of the host", isSource(true), func(t *networkTarget, a netip.Addr) { t.IPv4.SNAT = a }),
	optionHostIPv6:        addrOption("an IPv6 address of the host", isSource(false), func(t *networkTarget, a netip.Addr) { t.IPv6.SNAT = a }),

	optionGatewayMode4: gatewayMode(func(t *networkTarget, m desired.GatewayMode) { t.IPv4.Mode = m }),
	optionGatewayMode6: gatewayMode(func(t *networkTarget, m desired.GatewayMode) { t.IPv6.Mode = m }),
	optionTrusted: {
		allowed: "names of interfaces of the host, joined by colons",
		set: func(t *networkTarget, _, value string) error {
			t.Trusted = nil
			for name := range strings.SplitSeq(value, ":") {
				if !isIfaceName(name, link.MaxName) {
					return errNotAllowed
				}
				if !slices.Contains(t.Trusted, name) {
					t.Trusted = append(t.Trusted, name)
				}
			}
			return nil
		},
	},
	optionDefault: {
		allowed: "false: Docker's default network docker0 has Docker's own driver always",
		set: func(_ *networkTarget, _, value string) error {
			if v, err := strconv.ParseBool(value); err != nil || v {
				return errNotAllowed
			}
			return nil
		},
	},
	optionAdvertiseCount: wholeNumber(0, 3),
	optionAdvertiseEvery: wholeNumber(100, 2000),

	Allow:           allowOption(func(t *networkTarget) *desired.Allow { return &t.Allow }),
	optionAllowPort: allowOption(func(t *networkTarget) *desired.Allow { return &t.Allow }),
	optionPublish: {
		allowed: "open, or closed: then nobody but the host reaches a port that " + Allow + " does not open",
		set: func(t *networkTarget, _, value string) error {
			_, given := t.Allow[desired.AllPorts]
			switch value {
			case "open":
				// What the administrator closed for all networks, and no more.
				if all := t.Allow[desired.AllPorts]; given && all.Limited && len(all.Prefixes) == 0 {
					delete(t.Allow, desired.AllPorts)
				}
			case "closed":
				if !given {
					allow(&t.Allow, desired.AllPorts, desired.Sources{Limited: true})
				}
			default:
				return errNotAllowed
			}
			return nil
		},
	},
	optionAntiSpoof: antiSpoofOption(func(t *networkTarget, l desired.AntiSpoof) { t.AntiSpoof = l }),
	optionTypes:     etherTypesOption(func(t *networkTarget, types []uint16) { t.EtherTypes = types }),
	optionRefuse: {
		allowed: "drop, or reject: then clients learn at once that a port is not published",
		set: func(t *networkTarget, _, value string) error {
			if value != "drop" && value != "reject" {
				return errNotAllowed
			}
			t.Reject = value == "reject"
			return nil
		},
	},
	optionClampMSS: boolOption(func(t *networkTarget, v bool) { t.ClampMSS = v }),
	optionFreeBind: boolOption(func(t *networkTarget, v bool) { t.FreeBind = v }),
	Overlap:        boolOption(func(t *networkTarget, v bool) { t.choices.Overlap = v }),
}

var endpointOptionTable = map[string]option[*desired.Endpoint]{
	Allow:           allowOption(func(e *desired.Endpoint) *desired.Allow { return &e.Allow }),
	optionAllowPort: allowOption(func(e *desired.Endpoint) *desired.Allow { return &e.Allow }),
	optionAntiSpoof: antiSpoofOption(func(e *desired.Endpoint, l desired.AntiSpoof) { e.AntiSpoof = l }),
	optionFreeBind:  boolOption(func(e *desired.Endpoint, v bool) { e.FreeBind = v }),
	optionTypes:     etherTypesOption(func(e *desired.Endpoint, types []uint16) { e.EtherTypes = types }),
	optionAddresses: {
		allowed: "IPv4, IPv6 and MAC addresses, joined by commas",
		set: func(e *desired.Endpoint, _, value string) error {
			for _, text := range listItems(value) {
				if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 && mac[0]&1 == 0 {
					e.LinkAddresses = append(e.LinkAddresses, mac.String())
					continue
				}
				a, err := netip.ParseAddr(text)
				if err != nil || a.Zone() != "" || a.IsMulticast() {
					return errNotAllowed
				}
				e.Addresses = append(e.Addresses, a.Unmap())
			}
			return nil
		},
	},
	optionIfname: {refused: "Docker lets its own driver alone name an interface, a network's " + optionIfacePrefix + " chooses how the names begin"},
}

var (
	ifaceName = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
	portName  = regexp.MustCompile(`^([1-9][0-9]{0,4})(/(tcp|udp|sctp))?$`)
)

func isIfaceName(name string, longest int) bool {
	return ifaceName.MatchString(name) && len(name) <= longest
}

func nameOption[T any](longest int, set func(T, string)) option[T] {
	return option[T]{
		allowed: fmt.Sprintf("1 to %d of the characters a-z A-Z 0-9 . _ -, not beginning with . or -", longest),
		set: func(into T, _, value string) error {
			if !isIfaceName(value, longest) {
				return errNotAllowed
			}
			set(into, value)
			return nil
		},
	}
}

func boolOption[T any](set func(T, bool)) option[T] {
	return option[T]{
		allowed: "true or false",
		set: func(into T, _, value string) error {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return errNotAllowed
			}
			set(into, v)
			return nil
		},
	}
}

// wholeNumber is an option that the engine itself follows.
func wholeNumber(least, most int) option[*networkTarget] {
	return option[*networkTarget]{
		allowed: fmt.Sprintf("a number from %d to %d", least, most),
		set: func(_ *networkTarget, _, value string) error {
			if n, err := strconv.Atoi(value); err != nil || n < least || n > most {
				return errNotAllowed
			}
			return nil
		},
	}
}

func addrOption(allowed string, ok func(netip.Addr) bool, set func(*networkTarget, netip.Addr)) option[*networkTarget] {
	return option[*networkTarget]{allowed: allowed, set: func(t *networkTarget, _, value string) error {
		a, err := netip.ParseAddr(value)
		if err != nil || !ok(a.Unmap()) {
			return errNotAllowed
		}
		set(t, a.Unmap())
		return nil
	}}
}

func isUnicast(a netip.Addr) bool { return a.Zone() == "" && !a.IsMulticast() }

// isSource says whether an address of a family can be that of a sender beyond
// this host.
func isSource(ipv4 bool) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		return isUnicast(a) && a.Is4() == ipv4 && !a.IsUnspecified() && !a.IsLoopback()
	}
}

func gatewayMode(set func(*networkTarget, desired.GatewayMode)) option[*networkTarget] {
	modes := map[string]desired.GatewayMode{
		"": desired.ModeNAT, "nat": desired.ModeNAT, "nat-unprotected": desired.ModeUnprotected,
		"routed": desired.ModeRouted, "isolated": desired.ModeIsolated,
	}
	return option[*networkTarget]{
		allowed: "nat, nat-unprotected, routed, or isolated on an internal network",
		set: func(t *networkTarget, _, value string) error {
			mode, ok := modes[value]
			if !ok {
				return errNotAllowed
			}
			set(t, mode)
			return nil
		},
	}
}

func antiSpoofOption[T any](set func(T, desired.AntiSpoof)) option[T] {
	levels := map[string]desired.AntiSpoof{
		"on": desired.SpoofNeighbours, "true": desired.SpoofNeighbours, "strict": desired.SpoofNothing,
		"off": desired.SpoofUnchecked, "false": desired.SpoofUnchecked,
	}
	return option[T]{
		allowed: "on (addresses of the network's subnets), strict (every address), or off",
		set: func(into T, _, value string) error {
			level, ok := levels[value]
			if !ok {
				return errNotAllowed
			}
			set(into, level)
			return nil
		},
	}
}

// etherTypes are the names that nftnet.ethertypes takes beside numbers. Those
// that nft has are nft's.
var etherTypes = map[string]uint16{
	"vlan": unix.ETH_P_8021Q, "8021q": unix.ETH_P_8021Q, "8021ad": unix.ETH_P_8021AD, "llc": desired.EtherLLC,
}

// minEtherType is the least type of a frame: less is a length (IEEE 802.3, 3.2.6).
const minEtherType = 0x600

func etherTypesOption[T any](set func(T, []uint16)) option[T] {
	return option[T]{
		allowed: "vlan (or 8021q), 8021ad, llc and numbers from 0x0600 to 0xffff such as 0x88cc, joined by commas, or none",
		set: func(into T, _, value string) error {
			var types []uint16
			items := listItems(value)
			if value == "none" {
				items = nil
			} else if len(items) == 0 {
				return errNotAllowed
			}
			for _, text := range items {
				n, err := parseEtherType(text)
				if err != nil {
					return err
				}
				if !slices.Contains(alwaysEtherTypes, n) {
					types = append(types, n)
				}
			}
			slices.Sort(types)
			set(into, slices.Compact(types))
			return nil
		},
	}
}

// alwaysEtherTypes are those of every container. To name them changes nothing.
var alwaysEtherTypes = []uint16{unix.ETH_P_IP, unix.ETH_P_ARP, unix.ETH_P_IPV6}

func parseEtherType(text string) (uint16, error) {
	if n, ok := etherTypes[strings.ToLower(text)]; ok {
		return n, nil
	}
	hex, ok := strings.CutPrefix(strings.ToLower(text), "0x")
	n, err := strconv.ParseUint(hex, 16, 16)
	if !ok || err != nil || n < minEtherType {
		return 0, errNotAllowed
	}
	return uint16(n), nil
}

// allowOption reads who may reach all published ports, or the one in the key.
func allowOption[T any](list func(T) *desired.Allow) option[T] {
	return option[T]{
		allowed: fmt.Sprintf("up to %d addresses and subnets joined by commas, any, or none", maxSources),
		set: func(into T, key, value string) error {
			_, port, _ := strings.Cut(key, Allow+".")
			if m := portName.FindStringSubmatch(port); m != nil {
				if n, err := strconv.ParseUint(m[1], 10, 16); err != nil || n == 0 {
					return errNotAllowed
				}
			}
			sources, err := parseSources(value)
			if err == nil {
				allow(list(into), port, sources)
			}
			return err
		},
	}
}

func allow(list *desired.Allow, key string, s desired.Sources) {
	if *list == nil {
		*list = desired.Allow{}
	}
	(*list)[key] = s
}

// maxSources keeps the filter of a port's socket within the kernel's bound for
// one (BPF_MAXINSNS, 4096 instructions; a subnet of IPv6 takes 13).
const maxSources = 256

func parseSources(value string) (desired.Sources, error) {
	switch value {
	case "any":
		return desired.Anyone, nil
	case "none":
		return desired.Sources{Limited: true}, nil
	}
	s := desired.Sources{Limited: true}
	for _, text := range listItems(value) {
		p, err := parsePrefix(text)
		if err != nil {
			return s, errNotAllowed
		}
		if !slices.ContainsFunc(s.Prefixes, func(o netip.Prefix) bool { return o.Overlaps(p) && o.Bits() <= p.Bits() }) {
			s.Prefixes = append(slices.DeleteFunc(s.Prefixes, func(o netip.Prefix) bool { return o.Overlaps(p) }), p)
		}
	}
	if len(s.Prefixes) == 0 || len(s.Prefixes) > maxSources {
		return s, errNotAllowed
	}
	return s, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, errNotAllowed
	}
	return p.Masked(), nil
}

// listItems splits a list at commas, or at blanks: in docker run --network a
// comma ends the option.
func listItems(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}
