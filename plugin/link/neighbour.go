package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// ForgetNeighbours deletes the host's neighbour entries of an endpoint's
// addresses, so that the next container that gets one of them is looked for.
// Without it the host sends to the old MAC address until its entry is probed, up
// to 45 s later. It is no error where there is none.
func ForgetNeighbours(n desired.Network, e desired.Endpoint) error {
	br, err := linkNamed(n.Bridge, KindBridge)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range append(e.Addrs(), e.Addresses...) {
		if err := changeNeighbour(br.index, a, unix.RTM_DELNEIGH, nil); err != nil {
			errs = append(errs, fmt.Errorf("bridge %s: delete neighbour %s: %w", n.Bridge, a, err))
		}
	}
	return errors.Join(errs...)
}

// changeNeighbour deletes the host's neighbour entry of an address, or gives it
// a MAC address. Where there is none, nothing is done, nor to one that an
// administrator made.
func changeNeighbour(bridge int, a netip.Addr, change int, mac net.HardwareAddr) error {
	entry, err := askNeighbour(bridge, a, unix.RTM_GETNEIGH, 0, nil)
	if err == nil && !lasting(entry) {
		_, err = askNeighbour(bridge, a, change, unix.NLM_F_ACK, mac)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func askNeighbour(bridge int, a netip.Addr, question, flags int, mac net.HardwareAddr) ([][]byte, error) {
	header := netlink.Ndmsg{Family: unix.AF_INET6, Index: uint32(bridge)}
	if a.Is4() {
		header.Family = unix.AF_INET
	}
	req := nl.NewNetlinkRequest(question, flags)
	req.AddData(&header)
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, a.AsSlice()))
	if mac != nil {
		// A stale entry is used at once and probed afterwards.
		header.State = unix.NUD_STALE
		req.Flags |= unix.NLM_F_REPLACE
		req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac))
	}
	return req.Execute(unix.NETLINK_ROUTE, 0)
}

// lasting reports whether an entry is one that the kernel never probes.
func lasting(entry [][]byte) bool {
	for _, m := range entry {
		if n, err := netlink.NeighDeserialize(m); err == nil && n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
			return true
		}
	}
	return false
}

// Announce tells everybody on a network's bridge, the hosts behind an adopted
// one included, which MAC address the endpoint's addresses have now: by
// gratuitous ARP and unsolicited neighbour advertisements. The host's own
// entries follow too, where it has any.
//
// It can be called as soon as the endpoint is attached. The frames do not go to
// the container itself: its own address in the advertisement of another would
// end its duplicate address detection. It needs CAP_NET_RAW.
func Announce(n desired.Network, e desired.Endpoint) error {
	if err := announce(n, e); err != nil {
		return fmt.Errorf("announce endpoint %.12s on bridge %s: %w", e.ID, n.Bridge, err)
	}
	return nil
}

func announce(n desired.Network, e desired.Endpoint) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return err
	}
	br, err := linkNamed(n.Bridge, KindBridge)
	if err != nil {
		return err
	}
	ports, err := dumpLinks(linkFilter{master: br.index})
	if err != nil {
		return err
	}
	fd, err := packets.get()
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range e.Addrs() {
		if err := changeNeighbour(br.index, a, unix.RTM_NEWNEIGH, mac); err != nil {
			errs = append(errs, fmt.Errorf("set neighbour %s to %s: %w", a, mac, err))
		}
		frame := announcement(mac, a)
		for _, p := range ports {
			if p.name != e.HostLink {
				errs = append(errs, send(fd, p, frame))
			}
		}
	}
	return errors.Join(errs...)
}

// packets sends the frames of all announcements. It stays open: to close a
// packet socket waits for all processors (synchronize_net), for milliseconds.
var packets packetSocket

type packetSocket struct {
	mu   sync.Mutex
	open bool
	fd   int
}

// get returns the descriptor of the socket, which it opens at first.
func (p *packetSocket) get() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		return p.fd, nil
	}
	// For sending alone: protocol 0 receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a packet socket (needs CAP_NET_RAW): %w", err)
	}
	p.fd, p.open = fd, true
	return fd, nil
}

// send puts a frame on a port of a bridge, without waiting. A port that is down
// or gone misses nothing.
func send(fd int, port seenLink, frame []byte) error {
	err := unix.Sendto(fd, frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: port.index})
	if err == nil || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("send on port %s: %w", port.name, err)
}
