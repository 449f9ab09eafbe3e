package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ServeUDP answers each datagram on c with a Reply, until c is closed. The
// answer leaves from the address that was asked, also where c is bound to all
// addresses: a reply from another one belongs to no known flow, so conntrack
// would not translate it back.
func ServeUDP(c *net.UDPConn) error {
	if err := WantPktinfo(c); err != nil {
		return err
	}
	port := addrPort(c.LocalAddr()).Port()
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for {
		_, n, _, client, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return untilClosed(err)
		}
		local, source, err := pktinfo(oob[:n])
		if err != nil {
			return err
		}
		b, err := line(client, netip.AddrPortFrom(local, port))
		if err != nil {
			return err
		}
		// A filter may refuse the answer; the client sees that as silence.
		_, _, _ = c.WriteMsgUDPAddrPort(b, source, client)
	}
}

// WantPktinfo asks the kernel for each datagram's destination. A dual-stack
// socket takes both options and an IPv4 socket the first. ServeUDP does so by
// itself; who lets clients come before it runs does it first.
func WantPktinfo(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("open udp socket: %w", err)
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		v4 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		v6 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if v4 != nil && v6 != nil {
			opt = v4
		}
	})
	if err == nil {
		err = opt
	}
	if err != nil {
		return fmt.Errorf("ask for packet info: %w", err)
	}
	return nil
}

// pktinfo reads the address a datagram was sent to from its control messages
// and returns the control message that sends the answer from it.
func pktinfo(oob []byte) (local netip.Addr, source []byte, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, nil, fmt.Errorf("parse control messages: %w", err)
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			var info unix.Inet4Pktinfo
			copy(info.Spec_dst[:], m.Data[4:8])
			return netip.AddrFrom4(info.Spec_dst), unix.PktInfo4(&info), nil
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			var info unix.Inet6Pktinfo
			copy(info.Addr[:], m.Data[:16])
			local, index := netip.AddrFrom16(info.Addr), binary.NativeEndian.Uint32(m.Data[16:20])
			// A link-local source means nothing without its link; any other
			// answer must be free to take another route back.
			if local.IsLinkLocalUnicast() {
				info.Ifindex = index
			}
			if !local.Is4In6() {
				return local, unix.PktInfo6(&info), nil
			}
		}
	}
	return netip.Addr{}, nil, errors.New("datagram without packet info")
}
