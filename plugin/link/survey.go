package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Survey is what the host has of links, their addresses and the kernel
// parameters that networks depend on, at one moment.
type Survey struct {
	links []seenLink
	// addrs are the addresses of each link, by its index.
	addrs map[int][]seenAddr
	// host are the parameters of the whole host, by their path; one that the
	// kernel does not have is absent.
	host map[string]int
}

// seenLink is a network interface of the host.
type seenLink struct {
	index int
	name  string
	kind  string
	up    bool
	// loopback is lo.
	loopback bool
	mtu      int
	mac      net.HardwareAddr
	master   int
	// peerNamespace is the id, within this namespace, of the one that holds the
	// other end of a veth pair; -1 where that is this one too, or none.
	peerNamespace int
	// hairpin and isolated are flags of a bridge's port, and forwarding says that
	// it takes part.
	hairpin, isolated, forwarding bool
	// ipv4 and ipv6 are the kernel's tables of the link's parameters, nil where
	// the link does not have the family.
	ipv4, ipv6 []byte
}

// seenAddr is an address of a link.
type seenAddr struct {
	prefix netip.Prefix
	// failed is one that cannot be used because somebody else has it, tentative
	// one of which that is not known yet.
	failed, tentative bool
}

// Look surveys the host: its links, their addresses, and the parameters that
// networks depend on. It takes one dump of each and reads two files.
func Look() (Survey, error) {
	s := Survey{host: map[string]int{}}
	var err error
	if s.links, err = dumpLinks(linkFilter{}); err != nil {
		return Survey{}, err
	}
	if s.addrs, err = dumpAddrs(); err != nil {
		return Survey{}, err
	}
	for _, path := range []string{pathForward4, pathForward6} {
		v, ok, err := readSysctl(path)
		if err != nil {
			return Survey{}, err
		}
		if ok {
			s.host[path] = v
		}
	}
	return s, nil
}

// describe names the kind of a link.
func describe(l seenLink) string {
	if l.kind == "" {
		// A network card, or lo.
		return "device"
	}
	return l.kind
}

// isBridgeOf reports whether the link is the bridge that the driver made for a
// network, whatever its name is now.
func (l seenLink) isBridgeOf(n desired.Network) bool {
	return l.kind == KindBridge && !n.Adopted && bytes.Equal(l.mac, BridgeMAC(n.ID))
}

// parameter returns the value of a parameter of the link; ok is false where the
// kernel has none.
func (l seenLink) parameter(c confIndex) (value int, ok bool) {
	table := l.ipv4
	if c.ipv6 {
		table = l.ipv6
	}
	at := 4 * c.index
	if at+4 > len(table) {
		return 0, false
	}
	return int(int32(binary.NativeEndian.Uint32(table[at:]))), true
}

