package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"nftnet/internal/nstest"
)

const (
	tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:0BB8 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4 30 10 -1
`
	tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0000000000000000 100 0 0 10 0
   1: B80D0120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4715 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4716 1 0000000000000000 100 0 0 10 0
`
)

// littleEndian says whether the tables, written on such a machine, can be read
// on this one.
func littleEndian() bool {
	a, err := parseAddr("0100007F:0001")
	return err == nil && a.Addr().IsLoopback()
}

func TestParseSockets(t *testing.T) {
	if !littleEndian() {
		t.Skip("the tables are of a machine of the other byte order")
	}
	for text, want := range map[string][]Socket{
		tcpTable: {{netip.MustParseAddrPort("127.0.0.1:3000"), 4711}, {netip.MustParseAddrPort("0.0.0.0:80"), 4712}},
		tcp6Table: {
			{netip.MustParseAddrPort("[::1]:3000"), 4714}, {netip.MustParseAddrPort("[2001:db8::1]:80"), 4715},
			{netip.MustParseAddrPort("127.0.0.1:81"), 4716},
		},
		"": nil,
	} {
		got, err := parseSockets(strings.NewReader(text), "0A")
		if err != nil || len(got) != len(want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("got %v, want %v", got[i], want[i])
			}
		}
	}
}

func TestParseDamagedSockets(t *testing.T) {
	for _, line := range []string{
		"0: 0100007F:0BB8", "0: 0100007:0BB8 x 0A 0 0 0 0 0 1", "0: 0100007F x 0A 0 0 0 0 0 1", "0: 0100007F:0BB8 x 0A 0 0 0 0 0 x",
	} {
		if got, err := parseSockets(strings.NewReader("head\n"+line+"\n"), "0A"); err == nil {
			t.Errorf("%q is read as %v", line, got)
		}
	}
}

func TestTakes(t *testing.T) {
	for _, row := range []struct {
		socket, addr string
		want         bool
	}{
		{"127.0.0.1:1", "127.0.0.1", true},
		{"127.0.0.1:1", "::1", false},
		{"127.0.0.1:1", "192.0.2.1", false},
		{"0.0.0.0:1", "192.0.2.1", true},
		{"0.0.0.0:1", "::1", false},
		{"[::]:1", "192.0.2.1", true},
		{"[::]:1", "2001:db8::1", true},
		{"[::1]:1", "127.0.0.1", false},
	} {
		s := Socket{Addr: netip.MustParseAddrPort(row.socket)}
		if s.Takes(netip.MustParseAddr(row.addr)) != row.want {
			t.Errorf("%s takes %s: %v, want %v", row.socket, row.addr, !row.want, row.want)
		}
	}
	if s := (Socket{Addr: netip.MustParseAddrPort("0.0.0.0:1")}); !s.Every(false) || s.Every(true) {
		t.Error("0.0.0.0 is every IPv4 address and no IPv6 one")
	}
}

// TestOwnSocket finds a socket of this process, in the namespace where it runs.
func TestOwnSocket(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for proto, addr := range map[string]string{"tcp": l.Addr().String(), "udp": u.LocalAddr().String()} {
		want := netip.MustParseAddrPort(addr)
		got, err := ListenersOn(proto, want.Port())
		if err != nil || len(got) != 1 || got[0].Addr != want {
			t.Errorf("%s: got %v, %v; want %v", proto, got, err, want)
			continue
		}
		if p := Owners(got)[got[0].Inode]; p.PID != os.Getpid() || p.Name == "" {
			t.Errorf("%s: the owner is %+v, want process %d", proto, p, os.Getpid())
		}
	}
	if _, err := ListenersOn("sctp", 80); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("sctp: %v", err)
	}
}

// TestHasIPv6: the namespace of the tests has ::1 on lo.
func TestHasIPv6(t *testing.T) {
	nstest.RequireInside(t)
	if !HasIPv6() {
		t.Error("no IPv6")
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add(tcpTable)
	f.Add(tcp6Table)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseSockets(strings.NewReader(text), "0A")
		for _, s := range list {
			if err == nil && !s.Addr.IsValid() {
				t.Errorf("socket %+v", s)
			}
		}
	})
}
