package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// within tries until a thing holds, and fails the test where it does not hold
// before the bound. It reports whether it did.
func within(t *testing.T, bound time.Duration, what string, fn func() error) bool {
	t.Helper()
	start := time.Now()
	for {
		err := fn()
		if err == nil {
			t.Logf("%s: after %v", what, time.Since(start).Round(time.Millisecond))
			return true
		}
		if time.Since(start) > bound {
			t.Errorf("%s: not within %v: %v", what, bound, err)
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// way is somebody who asks an HTTP server.
type way struct {
	name string
	from *nstest.NS
	url  string
}

// ask asks once by each way, all at the same time. It returns the ways that
// have no answer in time, and why.
func ask(ways []way, timeout time.Duration) (silent []way, err error) {
	errs := make([]error, len(ways))
	var all sync.WaitGroup
	for i, x := range ways {
		all.Go(func() {
			if _, err := x.from.TryGet(x.url, timeout); err != nil {
				errs[i] = fmt.Errorf("%s: %w", x.name, err)
			}
		})
	}
	all.Wait()
	for i, x := range ways {
		if errs[i] != nil {
			silent = append(silent, x)
		}
	}
	return silent, errors.Join(errs...)
}

// answer waits until each way has had an answer.
func answer(t *testing.T, bound time.Duration, what string, ways []way) bool {
	t.Helper()
	return within(t, bound, what, func() (err error) {
		ways, err = ask(ways, 300*time.Millisecond)
		return err
	})
}

// lanWays are the ways of the neighbour to a published port.
func (w *world) lanWays(port int) []way {
	return []way{
		{"LAN by IPv4", w.LAN, url(w.HostAddr4, port)},
		{"LAN by IPv6", w.LAN, url(w.HostAddr6, port)},
	}
}

// hostWays are the host's own ways to a published port.
func (w *world) hostWays(port int) []way {
	return []way{
		{"host by 127.0.0.1", w.Host, url(netip.MustParseAddr("127.0.0.1"), port)},
		{"host by [::1]", w.Host, url(netip.IPv6Loopback(), port)},
	}
}

// containerWays are those of a container: to the outside, and to a published
// port, which may be its own.
func (w *world) containerWays(c *nstest.NS, port int) []way {
	return []way{
		{"container to LAN by IPv4", c, url(w.LANAddr4, 80)},
		{"container to LAN by IPv6", c, url(w.LANAddr6, 80)},
		{"container to the published port by IPv4", c, url(w.HostAddr4, port)},
		{"container to the published port by IPv6", c, url(w.HostAddr6, port)},
	}
}

// lanServers answer on the neighbour: HTTP on port 80, and what a talk needs on
// port 7.
func (w *world) lanServers(t *testing.T) {
	t.Helper()
	nstest.Serve(t, w.LAN, ":80", "")
	nstest.ServeTCP(t, w.LAN, ":7")
}

// talkTimeout is how long a connection may stand still: after an interruption
// TCP waits twice as long before each try.
const talkTimeout = 30 * time.Second

// talk is a connection on which somebody says a word every few milliseconds,
// and hears it back.
type talk struct {
	name  string
	conn  net.Conn
	heard atomic.Int64
	// gap is the longest wait for a word, and err what ended the talk: both are
	// there once done is closed.
	gap  time.Duration
	err  error
	done chan struct{}
}

// startTalk begins to talk to the TCP server of a peer.
func startTalk(t *testing.T, name string, from *nstest.NS, host netip.Addr, port uint16) *talk {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(host, port).String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	k := &talk{name: name, conn: conn, done: make(chan struct{})}
	t.Cleanup(func() { _ = conn.Close() })
	go k.run()
	return k
}

func (k *talk) run() {
	defer close(k.done)
	in := bufio.NewReader(k.conn)
	// The peer greets first.
	_, k.err = in.ReadString('\n')
	for k.err == nil {
		word := fmt.Sprintf("word %d\n", k.heard.Load())
		start := time.Now()
		var echo string
		if _, k.err = k.conn.Write([]byte(word)); k.err == nil {
			echo, k.err = in.ReadString('\n')
		}
		if k.err == nil && echo != word {
			k.err = fmt.Errorf("heard %q after %q", echo, word)
		}
		k.gap = max(k.gap, time.Since(start))
		k.heard.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// goesOn asserts that a word which is said from now on is heard.
func (k *talk) goesOn(t *testing.T) {
	t.Helper()
	before := k.heard.Load()
	for end := time.Now().Add(talkTimeout); k.heard.Load() < before+2; time.Sleep(5 * time.Millisecond) {
		select {
		case <-k.done:
			t.Errorf("connection %s broke after %d words: %v", k.name, k.heard.Load(), k.err)
			return
		default:
		}
		if time.Now().After(end) {
			t.Errorf("connection %s stands still after %d words", k.name, before)
			return
		}
	}
}

// end is goesOn for the last time.
func (k *talk) end(t *testing.T) {
	t.Helper()
	k.goesOn(t)
	_ = k.conn.Close()
	<-k.done
	t.Logf("connection %s: %d words, longest wait %v", k.name, k.heard.Load(), k.gap.Round(time.Millisecond))
}

type talks []*talk

func (all talks) goOn(t *testing.T) {
	t.Helper()
	for _, k := range all {
		k.goesOn(t)
	}
}

func (all talks) end(t *testing.T) {
	t.Helper()
	for _, k := range all {
		k.end(t)
	}
}

// talkPort publishes the TCP server of a container in talks.
const talkPort = 9007

// lanTalks are connections of the neighbour to the published port.
func (w *world) lanTalks(t *testing.T) talks {
	t.Helper()
	return talks{
		startTalk(t, "LAN to the port by IPv4", w.LAN, w.HostAddr4, talkPort),
		startTalk(t, "LAN to the port by IPv6", w.LAN, w.HostAddr6, talkPort),
	}
}

// outTalks are connections of a container to the neighbour.
func (w *world) outTalks(t *testing.T, c *nstest.NS) talks {
	t.Helper()
	return talks{
		startTalk(t, "container to LAN by IPv4", c, w.LANAddr4, 7),
		startTalk(t, "container to LAN by IPv6", c, w.LANAddr6, 7),
	}
}

// kernelTalks are connections that the kernel carries alone: they need neither
// the engine nor the driver.
func (w *world) kernelTalks(t *testing.T, c *nstest.NS) talks {
	t.Helper()
	all := append(w.lanTalks(t), w.outTalks(t, c)...)
	return append(all, startTalk(t, "host to 127.0.0.1", w.Host, netip.MustParseAddr("127.0.0.1"), talkPort))
}

// iface is an interface in the words of ip.
type iface struct {
	Name    string `json:"ifname"`
	Index   int    `json:"ifindex"`
	Peer    int    `json:"link_index"`
	MTU     int    `json:"mtu"`
	Flags   []string
	Address string
	Master  string
	Info    struct {
		Kind string `json:"info_kind"`
		Port struct {
			Hairpin  bool
			Isolated bool
		} `json:"info_slave_data"`
	} `json:"linkinfo"`
	Addrs []struct {
		Local     string
		Length    int `json:"prefixlen"`
		Scope     string
		Tentative bool
	} `json:"addr_info"`
}

// ifaces lists the interfaces of a namespace.
func ifaces(t *testing.T, ns *nstest.NS) []iface {
	t.Helper()
	var list []iface
	if err := json.Unmarshal([]byte(ns.Exec(t, "ip", "-d", "-j", "addr", "show")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// bridgeOf is the bridge of a network.
func (w *world) bridgeOf(t *testing.T, network string) string {
	t.Helper()
	id := w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", network)
	for _, i := range ifaces(t, w.Host) {
		if digits, ok := strings.CutPrefix(i.Name, "nft-"); ok && strings.HasPrefix(id, digits) {
			return i.Name
		}
	}
	t.Fatalf("network %s has no bridge", network)
	return ""
}

// macOf is the link address of an interface of the host.
func (w *world) macOf(t *testing.T, name string) string {
	t.Helper()
	for _, i := range ifaces(t, w.Host) {
		if i.Name == name {
			return i.Address
		}
	}
	return "missing"
}

// vethOf is the host's end of a container's link.
func (w *world) vethOf(t *testing.T, c *nstest.NS) string {
	t.Helper()
	for _, inside := range ifaces(t, c) {
		for _, i := range ifaces(t, w.Host) {
			if inside.Name == "eth0" && i.Index == inside.Peer {
				return i.Name
			}
		}
	}
	t.Fatal("the container has no link to the host")
	return ""
}

// shape is all that a network has on the host, a line for each thing: its
// bridge, the bridge's ports, the kernel's parameters and the tables.
func (w *world) shape(t *testing.T, bridge string) string {
	t.Helper()
	lines := []string{"no bridge " + bridge}
	for _, i := range ifaces(t, w.Host) {
		up := slices.Contains(i.Flags, "UP")
		switch bridge {
		case i.Name:
			lines[0] = fmt.Sprintf("%s %s: up %v, mtu %d, address %s", i.Info.Kind, i.Name, up, i.MTU, i.Address)
			lines = append(lines, bridgeAddrs(i)...)
		case i.Master:
			lines = append(lines, fmt.Sprintf("port %s: up %v, mtu %d, hairpin %v, isolated %v", i.Name, up, i.MTU, i.Info.Port.Hairpin, i.Info.Port.Isolated))
		}
	}
	lines = append(lines, w.parameters(bridge)...)
	slices.Sort(lines)
	return strings.Join(append(lines, w.tableText(t), w.textOf(t, "bridge", "nftnet")), "\n")
}

// bridgeAddrs are the addresses that can be used. Whatever link-local address
// there is serves.
func bridgeAddrs(i iface) []string {
	var out []string
	for _, a := range i.Addrs {
		switch {
		case a.Tentative:
		case a.Scope == "link":
			out = append(out, i.Name+" has a link-local address")
		default:
			out = append(out, fmt.Sprintf("%s has %s/%d", i.Name, a.Local, a.Length))
		}
	}
	return slices.Compact(out)
}

// parameters are those of the kernel that a bridge needs.
func (w *world) parameters(bridge string) []string {
	var out []string
	for _, name := range []string{
		"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/" + bridge + "/route_localnet",
		"ipv6/conf/" + bridge + "/disable_ipv6", "ipv6/conf/" + bridge + "/accept_ra",
	} {
		value := "missing"
		err := w.Host.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/" + name)
			value = strings.TrimSpace(string(b))
			return err
		})
		if err != nil {
			value = "missing"
		}
		out = append(out, name+" = "+value)
	}
	return out
}

// differ tells two texts apart by the lines that only one has.
func differ(have, want string) error {
	if have == want {
		return nil
	}
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	only := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(line string) bool { return slices.Contains(b, line) })
	}
	return fmt.Errorf("it has:\n\t%s\nand lacks:\n\t%s", strings.Join(only(h, w), "\n\t"), strings.Join(only(w, h), "\n\t"))
}
