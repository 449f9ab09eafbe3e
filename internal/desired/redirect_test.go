package desired

import (
	"net/netip"
	"testing"
)

func redirect(proto uint8, port, to uint16, address string) Redirect {
	r := Redirect{Name: "r", Proto: proto, Port: port, To: to}
	if address != "" {
		r.Address = netip.MustParseAddr(address)
	}
	return r
}

func TestRedirectInTheWay(t *testing.T) {
	for _, row := range []struct {
		redirect Redirect
		proto    uint8
		host     string
		want     bool
	}{
		{redirect(6, 80, 3000, ""), 6, "0.0.0.0:80", true},
		{redirect(6, 80, 3000, ""), 6, "[::]:80", true},
		{redirect(6, 80, 3000, ""), 6, "192.0.2.1:80", true},
		{redirect(6, 80, 3000, ""), 6, "[::1]:80", true},
		{redirect(6, 80, 3000, ""), 17, "0.0.0.0:80", false},
		{redirect(6, 80, 3000, ""), 6, "0.0.0.0:81", false},
		// No program can listen on 3000 where nftnet holds it everywhere.
		{redirect(6, 80, 3000, ""), 6, "0.0.0.0:3000", true},
		{redirect(6, 80, 3000, ""), 6, "192.0.2.1:3000", false},
		{redirect(6, 80, 3000, ""), 17, "0.0.0.0:3000", false},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "0.0.0.0:80", true},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "192.0.2.1:80", true},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "192.0.2.2:80", false},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "[::]:80", false},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "0.0.0.0:3000", true},
		{redirect(6, 80, 3000, "192.0.2.1"), 6, "[::]:3000", false},
	} {
		p := Port{Proto: row.proto, Host: netip.MustParseAddrPort(row.host)}
		if row.redirect.InTheWay(p) != row.want {
			t.Errorf("%s and %s are in each other's way: %v, want %v", row.redirect, p.Key(), !row.want, row.want)
		}
	}
}

func TestRedirectPorts(t *testing.T) {
	for address, want := range map[string][]string{
		"":          {"0.0.0.0:80->0.0.0.0:3000", "[::]:80->[::]:3000"},
		"192.0.2.1": {"192.0.2.1:80->0.0.0.0:3000"},
		"::1":       {"[::1]:80->[::]:3000"},
	} {
		var got []string
		for _, p := range redirect(6, 80, 3000, address).Ports() {
			got = append(got, p.Host.String()+"->"+p.Container.String())
			if p.Kind() != Redirected {
				t.Errorf("%s leads to a container", p)
			}
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("ports of %q are %v, want %v", address, got, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	p := func(host string, proto uint8) Port {
		return Port{Proto: proto, Host: netip.MustParseAddrPort(host)}
	}
	for _, row := range []struct {
		a, b Port
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
