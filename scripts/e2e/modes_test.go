package e2e

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

const (
	mode4 = "com.docker.network.bridge.gateway_mode_ipv4="
	mode6 = "com.docker.network.bridge.gateway_mode_ipv6="
)

// routes lets the neighbour try to reach containers by their own addresses.
func (w *world) routes(t *testing.T, ns ...int) {
	t.Helper()
	for _, n := range ns {
		w.AddRouteOnLAN(t, fmt.Sprintf("10.%d.0.0/24", n))
		w.AddRouteOnLAN(t, fmt.Sprintf("fd00:%d::/64", n))
	}
}

// bothFamilies runs a row with a container's address of each family.
func (w *world) bothFamilies(t *testing.T, container, network string, row func(t *testing.T, a netip.Addr)) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		a := w.address(t, container, network, v6)
		t.Run(family(a), func(t *testing.T) { row(t, a) })
	}
}

// pings asserts whether echo requests from a namespace are answered.
func pings(t *testing.T, from *nstest.NS, a netip.Addr, want bool) {
	t.Helper()
	if _, err := from.Try("busybox", "ping", "-c", "1", "-W", "1", a.String()); (err == nil) != want {
		t.Errorf("ping %v: %v, want an answer: %v", a, err, want)
	}
}

// from asks from a container by HTTP.
func (w *world) from(t *testing.T, container, what string, a netip.Addr, port int) nstest.Reply {
	t.Helper()
	r, err := w.engine.Peer(t, container, "http", url(a, port))
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return r
}

// neverFrom asserts that nothing comes back to a container.
func (w *world) neverFrom(t *testing.T, container, what string, a netip.Addr, port int) {
	t.Helper()
	if r, err := w.engine.Peer(t, container, "http", "-timeout", silence.String(), url(a, port)); err == nil || !isTimeout(err) {
		t.Errorf("%s: %+v, %v, a time-out must be seen", what, r, err)
	}
}

func TestA05TrustedInterface(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", "com.docker.network.bridge.trusted_host_interfaces=eth0")
	w.dual(t, "other", 82, "-o", "com.docker.network.bridge.trusted_host_interfaces=lan7")
	w.run(t, "c1", "web", "-p", "8080:80")
	w.run(t, "c2", "other", "-p", "8082:80")
	w.routes(t, 81, 82)
	w.bothFamilies(t, "c1", "web", func(t *testing.T, a netip.Addr) {
		r := reaches(t, w.LAN, "LAN to the published port of the container", url(a, 80))
		if r.Client != w.LANAddr4 && r.Client != w.LANAddr6 {
			t.Errorf("the container sees %v", r.Client)
		}
		timesOut(t, w.LAN, "LAN to an unpublished port", url(a, 81))
	})
	w.bothFamilies(t, "c2", "other", func(t *testing.T, a netip.Addr) {
		timesOut(t, w.LAN, "LAN, by an interface that is not trusted", url(a, 80))
	})
	reaches(t, w.LAN, "LAN by the host's port", url(w.HostAddr4, 8080))
}

func TestA06Unprotected(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", mode4+"nat-unprotected", "-o", mode6+"nat-unprotected")
	w.run(t, "c1", "web", "-p", "8080:80")
	w.dual(t, "other", 82)
	w.run(t, "c2", "other")
	w.routes(t, 81)
	w.bothFamilies(t, "c1", "web", func(t *testing.T, a netip.Addr) {
		reaches(t, w.LAN, "published", url(a, 80))
		reaches(t, w.LAN, "unpublished", url(a, 81))
		pings(t, w.LAN, a, true)
		w.from(t, "c2", "a container of another network", a, 81)
	})
	reaches(t, w.LAN, "LAN by the host's port", url(w.HostAddr4, 8080))
	nstest.Serve(t, w.LAN, ":80", "")
	if r := w.from(t, "c1", "container to LAN", w.LANAddr4, 80); r.Client != w.HostAddr4 {
		t.Errorf("the neighbour sees %v, want the host's address", r.Client)
	}
}

