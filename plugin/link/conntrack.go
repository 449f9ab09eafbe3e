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

// Lead says where a published port leads now: to its container, or nowhere.
type Lead struct {
	Port desired.Port
	Gone bool
}

// ForgetFlows deletes the conntrack entries of clients of published ports that
// lead elsewhere than the port does now: of clients that knocked while nothing
// translated the port, and of a container that is gone. To the kernel the next
// packet of such a client belongs to its entry and passes the rules by. Of TCP
// only clients that still wait for an answer are forgotten; a connection that
// stands is nobody's to cut. Every other flow stays. Of several leads of one
// port the last counts.
func ForgetFlows(leads []Lead) error {
	if len(leads) == 0 {
		return nil
	}
	local, err := localAddrs()
	if err != nil {
		return err
	}
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		f := strays{leads: map[hostPort]map[netip.Addr]netip.AddrPort{}, local: local}
		for _, l := range leads {
			if l.Port.Host.Addr().Is4() == (family == unix.AF_INET) {
				f.add(l)
			}
		}
		if len(f.leads) == 0 {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
			errs = append(errs, fmt.Errorf("delete conntrack entries of published ports: %w", err))
		}
	}
	return errors.Join(errs...)
}

type hostPort struct {
	proto uint8
	port  uint16
}

// strays is the filter of flows to ports of the host that go elsewhere than
// the port leads.
type strays struct {
	// leads is by host address where each port leads, the zero value for nowhere.
	leads map[hostPort]map[netip.Addr]netip.AddrPort
	// local are the host's own addresses: a port published on any address is
	// one of these, and no flow through the host to elsewhere.
	local map[netip.Addr]bool
}

func (f strays) add(l Lead) {
	k := hostPort{l.Port.Proto, l.Port.Host.Port()}
	if f.leads[k] == nil {
		f.leads[k] = map[netip.Addr]netip.AddrPort{}
	}
	to := l.Port.Container
	if l.Gone {
		to = netip.AddrPort{}
	}
	f.leads[k][l.Port.Host.Addr()] = to
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
func (f strays) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	leads, ours := f.leads[hostPort{flow.Forward.Protocol, flow.Forward.DstPort}]
	if !ours {
		return false
	}
	asked, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	asked = asked.Unmap()
	to, ok := leads[asked]
	if !ok && (f.local[asked] || asked.IsLoopback()) {
		to, ok = leads[anyAddr(asked)]
	}
	if !ok || (flow.Forward.Protocol == unix.IPPROTO_TCP && !waitsForAnswer(flow)) {
		return false
	}
	if to.IsValid() && to.Addr().IsUnspecified() {
		// A redirect leads to this host, by whichever of its addresses.
		return flow.Reverse.SrcPort != to.Port()
	}
	answers, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return netip.AddrPortFrom(answers.Unmap(), flow.Reverse.SrcPort) != to
}

// anyAddr is the unspecified address of a's family.
func anyAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// tcpSynSent is TCP_CONNTRACK_SYN_SENT of nf_conntrack_tcp.h.
const tcpSynSent = 1

func waitsForAnswer(flow *netlink.ConntrackFlow) bool {
	tcp, ok := flow.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && tcp.State == tcpSynSent
}
