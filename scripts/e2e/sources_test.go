package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
	"nftnet/internal/nstest/golden"
)

// asker is somebody who asks the server, and by which addresses it is known.
type asker struct {
	own []netip.Addr
	ask func(proto, to string, wait time.Duration) (nstest.Reply, error)
}

// sourceRow is a row of the table: somebody asks the server in one or more manners,
// which are expected to be alike.
type sourceRow struct {
	from, text string
	probes     []sourceProbe
	// dropped says that no answer is expected.
	dropped bool
	// proxy and kernel are what servers see with Docker's own driver, with its
	// proxy and without. They are not measured here.
	proxy, kernel string
}

type sourceProbe struct{ name, proto, to string }

// byTCP and byUDP ask by one address, byBoth by one of each family.
func byTCP(host string, port int) []sourceProbe { return []sourceProbe{probeOf("tcp", host, port)} }
func byUDP(host string, port int) []sourceProbe { return []sourceProbe{probeOf("udp", host, port)} }
func byBoth(proto string, hosts [2]string, ports ...int) []sourceProbe {
	var out []sourceProbe
	for _, host := range hosts {
		for _, port := range ports {
			out = append(out, probeOf(proto, host, port))
		}
	}
	return out
}

func probeOf(proto, host string, port int) sourceProbe {
	a := netip.MustParseAddr(host)
	return sourceProbe{name: family(a), proto: proto, to: netip.AddrPortFrom(a, uint16(port)).String()}
}

// What a server sees as its client's address, and what a client sees without
// an answer.
const (
	seenClient  = "client's own"
	seenGateway = "gateway's"
	seenHost    = "host's"
	noAnswer    = "no answer"
	refused     = "refused"
)

// The addresses of the world of the table: a host with a neighbour, network web
// with the server and a neighbour of it, a network other, and a network plain
// without IPv6 that has a server, too.
var (
	addrHost      = [2]string{"192.0.2.1", "fd00:192::1"}
	addrServer    = [2]string{"10.81.0.80", "fd00:81::80"}
	addrNeighbour = [2]string{"10.81.0.90", "fd00:81::90"}
	addrGateway   = [2]string{"10.81.0.1", "fd00:81::1"}
	addrOther     = [2]string{"10.82.0.80", "fd00:82::80"}
	otherGateway  = [2]string{"10.82.0.1", "fd00:82::1"}
	plainGateway  = "10.83.0.1"
)

var sourceRows = []sourceRow{
	{"LAN", "host:8080", byTCP(addrHost[0], 8080), false, seenClient, seenClient},
	{"LAN", "[host]:8080 by IPv6", byTCP(addrHost[1], 8080), false, seenClient, seenClient},
	{"LAN", "[host]:8084 by IPv6, container with IPv4 alone", byTCP(addrHost[1], 8084), false, seenGateway, refused},
	{"LAN", "host:5353/udp", byBoth("udp", addrHost, 5353), false, seenClient, seenClient},
	{"LAN", "container:80, by a route to its network", byBoth("tcp", addrServer, 80), true, noAnswer, noAnswer},
	{"LAN", "container:81, the same, unpublished", byBoth("tcp", addrServer, 81), true, noAnswer, noAnswer},
	{"LAN", "127.0.0.1:8090, by a route to the host", byTCP("127.0.0.1", 8090), true, noAnswer, noAnswer},
	{"host", "127.0.0.1:8080", byTCP("127.0.0.1", 8080), false, seenGateway, seenGateway},
	{"host", "[::1]:8080", byTCP("::1", 8080), false, seenGateway, refused},
	{"host", "its own address:8080", byBoth("tcp", addrHost, 8080), false, seenHost, seenGateway},
	{"host", "127.0.0.1:5353/udp", byUDP("127.0.0.1", 5353), false, seenGateway, seenGateway},
	{"host", "container:80 and :81", byBoth("tcp", addrServer, 80, 81), false, seenGateway, seenGateway},
	{"the container itself", "host:8080", byBoth("tcp", addrHost, 8080), false, seenGateway, seenGateway},
	{"the container itself", "host:5353/udp", byBoth("udp", addrHost, 5353), false, seenGateway, seenGateway},
	{"the container itself", "its gateway:8080", byBoth("tcp", addrGateway, 8080), false, seenGateway, seenGateway},
	{"neighbour on its network", "container:80", byBoth("tcp", addrServer, 80), false, seenClient, seenClient},
	{"neighbour on its network", "host:8080", byBoth("tcp", addrHost, 8080), false, seenGateway, seenClient},
	{"container of another network", "host:8080", byBoth("tcp", addrHost, 8080), false, seenGateway, seenGateway},
	{"container of another network", "its own gateway:8080", byBoth("tcp", otherGateway, 8080), false, seenGateway, seenGateway},
	{"container of another network", "container:80 and :81", byBoth("tcp", addrServer, 80, 81), true, noAnswer, noAnswer},
	{"container of another network", "host:8090, published on 127.0.0.1 alone", byTCP(addrHost[0], 8090), false, refused, refused},
}

