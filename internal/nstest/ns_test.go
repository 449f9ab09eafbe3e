package nstest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/nstest"
	"nftnet/internal/nstest/wire"
)

const second = time.Second

// pair returns two connected namespaces: a is .1 and ::1, b is .2 and ::2.
func pair(t *testing.T) (a, b *nstest.NS) {
	t.Helper()
	a, b = nstest.NewNS(t, "a"), nstest.NewNS(t, "b")
	nstest.Connect(t,
		a, "to-b", []string{"192.0.2.1/24", "192.0.2.11/24", "fd00:192::1/64"},
		b, "to-a", []string{"192.0.2.2/24", "192.0.2.22/24", "fd00:192::2/64", "fd00:192::22/64"})
	return a, b
}

// linkLocal returns the link-local address of an interface.
func linkLocal(t *testing.T, ns *nstest.NS, link string) string {
	t.Helper()
	var addr string
	err := ns.Do(func() error {
		iface, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		addrs, err := iface.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip := a.(*net.IPNet).IP; ip.To4() == nil && ip.IsLinkLocalUnicast() {
				addr = ip.String()
			}
		}
		return nil
	})
	if err != nil || addr == "" {
		t.Fatalf("link-local address of %s: %q, %v", link, addr, err)
	}
	return addr
}

func check(t *testing.T, what string, r nstest.Reply, err error, client, local string) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if r.Client.String() != client || r.Local != local || r.Port == 0 || r.Host == "" {
		t.Errorf("%s: got %+v, want client %s, local %s", what, r, client, local)
	}
}

func TestPeersOfAPair(t *testing.T) {
	a, b := pair(t)
	nstest.Serve(t, b, ":80", ":53")
	llA, llB := linkLocal(t, a, "to-b"), linkLocal(t, b, "to-a")
	for _, row := range []struct{ to, client, local string }{
		{"192.0.2.2", "192.0.2.1", "192.0.2.2"},
		{"192.0.2.22", "192.0.2.1", "192.0.2.22"},
		{"[fd00:192::2]", "fd00:192::1", "[fd00:192::2]"},
		{"[fd00:192::22]", "fd00:192::1", "[fd00:192::22]"},
	} {
		r, err := a.TryGet("http://"+row.to+":80/", second)
		check(t, "http "+row.to, r, err, row.client, row.local+":80")
		r, err = a.UDP(row.to+":53", second)
		check(t, "udp "+row.to, r, err, row.client, row.local+":53")
	}
	r, err := a.UDP("["+llB+"%to-b]:53", second)
	check(t, "udp link-local", r, err, llA, "["+llB+"]:53")
	check(t, "get", a.Get(t, "http://192.0.2.2"), nil, "192.0.2.1", "192.0.2.2:80")
}

func TestServeOneAddress(t *testing.T) {
	a, b := pair(t)
	nstest.Serve(t, b, "192.0.2.22:80", "192.0.2.22:53")
	check(t, "get", a.Get(t, "http://192.0.2.22"), nil, "192.0.2.1", "192.0.2.22:80")
	r, err := a.UDP("192.0.2.22:53", second)
	check(t, "udp", r, err, "192.0.2.1", "192.0.2.22:53")
	if r, err := a.TryGet("http://192.0.2.2", second); err == nil {
		t.Errorf("http to the other address: got %+v, want an error", r)
	}
	if r, err := a.UDP("192.0.2.2:53", second/2); err == nil {
		t.Errorf("udp to the other address: got %+v, want an error", r)
	}
}

func TestTCPGreetsAndEchoes(t *testing.T) {
	a, b := pair(t)
	l := b.Listen(t, "tcp", ":7")
	go wire.ServeTCP(l)
	r, err := a.TCP("192.0.2.2:7", second)
	check(t, "tcp", r, err, "192.0.2.1", "192.0.2.2:7")

	ctx, cancel := context.WithTimeout(t.Context(), second)
	defer cancel()
	c, err := a.DialFrom(ctx, "tcp", "192.0.2.11:4711", "192.0.2.2:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(second))
	in := bufio.NewReader(c)
	greeting, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	r, err = wire.Decode(greeting)
	check(t, "tcp from", r, err, "192.0.2.11", "192.0.2.2:7")
	if r.Port != 4711 {
		t.Errorf("client port %d, want 4711", r.Port)
	}
	fmt.Fprintln(c, "hello")
	if got, err := in.ReadString('\n'); got != "hello\n" {
		t.Errorf("echo %q, %v", got, err)
	}
}

func TestDialTakesNoNames(t *testing.T) {
	ns := nstest.NewNS(t, "a")
	if c, err := ns.Dial(t.Context(), "tcp", "localhost:80"); err == nil {
		c.Close()
		t.Error("dialled a name")
	}
}

func TestDoIsInsideOnlyMeanwhile(t *testing.T) {
	inside := func() string {
		link, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return link
	}
	a, b := nstest.NewNS(t, "a"), nstest.NewNS(t, "b")
	home, seen := inside(), []string{}
	for _, ns := range []*nstest.NS{a, b, a} {
		ns.Do(func() error { seen = append(seen, inside()); return nil })
	}
	if seen[0] != seen[2] || seen[0] == seen[1] || slices.Contains(seen, home) {
		t.Errorf("home %s, seen %s", home, seen)
	}
	want := errors.New("mine")
	if err := a.Do(func() error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	if inside() != home {
		t.Error("the caller's thread moved")
	}
}

func TestNamespaceHasANameUntilTheEnd(t *testing.T) {
	var name string
	t.Run("life", func(t *testing.T) {
		ns := nstest.NewNS(t, "named")
		name = ns.Name()
		if !strings.Contains(namespaces(t), name) {
			t.Errorf("ip netns does not list %s", name)
		}
		if got := ns.Exec(t, "ip", "-o", "link"); !strings.Contains(got, "lo:") || strings.Contains(got, "eth0") {
			t.Errorf("links: %s", got)
		}
		if _, err := ns.Try("ip", "link", "show", "nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("error %v, want what ip said", err)
		}
		if !ns.Handle().IsOpen() {
			t.Error("handle is closed")
		}
		ping(t, ns)
	})
	if strings.Contains(namespaces(t), name) {
		t.Errorf("ip netns still lists %s", name)
	}
}

// ping checks that both loopback addresses are up.
func ping(t *testing.T, ns *nstest.NS) {
	t.Helper()
	for _, addr := range []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")} {
		nstest.Serve(t, ns, addr.String(), "")
		if r := ns.Get(t, "http://"+addr.String()); r.Client != addr.Addr() {
			t.Errorf("got %+v, want client %s", r, addr.Addr())
		}
	}
}
