package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// web makes the world of most rows: network web with a container that
// publishes TCP 8080 and UDP 5353, and TCP 8090 on 127.0.0.1 alone.
func web(t *testing.T) *world {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8090:80")
	return w
}

func TestA02LoopbackPortFromHost(t *testing.T) {
	w := web(t)
	reaches(t, w.Host, "host by 127.0.0.1", "http://127.0.0.1:8090/")
	for _, a := range []netip.Addr{w.HostAddr4, w.LANAddr4} {
		if _, err := w.LAN.TryGet(url(a, 8090), silence); err == nil {
			t.Errorf("LAN reaches %v:8090, which is published on 127.0.0.1 alone", a)
		}
	}
}

// TestA01LoopbackPortFromLAN is the other side of A02: a neighbour that routes
// 127.0.0.1 to the docker host.
func TestA01LoopbackPortFromLAN(t *testing.T) {
	w := web(t)
	w.LAN.Exec(t, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	w.LAN.Exec(t, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
	w.LAN.Exec(t, "ip", "route", "add", "127.0.0.1/32", "via", w.HostAddr4.String(), "src", w.LANAddr4.String())
	timesOut(t, w.LAN, "LAN to 127.0.0.1 by the host", "http://127.0.0.1:8090/")
}

func TestA03A04DirectAccessFromLAN(t *testing.T) {
	w := web(t)
	w.AddRouteOnLAN(t, "10.81.0.0/24")
	w.AddRouteOnLAN(t, "fd00:81::/64")
	for _, v6 := range []bool{false, true} {
		c := w.address(t, "c1", "web", v6)
		t.Run(fmt.Sprintf("A03 published port, %s", family(c)), func(t *testing.T) {
			timesOut(t, w.LAN, "LAN to the container", url(c, 80))
		})
		t.Run(fmt.Sprintf("A04 unpublished port, %s", family(c)), func(t *testing.T) {
			timesOut(t, w.LAN, "LAN to the container", url(c, 81))
		})
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func TestA08PublishedPortFromLAN(t *testing.T) {
	w := web(t)
	for host, lan := range map[netip.Addr]netip.Addr{w.HostAddr4: w.LANAddr4, w.HostAddr6: w.LANAddr6} {
		r := reaches(t, w.LAN, "LAN, "+family(host), url(host, 8080))
		if r.Client != lan {
			t.Errorf("%s: the container sees client %v, want the neighbour's %v", family(host), r.Client, lan)
		}
		u, err := w.LAN.UDP(netip.AddrPortFrom(host, 5353).String(), 2*time.Second)
		if err != nil || u.Client != lan {
			t.Errorf("%s: UDP answer %+v, %v; want one that saw client %v", family(host), u, err, lan)
		}
	}
}

// hostAddrs are the addresses by which a host reaches itself.
func hostAddrs(w *world) []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), w.HostAddr4, w.HostAddr6,
		netip.MustParseAddr("10.81.0.1"), netip.MustParseAddr("fd00:81::1"),
	}
}

func TestA10PublishedPortFromHost(t *testing.T) {
	w := web(t)
	for _, a := range hostAddrs(w) {
		r := reaches(t, w.Host, "host", url(a, 8080))
		// Only loopback addresses may be hidden: they mean nothing to a container.
		if !a.IsLoopback() && r.Client != a && !strings.HasPrefix(r.Client.String(), "10.81.0.1") && r.Client != w.HostAddr4 && r.Client != w.HostAddr6 {
			t.Errorf("host by %v: the container sees %v, want an address of the host", a, r.Client)
		}
		if u, err := w.Host.UDP(netip.AddrPortFrom(a, 5353).String(), 2*time.Second); err != nil {
			t.Errorf("host by %v: no UDP answer: %v (%+v)", a, err, u)
		}
	}
}

func TestA10IPv4OnlyContainer(t *testing.T) {
	w := newWorld(t)
	w.network(t, "web", "--subnet", "10.81.0.0/24")
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp")
	for _, a := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), w.HostAddr4, w.HostAddr6} {
		reaches(t, w.Host, "host", url(a, 8080))
		if _, err := w.Host.UDP(netip.AddrPortFrom(a, 5353).String(), 2*time.Second); err != nil {
			t.Errorf("host by %v: no UDP answer: %v", a, err)
		}
	}
	// A09: a neighbour of the family that the container lacks.
	reaches(t, w.LAN, "LAN by IPv6", url(w.HostAddr6, 8080))
}

