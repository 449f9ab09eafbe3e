package e2e

import (
	"bytes"
	wire "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// tag is what may stand between a frame's addresses and its type.
type tag struct {
	etherType uint16
	// info is priority and number of a VLAN.
	info uint16
}

const (
	tagVLAN     = 0x8100
	tagProvider = 0x88a8
)

// wrapping is how a frame's payload is wrapped.
type wrapping struct {
	name string
	tags []tag
	// snap puts a length, and SNAP behind it, in the place of the type.
	snap bool
	// other is a type that is neither ARP nor IP.
	other uint16
}

var wrappings = []wrapping{
	{name: "bare"},
	{name: "8100:0", tags: []tag{{tagVLAN, 0}}},
	{name: "8100:0 8100:0", tags: []tag{{tagVLAN, 0}, {tagVLAN, 0}}},
	{name: "88a8:0", tags: []tag{{tagProvider, 0}}},
	{name: "88a8:0 8100:0", tags: []tag{{tagProvider, 0}, {tagVLAN, 0}}},
	{name: "88a8:0 88a8:0 8100:0", tags: []tag{{tagProvider, 0}, {tagProvider, 0}, {tagVLAN, 0}}},
	{name: "8100:0 of priority 7", tags: []tag{{tagVLAN, 0xe000}}},
	{name: "8100:1", tags: []tag{{tagVLAN, 1}}},
	{name: "8100:5", tags: []tag{{tagVLAN, 5}}},
	{name: "9100:0", tags: []tag{{0x9100, 0}}},
	{name: "snap", snap: true},
	{name: "8100:0 snap", tags: []tag{{tagVLAN, 0}}, snap: true},
	{name: "type 88cc", other: 0x88cc},
	{name: "type 0600", other: 0x0600},
}

// around wraps a bare frame anew.
func (w wrapping) around(frame []byte) []byte {
	out := bytes.Clone(frame[:12])
	for _, t := range w.tags {
		out = wire.BigEndian.AppendUint16(wire.BigEndian.AppendUint16(out, t.etherType), t.info)
	}
	etherType, payload := frame[12:14], frame[14:]
	switch {
	case w.snap:
		out = wire.BigEndian.AppendUint16(out, uint16(len(payload)+8))
		out = append(append(out, 0xaa, 0xaa, 3, 0, 0, 0), etherType...)
	case w.other != 0:
		out = wire.BigEndian.AppendUint16(out, w.other)
	default:
		out = append(out, etherType...)
	}
	return append(out, payload...)
}

// lie is a frame by which a hostile container says what is not so.
type lie struct {
	name  string
	frame func(evil, evil6, friend, friend6, victim, victim6 end) []byte
}

var lies = []lie{
	{"ARP", func(evil, _, friend, _, victim, _ end) []byte {
		return arpReply(evil.mac, end{evil.mac, friend.addr}, victim)
	}},
	{"neighbour advertisement", func(_, evil6, _, friend6, _, victim6 end) []byte {
		return advertisement(evil6, end{evil6.mac, friend6.addr}, victim6)
	}},
	{"router advertisement", func(_, evil6, _, _, _, victim6 end) []byte {
		b := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}
		return ethernet(evil6.mac, victim6.mac, 0x86dd, ipv6(evil6.addr, victim6.addr, 58, 2, b))
	}},
	{"IPv4 source", func(evil, _, friend, _, victim, _ end) []byte { return datagram(evil.mac, friend, victim) }},
	{"IPv6 source", func(evil, _, _, friend6, _, victim6 end) []byte { return datagram(evil.mac, friend6, victim6) }},
}

// hostile are the parts of a test with raw frames.
type hostile struct {
	evil    *nstest.NS
	victims []frameVictim
	self    end
	self6   end
	friend  end
	friend6 end
}

type frameVictim struct {
	name      string
	own, own6 end
	seen      *tap
}

// tap collects the ends of the frames that come to an interface.
type tap struct {
	fd   int
	seen map[string]bool
	all  [][]byte
}

// listen sees the frames that come to an interface.
func listen(t *testing.T, ns *nstest.NS, iface string) *tap {
	t.Helper()
	x := &tap{seen: map[string]bool{}}
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		all := wire.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if x.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all)); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(x.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(x.fd); err != nil {
			t.Error(err)
		}
	})
	return x
}

const markLength = 8

// mark is the end of a frame, behind all that a receiver reads.
func mark(n int) []byte { return fmt.Appendf(nil, "#%0*d", markLength-1, n) }

// cut reports whether a frame came as long as its IP header says: bridges that
// show their frames to iptables take off what is behind.
func (x *tap) cut(frame []byte) bool {
	return slices.ContainsFunc(x.all, func(b []byte) bool { return len(b) > 28 && bytes.HasPrefix(frame, b) })
}

