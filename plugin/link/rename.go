package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rename gives an interface a name. Linux before 6.2 renames only what is down,
// and a bridge that goes down loses its IPv6 addresses: they come back.
func rename(index int, name string) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	failed := func(err error) error {
		return fmt.Errorf("rename interface %s to %s: %w", l.Attrs().Name, name, err)
	}
	if err = netlink.LinkSetName(l, name); !errors.Is(err, unix.EBUSY) {
		if err != nil {
			return failed(err)
		}
		return nil
	}
	addrs, err := netlink.AddrList(l, unix.AF_INET6)
	if err != nil {
		return failed(err)
	}
	if err := netlink.LinkSetDown(l); err != nil {
		return failed(err)
	}
	err = errors.Join(netlink.LinkSetName(l, name), netlink.LinkSetUp(l))
	for _, a := range addrs {
		p, ok := addrPrefix(a)
		if ok && a.Flags&unix.IFA_F_PERMANENT != 0 {
			err = errors.Join(err, addAddr(l, p))
		}
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

func addrPrefix(a netlink.Addr) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits), ok
}
