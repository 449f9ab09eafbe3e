package host

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Socket is a socket that takes what is sent to its address and port; the
// unspecified address stands for every one.
type Socket struct {
	Addr netip.AddrPort
	// Inode is the socket's number, by which [Owners] finds its process.
	Inode uint64
}

// Takes reports whether the socket takes what is sent to an address. A socket of
// every IPv6 address takes IPv4, too: /proc does not show the few that are told
// not to.
func (s Socket) Takes(a netip.Addr) bool {
	own := s.Addr.Addr()
	return own == a || own == netip.IPv6Unspecified() || own.IsUnspecified() && own.Is4() == a.Is4()
}

// Every reports whether the socket takes what is sent to any address of a family.
func (s Socket) Every(v6 bool) bool {
	own := s.Addr.Addr()
	return own.IsUnspecified() && (own.Is6() || !v6)
}

// states are the states, by file of /proc/net, of a socket that waits for
// clients: TCP_LISTEN, and TCP_CLOSE for a datagram socket without a peer.
var states = map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}

// ListenersOn lists the sockets of a protocol, tcp or udp, that listen on a port
// in the caller's network namespace. Of another protocol it returns
// [errors.ErrUnsupported].
func ListenersOn(proto string, port uint16) ([]Socket, error) {
	list, err := Listeners(proto)
	return slices.DeleteFunc(list, func(s Socket) bool { return s.Addr.Port() != port }), err
}

// Listeners lists the sockets of a protocol that listen on any port, as
// [ListenersOn] does.
func Listeners(proto string) ([]Socket, error) {
	if states[proto] == "" {
		return nil, fmt.Errorf("list sockets of %s: %w", proto, errors.ErrUnsupported)
	}
	var out []Socket
	for _, name := range []string{proto, proto + "6"} {
		// A thread may be in a namespace of its own.
		f, err := os.Open(filepath.Join("/proc/thread-self/net", name))
		if errors.Is(err, fs.ErrNotExist) && name != proto {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets of %s: %w", proto, err)
		}
		list, err := parseSockets(f, states[name])
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// HasIPv6 reports whether the caller's network namespace has an IPv6 address.
func HasIPv6() bool {
	addrs, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	return err == nil && len(addrs) > 0
}

// parseSockets reads the sockets that are in a state, two digits, from a file of
// /proc/net.
func parseSockets(r io.Reader, state string) ([]Socket, error) {
	var out []Socket
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		f := strings.Fields(lines.Text())
		if first || len(f) == 0 {
			continue
		}
		if len(f) < 10 {
			return nil, fmt.Errorf("line %q has %d words, want 10 at least", lines.Text(), len(f))
		}
		if f[3] != state {
			continue
		}
		addr, err := parseAddr(f[1])
		if err != nil {
			return nil, err
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("socket number %q: %w", f[9], err)
		}
		out = append(out, Socket{addr, inode})
	}
	return out, lines.Err()
}

// parseAddr reads "0100007F:0BB8": words of 32 bits in the order of this
// machine's bytes, and a port.
func parseAddr(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q is none", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// Owners finds the processes of sockets, by inode. One whose files the caller
// may not read is missing.
func Owners(list []Socket) map[uint64]Process {
	wanted := map[string]uint64{}
	for _, s := range list {
		wanted[fmt.Sprintf("socket:[%d]", s.Inode)] = s.Inode
	}
	out := map[uint64]Process{}
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil || len(wanted) == 0 {
		return out
	}
	for _, f := range files {
		target, err := os.Readlink(f)
		inode, ok := wanted[target]
		if err != nil || !ok {
			continue
		}
		dir := filepath.Dir(filepath.Dir(f))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		// The parent of a server's workers comes first, and is told.
		if _, known := out[inode]; !known {
			out[inode] = Process{Name: comm(dir), PID: pid}
		}
	}
	return out
}
