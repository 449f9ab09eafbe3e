package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// ForgetKnocks deletes the conntrack entries of clients that knocked at a port
// while nothing translated it: to the kernel the client's next packet belongs
// to that entry, and would pass the new rules by. These are flows to the host's
// port that were not translated: of UDP any, of TCP those still waiting for an
// answer. Every other flow stays.
func ForgetKnocks(ports []desired.Port) error {
	if len(ports) == 0 {
		return nil
	}
	local, err := localAddrs()
	if err != nil {
		return err
	}
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		f := knocks{ports: map[knock][]netip.Addr{}, local: local}
		for _, p := range ports {
			if p.Host.Addr().Is4() == (family == unix.AF_INET) {
				k := knock{p.Proto, p.Host.Port()}
				f.ports[k] = append(f.ports[k], p.Host.Addr())
			}
		}
		if len(f.ports) == 0 {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			errs = append(errs, fmt.Errorf("delete conntrack entries of published ports: %w", err))
		}
	}
	return errors.Join(errs...)
}

type knock struct {
	proto uint8
	port  uint16
}

// knocks is the filter of untranslated flows to some ports of the host.
type knocks struct {
	ports map[knock][]netip.Addr
	// local are the host's own addresses: a port published on any address is
	// one of these, and no flow through the host to elsewhere.
	local map[netip.Addr]bool
}

func localAddrs() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	out := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().WithZone("")] = true
		}
	}
	return out, nil
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (k knocks) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	addrs, ours := k.ports[knock{flow.Forward.Protocol, flow.Forward.DstPort}]
	if !ours {
		return false
	}
	to, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	to, from = to.Unmap(), from.Unmap()
	if to != from || flow.Forward.DstPort != flow.Reverse.SrcPort {
		return false // translated
	}
	if flow.Forward.Protocol == unix.IPPROTO_TCP && !waitsForAnswer(flow) {
		return false
	}
	for _, a := range addrs {
		if a == to || (a.IsUnspecified() && (k.local[to] || to.IsLoopback())) {
			return true
		}
	}
	return false
}

// tcpSynSent is TCP_CONNTRACK_SYN_SENT of nf_conntrack_tcp.h.
const tcpSynSent = 1

func waitsForAnswer(flow *netlink.ConntrackFlow) bool {
	tcp, ok := flow.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && tcp.State == tcpSynSent
}