func TestA07A15Routed(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", mode4+"routed", "-o", mode6+"routed")
	w.dual(t, "other", 82)
	w.run(t, "c1", "web", "-p", "8080:80")
	w.run(t, "c2", "other", "-p", "8082:80")
	w.routes(t, 81)
	nstest.Serve(t, w.LAN, ":80", "")
	w.bothFamilies(t, "c1", "web", func(t *testing.T, a netip.Addr) {
		pings(t, w.LAN, a, true)
		r := reaches(t, w.LAN, "A07: LAN to the published port", url(a, 80))
		if r.Client != w.LANAddr4 && r.Client != w.LANAddr6 {
			t.Errorf("A07: the container sees %v, want the neighbour's own address", r.Client)
		}
		timesOut(t, w.LAN, "A07: LAN to an unpublished port", url(a, 81))
		lan := w.LANAddr4
		if a.Is6() {
			lan = w.LANAddr6
		}
		if r := w.from(t, "c1", "A07: container to LAN", lan, 80); r.Client != a {
			t.Errorf("A07: the neighbour sees %v, want the container's own %v", r.Client, a)
		}
		w.from(t, "c2", "A15: container behind NAT to a routed one, published", a, 80)
		w.neverFrom(t, "c2", "A15: unpublished", a, 81)
	})
	w.bothFamilies(t, "c2", "other", func(t *testing.T, a netip.Addr) {
		w.neverFrom(t, "c1", "A15: routed container to one behind NAT", a, 80)
	})
	if _, err := w.LAN.TryGet(url(w.HostAddr4, 8080), silence); err == nil {
		t.Error("a routed network has no port on the host, yet 8080 answers")
	}
	if out := w.nftnet(t, "ports"); !strings.Contains(out, "routing") || !strings.Contains(out, "10.81.0.2:80") {
		t.Errorf("nftnet ports does not show the routed ports:\n%s", out)
	}
}

// count counts in a container's own namespace what comes in from an address.
func (w *world) count(t *testing.T, container string, from netip.Addr) (read func() string) {
	t.Helper()
	ns := []string{"nsenter", "-t", w.engine.Docker(t, "inspect", "-f", "{{.State.Pid}}", container), "-n"}
	saddr := "ip saddr"
	if from.Is6() {
		saddr = "ip6 saddr"
	}
	name := strings.NewReplacer(".", "_", ":", "_").Replace("from_" + from.String())
	w.Exec(t, append(ns, "nft", fmt.Sprintf(`add table inet %s; add chain inet %s c { type filter hook prerouting priority -400; }; `+
		`add rule inet %s c %s %v meta l4proto udp counter`, name, name, name, saddr, from))...)
	return func() string {
		_, text, _ := strings.Cut(w.Exec(t, append(ns, "nft", "list", "table", "inet", name)...), "counter packets ")
		packets, _, _ := strings.Cut(text, " ")
		return packets
	}
}

