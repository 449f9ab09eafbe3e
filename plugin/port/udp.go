package port

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

const (
	// A client that is silent for this long is forgotten, as docker-proxy does.
	udpIdle = 90 * time.Second
	// The largest payload of a UDP datagram in bytes.
	udpMax = 65535
)

// udpSocket is the socket of a published UDP port.
type udpSocket struct {
	life
	conn    *net.UDPConn
	account *account
}

// udpClient is a client together with the address of the host that it asked:
// the answer must come from there.
type udpClient struct {
	from netip.AddrPort
	// asked is the control message that names the address, to be sent back as it
	// came (struct in_pktinfo, in6_pktinfo).
	asked string
}

// host returns the address that the client asked; the zero Addr where the
// control message does not say.
func (c udpClient) host() netip.Addr {
	list, err := unix.ParseSocketControlMessage([]byte(c.asked))
	if err != nil || len(list) != 1 {
		return netip.Addr{}
	}
	switch data := list[0].Data; {
	case len(data) >= unix.SizeofInet6Pktinfo:
		a, _ := netip.AddrFromSlice(data[:16])
		return a
	case len(data) >= unix.SizeofInet4Pktinfo:
		// The header's destination, behind the interface and the local address.
		a, _ := netip.AddrFromSlice(data[8:12])
		return a
	}
	return netip.Addr{}
}

func (h *Holder) listenUDP(p desired.Port) (socket, error) {
	c, err := listenConfig(p).ListenPacket(context.Background(), network("udp", p.Host.Addr()), p.Host.String())
	if err != nil {
		return nil, err
	}
	s, err := h.udp(c.(*net.UDPConn), p)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s.muted = true
	return s, nil
}

func (h *Holder) udp(conn *net.UDPConn, p desired.Port) (*udpSocket, error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			if p.Host.Addr().Is4() {
				return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		})
	}
	if err != nil {
		return nil, err
	}
	s := &udpSocket{conn: conn, account: h.account}
	s.life = life{log: h.log.With("port", p.Key()), work: &h.work, host: p.Host.Addr(), raw: raw, run: s.receive, drain: discardAll}
	return s, nil
}

func (s *udpSocket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

func (s *udpSocket) receive() {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for awaitDatagram(s.raw) == nil {
		buf := datagrams.Get().(*datagram)
		s.forward(buf[:], oob)
		datagrams.Put(buf)
	}
}

// forward carries one datagram of a client to the container.
func (s *udpSocket) forward(buf, oob []byte) {
	n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return // an ICMP error for an earlier answer: the port goes on
	}
	container, err := s.associate(udpClient{from, string(oob[:oobn])})
	if err != nil {
		s.log.Debug("reach container", "client", from, "error", err)
		return
	}
	// A container that refuses a datagram is silent to its client, as UDP is.
	_, _ = container.Write(buf[:n])
}

// datagram is the room for one. An idle port or client has none.
type datagram [udpMax]byte

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// awaitDatagram waits until a socket has something to read. It returns an error
// where the socket is closed or its deadline is past.
func awaitDatagram(c syscall.RawConn) error { return await(c.Read, unix.POLLIN) }

