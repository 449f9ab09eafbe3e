package nstest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Advertise sends a router advertisement from an interface of the namespace to
// everybody on its link (RFC 4861, 4.2): whoever listens has a default route to
// the interface for the lifetime, and makes itself an address in the prefix, a
// /64, where that is valid.
func (ns *NS) Advertise(t testing.TB, link string, prefix netip.Prefix, lifetime time.Duration) {
	t.Helper()
	err := ns.Do(func() error { return advertise(link, prefix, lifetime) })
	if err != nil {
		t.Fatalf("advertise a router on %s of %s: %v", link, ns.name, err)
	}
}

func advertise(link string, prefix netip.Prefix, lifetime time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	defer unix.Close(fd)
	// A host takes no advertisement that may have passed a router.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return fmt.Errorf("set the hop limit: %w", err)
	}
	// Not by net.InterfaceByName, which is bound to no thread.
	index, err := unix.NewIfreq(link)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, index)
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", link, err)
	}
	everybody := unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: index.Uint32()}
	return unix.Sendto(fd, advertisement(prefix, lifetime), 0, &everybody)
}

// advertisement is the message; the kernel fills in the checksum.
func advertisement(prefix netip.Prefix, lifetime time.Duration) []byte {
	const routerAdvertisement, hopLimit, onLinkAndAutonomous, prefixInformation = 134, 64, 0xc0, 3
	seconds := uint32(lifetime / time.Second)
	m := []byte{routerAdvertisement, 0, 0, 0, hopLimit, 0}
	m = binary.BigEndian.AppendUint16(m, uint16(seconds))
	m = append(m, make([]byte, 8)...)
	if !prefix.IsValid() {
		return m
	}
	m = append(m, prefixInformation, 4, byte(prefix.Bits()), onLinkAndAutonomous)
	m = binary.BigEndian.AppendUint32(m, seconds)
	m = binary.BigEndian.AppendUint32(m, seconds)
	m = append(m, 0, 0, 0, 0)
	return append(m, net.IP(prefix.Masked().Addr().AsSlice())...)
}