// TestA16NoICC: containers of one network that may not reach each other, one of
// them hostile.
func TestA16NoICC(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", "com.docker.network.bridge.enable_icc=false")
	w.run(t, "c1", "web", "-p", "8080:80", "-p", "5353:53/udp", "-p", w.HostAddr4.String()+":8090:80")
	w.run(t, "c2", "web", "--cap-add", "NET_ADMIN")
	nstest.Serve(t, w.LAN, ":80", "")
	received := map[string]func() string{}
	for _, v6 := range []bool{false, true} {
		from := w.address(t, "c2", "web", v6)
		received[from.String()] = w.count(t, "c1", from)
	}
	row := func(t *testing.T) {
		w.bothFamilies(t, "c1", "web", func(t *testing.T, a netip.Addr) {
			if r, err := w.engine.Peer(t, "c2", "http", "-timeout", silence.String(), url(a, 80)); err == nil {
				t.Errorf("neighbour reaches it: %+v", r)
			}
			_, _ = w.engine.Peer(t, "c2", "udp", "-timeout", "300ms", netip.AddrPortFrom(a, 53).String())
		})
		for from, read := range received {
			if n := read(); n != "0" {
				t.Errorf("%s datagrams from %s arrived", n, from)
			}
		}
		for _, c := range []string{"c1", "c2"} {
			w.from(t, c, c+" to LAN, IPv4", w.LANAddr4, 80)
			w.from(t, c, c+" to LAN, IPv6", w.LANAddr6, 80)
		}
		for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
			reaches(t, w.LAN, "LAN", url(host, 8080))
		}
		for _, a := range hostAddrs(w) {
			reaches(t, w.Host, "host", url(a, 8080))
		}
		for _, c := range []string{"c1", "c2"} {
			for _, host := range hostAddrs(w)[2:] {
				w.from(t, c, fmt.Sprintf("%s by the host's %v", c, host), host, 8080)
				if _, err := w.engine.Peer(t, c, "udp", netip.AddrPortFrom(host, 5353).String()); err != nil {
					t.Errorf("%s by the host's %v, UDP: %v", c, host, err)
				}
			}
			w.from(t, c, c+" by the one address that the port is published on", w.HostAddr4, 8090)
		}
	}
	bothBridgeNF(t, w, row)
	w.engine.Docker(t, "exec", "c2", "ip", "route", "add", w.address(t, "c1", "web", false).String(), "via", "10.81.0.1")
	w.engine.Docker(t, "exec", "c2", "ip", "-6", "route", "add", w.address(t, "c1", "web", true).String(), "via", "fd00:81::1")
	t.Run("by the gateway", func(t *testing.T) { bothBridgeNF(t, w, row) })
}

func TestA17Internal(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "lab", 81, "--internal")
	w.run(t, "c1", "lab", "-p", "8080:80")
	nstest.Serve(t, w.Host, ":9000", "")
	w.routes(t, 81)
	for _, gw := range []string{"10.81.0.1", "fd00:81::1"} {
		w.from(t, "c1", "container to the host by its gateway's address", netip.MustParseAddr(gw), 9000)
	}
	for _, lan := range []netip.Addr{w.LANAddr4, w.LANAddr6} {
		if _, err := w.engine.Peer(t, "c1", "http", url(lan, 80)); err == nil || !strings.Contains(err.Error(), "network is unreachable") {
			t.Errorf("container to %v: %v, want: network is unreachable", lan, err)
		}
	}
	w.bothFamilies(t, "c1", "lab", func(t *testing.T, a netip.Addr) {
		timesOut(t, w.LAN, "LAN", url(a, 80))
		timesOut(t, w.LAN, "LAN", url(a, 81))
	})
	if _, err := w.LAN.TryGet(url(w.HostAddr4, 8080), silence); err == nil {
		t.Error("the port of an internal network answers on the host")
	}
}

func TestA18Isolated(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "lab", 81, "--internal", "-o", mode4+"isolated", "-o", mode6+"isolated")
	w.run(t, "c1", "lab")
	w.run(t, "c2", "lab")
	bridge := "nft-" + w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", "lab")[:11]
	if out := w.Exec(t, "ip", "-o", "addr", "show", "dev", bridge); out != "" {
		t.Errorf("the bridge has addresses:\n%s", out)
	}
	w.bothFamilies(t, "c1", "lab", func(t *testing.T, a netip.Addr) {
		w.from(t, "c2", "neighbour", a, 80)
		if r, err := w.Host.TryGet(url(a, 80), silence); err == nil {
			t.Errorf("the host reaches it: %+v", r)
		}
	})
}

