package cli

import (
	"net/netip"
	"strings"
	"testing"

	"nftnet/internal/control"
	"nftnet/internal/host"
)

func listening(addrs ...string) []host.Socket {
	var out []host.Socket
	for _, a := range addrs {
		out = append(out, host.Socket{Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 3000)})
	}
	return out
}

func TestAdvice(t *testing.T) {
	const (
		outside4 = "from outside and from containers by IPv4"
		outside6 = "from outside and from containers by IPv6"
		host4    = "from the host itself to 127.0.0.1:80"
		host6    = "from the host itself to [::1]:80"
	)
	for name, row := range map[string]struct {
		address string
		list    []host.Socket
		level   string
		missing []string
	}{
		"nobody":                  {"", nil, "note: nothing listens on port 3000/tcp yet", nil},
		"everywhere":              {"", listening("::"), "", nil},
		"everywhere, two sockets": {"", listening("0.0.0.0", "::"), "", nil},
		"loopback":                {"", listening("127.0.0.1"), "warning: caddy listens on 127.0.0.1 only", []string{outside4, host6, outside6}},
		"both loopbacks":          {"", listening("127.0.0.1", "::1"), "warning: caddy listens on 127.0.0.1, ::1 only", []string{outside4, outside6}},
		"loopback of IPv6":        {"", listening("::1"), "warning: ", []string{host4, outside4, outside6}},
		"IPv4":                    {"", listening("0.0.0.0"), "note: ", []string{host6, outside6}},
		"one address": {"", listening("192.0.2.1"), "warning: ", []string{
			host4, outside4 + ", but by the interface whose first address is 192.0.2.1", host6, outside6}},
		"of one address":                  {"192.0.2.7", listening("127.0.0.1"), "warning: ", []string{outside4}},
		"of one address 6":                {"2001:db8::7", listening("0.0.0.0"), "note: ", []string{"from the host itself to [2001:db8::7]:80", outside6}},
		"of 127.0.0.1":                    {"127.0.0.1", listening("127.0.0.1"), "", nil},
		"of 127.0.0.1, by an IPv6 server": {"127.0.0.1", listening("::1"), "warning: ", []string{host4}},
	} {
		t.Run(name, func(t *testing.T) {
			r := control.Redirect{Name: "80-tcp", Proto: "tcp", Port: 80, To: 3000, Address: row.address}
			got := advice(r, ways(r), row.list, "caddy")
			if row.level == "" && len(got) == 0 {
				return
			}
			if len(got) == 0 || row.level == "" || !strings.HasPrefix(got[0], row.level) {
				t.Fatalf("got %q, want a line that begins with %q", got, row.level)
			}
			var missing []string
			for _, line := range got[1:] {
				if way, ok := strings.CutPrefix(line, "    "); ok {
					missing = append(missing, way)
				}
			}
			if strings.Join(missing, "\n") != strings.Join(row.missing, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(missing, "\n"), strings.Join(row.missing, "\n"))
			}
		})
	}
}

func TestRedirectsNamed(t *testing.T) {
	list := []control.Redirect{
		{Name: "80-tcp", Proto: "tcp", Port: 80}, {Name: "dns", Proto: "udp", Port: 53}, {Name: "53-tcp", Proto: "tcp", Port: 53},
	}
	for args, want := range map[string]string{
		"80-tcp": "80-tcp", "80": "80-tcp", "80/tcp": "80-tcp", "53/udp": "dns", "dns 53/tcp dns": "dns 53-tcp",
		"53": `"53" means several redirects: name one of dns, 53-tcp`, "81": `there is no redirect "81"`,
		"80/udp": `there is no redirect "80/udp"`, "dns none": `there is no redirect "none"`,
	} {
		names, err := redirectsNamed(list, strings.Fields(args))
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}