// has reads what came and reports whether the frame with a mark did.
func (x *tap) has(t *testing.T, n int) bool {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		size, from, err := unix.Recvfrom(x.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return x.seen[string(mark(n))]
		}
		if err != nil {
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING && size >= markLength {
			x.seen[string(buf[size-markLength:size])] = true
			x.all = append(x.all, bytes.Clone(buf[:size]))
		}
	}
}

// send sends frames by eth0 of a namespace, all from one processor: they come in
// the order in which they were sent.
func send(t *testing.T, ns *nstest.NS, frames [][]byte) {
	t.Helper()
	err := ns.Do(func() (err error) {
		var all, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return err
		}
		for cpu := 0; one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &all)) }()
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				return errors.Join(err, unix.Close(fd))
			}
		}
		return unix.Close(fd)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// newHostile makes a network of three containers, one of them hostile.
func newHostile(t *testing.T, w *world, args ...string) *hostile {
	t.Helper()
	w.dual(t, "web", 81, args...)
	for _, c := range []string{"victim", "friend", "evil"} {
		w.run(t, c, "web")
	}
	bridge := "nft-" + w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", "web")[:11]
	mac, err := net.ParseMAC(w.Exec(t, "cat", "/sys/class/net/"+bridge+"/address"))
	if err != nil {
		t.Fatal(err)
	}
	return &hostile{
		evil: w.engine.NS(t, "evil"),
		self: w.end(t, "evil", "web", false), self6: w.end(t, "evil", "web", true),
		friend: w.end(t, "friend", "web", false), friend6: w.end(t, "friend", "web", true),
		victims: []frameVictim{
			{"neighbour", w.end(t, "victim", "web", false), w.end(t, "victim", "web", true), listen(t, w.engine.NS(t, "victim"), "eth0")},
			{"host", end{mac, netip.MustParseAddr("10.81.0.1")}, end{mac, netip.MustParseAddr("fd00:81::1")}, listen(t, w.Host, bridge)},
		},
	}
}

// arriving sends frames to a victim and reports which of them arrive.
func (h *hostile) arriving(t *testing.T, v frameVictim, frames [][]byte, first int) []bool {
	t.Helper()
	for i := range frames {
		frames[i] = append(append(frames[i], make([]byte, max(0, 60-len(frames[i])))...), mark(first+i)...)
	}
	last := first + len(frames)
	honest := append(arpReply(h.self.mac, h.self, v.own), append(make([]byte, 18), mark(last)...)...)
	send(t, h.evil, append(frames, honest))
	holdsSoon(t, "an honest frame comes to the "+v.name, func() bool { return v.seen.has(t, last) })
	out := make([]bool, len(frames))
	for i := range frames {
		out[i] = v.seen.has(t, first+i) || v.seen.cut(frames[i])
	}
	return out
}

// TestA70Frames: whatever a hostile container wraps its lies in, they come to
// nobody. Where nobody looks all of them arrive, so that the test can fail.
func TestA70Frames(t *testing.T) {
	for _, level := range []string{"on", "strict", "off"} {
		t.Run(level, func(t *testing.T) {
			w := newWorld(t)
			h := newHostile(t, w, "-o", "nftnet.antispoof="+level)
			next := 1
			for _, v := range h.victims {
				var names []string
				var frames [][]byte
				for _, wrap := range wrappings {
					for _, l := range lies {
						names = append(names, l.name+", "+wrap.name)
						frames = append(frames, wrap.around(l.frame(h.self, h.self6, h.friend, h.friend6, v.own, v.own6)))
					}
				}
				for i, arrives := range h.arriving(t, v, frames, next) {
					if arrives != (level == "off") {
						t.Errorf("%s to the %s arrives: %v", names[i], v.name, arrives)
					}
				}
				next += len(frames) + 1
			}
		})
	}
}