func TestA21SourceAddress(t *testing.T) {
	w := newWorld(t)
	w.Exec(t, "ip", "addr", "add", "192.0.2.77/24", "dev", "eth0")
	w.Exec(t, "ip", "addr", "add", "fd00:192::77/64", "dev", "eth0", "nodad")
	w.dual(t, "web", 81, "-o", "com.docker.network.host_ipv4=192.0.2.77", "-o", "com.docker.network.host_ipv6=fd00:192::77")
	w.run(t, "c1", "web", "-p", "8080:80")
	nstest.Serve(t, w.LAN, ":80", "")
	for lan, want := range map[netip.Addr]string{w.LANAddr4: "192.0.2.77", w.LANAddr6: "fd00:192::77"} {
		if r := w.from(t, "c1", "container to LAN", lan, 80); r.Client.String() != want {
			t.Errorf("the neighbour sees %v, want %s", r.Client, want)
		}
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}

func TestInhibitIPv4AndRouter(t *testing.T) {
	w := newWorld(t)
	w.network(t, "bare", "--subnet", "10.81.0.0/24", "-o", "com.docker.network.bridge.inhibit_ipv4=true")
	w.run(t, "c1", "bare")
	bridge := "nft-" + w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", "bare")[:11]
	if out := w.Exec(t, "ip", "-4", "-o", "addr", "show", "dev", bridge); out != "" {
		t.Errorf("the bridge has an IPv4 address: %s", out)
	}
	w.dual(t, "routed", 82, "--aux-address", "DefaultGatewayIPv4=10.82.0.254", "--aux-address", "DefaultGatewayIPv6=fd00:82::fe")
	w.run(t, "c2", "routed")
	for args, want := range map[string]string{"": "default via 10.82.0.254", "-6": "default via fd00:82::fe"} {
		if out := w.engine.Docker(t, append([]string{"exec", "c2", "ip"}, strings.Fields(args+" route")...)...); !strings.Contains(out, want) {
			t.Errorf("the container's routes lack %q:\n%s", want, out)
		}
	}
	w.refused(t, []string{"DefaultGatewayIPv4"}, "network", "create", "-d", "nftnet", "--internal", "--subnet", "10.83.0.0/24",
		"--aux-address", "DefaultGatewayIPv4=10.83.0.254", "lab")
}

// TestAdoptedBridge: the user's own bridge stays the user's.
func TestAdoptedBridge(t *testing.T) {
	w := newWorld(t)
	w.Exec(t, "ip", "link", "add", "lab0", "type", "bridge")
	w.Exec(t, "ip", "addr", "add", "10.81.0.1/24", "dev", "lab0")
	w.Exec(t, "ip", "link", "set", "lab0", "up")
	w.refused(t, []string{"10.81.0.1/24"}, "network", "create", "-d", "nftnet", "-o", "com.docker.network.bridge.name=lab0", "--subnet", "10.82.0.0/24", "bad")
	w.dual(t, "lab", 81, "-o", "com.docker.network.bridge.name=lab0")
	w.run(t, "c1", "lab", "-p", "8080:80")
	for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
		reaches(t, w.LAN, "LAN", url(host, 8080))
	}
	reaches(t, w.Host, "host", "http://127.0.0.1:8080/")
	w.engine.Docker(t, "rm", "-f", "c1")
	w.engine.Docker(t, "network", "rm", "lab")
	out := w.Exec(t, "ip", "-o", "addr", "show", "dev", "lab0")
	if !strings.Contains(out, "10.81.0.1/24") || strings.Contains(out, "fd00:81::1") {
		t.Errorf("the bridge has addresses\n%s\nwant the one that it had", out)
	}
}

