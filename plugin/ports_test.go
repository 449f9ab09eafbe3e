package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
	"nftnet/plugin/port"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestHostAddressesOfAPort(t *testing.T) {
	for _, row := range []struct {
		hostIP  string
		binding string
		hasIPv6 bool
		want    string
	}{
		{"", "", true, "[0.0.0.0 ::]"},
		{"", "", false, "[0.0.0.0]"},
		{"", "127.0.0.1", true, "[127.0.0.1]"},
		{"192.0.2.7", "127.0.0.1", true, "[192.0.2.7]"},
		{"0.0.0.0", "", true, "[0.0.0.0]"},
		{"::", "", true, "[::]"},
		{"::ffff:192.0.2.7", "", true, "[192.0.2.7]"},
		{"::1", "", true, "[::1]"},
		{"224.0.0.1", "", true, "error"},
		{"host.example", "", true, "error"},
		{"fe80::1%eth0", "", true, "error"},
	} {
		n := desired.Network{}
		if row.binding != "" {
			n.HostBinding = addr(row.binding)
		}
		got, err := hostAddrs(portBinding{HostIP: row.hostIP, Port: 80}, n, row.hasIPv6)
		text := fmt.Sprint(got)
		if err != nil {
			text = "error"
		}
		if text != row.want {
			t.Errorf("host address %q, binding %q, IPv6 %v: %s (%v), want %s", row.hostIP, row.binding, row.hasIPv6, text, err, row.want)
		}
	}
}

func TestExactPortsComeFirst(t *testing.T) {
	got, err := parseBindings([]portBinding{
		{Proto: 6, Port: 80, HostPort: 8000, HostPortEnd: 8010},
		{Proto: 6, Port: 81},
		{Proto: 17, Port: 53, HostPort: 8001, HostPortEnd: 8001},
		{Proto: 6, Port: 443, HostPort: 8000, HostPortEnd: 8000},
	}, desired.Network{}, true)
	if err != nil {
		t.Fatal(err)
	}
	var order []uint16
	for _, r := range got {
		order = append(order, r.containerPort)
	}
	if fmt.Sprint(order) != "[53 443 80 81]" {
		t.Errorf("order %v", order)
	}
}

func TestContainerPortZeroIsRefused(t *testing.T) {
	_, err := parseBindings([]portBinding{{Proto: 6, HostPort: 80}}, desired.Network{}, true)
	if err == nil || !strings.Contains(err.Error(), "container port 0") {
		t.Error(err)
	}
}

// TestFamilyOfTheContainer: a host address leads to the container's address of
// its own family where there is one.
func TestFamilyOfTheContainer(t *testing.T) {
	dual := desired.Endpoint{IPv4: addr("10.1.0.2"), IPv6: addr("fd00::2")}
	v4, v6 := desired.Endpoint{IPv4: addr("10.1.0.2")}, desired.Endpoint{IPv6: addr("fd00::2")}
	for _, row := range []struct {
		host string
		e    desired.Endpoint
		want string
	}{
		{"0.0.0.0", dual, "10.1.0.2"}, {"::", dual, "fd00::2"},
		{"::", v4, "10.1.0.2"}, {"0.0.0.0", v6, "fd00::2"},
	} {
		if got, ok := containerAddr(addr(row.host), row.e); !ok || got != addr(row.want) {
			t.Errorf("host %s leads to %v, want %s", row.host, got, row.want)
		}
	}
	if _, ok := containerAddr(addr("::"), desired.Endpoint{}); ok {
		t.Error("a container without address is published")
	}
}

func TestReservedPorts(t *testing.T) {
	r := parseRanges("8080,9000-9002,x,99999")
	for p, want := range map[uint16]bool{8080: true, 8081: false, 9000: true, 9001: true, 9002: true, 9003: false} {
		if r.contains(p) != want {
			t.Errorf("port %d reserved: %v, want %v", p, !want, want)
		}
	}
	if len(parseRanges("")) != 0 {
		t.Error("no text reserves ports")
	}
}

func TestCandidates(t *testing.T) {
	if got := candidates(bindingRequest{first: 65534, last: 65535}); fmt.Sprint(got) != "[65534 65535]" {
		t.Errorf("range to the last port: %v", got)
	}
	first, last := localPortRange()
	got := candidates(bindingRequest{})
	seen := map[uint16]bool{}
	for _, p := range got {
		if p < first || p > last || seen[p] {
			t.Fatalf("candidate %d is outside of %d-%d, or comes twice", p, first, last)
		}
		seen[p] = true
	}
	if len(got) == 0 {
		t.Error("no candidates")
	}
}

