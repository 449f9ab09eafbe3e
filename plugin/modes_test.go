package plugin

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"nftnet/internal/nstest"
	"nftnet/plugin/libnetwork"
)

// moveLink does what the engine does after Join: it moves the container's end
// of an endpoint into a namespace and gives it its address.
func moveLink(t *testing.T, ns *nstest.NS, link, addr string) {
	t.Helper()
	// The rig has a namespace of its own: a name from /run/netns is the same file
	// in both.
	if out, err := exec.Command("ip", "link", "set", link, "netns", ns.Name()).CombinedOutput(); err != nil {
		t.Fatalf("move %s: %v: %s", link, err, out)
	}
	ns.Exec(t, "ip", "link", "set", link, "name", "eth0")
	ns.Exec(t, "ip", "addr", "add", addr, "dev", "eth0")
	ns.Exec(t, "ip", "link", "set", "eth0", "up")
}

// TestA19PointToPoint: both addresses of a /31 are containers', as the driver
// tells an engine that asks (since 28) to reserve no gateway.
func TestA19PointToPoint(t *testing.T) {
	for name, options := range map[string]m{
		"isolated":                   {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
		"without IPv4 on the bridge": {"com.docker.network.bridge.inhibit_ipv4": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			all := m{libnetwork.Generic: options, libnetwork.Internal: true}
			if answer := r.ok(t, "GwAllocCheck", m{"Options": all}); answer["SkipIPv4"] != true || answer["SkipIPv6"] != false {
				t.Errorf("GwAllocCheck: %v", answer)
			}
			r.ok(t, "CreateNetwork", m{"NetworkID": id(1), "Options": all, "IPv4Data": []m{{"Pool": "10.1.0.0/31"}}})
			var containers []*nstest.NS
			for i := range 2 {
				addr := fmt.Sprintf("10.1.0.%d/31", i)
				r.ok(t, "CreateEndpoint", with(ids(1, i), "Interface", m{"Address": addr}))
				joined := r.ok(t, "Join", with(ids(1, i), "SandboxKey", "/var/run/docker/netns/"+strings.Repeat(fmt.Sprint(i), 12)))
				if joined["Gateway"] != nil || joined["DisableGatewayService"] != true {
					t.Errorf("Join: %v, want no gateway", joined)
				}
				ns := nstest.NewNS(t, fmt.Sprintf("c%d", i))
				moveLink(t, ns, joined["InterfaceName"].(m)["SrcName"].(string), addr)
				containers = append(containers, ns)
			}
			nstest.Serve(t, containers[0], ":80", "")
			if reply := containers[1].Get(t, "http://10.1.0.0/"); reply.Client.String() != "10.1.0.1" {
				t.Errorf("the container sees %v", reply.Client)
			}
		})
	}
}

// TestIPv6Only is a network as engines since 28 make it with --ipv4=false.
func TestIPv6Only(t *testing.T) {
	r := newRig(t)
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(1), "Options": m{libnetwork.Generic: m{}, libnetwork.EnableIPv4: false, libnetwork.EnableIPv6: true},
		"IPv6Data": []m{{"Pool": "fd00:1::/64", "Gateway": "fd00:1::1/64"}},
	})
	r.ok(t, "CreateEndpoint", with(ids(1, 1), "Interface", m{"AddressIPv6": "fd00:1::2/64"}))
	joined := r.ok(t, "Join", with(ids(1, 1), "SandboxKey", "/var/run/docker/netns/111111111111"))
	if joined["GatewayIPv6"] != "fd00:1::1" || joined["Gateway"] != nil {
		t.Errorf("Join: %v", joined)
	}
	ns := nstest.NewNS(t, "c1")
	moveLink(t, ns, joined["InterfaceName"].(m)["SrcName"].(string), "fd00:1::2/64")
	ns.Exec(t, "ip", "-6", "route", "add", "default", "via", "fd00:1::1")
	nstest.Serve(t, ns, "[::]:80", "")
	r.ok(t, "ProgramExternalConnectivity", with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{published(8080, 80)}}))
	// By IPv4 the port's socket carries it over.
	for _, url := range []string{"http://[fd00:1::1]:8080/", "http://[::1]:8080/", "http://127.0.0.1:8080/"} {
		if out, err := exec.Command("curl", "-sS", "-g", "-m", "3", url).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", url, err, out)
		}
	}
}

// TestA38SplitGateways: a container whose IPv4 and IPv6 gateways are in
// different networks gets the ports of both called for, in either order, with
// no word on the family (moby daemon/libnetwork/drivers/remote). Each network
// publishes what it can translate, and [::] is the one's that has IPv6.
func TestA38SplitGateways(t *testing.T) {
	for _, order := range [][]int{{1, 2}, {2, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			r := newRig(t)
			r.network(t, 1)
			r.ok(t, "CreateNetwork", m{
				"NetworkID": id(2), "Options": m{libnetwork.Generic: m{}},
				"IPv6Data": []m{{"Pool": "fd00:2::/64", "Gateway": "fd00:2::1/64"}},
			})
			interfaces := map[int]m{1: {"Address": "10.1.0.2/24"}, 2: {"AddressIPv6": "fd00:2::2/64"}}
			for _, n := range order {
				who := ids(n, n)
				r.ok(t, "CreateEndpoint", with(who, "Interface", interfaces[n]))
				r.ok(t, "Join", with(who, "SandboxKey", "/var/run/docker/netns/0123456789ab"))
			}
			for i, n := range order {
				options := m{"com.docker.network.portmap": []m{published(8080, 80)}}
				if i == 1 && n == 1 {
					options["com.docker.network.driver.private.no_proxy_6to4"] = true
				}
				r.ok(t, "ProgramExternalConnectivity", with(ids(n, n), "Options", options))
			}
			leads := map[string]string{}
			for _, p := range r.driver.Published() {
				host := netip.MustParseAddrPort(p.Host)
				leads[host.Addr().String()] = p.Container
			}
			if leads["0.0.0.0"] != "10.1.0.2:80" || leads["::"] != "[fd00:2::2]:80" {
				t.Errorf("the ports lead to %v", leads)
			}
		})
	}
}