func TestA39InterfaceOptions(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81, "-o", "com.docker.network.driver.mtu=1380", "-o", "com.docker.network.container_iface_prefix=lan")
	// The client asks a later engine than Debian's for a link address.
	w.engine.Create(t, "c1", map[string]any{
		"Image": w.image, "Cmd": []string{"/peer", "serve", "-http", ":80"}, "MacAddress": "02:00:5e:10:00:77",
		"ExposedPorts": map[string]any{"80/tcp": struct{}{}},
		"HostConfig": map[string]any{
			"NetworkMode": "web", "Sysctls": map[string]string{"net.ipv4.conf.default.forwarding": "0"},
			"PortBindings": map[string]any{"80/tcp": []any{map[string]string{"HostPort": "8080"}}},
		},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{"web": map[string]any{
			"IPAMConfig": map[string]string{"IPv4Address": "10.81.0.77", "IPv6Address": "fd00:81::77"},
		}}},
	})
	w.engine.Docker(t, "start", "c1")
	w.engine.WaitLog(t, "c1", "ready")
	out := w.engine.Docker(t, "exec", "c1", "ip", "addr")
	for _, want := range []string{"lan0", "mtu 1380", "02:00:5e:10:00:77", "10.81.0.77/24", "fd00:81::77/64"} {
		if !strings.Contains(out, want) {
			t.Errorf("inside the container %q is missing:\n%s", want, out)
		}
	}
	if out := w.engine.Docker(t, "exec", "c1", "cat", "/proc/sys/net/ipv4/conf/lan0/forwarding"); out != "0" {
		t.Errorf("net.ipv4.conf.lan0.forwarding is %s, want 0", out)
	}
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
}

// TestA45Refused: what cannot work is refused when the network is made, and
// leaves nothing.
func TestA45Refused(t *testing.T) {
	w := newWorld(t)
	before, links := w.tableText(t), w.Exec(t, "ip", "-br", "link")
	w.Exec(t, "ip", "route", "add", "10.99.0.0/16", "via", w.LANAddr4.String())
	for _, row := range []struct {
		args  []string
		words []string
	}{
		{[]string{"-o", "com.docker.network.bridge.trusted_host_interfaces=a b"}, []string{"trusted_host_interfaces", "a b"}},
		{[]string{"-o", "com.docker.network.host_ipv4=fd00::1"}, []string{"host_ipv4", "fd00::1", "IPv4"}},
		{[]string{"-o", "com.docker.network.container_iface_prefix=much-too-long-a-name"}, []string{"container_iface_prefix", "much-too-long-a-name", "13"}},
		{[]string{"-o", mode4 + "magic"}, []string{"gateway_mode_ipv4", "magic", "routed"}},
		{[]string{"-o", mode4 + "isolated"}, []string{"gateway_mode_ipv4", "--internal"}},
		{[]string{"-o", "nftnet.alow=10.0.0.0/8"}, []string{"nftnet.alow", "no such option", "nftnet.allow"}},
		{[]string{"-o", "nftnet.allow=somewhere"}, []string{"nftnet.allow", "somewhere", "addresses and subnets"}},
		{[]string{"-o", "nftnet.antispoof=perhaps"}, []string{"nftnet.antispoof", "perhaps", "strict"}},
		{[]string{"--subnet", "10.99.7.0/24"}, []string{"10.99.7.0/24", "10.99.0.0/16 via 192.0.2.2 dev eth0", "nftnet.allow_overlap"}},
		{[]string{"--subnet", "192.0.2.128/25"}, []string{"192.0.2.128/25", "192.0.2.0/24 dev eth0"}},
	} {
		args := append([]string{"network", "create", "-d", "nftnet"}, append(row.args, "bad")...)
		_, stderr, err := w.engine.TryDocker(args...)
		if err == nil {
			t.Errorf("%v is accepted", row.args)
			w.engine.Docker(t, "network", "rm", "bad")
			continue
		}
		for _, word := range row.words {
			if !strings.Contains(stderr, word) {
				t.Errorf("%v: error %q does not name %q", row.args, strings.TrimSpace(stderr), word)
			}
		}
	}
	if after := w.tableText(t); after != before {
		t.Errorf("the table changed:\n%s\nfrom\n%s", after, before)
	}
	if after := w.Exec(t, "ip", "-br", "link"); after != links {
		t.Errorf("links are left:\n%s\nbefore\n%s", after, links)
	}
	w.network(t, "wanted", "--subnet", "10.99.7.0/24", "-o", "nftnet.allow_overlap=true")
	w.network(t, "fine", "--subnet", "10.81.0.0/24")
	if _, stderr, err := w.engine.TryDocker("run", "-d", "--network", "name=fine,driver-opt=com.docker.network.endpoint.ifname=lan0", w.image, "true"); err == nil || !strings.Contains(stderr, "container_iface_prefix") {
		t.Errorf("a name for the interface: %v, %s", err, stderr)
	}
}