func TestOverlap(t *testing.T) {
	p := func(host string, proto uint8) desired.Port {
		return desired.Port{Proto: proto, Host: netip.MustParseAddrPort(host)}
	}
	for _, row := range []struct {
		a, b desired.Port
		want bool
	}{
		{p("0.0.0.0:80", 6), p("127.0.0.1:80", 6), true},
		{p("127.0.0.1:80", 6), p("127.0.0.2:80", 6), false},
		{p("0.0.0.0:80", 6), p("0.0.0.0:80", 17), false},
		{p("0.0.0.0:80", 6), p("[::]:80", 6), false},
		{p("0.0.0.0:80", 6), p("0.0.0.0:81", 6), false},
		{p("[::]:80", 6), p("[::1]:80", 6), true},
	} {
		if row.a.Overlaps(row.b) != row.want || row.b.Overlaps(row.a) != row.want {
			t.Errorf("%v and %v overlap: %v, want %v", row.a.Host, row.b.Host, !row.want, row.want)
		}
	}
}

// TestAllocationIsAllOrNothing: what was held before a refusal is let go.
func TestAllocationIsAllOrNothing(t *testing.T) {
	nstest.RequireInside(t)
	d := &Driver{ports: port.NewHolder(slog.New(slog.DiscardHandler), nil), state: desired.New()}
	defer d.ports.Close()

	// 198.51.100.1 is for documentation: no host has it.
	requests := []bindingRequest{
		{proto: 6, containerPort: 80, hosts: []netip.Addr{addr("127.0.0.1")}},
		{proto: 6, containerPort: 81, hosts: []netip.Addr{addr("198.51.100.1")}, first: 80, last: 80},
	}
	_, err := d.allocate(requests, desired.Network{}, desired.Endpoint{IPv4: addr("10.1.0.2")}, false)
	var inUse *port.InUseError
	if !errors.As(err, &inUse) || !port.IsMissingAddress(err) || !strings.Contains(err.Error(), "198.51.100.1:80/tcp") {
		t.Errorf("got %v", err)
	}
	if n := d.ports.Len(); n != 0 {
		t.Errorf("%d ports are still held", n)
	}
}

// TestTheSamePortTwice: two container ports of one endpoint share no host port.
func TestTheSamePortTwice(t *testing.T) {
	nstest.RequireInside(t)
	d := &Driver{ports: port.NewHolder(slog.New(slog.DiscardHandler), nil), state: desired.New()}
	defer d.ports.Close()
	e := desired.Endpoint{ID: "e", IPv4: addr("10.1.0.2")}
	request := func(containerPort, last uint16) bindingRequest {
		return bindingRequest{proto: 6, containerPort: containerPort, hosts: []netip.Addr{addr("127.0.0.1")}, first: 8080, last: last}
	}
	if got, err := d.allocate([]bindingRequest{request(80, 8080), request(81, 8080)}, desired.Network{}, e, false); !port.IsTaken(err) {
		t.Errorf("one host port for two container ports: %v, %v", got, err)
	}
	got, err := d.allocate([]bindingRequest{request(80, 8081), request(81, 8081)}, desired.Network{}, e, false)
	if err != nil || len(got) != 2 || got[0].Host.Port() == got[1].Host.Port() {
		t.Errorf("two host ports of a range: %v, %v", got, err)
	}
}

func FuzzPortMap(f *testing.F) {
	f.Add([]byte(`[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080}]`))
	f.Add([]byte(`[{"Proto":17,"Port":53,"HostIP":"::1","HostPort":5353,"HostPortEnd":5353},{"Proto":6,"Port":1}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var list []portBinding
		if json.Unmarshal(body, &list) != nil {
			return
		}
		requests, err := parseBindings(list, desired.Network{}, true)
		if err != nil {
			return
		}
		if len(requests) != len(list) {
			t.Fatalf("%d entries became %d requests", len(list), len(requests))
		}
		for _, r := range requests {
			if len(r.hosts) == 0 || r.last < r.first || r.containerPort == 0 {
				t.Fatalf("request %+v", r)
			}
		}
	})
}
