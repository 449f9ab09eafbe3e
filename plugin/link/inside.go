package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Inside sees which addresses containers have, and follows them. It enters no
// network namespace and holds none open, which would keep the links of a
// container alive after its end: the kernel answers for the namespace at the
// other end of a veth pair, and tells of changes in every namespace that has an
// id here, as the other ends of veth pairs have. One socket serves all
// containers.
type Inside struct {
	news     *newsSocket
	requests *nl.SocketHandle

	mu      sync.Mutex
	watches map[*insideWatch]bool
}

// OpenInside begins to follow the network namespaces that veth pairs lead to.
// It needs CAP_NET_BROADCAST, and its error says so where that is missing.
func OpenInside() (*Inside, error) {
	i := &Inside{watches: map[*insideWatch]bool{}}
	var err error
	if i.requests, err = strictSocket(); err == nil {
		i.news, err = openNews(true, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_NSID)
		if err != nil {
			i.requests.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("follow the addresses of containers: %w", err)
	}
	go i.follow()
	return i, nil
}

// strictSocket opens a socket on which the kernel heeds all that a dump asks
// for: without that it would answer for its own namespace.
func strictSocket() (*nl.SocketHandle, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
		s.Close()
		return nil, fmt.Errorf("ask a netlink socket to be strict: %w", err)
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// Close ends all watches.
func (i *Inside) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for w := range i.watches {
		w.stopped.Store(true)
	}
	clear(i.watches)
	i.requests.Close()
	return i.news.close()
}

// Addresses returns which addresses of an endpoint its container has. Those of a
// container that is not connected yet, or no longer, are absent. The container's
// user namespace must be one in which this process has CAP_NET_ADMIN.
func (i *Inside) Addresses(e desired.Endpoint) (map[netip.Addr]bool, error) {
	_, have, err := i.look(e)
	return have, err
}

// Watch calls fn with each address of an endpoint and whether its container has
// it: once at first, and whenever that changes. An address of which duplicate
// address detection failed is not there. Calls come one at a time, on another
// goroutine than the caller's, and none begins after stop has returned. fn may
// call stop.
func (i *Inside) Watch(e desired.Endpoint, fn func(a netip.Addr, present bool)) (stop func(), err error) {
	w := &insideWatch{inside: i, endpoint: e, fn: fn, told: map[netip.Addr]bool{}}
	// Registered before the first look: no change falls in between.
	i.mu.Lock()
	i.watches[w] = true
	i.mu.Unlock()
	stop = func() {
		w.stopped.Store(true)
		i.mu.Lock()
		delete(i.watches, w)
		i.mu.Unlock()
	}
	if _, err = linkNamed(e.HostLink, kindVeth); err == nil {
		_, _, err = i.look(e)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("watch the addresses of endpoint %.12s: %w", e.ID, err)
	}
	go w.look()
	return stop, nil
}

// insideWatch follows the addresses of one container.
type insideWatch struct {
	inside    *Inside
	endpoint  desired.Endpoint
	fn        func(netip.Addr, bool)
	stopped   atomic.Bool
	namespace atomic.Int64

	// mu makes one look end before the next begins, so that the last one counts.
	mu   sync.Mutex
	told map[netip.Addr]bool
}

// look tells of what has changed since it last did. News says only that there
// is something to look at: what is told was so after the news.
func (w *insideWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	namespace, have, err := w.inside.look(w.endpoint)
	if err != nil {
		// What was so may be so still.
		return
	}
	w.namespace.Store(int64(namespace))
	for _, a := range w.endpoint.Addrs() {
		if last, known := w.told[a]; (!known || last != have[a]) && !w.stopped.Load() {
			w.told[a] = have[a]
			w.fn(a, have[a])
		}
	}
}

// here is the namespace id of a veth pair that does not lead to another one.
const here = -1

// look returns the namespace that an endpoint's container has, and which
// addresses of the endpoint are in it.
func (i *Inside) look(e desired.Endpoint) (namespace int, have map[netip.Addr]bool, err error) {
	have = map[netip.Addr]bool{}
	for _, a := range e.Addrs() {
		have[a] = false
	}
	l, err := linkNamed(e.HostLink, kindVeth)
	if isMissing(err) || err == nil && l.peerNamespace == here {
		return here, have, nil
	}
	if err != nil {
		return here, nil, err
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if !slices.ContainsFunc(e.Addrs(), func(a netip.Addr) bool { return a.Is4() == (family == unix.AF_INET) }) {
			continue
		}
		if err := i.dump(l.peerNamespace, family, have); err != nil {
			return here, nil, err
		}
	}
	return l.peerNamespace, have, nil
}

// dump notes which addresses a namespace has.
func (i *Inside) dump(namespace, family int, have map[netip.Addr]bool) error {
	err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, func(req *nl.NetlinkRequest) {
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: i.requests}
		req.AddData(nl.NewIfAddrmsg(family))
		req.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, nl.Uint32Attr(uint32(namespace))))
	}, func() {
		for a := range have {
			if a.Is4() == (family == unix.AF_INET) {
				have[a] = false
			}
		}
	}, func(m []byte) error {
		_, a, err := parseAddr(m)
		if _, asked := have[a.prefix.Addr()]; asked {
			have[a.prefix.Addr()] = !a.failed
		}
		return err
	})
	switch {
	case errors.Is(err, unix.EINVAL):
		// The namespace went in this moment.
		return nil
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("list addresses in the container's network namespace (needs CAP_NET_ADMIN in its user namespace): %w", err)
	case err != nil:
		return fmt.Errorf("list addresses in the container's network namespace: %w", err)
	}
	return nil
}

// follow looks again at containers of which there is news, until the socket is
// closed.
func (i *Inside) follow() {
	for {
		messages, err := i.news.read(true)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		lost := err != nil
		for _, w := range i.concerned(messages, lost) {
			w.look()
		}
	}
}

// concerned returns the watches that news is about.
func (i *Inside) concerned(messages []syscall.NetlinkMessage, all bool) []*insideWatch {
	addrs, namespaces := map[netip.Addr]bool{}, map[int64]bool{}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if _, a, err := parseAddr(m.Data); err == nil {
				addrs[a.prefix.Addr()] = true
			}
		case unix.RTM_DELNSID:
			namespaces[namespaceOf(m.Data)] = true
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []*insideWatch
	for w := range i.watches {
		if all || namespaces[w.namespace.Load()] || slices.ContainsFunc(w.endpoint.Addrs(), func(a netip.Addr) bool { return addrs[a] }) {
			out = append(out, w)
		}
	}
	return out
}

// namespaceOf returns the id in a message of RTNLGRP_NSID, -2 where there is
// none.
func namespaceOf(m []byte) int64 {
	const header = 4 // struct rtgenmsg, aligned
	id := int64(-2)
	if len(m) < header {
		return id
	}
	_ = eachAttr(m[header:], func(kind uint16, v []byte) error {
		if kind == unix.NETNSA_NSID && len(v) >= 4 {
			id = int64(int32(binary.NativeEndian.Uint32(v)))
		}
		return nil
	})
	return id
}
