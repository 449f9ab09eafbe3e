package portmap

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/desired"
)

// everywhere publishes on every address, or the one that the port names.
func everywhere(b desired.Binding) ([]netip.Addr, error) {
	return HostAddrs(b, desired.Network{}, true)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

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
		got, err := HostAddrs(desired.Binding{HostIP: row.hostIP, Port: 80}, n, row.hasIPv6)
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
	got, err := Parse([]desired.Binding{
		{Proto: 6, Port: 80, HostPort: 8000, HostPortEnd: 8010},
		{Proto: 6, Port: 81},
		{Proto: 17, Port: 53, HostPort: 8001, HostPortEnd: 8001},
		{Proto: 6, Port: 443, HostPort: 8000, HostPortEnd: 8000},
	}, everywhere)
	if err != nil {
		t.Fatal(err)
	}
	var order []uint16
	for _, r := range got {
		order = append(order, r.Port)
	}
	if fmt.Sprint(order) != "[53 443 80 81]" {
		t.Errorf("order %v", order)
	}
}

func TestContainerPortZeroIsRefused(t *testing.T) {
	_, err := Parse([]desired.Binding{{Proto: 6, HostPort: 80}}, everywhere)
	if err == nil || !strings.Contains(err.Error(), "container port 0") {
		t.Error(err)
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
	if got := Candidates(Request{First: 65534, Last: 65535}); fmt.Sprint(got) != "[65534 65535]" {
		t.Errorf("range to the last port: %v", got)
	}
	first, last := localPortRange()
	got := Candidates(Request{})
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

func FuzzPortMap(f *testing.F) {
	f.Add([]byte(`[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080}]`))
	f.Add([]byte(`[{"Proto":17,"Port":53,"HostIP":"::1","HostPort":5353,"HostPortEnd":5353},{"Proto":6,"Port":1}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var list []desired.Binding
		if json.Unmarshal(body, &list) != nil {
			return
		}
		requests, err := Parse(list, everywhere)
		if err != nil {
			return
		}
		if len(requests) != len(list) {
			t.Fatalf("%d entries became %d requests", len(list), len(requests))
		}
		for _, r := range requests {
			if len(r.Hosts) == 0 || r.Last < r.First || r.Port == 0 {
				t.Fatalf("request %+v", r)
			}
		}
	})
}