// linkFilter bounds a dump of links to those of a kind or with a master; the
// zero value bounds nothing.
type linkFilter struct {
	kind   string
	master int
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h.
const skipStatistics = 1 << 3

// dumpAttempts bounds how often a dump is taken again that changes interrupted.
const dumpAttempts = 5

func dumpLinks(f linkFilter) ([]seenLink, error) {
	var out []seenLink
	err := dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, func(req *nl.NetlinkRequest) {
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
		if f.master != 0 {
			req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(f.master))))
		}
		if f.kind != "" {
			info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
			info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(f.kind))
			req.AddData(info)
		}
	}, func() { out = nil }, func(m []byte) error {
		l, err := parseLink(m)
		if err == nil && (f.kind == "" || l.kind == f.kind) && (f.master == 0 || l.master == f.master) {
			out = append(out, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return out, nil
}

// linkNamed returns the link of a name, which must be of a kind.
func linkNamed(name, kind string) (seenLink, error) {
	var l seenLink
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	answer, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err == nil {
		l, err = parseLink(slices.Concat(answer...))
	}
	if err == nil && l.kind != kind {
		err = fmt.Errorf("it is a %s, not a %s", describe(l), kind)
	}
	if err != nil {
		return seenLink{}, fmt.Errorf("interface %s: %w", name, err)
	}
	return l, nil
}

func dumpAddrs() (map[int][]seenAddr, error) {
	var out map[int][]seenAddr
	err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, func(req *nl.NetlinkRequest) {
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	}, func() { out = map[int][]seenAddr{} }, func(m []byte) error {
		index, a, err := parseAddr(m)
		if err == nil && a.prefix.IsValid() {
			out[index] = append(out[index], a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return out, nil
}

// dump asks for a list and hands over its messages; one that was interrupted by
// a change is begun anew.
func dump(question, answer uint16, fill func(*nl.NetlinkRequest), begin func(), each func([]byte) error) error {
	for attempt := 1; ; attempt++ {
		req := nl.NewNetlinkRequest(int(question), unix.NLM_F_DUMP)
		fill(req)
		begin()
		var failed error
		err := req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
			failed = each(m)
			return failed == nil
		})
		if errors.Is(err, netlink.ErrDumpInterrupted) && attempt < dumpAttempts {
			continue
		}
		return errors.Join(err, failed)
	}
}

func parseLink(m []byte) (seenLink, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return seenLink{}, fmt.Errorf("a message on a link has %d bytes, want %d or more", len(m), unix.SizeofIfInfomsg)
	}
	header := nl.DeserializeIfInfomsg(m)
	l := seenLink{
		index: int(header.Index), up: header.Flags&unix.IFF_UP != 0, loopback: header.Flags&unix.IFF_LOOPBACK != 0, peerNamespace: -1,
	}
	return l, eachAttr(m[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_ADDRESS:
			l.mac = v
		case unix.IFLA_MTU:
			l.mtu = int(number(v))
		case unix.IFLA_MASTER:
			l.master = int(number(v))
		case unix.IFLA_LINK_NETNSID:
			l.peerNamespace = int(int32(number(v)))
		case unix.IFLA_LINKINFO:
			return l.parseInfo(v)
		case unix.IFLA_AF_SPEC:
			return l.parseFamilies(v)
		}
		return nil
	})
}

// portForwarding is BR_STATE_FORWARDING of linux/if_bridge.h.
const portForwarding = 3

func (l *seenLink) parseInfo(info []byte) error {
	var port []byte
	portOf := ""
	err := eachAttr(info, func(kind uint16, v []byte) error {
		switch kind {
		case nl.IFLA_INFO_KIND:
			l.kind = unix.ByteSliceToString(v)
		case nl.IFLA_INFO_SLAVE_KIND:
			portOf = unix.ByteSliceToString(v)
		case nl.IFLA_INFO_SLAVE_DATA:
			port = v
		}
		return nil
	})
	if err != nil || portOf != KindBridge {
		return err
	}
	return eachAttr(port, func(kind uint16, v []byte) error {
		switch kind {
		case nl.IFLA_BRPORT_STATE:
			l.forwarding = len(v) > 0 && v[0] == portForwarding
		case nl.IFLA_BRPORT_MODE:
			l.hairpin = isSet(v)
		case nl.IFLA_BRPORT_ISOLATED:
			l.isolated = isSet(v)
		}
		return nil
	})
}

func (l *seenLink) parseFamilies(spec []byte) error {
	return eachAttr(spec, func(family uint16, v []byte) error {
		return eachAttr(v, func(kind uint16, v []byte) error {
			switch {
			case family == unix.AF_INET && kind == unix.IFLA_INET_CONF:
				l.ipv4 = v
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_CONF:
				l.ipv6 = v
			}
			return nil
		})
	})
}

func parseAddr(m []byte) (index int, a seenAddr, err error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return 0, a, fmt.Errorf("a message on an address has %d bytes, want %d or more", len(m), unix.SizeofIfAddrmsg)
	}
	header := nl.DeserializeIfAddrmsg(m)
	flags := uint32(header.Flags)
	var local, remote netip.Addr
	err = eachAttr(m[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			remote, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			flags = number(v)
		}
		return nil
	})
	if !local.IsValid() {
		// IPv6 writes its own address there where the link has no other end.
		local = remote
	}
	return int(header.Index), seenAddr{
		prefix:    netip.PrefixFrom(local, int(header.Prefixlen)),
		failed:    flags&unix.IFA_F_DADFAILED != 0,
		tentative: flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC) == unix.IFA_F_TENTATIVE,
	}, err
}

func isSet(v []byte) bool { return len(v) > 0 && v[0] != 0 }

// number reads an attribute of four bytes; a shorter one, which no kernel
// sends, is 0.
func number(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

// typeMask takes the flags off an attribute's type (NLA_TYPE_MASK of
// linux/netlink.h).
const typeMask = 0x3fff

// eachAttr calls do for each attribute with its type, less the flags of the
// type, and its value, which is part of b.
func eachAttr(b []byte, do func(kind uint16, value []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & typeMask
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("an attribute of type %d says that it has %d of %d bytes: %w", kind, size, len(b), syscall.EINVAL)
		}
		if err := do(kind, b[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		b = b[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}