// TestA70RandomTags: no stack of tags that somebody may think of carries
// anything, where the network's containers have no VLANs; honest frames arrive.
func TestA70RandomTags(t *testing.T) {
	const seed, tries = 70, 400
	w := newWorld(t)
	h := newHostile(t, w)
	random := rand.New(rand.NewPCG(seed, seed))
	types := []uint16{tagVLAN, tagProvider, 0x9100, 0x9200, 0x8863, 0x8864, 0x88cc, 0x88e5, 0x8847, 0x894f, 0x0600}
	next := 1
	for _, v := range h.victims {
		var texts []string
		var frames [][]byte
		for range tries {
			wrap := wrapping{snap: random.IntN(4) == 0}
			for range random.IntN(4) {
				wrap.tags = append(wrap.tags, tag{types[random.IntN(len(types))], uint16(random.IntN(1<<16)) & uint16(-random.IntN(2))})
			}
			if len(wrap.tags) == 0 && !wrap.snap {
				wrap.other = uint16(0x0600 + random.IntN(0xfa00))
			}
			if wrap.other == 0x0800 || wrap.other == 0x0806 || wrap.other == 0x86dd {
				continue
			}
			l := lies[random.IntN(len(lies))]
			texts = append(texts, fmt.Sprintf("%s, %+v", l.name, wrap))
			frames = append(frames, wrap.around(l.frame(h.self, h.self6, h.friend, h.friend6, v.own, v.own6)))
		}
		for i, arrives := range h.arriving(t, v, frames, next) {
			if arrives {
				t.Errorf("seed %d: %s arrives at the %s", seed, texts[i], v.name)
			}
		}
		next += len(frames) + 1
	}
}

// TestA70LinkLocalDestination: frames to the addresses that bridges keep for
// themselves (IEEE 802.1D, 7.12.6) go to the host past the table of family
// bridge, whatever antispoof says.
func TestA70LinkLocalDestination(t *testing.T) {
	w := newWorld(t)
	h := newHostile(t, w)
	host := h.victims[1]
	hears := w.hears(t, 53)
	var frames [][]byte
	for last := range 16 {
		to := end{net.HardwareAddr{1, 0x80, 0xc2, 0, 0, byte(last)}, host.own.addr}
		for _, from := range []end{h.friend, {h.self.mac, netip.AddrFrom4([4]byte{127, 0, 0, byte(last)})}} {
			frames = append(frames, datagram(h.self.mac, from, to))
		}
	}
	send(t, h.evil, append(frames, datagram(h.self.mac, h.self, host.own)))
	var got []string
	holdsSoon(t, "an honest datagram arrives", func() bool {
		got = append(got, hears()...)
		return len(got) > 0
	})
	if len(got) != 1 || !strings.HasPrefix(got[0], h.self.addr.String()+":") {
		t.Errorf("the host's server hears %v", got)
	}
}

// TestA71LoopbackSource: nobody speaks to the host as the host itself does, by
// whatever wrapping and to whichever of its addresses.
func TestA71LoopbackSource(t *testing.T) {
	for _, level := range []string{"on", "off"} {
		t.Run(level, func(t *testing.T) {
			w := newWorld(t)
			h := newHostile(t, w, "-o", "nftnet.antispoof="+level)
			host := h.victims[1]
			hears := w.hears(t, 53)
			var frames [][]byte
			for _, to := range []netip.Addr{host.own.addr, w.HostAddr4, netip.MustParseAddr("127.0.0.1")} {
				for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9", "127.255.255.254"} {
					for _, wrap := range wrappings {
						frames = append(frames, wrap.around(datagram(h.self.mac, end{h.self.mac, netip.MustParseAddr(from)}, end{host.own.mac, to})))
					}
				}
			}
			send(t, h.evil, append(frames, datagram(h.self.mac, h.self, host.own)))
			var got []string
			holdsSoon(t, "an honest datagram arrives", func() bool {
				got = append(got, hears()...)
				return strings.Contains(strings.Join(got, " "), h.self.addr.String()+":")
			})
			if len(got) != 1 {
				t.Errorf("the host's server hears %v", got)
			}
		})
	}
}

// hears serves UDP on the host and returns from whom datagrams came since the
// last call.
func (w *world) hears(t *testing.T, port int) (read func() []string) {
	t.Helper()
	var conn *net.UDPConn
	err := w.Host.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() []string {
		var out []string
		buf := make([]byte, 100)
		for conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)) == nil {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			out = append(out, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).String())
		}
		return out
	}
}

// TestA70Named: what the user names passes, and nothing more. A tag of VLAN 0
// would be read as none.
func TestA70Named(t *testing.T) {
	w := newWorld(t)
	h := newHostile(t, w, "-o", "nftnet.ethertypes=vlan,0x88cc")
	v := h.victims[0]
	frames, want := [][]byte{}, []bool{}
	for _, wrap := range wrappings {
		frames = append(frames, wrap.around(arpReply(h.self.mac, h.self, v.own)))
		outer := append(wrap.tags, tag{})[0]
		tagged := outer.etherType == tagVLAN && outer.info&0xfff != 0
		want = append(want, tagged || wrap.other == 0x88cc || wrap.name == "bare")
	}
	for i, arrives := range h.arriving(t, v, frames, 1) {
		if arrives != want[i] {
			t.Errorf("a frame with %s arrives: %v", wrappings[i].name, arrives)
		}
	}
}

