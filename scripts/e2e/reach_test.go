package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// reachBound is how long it may take before somebody is reached whose address
// had another MAC. It is far below the time after which the kernel itself
// doubts a neighbour.
const reachBound = 2 * time.Second

// TestA75ReusedAddress: a container gets the address of one that is gone, with
// another MAC, and everybody who knew the old one reaches it.
func TestA75ReusedAddress(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c2", "web")
	c2 := w.engine.NS(t, "c2")
	v4, v6 := netip.MustParseAddr("10.81.0.50"), netip.MustParseAddr("fd00:81::50")
	ways := append(w.lanWays(8080),
		way{"host by IPv4", w.Host, url(v4, 80)}, way{"host by IPv6", w.Host, url(v6, 80)},
		way{"neighbour by IPv4", c2, url(v4, 80)}, way{"neighbour by IPv6", c2, url(v6, 80)})
	for _, mac := range []string{"02:42:00:00:00:05", "02:42:00:00:00:04", "02:42:00:00:00:06"} {
		w.runAs(t, "c1", "web", v4, v6, mac)
		answer(t, reachBound, "with MAC "+mac, ways)
		w.engine.Docker(t, "rm", "-f", "c1")
	}
}

// runAs is run with addresses of the user's choice, and port 8080 published. The
// client asks a later engine than Debian's for a link address.
func (w *world) runAs(t *testing.T, name, network string, v4, v6 netip.Addr, mac string) {
	t.Helper()
	w.engine.Create(t, name, map[string]any{
		"Image": w.image, "Cmd": []string{"/peer", "serve", "-http", ":80"}, "MacAddress": mac,
		"ExposedPorts": map[string]any{"80/tcp": struct{}{}},
		"HostConfig": map[string]any{
			"NetworkMode":  network,
			"PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": "8080"}}},
		},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{network: map[string]any{
			"IPAMConfig": map[string]any{"IPv4Address": v4, "IPv6Address": v6}, "MacAddress": mac,
		}}},
	})
	w.engine.Docker(t, "start", name)
	w.engine.WaitLog(t, name, "ready")
	if have := w.engine.Docker(t, "exec", name, "cat", "/sys/class/net/eth0/address"); have != mac {
		t.Fatalf("%s has MAC %s, want %s", name, have, mac)
	}
}

// TestA75FirstIPv6Packet: the neighbour asks the first container of a new
// network as soon as it is there, and its first packet is answered. The host
// looks for duplicates of new addresses longer than a test takes.
func TestA75FirstIPv6Packet(t *testing.T) {
	w := newWorld(t)
	w.Host.Exec(t, "sysctl", "-qw", "net.ipv6.conf.default.dad_transmits=20")
	for n := 81; n < 83; n++ {
		name := fmt.Sprintf("n%d", n)
		w.dual(t, name, n)
		w.run(t, "in-"+name, name, "-p", fmt.Sprintf("80%d:80", n))
		lost, err := resent(w.LAN, netip.AddrPortFrom(w.HostAddr6, uint16(8000+n)))
		if err != nil || lost > 0 {
			t.Errorf("network %s: %d packets of the first connection were sent again, %v", name, lost, err)
		}
		for _, i := range ifaces(t, w.Host) {
			for _, a := range i.Addrs {
				if strings.HasPrefix(i.Name, "nft-") && a.Tentative {
					t.Errorf("network %s: the bridge's %s cannot be used yet", name, a.Local)
				}
			}
		}
	}
}

