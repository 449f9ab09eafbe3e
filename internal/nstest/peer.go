package nstest

import (
	"context"
	"net"
	"testing"
	"time"

	"nftnet/internal/nstest/wire"
)

// Reply is what a peer answers: the client's address as the server saw it, the
// server's address as the client reached it, and the server's host name.
type Reply = wire.Reply

// Serve answers HTTP requests on httpAddr and datagrams on udpAddr with a Reply
// each, in the namespace, until the test ends. An empty address means no such
// server.
func Serve(t testing.TB, ns *NS, httpAddr, udpAddr string) {
	t.Helper()
	if httpAddr != "" {
		l := ns.Listen(t, "tcp", httpAddr)
		serve(t, func() error { return wire.ServeHTTP(l) }, l.Close)
	}
	if udpAddr != "" {
		c := ns.ListenPacket(t, "udp", udpAddr).(*net.UDPConn)
		if err := wire.WantPktinfo(c); err != nil {
			t.Fatalf("serve: %v", err)
		}
		serve(t, func() error { return wire.ServeUDP(c) }, c.Close)
	}
}

// serve runs a server's loop until the test ends and waits for it then, so that
// its failure is the test's.
func serve(t testing.TB, loop, stop func() error) {
	done := make(chan error, 1)
	go func() { done <- loop() }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// Get asks a peer by HTTP from the namespace. It fails the test when there is
// no answer.
func (ns *NS) Get(t testing.TB, url string) Reply {
	t.Helper()
	r, err := ns.TryGet(url, httpTimeout)
	if err != nil {
		t.Fatalf("in namespace %s: %v", ns.name, err)
	}
	return r
}

// TryGet is Get that returns the error.
func (ns *NS) TryGet(url string, timeout time.Duration) (Reply, error) {
	client := ns.HTTPClient()
	client.Timeout = timeout
	b, err := wire.Get(context.Background(), client, url)
	if err != nil {
		return Reply{}, err
	}
	return wire.Decode(b)
}

// UDP asks a peer by datagrams, sent again every 200 ms until one is answered.
// A port that refuses is tried until the timeout too.
func (ns *NS) UDP(addr string, timeout time.Duration) (Reply, error) {
	return ns.ask("udp", addr, timeout, wire.AskUDP)
}

// TCP asks a peer that greets whoever connects.
func (ns *NS) TCP(addr string, timeout time.Duration) (Reply, error) {
	return ns.ask("tcp", addr, timeout, wire.AskTCP)
}

func (ns *NS) ask(network, addr string, timeout time.Duration, question func(context.Context, net.Conn) ([]byte, error)) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := ns.Dial(ctx, network, addr)
	if err != nil {
		return Reply{}, err
	}
	defer c.Close()
	b, err := question(ctx, c)
	if err != nil {
		return Reply{}, err
	}
	return wire.Decode(b)
}