// TestSourceAddresses measures the table of README.md that tells which address
// a server sees, and compares; -update writes it.
func TestSourceAddresses(t *testing.T) {
	w := newWorld(t)
	askers := w.sourcesWorld(t)
	var columns [][]string
	bothBridgeNF(t, w, func(t *testing.T) { columns = append(columns, measureSources(askers)) })
	if len(columns) != 2 {
		t.Fatal("the table needs both columns: run the whole test")
	}
	const path, begin, end = "../../README.md", "<!-- sources -->\n", "<!-- /sources -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no part between %s and %s", path, begin, end)
	}
	golden.Check(t, path, head+begin+sourcesTable(columns)+end+tail)
}

// sourcesWorld starts the containers of the table and returns who asks.
func (w *world) sourcesWorld(t *testing.T) map[string]asker {
	t.Helper()
	w.dual(t, "web", 81)
	w.dual(t, "other", 82)
	w.network(t, "plain", "--subnet", "10.83.0.0/24")
	w.routes(t, 81)
	w.run(t, "server", "web", "--ip", addrServer[0], "--ip6", addrServer[1],
		"-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8090:80")
	w.run(t, "neighbour", "web", "--ip", addrNeighbour[0], "--ip6", addrNeighbour[1])
	w.run(t, "stranger", "other", "--ip", addrOther[0], "--ip6", addrOther[1])
	w.run(t, "plain", "plain", "-p", "8084:80")
	// The neighbour on the LAN believes that 127.0.0.1 is behind the host.
	w.LAN.Exec(t, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	w.LAN.Exec(t, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
	w.LAN.Exec(t, "ip", "route", "add", "127.0.0.1/32", "via", w.HostAddr4.String(), "src", w.LANAddr4.String())
	return map[string]asker{
		"LAN":                          fromNS(w.LAN, w.LANAddr4, w.LANAddr6),
		"host":                         fromNS(w.Host),
		"the container itself":         w.fromContainer(t, "server", addrServer),
		"neighbour on its network":     w.fromContainer(t, "neighbour", addrNeighbour),
		"container of another network": w.fromContainer(t, "stranger", addrOther),
	}
}

func fromNS(ns *nstest.NS, own ...netip.Addr) asker {
	return asker{own, func(proto, to string, wait time.Duration) (nstest.Reply, error) {
		if proto == "udp" {
			return ns.UDP(to, wait)
		}
		return ns.TryGet("http://"+to+"/", wait)
	}}
}

func (w *world) fromContainer(t *testing.T, name string, own [2]string) asker {
	return asker{parseAddrs(own[:]...), func(proto, to string, wait time.Duration) (nstest.Reply, error) {
		if proto == "udp" {
			return w.engine.Peer(t, name, "udp", "-timeout", wait.String(), to)
		}
		return w.engine.Peer(t, name, "http", "-timeout", wait.String(), "http://"+to+"/")
	}}
}

func parseAddrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// measureSources asks in all ways at once, a few at a time, and returns a cell for each.
func measureSources(askers map[string]asker) []string {
	const atOnce, patience = 6, 5 * time.Second
	var running sync.WaitGroup
	free := make(chan struct{}, atOnce)
	words := make([][]string, len(sourceRows))
	for i, row := range sourceRows {
		words[i] = make([]string, len(row.probes))
		for j, p := range row.probes {
			running.Go(func() {
				free <- struct{}{}
				defer func() { <-free }()
				wait := patience
				if row.dropped {
					wait = silence
				}
				words[i][j] = askers[row.from].seen(p, wait)
			})
		}
	}
	running.Wait()
	cells := make([]string, len(sourceRows))
	for i, row := range sourceRows {
		cells[i] = row.cell(words[i])
	}
	return cells
}

// seen asks and says in words which address the server saw.
func (a asker) seen(p sourceProbe, wait time.Duration) string {
	r, err := a.ask(p.proto, p.to, wait)
	gateways := parseAddrs(addrGateway[0], addrGateway[1], plainGateway)
	switch {
	case err != nil && (errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection refused")):
		return refused
	case err != nil && isTimeout(err):
		return noAnswer
	case err != nil:
		return err.Error()
	case slices.Contains(a.own, r.Client):
		return seenClient
	case slices.Contains(gateways, r.Client):
		return seenGateway
	case slices.Contains(parseAddrs(addrHost[:]...), r.Client):
		return seenHost
	}
	return r.Client.String()
}

// cell is one word where all manners of a row are alike, else a word for each.
func (row sourceRow) cell(words []string) string {
	if !slices.ContainsFunc(words, func(word string) bool { return word != words[0] }) {
		return words[0]
	}
	var parts []string
	for i, p := range row.probes {
		parts = append(parts, fmt.Sprintf("%s: %s", p.name, words[i]))
	}
	return strings.Join(slices.Compact(parts), ", ")
}

func sourcesTable(columns [][]string) string {
	var b strings.Builder
	b.WriteString("| from | to | nftnet, bridge-nf-call 0 | nftnet, bridge-nf-call 1 | Docker | Docker without proxy |\n|---|---|---|---|---|---|\n")
	for i, row := range sourceRows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", row.from, row.text, columns[0][i], columns[1][i], row.proxy, row.kernel)
	}
	return b.String()
}