// discardAll empties the queue of datagrams.
func discardAll(fd int) {
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

var errNotServed = errors.New("the port does not serve this client")

// association is a client of a UDP socket and the socket that speaks to the
// container for it.
type association struct {
	client    udpClient
	container *net.UDPConn
	// used is when the client or the container spoke last; all and same are where
	// the association stands in the lists. The mu of the life protects them.
	used      time.Time
	all, same *list.Element
}

// associations are those of one lead, in lists of which the first was not used
// for the longest time: of all, and of each address.
type associations struct {
	of     map[udpClient]*association
	all    list.List
	byAddr map[netip.Addr]*list.List
}

func newAssociations() associations {
	return associations{of: map[udpClient]*association{}, byAddr: map[netip.Addr]*list.List{}}
}

func (a *associations) add(x *association) {
	same := a.byAddr[x.client.from.Addr()]
	if same == nil {
		same = list.New()
		a.byAddr[x.client.from.Addr()] = same
	}
	a.of[x.client] = x
	x.used, x.all, x.same = time.Now(), a.all.PushBack(x), same.PushBack(x)
}

func (a *associations) use(x *association) {
	if a.of[x.client] == x {
		x.used = time.Now()
		a.all.MoveToBack(x.all)
		a.byAddr[x.client.from.Addr()].MoveToBack(x.same)
	}
}

func (a *associations) remove(x *association) {
	if a.of[x.client] != x {
		return
	}
	delete(a.of, x.client)
	a.all.Remove(x.all)
	same := a.byAddr[x.client.from.Addr()]
	if same.Remove(x.same); same.Len() == 0 {
		delete(a.byAddr, x.client.from.Addr())
	}
}

// inTheWay is the association that goes for a new one of an address: of its own
// where it has too many, else the one that was not used for the longest time;
// nil where there is room.
func (a *associations) inTheWay(from netip.Addr, max limits) *association {
	if same := a.byAddr[from]; same != nil && same.Len() >= max.associationsPerClient {
		return same.Front().Value.(*association)
	}
	if a.all.Len() >= max.associations {
		return a.all.Front().Value.(*association)
	}
	return nil
}

// associate returns the socket that speaks to the container for a client.
func (s *udpSocket) associate(c udpClient) (*net.UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lead
	if l == nil {
		return nil, errNotServed
	}
	if x, ok := l.associations.of[c]; ok {
		l.associations.use(x)
		return x.container, nil
	}
	if !s.admits(c.from.Addr(), c.host()) {
		return nil, errNotServed
	}
	if old := l.associations.inTheWay(c.from.Addr(), s.account.max); old != nil {
		s.dissociate(l, old)
	}
	if !s.account.associate() {
		return nil, errBusy
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.to))
	if err != nil {
		s.account.dissociate()
		return nil, err
	}
	x := &association{client: c, container: conn}
	l.associations.add(x)
	s.work.Go(func() { s.answer(x, l) })
	return conn, nil
}

// dissociate forgets a client; mu is held. It may be called again.
func (s *udpSocket) dissociate(l *lead, x *association) {
	l.associations.remove(x)
	if x.container.Close() == nil {
		s.account.dissociate()
	}
}

// answer carries the container's datagrams to the client until both are silent,
// or the socket leads elsewhere.
func (s *udpSocket) answer(x *association, l *lead) {
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dissociate(l, x)
	}
	stop := context.AfterFunc(l.ctx, forget)
	defer stop()
	defer forget()
	raw, err := x.container.SyscallConn()
	if err != nil {
		return
	}
	for s.awaitAnswer(x, l, raw) {
		buf := datagrams.Get().(*datagram)
		err := s.back(x.client, x.container, buf[:])
		datagrams.Put(buf)
		if err != nil {
			return
		}
	}
}

// awaitAnswer waits for a datagram of the container; false where both have been
// silent for too long, or the association ended.
func (s *udpSocket) awaitAnswer(x *association, l *lead, raw syscall.RawConn) bool {
	until := time.Now().Add(udpIdle)
	for {
		if x.container.SetReadDeadline(until) != nil {
			return false
		}
		err := awaitDatagram(raw)
		s.mu.Lock()
		if err == nil {
			l.associations.use(x)
		}
		until = x.used.Add(udpIdle)
		s.mu.Unlock()
		if err == nil {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until) {
			return false
		}
	}
}

// back carries one datagram of the container to a client.
func (s *udpSocket) back(c udpClient, container *net.UDPConn, buf []byte) error {
	n, err := container.Read(buf)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil // nobody listens in the container, yet
	}
	if err == nil {
		_, _, err = s.conn.WriteMsgUDPAddrPort(buf[:n], []byte(c.asked), c.from)
	}
	return err
}

func (s *udpSocket) close() error {
	s.shut()
	return s.conn.Close()
}

// retire has duplicates collect no more datagrams. They stay bound.
func (s *udpSocket) retire() { s.hush() }
