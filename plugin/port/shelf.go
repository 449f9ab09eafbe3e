package port

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Shelf keeps duplicates of sockets by name while no driver runs, and hands
// them to the next one, as the Store of package fdstore does. None of its
// methods but Barrier waits.
type Shelf interface {
	// Files returns what was inherited by a name, once; it is the caller's then.
	Files(name string) []*os.File
	// DropUnclaimed closes and drops what was inherited and is still there, and
	// returns the names.
	DropUnclaimed() []string
	// Put keeps a duplicate, instead of what the name had.
	Put(name string, c syscall.Conn)
	// Drop lets go of a name.
	Drop(name string)
	// Dropping reports whether the shelf may still have what was dropped by a
	// name that begins with prefix.
	Dropping(prefix string) bool
	// Barrier waits until the shelf has done all that it was asked before.
	Barrier(ctx context.Context) error
}

// protoLetters begin the names on the shelf: lower case for IPv4, upper case
// for IPv6.
var protoLetters = map[uint8]string{unix.IPPROTO_TCP: "t", unix.IPPROTO_UDP: "u", unix.IPPROTO_SCTP: "s"}

// slotName begins the names of all ports that can stand in each other's way.
func slotName(p desired.Port) string {
	letter := protoLetters[p.Proto]
	if p.Host.Addr().Is6() {
		letter = strings.ToUpper(letter)
	}
	return fmt.Sprintf("%s%04x", letter, p.Host.Port())
}

// socketName is the port's name on the shelf: "t1f90" for 0.0.0.0:8080/tcp,
// "U0035@2001-db8--1" for [2001:db8::1]:53/udp. It is that short because the
// names of all sockets have 128 KiB together (execve(2), MAX_ARG_STRLEN): six
// bytes with the separator are ten thousand ports in both families.
func socketName(p desired.Port) string {
	if p.Any() {
		return slotName(p)
	}
	return slotName(p) + "@" + strings.ReplaceAll(p.Host.Addr().String(), ":", "-")
}

// portOf is the port that a name on the shelf is of, without the container.
func portOf(name string) (desired.Port, bool) {
	head, at, specific := strings.Cut(name, "@")
	if len(head) != 5 {
		return desired.Port{}, false
	}
	number, err := strconv.ParseUint(head[1:], 16, 16)
	addr := netip.IPv4Unspecified()
	if letter := head[0]; letter >= 'A' && letter <= 'Z' {
		addr = netip.IPv6Unspecified()
	}
	if specific && err == nil {
		addr, err = netip.ParseAddr(strings.ReplaceAll(at, "-", ":"))
	}
	for proto, letter := range protoLetters {
		if err == nil && strings.EqualFold(letter, head[:1]) {
			p := desired.Port{Proto: proto, Host: netip.AddrPortFrom(addr, uint16(number))}
			return p, socketName(p) == name
		}
	}
	return desired.Port{}, false
}

// inherit takes the port's socket from the shelf, or nil where it has none that
// can be had. The filter is left as it is: clients that come before the port is
// served wait for it, or not, as they did before.
func (h *Holder) inherit(p desired.Port) socket {
	if h.shelf == nil {
		return nil
	}
	name := socketName(p)
	files := h.shelf.Files(name)
	var out socket
	for _, f := range files {
		s, err := h.adopt(f, p)
		_ = f.Close()
		switch {
		case err != nil:
			h.log.Warn("an inherited socket is of no use", "name", name, "error", err)
		case out == nil:
			out = s
		default:
			_ = s.close()
		}
	}
	switch {
	case out == nil && len(files) > 0:
		h.shelf.Drop(name)
	case len(files) > 1:
		// The others would come back with the next start.
		h.shelf.Put(name, out)
	}
	return out
}

// adopt makes the socket of a port out of an inherited descriptor, of which it
// keeps a duplicate.
func (h *Holder) adopt(f *os.File, p desired.Port) (socket, error) {
	if err := suits(f, p); err != nil {
		return nil, err
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		l, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		return h.tcp(l.(*net.TCPListener), p)
	case unix.IPPROTO_UDP:
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		return h.udp(c.(*net.UDPConn), p)
	}
	return adoptSCTP(f, p)
}

// suits returns an error for a descriptor that is not the bound socket of a
// port, whatever its name says.
func suits(f *os.File, p desired.Port) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error {
		for _, want := range wantedOptions(p) {
			have, err := unix.GetsockoptInt(fd, want.level, want.option)
			if err != nil {
				return fmt.Errorf("%s: %w", want.name, err)
			}
			if have != want.value {
				return fmt.Errorf("its %s is %d, want %d", want.name, have, want.value)
			}
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		if own := addrOf(sa); own != p.Host {
			return fmt.Errorf("it is bound to %s, want %s", own, p.Host)
		}
		return nil
	})
}

type wantedOption struct {
	name                 string
	level, option, value int
}

func wantedOptions(p desired.Port) []wantedOption {
	domain, kind, accepts := unix.AF_INET, unix.SOCK_STREAM, 0
	if p.Host.Addr().Is6() {
		domain = unix.AF_INET6
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		accepts = 1
	case unix.IPPROTO_UDP:
		kind = unix.SOCK_DGRAM
	}
	out := []wantedOption{
		{"address family", unix.SOL_SOCKET, unix.SO_DOMAIN, domain},
		{"type", unix.SOL_SOCKET, unix.SO_TYPE, kind},
		{"protocol", unix.SOL_SOCKET, unix.SO_PROTOCOL, int(p.Proto)},
		{"SO_ACCEPTCONN", unix.SOL_SOCKET, unix.SO_ACCEPTCONN, accepts},
	}
	if domain == unix.AF_INET6 {
		out = append(out, wantedOption{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	return out
}

func addrOf(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// DropUnclaimed ends what is left of the former process, once all that is still
// wanted is held and served: inherited sockets that nobody held are closed and
// dropped from the shelf, inherited ports that nobody serves become silent.
func (h *Holder) DropUnclaimed() {
	if h.shelf == nil {
		return
	}
	for _, name := range h.shelf.DropUnclaimed() {
		what := name
		if p, ok := portOf(name); ok {
			what = p.Key()
		}
		h.log.Info("dropped an inherited socket that nobody wants", "socket", what)
	}
	for _, s := range h.sockets() {
		s.settle()
	}
}

func (h *Holder) sockets() []socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []socket
	for _, at := range h.held {
		for _, have := range at {
			out = append(out, have.socket)
		}
	}
	return out
}
