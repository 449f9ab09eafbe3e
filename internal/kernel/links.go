package kernel

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// openLinks opens a socket for the names of interfaces in the network namespace
// behind the descriptor netns; nil where there is none to be had: names are for
// people, rules hold numbers.
func openLinks(netns int) *netlink.Conn {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil
	}
	return conn
}

// interfaceNames lists the names of the interfaces by their numbers.
func (c *Conn) interfaceNames() map[uint64]string {
	names := map[uint64]string{}
	if c.links == nil {
		return names
	}
	messages, err := c.links.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil {
		return names
	}
	for _, m := range messages {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		// struct ifinfomsg (linux/rtnetlink.h): the number stands behind family and
		// type.
		index := binary.NativeEndian.Uint32(m.Data[4:])
		names[uint64(index)] = attr{data: m.Data[unix.SizeofIfInfomsg:]}.nested().str(unix.IFLA_IFNAME)
	}
	return names
}