// resent connects and returns how many packets were sent again for that.
func resent(from *nstest.NS, to netip.AddrPort) (packets uint32, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var inner error
	if err := raw.Control(func(fd uintptr) { info, inner = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return info.Total_retrans, nil
}

// TestA75HostGetsIPv6: the host has no IPv6 while its containers start, and has
// it later.
func TestA75HostGetsIPv6(t *testing.T) {
	w := emptyWorld(t)
	w.hostIPv6(t, false)
	w.startDriver(t)
	w.startEngine(t)
	w.dual(t, "web", 81)
	w.network(t, "plain", "--subnet", "10.82.0.0/24")
	w.run(t, "c1", "web", "-p", "8081:80", "-p", "5351:53/udp")
	w.run(t, "c2", "plain", "-p", "8082:80", "-p", "5352:53/udp")
	v4 := []way{
		{"LAN to c1", w.LAN, url(w.HostAddr4, 8081)}, {"LAN to c2", w.LAN, url(w.HostAddr4, 8082)},
		{"host to c1", w.Host, "http://127.0.0.1:8081/"}, {"host to c2", w.Host, "http://127.0.0.1:8082/"},
	}
	v6 := []way{
		{"LAN to c1 by IPv6", w.LAN, url(w.HostAddr6, 8081)}, {"LAN to c2 by IPv6", w.LAN, url(w.HostAddr6, 8082)},
		{"host to c1 by [::1]", w.Host, "http://[::1]:8081/"}, {"host to c2 by [::1]", w.Host, "http://[::1]:8082/"},
	}
	for round := range 2 {
		answer(t, repairBound, fmt.Sprintf("IPv4, without IPv6 for the %d. time", round+1), v4)
		w.hostIPv6(t, true)
		if !answer(t, repairBound, fmt.Sprintf("IPv6, on for the %d. time", round+1), v6) {
			return
		}
		for _, port := range []uint16{5351, 5352} {
			for _, a := range []netip.Addr{w.HostAddr6, netip.IPv6Loopback()} {
				from := w.LAN
				if a.IsLoopback() {
					from = w.Host
				}
				if _, err := from.UDP(netip.AddrPortFrom(a, port).String(), repairBound); err != nil {
					t.Errorf("UDP by %v: %v", a, err)
				}
			}
		}
		for _, p := range []string{"[::]:8081", "[::]:8082", "[::]:5351", "[::]:5352"} {
			if out := w.nftnet(t, "ports"); !strings.Contains(out, p) {
				t.Errorf("nftnet ports does not show %s:\n%s", p, out)
			}
		}
		w.hostIPv6(t, false)
	}
}

// hostIPv6 switches IPv6 of the whole host, as a setting at boot does or an
// administrator.
func (w *world) hostIPv6(t *testing.T, on bool) {
	t.Helper()
	if !on {
		w.Host.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
		return
	}
	w.Host.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
	w.Host.Exec(t, "ip", "addr", "add", w.HostAddr6.String()+"/64", "dev", "eth0", "nodad")
}

// servedBy waits until the neighbour and the host reach a published port by
// IPv6, and the container sees the neighbour as said.
func (w *world) servedBy(t *testing.T, what string, client func(netip.Addr) bool) bool {
	t.Helper()
	return within(t, repairBound, what, func() error {
		r, err := w.LAN.TryGet(url(w.HostAddr6, 8080), 300*time.Millisecond)
		if err != nil {
			return fmt.Errorf("LAN: %w", err)
		}
		if !client(r.Client) {
			return fmt.Errorf("the container sees client %v", r.Client)
		}
		if _, err := w.Host.TryGet("http://[::1]:8080/", 300*time.Millisecond); err != nil {
			return fmt.Errorf("host by [::1]: %w", err)
		}
		return nil
	})
}

// TestA75ContainerWithoutIPv6: a container of a network of both families has
// IPv6 switched off, so the port socket serves clients of IPv6 by its IPv4
// address.
func TestA75ContainerWithoutIPv6(t *testing.T) {
	bySocket := func(client netip.Addr) bool { return client.Is4() }
	t.Run("from the start", func(t *testing.T) {
		w := newWorld(t)
		w.dual(t, "web", 81)
		w.run(t, "c1", "web", "-p", "8080:80", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1")
		reaches(t, w.LAN, "LAN by IPv4", url(w.HostAddr4, 8080))
		w.servedBy(t, "without IPv6", bySocket)
	})
	t.Run("later", func(t *testing.T) {
		w := newWorld(t)
		w.dual(t, "web", 81)
		w.run(t, "c1", "web", "-p", "8080:80")
		c1, own := w.engine.NS(t, "c1"), w.address(t, "c1", "web", true)
		byKernel := func(client netip.Addr) bool { return client == w.LANAddr6 }
		w.servedBy(t, "with IPv6", byKernel)
		for range 2 {
			c1.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
			if !w.servedBy(t, "IPv6 switched off inside", bySocket) {
				return
			}
			c1.Exec(t, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
			c1.Exec(t, "ip", "addr", "add", own.String()+"/64", "dev", "eth0", "nodad")
			c1.Exec(t, "ip", "route", "add", "default", "via", "fd00:81::1")
			w.servedBy(t, "IPv6 switched on inside", byKernel)
		}
	})
}