func TestA52AddressNotThereYet(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.refused(t, []string{"192.0.2.99:8080/tcp: the host has no such address"}, "run", "-d", "--network", "web", "-p", "192.0.2.99:8080:80", w.image, "/peer", "serve", "-http", ":80")
	w.dual(t, "later", 82, "-o", "nftnet.free_bind=true")
	w.run(t, "c1", "later", "-p", "192.0.2.99:8080:80", "-p", "[fd00:192::99]:8080:80")
	for _, a := range []string{"192.0.2.99/24", "fd00:192::99/64"} {
		w.Exec(t, "ip", "addr", "add", a, "dev", "eth0", "nodad")
		reaches(t, w.LAN, "LAN, now that the host has the address", url(netip.MustParsePrefix(a).Addr(), 8080))
	}
}

// TestA53SmallMTU: the way out carries less than an Ethernet frame.
func TestA53SmallMTU(t *testing.T) {
	w := newWorld(t)
	w.Exec(t, "ip", "link", "set", "eth0", "mtu", "1400")
	w.LAN.Exec(t, "ip", "link", "set", "eth0", "mtu", "1400")
	w.dual(t, "web", 81)
	w.engine.Docker(t, "run", "-d", "--name", "c1", "--network", "web", "-p", "8080:80", "-p", "9000:9000",
		w.image, "/peer", "serve", "-http", ":80", "-stream", ":9000")
	w.engine.WaitLog(t, "c1", "ready")
	if out := w.engine.Docker(t, "exec", "c1", "ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
		t.Errorf("the container's interface: %s", out)
	}
	nstest.Serve(t, w.LAN, ":80", "")
	for _, lan := range []netip.Addr{w.LANAddr4, w.LANAddr6} {
		w.from(t, "c1", "container to LAN", lan, 80)
	}
	for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
		downloads(t, w.LAN, netip.AddrPortFrom(host, 9000), 4<<20)
	}
}

// downloads asserts that a stream carries so many bytes.
func downloads(t *testing.T, from *nstest.NS, addr netip.AddrPort, bytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", addr.String())
	if err != nil {
		t.Errorf("%v: %v", addr, err)
		return
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.CopyN(io.Discard, c, bytes); err != nil {
		t.Errorf("%v: stalled after %d of %d bytes: %v", addr, n, bytes, err)
	}
}

// TestClampMSS: the way out is narrower than both ends believe, and nobody is
// told so. Connections of the network that clamps them go through.
func TestClampMSS(t *testing.T) {
	w := newWorld(t)
	w.Exec(t, "ip", "link", "set", "eth0", "mtu", "1400")
	w.Exec(t, "nft", "table inet silence { chain output { type filter hook output priority 0; "+
		"icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }")
	for name, row := range map[string]struct {
		n    int
		args []string
	}{"stalls": {81, nil}, "clamps": {82, []string{"-o", "nftnet.clamp_mss=true"}}} {
		w.dual(t, name, row.n, append(row.args, "-o", "com.docker.network.driver.mtu=1500")...)
		port := fmt.Sprint(9000 + row.n)
		w.engine.Docker(t, "run", "-d", "--name", name, "--network", name, "-p", port+":9000", w.image, "/peer", "serve", "-stream", ":9000")
		w.engine.WaitLog(t, name, "ready")
	}
	for _, host := range []netip.Addr{w.HostAddr4, w.HostAddr6} {
		downloads(t, w.LAN, netip.AddrPortFrom(host, 9082), 1<<20)
		ctx, cancel := context.WithTimeout(context.Background(), silence)
		defer cancel()
		c, err := w.LAN.Dial(ctx, "tcp", netip.AddrPortFrom(host, 9081).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, c, 1<<20); err == nil {
			t.Errorf("%v: %d bytes come through without the option: the way is not narrow", host, n)
		}
	}
}