// bothBridgeNF runs a row with bridged frames going through the IP hooks and
// without.
func bothBridgeNF(t *testing.T, w *world, row func(t *testing.T)) {
	for _, v := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+v, func(t *testing.T) {
			for _, name := range []string{"iptables", "ip6tables"} {
				w.Host.Exec(t, "sysctl", "-qw", "net.bridge.bridge-nf-call-"+name+"="+v)
			}
			row(t)
		})
	}
}

func TestA13A14OtherNetwork(t *testing.T) {
	w := web(t)
	w.dual(t, "other", 82)
	w.run(t, "c2", "other")
	bothBridgeNF(t, w, func(t *testing.T) {
		for _, host := range []netip.Addr{
			w.HostAddr4, w.HostAddr6, netip.MustParseAddr("10.82.0.1"), netip.MustParseAddr("fd00:82::1"),
		} {
			if _, err := w.engine.Peer(t, "c2", "http", url(host, 8080)); err != nil {
				t.Errorf("A13: container of another network by %v: %v", host, err)
			}
			if _, err := w.engine.Peer(t, "c2", "udp", netip.AddrPortFrom(host, 5353).String()); err != nil {
				t.Errorf("A13: container of another network by %v, UDP: %v", host, err)
			}
		}
		for _, v6 := range []bool{false, true} {
			c := w.address(t, "c1", "web", v6)
			for _, port := range []int{80, 81} {
				if r, err := w.engine.Peer(t, "c2", "http", "-timeout", "1500ms", url(c, port)); err == nil {
					t.Errorf("A14: container of another network reaches %v:%d: %+v", c, port, r)
				} else if !isTimeout(err) {
					t.Errorf("A14: %v, a time-out must be seen", err)
				}
			}
		}
	})
}

func TestA11A12Hairpin(t *testing.T) {
	w := web(t)
	w.run(t, "c2", "web")
	bothBridgeNF(t, w, func(t *testing.T) {
		for _, from := range []string{"c1", "c2"} {
			for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
				if _, err := w.engine.Peer(t, from, "http", url(host, 8080)); err != nil {
					t.Errorf("%s by %v: %v", from, host, err)
				}
				if _, err := w.engine.Peer(t, from, "udp", netip.AddrPortFrom(host, 5353).String()); err != nil {
					t.Errorf("%s by %v, UDP: %v", from, host, err)
				}
			}
		}
	})
}

func TestA20MasqueradeOff(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", "com.docker.network.bridge.enable_ip_masquerade=false")
	w.AddRouteOnLAN(t, "10.81.0.0/24")
	w.AddRouteOnLAN(t, "fd00:81::/64")
	w.run(t, "c1", "web", "-p", "8080:80")
	nstest.Serve(t, w.LAN, ":80", ":53")
	for _, lan := range []netip.Addr{w.LANAddr4, w.LANAddr6} {
		c := w.address(t, "c1", "web", lan.Is6())
		r, err := w.engine.Peer(t, "c1", "http", url(lan, 80))
		if err != nil || r.Client != c {
			t.Errorf("%s: the neighbour sees %v, %v; want the container's own %v", family(lan), r.Client, err, c)
		}
	}
	reaches(t, w.LAN, "LAN to the published port", url(w.HostAddr4, 8080))
}

// TestA38GatewayMoves: the ports of a container with two networks follow its
// gateway, and are never published twice.
func TestA38GatewayMoves(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "a1", 81)
	w.dual(t, "a2", 82)
	w.run(t, "c1", "a2", "-p", "8080:80", "-p", "5353:53/udp")
	leadsTo := func(subnet string) {
		t.Helper()
		reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
		reaches(t, w.LAN, "LAN", url(w.HostAddr6, 8080))
		list := w.published(t)
		if len(list) != 4 {
			t.Errorf("%d ports are published, want 4", len(list))
		}
		for _, p := range list {
			to := netip.MustParseAddrPort(p.Container)
			if to.Addr().Is4() && !strings.HasPrefix(p.Container, subnet) {
				t.Errorf("%s leads to %s, want %s…", p.Host, p.Container, subnet)
			}
		}
	}
	leadsTo("10.82.")
	w.engine.Docker(t, "network", "connect", "a1", "c1")
	leadsTo("10.81.")
	w.engine.Docker(t, "network", "disconnect", "a1", "c1")
	leadsTo("10.82.")
	w.engine.Docker(t, "network", "connect", "a1", "c1")
	w.engine.Docker(t, "restart", "-t", "1", "c1")
	w.engine.WaitLog(t, "c1", "ready")
	leadsTo("10.81.")
	w.engine.Docker(t, "rm", "-f", "c1")
	if list := w.published(t); len(list) != 0 {
		t.Errorf("%d ports are left", len(list))
	}
}
