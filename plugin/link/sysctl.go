package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// sysctlRoot is where the kernel shows the parameters of a network namespace.
const sysctlRoot = "/proc/sys/net"

// setting is a kernel parameter and the value that a network needs.
type setting struct {
	// path is the file under sysctlRoot.
	path string
	want int
	// notify says that the parameter is set without being guarded: it only makes
	// the kernel announce the bridge, which a network can do without.
	notify bool
	// optional is a parameter of a family that the network does not have: a host
	// without IPv6 lacks it.
	optional bool
	// conf is where a dump of links tells the value, for parameters of a link.
	conf confIndex
}

// confIndex is the place of a parameter in the kernel's tables of a link's IPv4
// and IPv6 configuration.
type confIndex struct {
	ipv6  bool
	index int
}

// Places of the parameters in IFLA_INET_CONF (enum IPV4_DEVCONF_* of
// linux/ip.h, less 1, from which it counts) and IFLA_INET6_CONF (enum DEVCONF_*
// of linux/ipv6.h).
var (
	confForwarding    = confIndex{false, 0}
	confForwarding6   = confIndex{true, 0}
	confRouteLocalnet = confIndex{false, 25}
	confAcceptRA      = confIndex{true, 3}
	confDisableIPv6   = confIndex{true, 26}
	confAcceptDAD     = confIndex{true, 27}
)

// bridgeSettings lists the parameters of a network's bridge.
//
// route_localnet lets replies to 127.0.0.1 come back over the bridge, which the
// rule in RAW-PREROUTING keeps anybody else from using. Without accept_ra the
// bridge takes no routes from containers. Without accept_dad an address can be
// used the moment that the bridge has it: while its link-local one is being
// probed, for two seconds, the host asks nobody for a neighbour.
func bridgeSettings(n desired.Network) []setting {
	var out []setting
	add := func(family, name string, want int, conf confIndex) {
		out = append(out, setting{path: family + "/conf/" + n.Bridge + "/" + name, want: want, conf: conf})
	}
	notify := func(family, name string) {
		out = append(out, setting{path: family + "/conf/" + n.Bridge + "/" + name, want: 1, notify: true})
	}
	ours := !n.Adopted
	if n.IPv4.IsValid() {
		add("ipv4", "route_localnet", 1, confRouteLocalnet)
		if ours && !n.Internal {
			add("ipv4", "forwarding", 1, confForwarding)
		}
		if ours {
			notify("ipv4", "arp_notify")
		}
	}
	if !n.IPv6.IsValid() {
		if ours {
			// A container could advertise itself as the host's router all the same
			// (CVE-2020-13401).
			out = append(out, setting{path: "ipv6/conf/" + n.Bridge + "/accept_ra", optional: true, conf: confAcceptRA})
		}
		return out
	}
	if n.IPv6.Mode == desired.ModeIsolated {
		// The kernel would give the bridge a link-local address.
		add("ipv6", "disable_ipv6", 1, confDisableIPv6)
	} else {
		add("ipv6", "disable_ipv6", 0, confDisableIPv6)
	}
	add("ipv6", "accept_ra", 0, confAcceptRA)
	if ours {
		add("ipv6", "accept_dad", 0, confAcceptDAD)
		notify("ipv6", "ndisc_notify")
	}
	return out
}

// Parameters of the whole host.
const (
	pathForward4 = "ipv4/ip_forward"
	pathForward6 = "ipv6/conf/all/forwarding"
)

// hostSettings lists the parameters of the host that a network's containers
// need to reach anything but their host.
func hostSettings(n desired.Network) []setting {
	var out []setting
	if n.Internal {
		return nil
	}
	if n.IPv4.IsValid() {
		out = append(out, setting{path: pathForward4, want: 1})
	}
	if n.IPv6.IsValid() {
		out = append(out, setting{path: pathForward6, want: 1})
	}
	return out
}

// guarded reports whether a change of the parameter is a fault. The bridge of a
// network that adopted it stays its user's: accept_ra is theirs.
func (s setting) guarded(n desired.Network) bool {
	return !s.notify && (!n.Adopted || s.conf != confAcceptRA)
}

// name returns the parameter's name as sysctl(8) writes it: with "/" in place of
// a dot in the name of an interface.
func (s setting) name() string { return sysctlName(s.path) }

func sysctlName(path string) string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(path)
}

// set writes the parameter where it differs.
func (s setting) set() error {
	if s.path == pathForward6 {
		return forwardIPv6()
	}
	err := setSysctl(s.path, strconv.Itoa(s.want))
	if s.optional && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// setSysctl writes a parameter of the network namespace, where it differs.
func setSysctl(name, value string) error {
	path := filepath.Join(sysctlRoot, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) {
		// One that is right already needs no leave to write it.
		if have, e := os.ReadFile(path); e == nil && strings.TrimSpace(string(have)) == value {
			return nil
		}
	}
	if err == nil {
		defer f.Close()
		var have [16]byte
		if n, e := f.ReadAt(have[:], 0); n > 0 && (e == nil || e == io.EOF) && strings.TrimSpace(string(have[:n])) == value {
			return nil
		}
		_, err = f.WriteAt([]byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set net/%s to %s: %w", name, value, err)
	}
	return nil
}

// readSysctl returns the value of a parameter; ok is false where the kernel has
// no such parameter.
func readSysctl(name string) (value int, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err == nil {
		value, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return 0, false, fmt.Errorf("read net/%s: %w", name, err)
	}
	return value, true, nil
}
