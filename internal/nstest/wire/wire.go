// Package wire is what test peers say to each other: over HTTP, UDP and TCP a
// server answers with one JSON line that names the client as the server saw it
// and the address the client reached. A test learns from it what network
// address translation did to a packet on its way.
package wire

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// Reply is what a peer answers to whoever reaches it.
type Reply struct {
	// Client and Port are the source that the server saw.
	Client netip.Addr `json:"client"`
	Port   int        `json:"port"`
	// Local is the server's own address and port, as the packet arrived.
	Local string `json:"local"`
	// Host is the server's host name: in a container, its name or id.
	Host string `json:"host"`
}

// Decode reads a Reply from the line that a peer sent or printed.
func Decode(line []byte) (Reply, error) {
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return Reply{}, fmt.Errorf("decode peer's answer %q: %w", line, err)
	}
	return r, nil
}

// line encodes the answer for one client, with a newline at the end.
func line(client, local netip.AddrPort) ([]byte, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read host name: %w", err)
	}
	b, err := json.Marshal(Reply{
		Client: plain(client.Addr()),
		Port:   int(client.Port()),
		Local:  netip.AddrPortFrom(plain(local.Addr()), local.Port()).String(),
		Host:   host,
	})
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return append(b, '\n'), nil
}

// plain drops the zone of a link-local address: its interface has another name
// at the other end of the link.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// addrPort converts the address of a TCP or UDP socket.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
