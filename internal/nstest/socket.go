package nstest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"nftnet/internal/nstest/wire"
)

// httpTimeout bounds a request of HTTPClient.
const httpTimeout = 3 * time.Second

// Dial connects from the namespace to addr, which must hold an IP address: a
// look-up of a name would leave the namespace. The zone of a link-local address
// is the name of an interface in the namespace.
func (ns *NS) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return ns.DialFrom(ctx, network, "", addr)
}

// DialFrom is Dial from the source laddr: an IP address, an IP address and
// port, or "" for any.
func (ns *NS) DialFrom(ctx context.Context, network, laddr, raddr string) (net.Conn, error) {
	d, err := wire.Dialer(network, laddr)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = ns.Do(func() error {
		to, err := numeric(raddr)
		if err != nil {
			return err
		}
		conn, err = d.DialContext(ctx, network, to)
		return err
	})
	return conn, err
}

// numeric checks that addr needs no look-up and replaces its zone by the number
// of the interface: net keeps one cache of names for all namespaces.
func numeric(addr string) (string, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", fmt.Errorf("not an ip address and port: %w", err)
	}
	if ap.Addr().Zone() == "" {
		return addr, nil
	}
	link, err := net.InterfaceByName(ap.Addr().Zone())
	if err != nil {
		return "", fmt.Errorf("find interface of %s: %w", addr, err)
	}
	return netip.AddrPortFrom(ap.Addr().WithZone(strconv.Itoa(link.Index)), ap.Port()).String(), nil
}

// Listen listens in the namespace until the test ends. The address is like
// Dial's, or ":port" for all addresses of both families.
func (ns *NS) Listen(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	return listen(t, ns, network, addr, net.Listen)
}

// ListenPacket listens for datagrams in the namespace until the test ends. The
// address is like that of Listen.
func (ns *NS) ListenPacket(t testing.TB, network, addr string) net.PacketConn {
	t.Helper()
	return listen(t, ns, network, addr, net.ListenPacket)
}

func listen[L interface{ Close() error }](t testing.TB, ns *NS, network, addr string, open func(network, addr string) (L, error)) L {
	t.Helper()
	var l L
	err := ns.Do(func() error {
		if host, _, err := net.SplitHostPort(addr); err != nil || host != "" {
			if addr, err = numeric(addr); err != nil {
				return err
			}
		}
		var err error
		l, err = open(network, addr)
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s %s in %s: %v", network, addr, ns.name, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// HTTPClient returns a client whose connections start in the namespace. It
// makes a new connection for every request and gives up after three seconds.
func (ns *NS) HTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: ns.Dial, DisableKeepAlives: true},
		Timeout:   httpTimeout,
	}
}
