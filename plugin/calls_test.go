package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
	"nftnet/plugin/libnetwork"
)

// TestTwentyContainersAtOnce: containers on two networks each, whose calls come at
// once and in every order of networks, all have their ports, and leave nothing.
func TestTwentyContainersAtOnce(t *testing.T) {
	const containers, rounds = 20, 2
	r := newRig(t)
	r.network(t, 1)
	r.network(t, 2)
	empty := table(t)
	for range rounds {
		var all sync.WaitGroup
		for c := range containers {
			all.Go(func() {
				sandbox := fmt.Sprintf("/nowhere/netns/%012x", c)
				portmap := m{"com.docker.network.portmap": []m{published(9000+c, 80), {"Proto": 17, "Port": 53}}}
				for i := range 2 {
					n := 1 + (c+i)%2
					who := ids(n, 100*n+c)
					r.ok(t, "CreateEndpoint", with(who, "Interface", m{"Address": fmt.Sprintf("10.%d.0.%d/24", n, c+2)}))
					r.ok(t, "Join", with(with(who, "SandboxKey", sandbox), "Options", portmap))
					r.ok(t, "ProgramExternalConnectivity", with(who, "Options", portmap))
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		leads := map[string]bool{}
		for _, p := range r.driver.Published() {
			leads[p.Host+" "+p.Container] = true
		}
		for c := range containers {
			// The endpoint that was made the gateway last has the port.
			if want := fmt.Sprintf("0.0.0.0:%d 10.%d.0.%d:80", 9000+c, 1+(c+1)%2, c+2); !leads[want] {
				t.Errorf("port %s is missing of %v", want, leads)
			}
		}
		r.consistent(t)
		for c := range containers {
			all.Go(func() {
				for i := range 2 {
					n := 1 + (c+i)%2
					r.ok(t, "Leave", ids(n, 100*n+c))
					r.ok(t, "DeleteEndpoint", ids(n, 100*n+c))
				}
			})
		}
		all.Wait()
		r.consistent(t)
		if got := table(t); got != empty || r.held() != 0 || strings.Contains(links(t), "nfv") {
			t.Fatalf("%d ports are held; links:\n%s\ntable:\n%s", r.held(), links(t), got)
		}
	}
}

// TestCallsOfOthersGoOn: while calls for one network, and for one container, are
// held up, those for others are answered, and the one that waited is right then.
func TestCallsOfOthersGoOn(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.network(t, 2)
	r.attach(t, 1, 1, published(8080, 80))
	unlock := r.driver.calls.Lock(id(1))
	waits := make(chan string, 1)
	go func() {
		text, _ := r.call(t, "DeleteNetwork", m{"NetworkID": id(1)})
		waits <- text
	}()
	// The container of the network goes first, then the network waits.
	eventually(t, "the call has begun", func() bool { _, there := r.state().Endpoints[id(1001)]; return !there })
	r.attach(t, 2, 2, published(8081, 80))
	r.network(t, 3)
	r.ok(t, "Leave", ids(2, 2))
	r.ok(t, "DeleteEndpoint", ids(2, 2))
	if len(r.driver.Problems(t.Context())) != 1 || len(r.driver.Published()) != 0 {
		t.Errorf("problems %v, ports %v", r.driver.Problems(t.Context()), r.driver.Published())
	}
	select {
	case text := <-waits:
		t.Fatalf("the call did not wait: %q", text)
	default:
	}
	unlock()
	if text := <-waits; text != "" {
		t.Error(text)
	}
	r.consistent(t)
	// The same for one container.
	r.ok(t, "CreateEndpoint", with(ids(2, 5), "Interface", m{"Address": "10.2.0.7/24"}))
	unlock = r.driver.calls.Lock(id(1005))
	go func() {
		text, _ := r.call(t, "DeleteEndpoint", ids(2, 5))
		waits <- text
	}()
	r.attach(t, 2, 6, published(8082, 80))
	unlock()
	if text := <-waits; text != "" {
		t.Error(text)
	}
	r.consistent(t)
}

// serving is a driver that serves on a socket until stop.
func serving(t *testing.T) (socket string, stop func() error) {
	t.Helper()
	nstest.RequireInside(t)
	log := slog.New(slog.DiscardHandler)
	d, err := Open(context.Background(), Config{State: filepath.Join(t.TempDir(), "state.db"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	socket = filepath.Join(t.TempDir(), "nftnet.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(d, log).Serve(ctx, l) }()
	return socket, func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("it does not stop")
		}
	}
}

// TestStopWithHalfSentCalls: calls whose body never ends do not keep the driver
// from its end; their callers see the connection close.
func TestStopWithHalfSentCalls(t *testing.T) {
	socket, stop := serving(t)
	var callers []net.Conn
	for i := range 5 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
		// The driver asks for the body: the call has begun.
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("%q, %v", line, err)
		}
		fmt.Fprint(c, strings.Repeat("{", i))
		callers = append(callers, c)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, c := range callers {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection is open still: %v", err)
		}
	}
}

// TestAnswersCloseTheConnection: Docker would send its next call into a connection
// that a restart has closed.
func TestAnswersCloseTheConnection(t *testing.T) {
	socket, stop := serving(t)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	for _, path := range []string{"/NetworkDriver.GetCapabilities", "/NetworkDriver.Leave"} {
		resp, err := client.Post("http://d"+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if !resp.Close {
			t.Errorf("the answer to %s leaves the connection open", path)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestIPv6Inside: ports lead to the families that the container has: switched off
// inside, IPv6 clients are served by IPv4; switched on again, they reach the
// container's own address. A container that never has its address counts as off.
func TestIPv6Inside(t *testing.T) {
	r := newRig(t)
	r.ok(t, "CreateNetwork", m{
		"NetworkID": id(1), "Options": m{libnetwork.Generic: m{}},
		"IPv4Data": []m{{"Pool": "10.1.0.0/24", "Gateway": "10.1.0.1/24"}},
		"IPv6Data": []m{{"Pool": "fd00:1::/64", "Gateway": "fd00:1::1/64"}},
	})
	start := func(e int) *nstest.NS {
		who := ids(1, e)
		portmap := m{"com.docker.network.portmap": []m{published(8080+e, 80)}}
		r.ok(t, "CreateEndpoint", with(who, "Interface", m{"Address": fmt.Sprintf("10.1.0.%d/24", e+2), "AddressIPv6": fmt.Sprintf("fd00:1::%d/64", e+2)}))
		joined := r.ok(t, "Join", with(with(who, "SandboxKey", fmt.Sprintf("/nowhere/netns/%012x", e)), "Options", portmap))
		ns := nstest.NewNS(t, fmt.Sprintf("c%d", e))
		moveLink(t, ns, joined["InterfaceName"].(m)["SrcName"].(string), fmt.Sprintf("10.1.0.%d/24", e+2))
		ns.Exec(t, "ip", "route", "add", "default", "via", "10.1.0.1")
		nstest.Serve(t, ns, "[::]:80", "")
		r.ok(t, "ProgramExternalConnectivity", with(who, "Options", portmap))
		return ns
	}
	leads := func(e int) string {
		for _, p := range r.driver.Published() {
			if p.Host == fmt.Sprintf("[::]:%d", 8080+e) {
				return p.Container
			}
		}
		return ""
	}
	on := func(ns *nstest.NS, e int) {
		ns.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
		ns.Exec(t, "ip", "addr", "add", fmt.Sprintf("fd00:1::%d/64", e+2), "dev", "eth0", "nodad")
	}
	get := func(e int) {
		t.Helper()
		r.ended(id(1000 + e))
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			url := fmt.Sprintf("http://%s:%d/", host, 8080+e)
			if out, err := exec.Command("curl", "-sS", "-g", "-m", "10", url).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", url, err, out)
			}
		}
	}
	ns := start(1)
	on(ns, 1)
	// It may have counted as off until it had its address.
	eventually(t, "[::] leads to the container's IPv6 address", func() bool { return leads(1) == "[fd00:1::3]:80" })
	get(1)
	for range 2 {
		ns.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
		eventually(t, "[::] leads to the IPv4 address", func() bool { return leads(1) == "10.1.0.3:80" })
		get(1)
		ns.Exec(t, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
		on(ns, 1)
		eventually(t, "[::] leads to the IPv6 address again", func() bool { return leads(1) == "[fd00:1::3]:80" })
		get(1)
	}
	start(2)
	eventually(t, "[::] leads to the IPv4 address of one that never had another", func() bool { return leads(2) == "10.1.0.4:80" })
	get(2)
	r.ok(t, "Leave", ids(1, 1))
	r.ok(t, "DeleteEndpoint", ids(1, 1))
	r.ok(t, "DeleteEndpoint", ids(1, 2))
	if r.held() != 0 {
		t.Errorf("%d ports are held", r.held())
	}
	r.consistent(t)
}