// TestA70EndpointNames: the types of one container on a network are its own.
func TestA70EndpointNames(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.engine.Docker(t, "create", "--name", "special", "--network", "none", w.image, "/peer", "serve", "-http", ":80")
	w.engine.Docker(t, "network", "disconnect", "none", "special")
	w.engine.Docker(t, "network", "connect", "--driver-opt", "nftnet.ethertypes=0x88cc", "web", "special")
	w.engine.Docker(t, "start", "special")
	w.run(t, "ordinary", "web")
	w.run(t, "victim", "web")
	h := &hostile{}
	v := frameVictim{"neighbour", w.end(t, "victim", "web", false), w.end(t, "victim", "web", true), listen(t, w.engine.NS(t, "victim"), "eth0")}
	for i, c := range []string{"special", "ordinary"} {
		h.evil, h.self = w.engine.NS(t, c), w.end(t, c, "web", false)
		frame := wrapping{other: 0x88cc}.around(arpReply(h.self.mac, h.self, v.own))
		if arrives := h.arriving(t, v, [][]byte{frame}, 1+10*i)[0]; arrives != (c == "special") {
			t.Errorf("LLDP of the %s container arrives: %v", c, arrives)
		}
	}
}

// TestA70Keepalived: two containers share a virtual address and its link address,
// as VRRP has it (RFC 5798, 7.3), and a third one may have neither.
func TestA70Keepalived(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	virtual := end{net.HardwareAddr{0, 0, 0x5e, 0, 1, 0x33}, netip.MustParseAddr("10.81.0.200")}
	for _, c := range []string{"first", "second"} {
		w.engine.Docker(t, "create", "--name", c, "--network", "none", w.image, "/peer", "serve", "-http", ":80")
		w.engine.Docker(t, "network", "disconnect", "none", c)
		w.engine.Docker(t, "network", "connect", "--driver-opt", "nftnet.addresses="+virtual.addr.String()+" "+virtual.mac.String(), "web", c)
		w.engine.Docker(t, "start", c)
	}
	w.run(t, "client", "web")
	w.run(t, "other", "web")
	client := w.end(t, "client", "web", false)
	holds := func(c string) {
		ns := w.engine.NS(t, c)
		// As keepalived does: eth0 must not say that the virtual address is its own.
		ns.Exec(t, "sysctl", "-qw", "net.ipv4.conf.eth0.arp_ignore=1", "net.ipv4.conf.eth0.arp_announce=2")
		ns.Exec(t, "ip", "link", "add", "link", "eth0", "name", "vrrp.51", "address", virtual.mac.String(), "type", "macvlan", "mode", "bridge")
		ns.Exec(t, "ip", "addr", "add", virtual.addr.String()+"/32", "dev", "vrrp.51")
		ns.Exec(t, "ip", "link", "set", "vrrp.51", "up")
		send(t, ns, [][]byte{arpReply(virtual.mac, virtual, client)})
	}
	server := func() string { return w.from(t, "client", "client to the virtual address", virtual.addr, 80).Host }
	host := func(c string) string { return w.engine.Docker(t, "inspect", "-f", "{{.Config.Hostname}}", c) }
	holds("first")
	if got := server(); got != host("first") {
		t.Errorf("%s answers, the first one has the address", got)
	}
	w.engine.NS(t, "first").Exec(t, "ip", "link", "del", "vrrp.51")
	holds("second")
	if got := server(); got != host("second") {
		t.Errorf("%s answers, the second one has the address", got)
	}
	h := &hostile{evil: w.engine.NS(t, "other"), self: w.end(t, "other", "web", false)}
	v := frameVictim{"client", client, end{}, listen(t, w.engine.NS(t, "client"), "eth0")}
	lies := [][]byte{arpReply(virtual.mac, virtual, client), arpReply(h.self.mac, end{h.self.mac, virtual.addr}, client)}
	for i, arrives := range h.arriving(t, v, lies, 1) {
		if arrives {
			t.Errorf("frame %d of a container that may not have the virtual address arrives", i)
		}
	}
}

// TestA70SavedRuleset: nft lists the table as it loads it again.
func TestA70SavedRuleset(t *testing.T) {
	w := newWorld(t)
	newHostile(t, w, "-o", "nftnet.ethertypes=vlan,8021ad,llc,0x88cc")
	saved := w.Exec(t, "nft", "-s", "list", "table", "bridge", "nftnet")
	ns := nstest.NewNS(t, "saved")
	path := filepath.Join(w.Dir, "saved.nft")
	if err := os.WriteFile(path, []byte(saved), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Exec(t, "nft", "-f", path)
	if again := ns.Exec(t, "nft", "-s", "list", "table", "bridge", "nftnet"); again != saved {
		t.Errorf("loaded again:\n%s\nit was:\n%s", again, saved)
	}
}
