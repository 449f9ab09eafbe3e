package plugin

import (
	"cmp"
	"slices"

	"nftnet/internal/desired"
)

// Published is a published port and what it leads to.
type Published struct {
	// Host is the address and port on the host, Container those of the
	// container, Proto the protocol as Docker writes it.
	Host      string `json:"host"`
	Container string `json:"container"`
	Proto     string `json:"proto"`
	// Network and Endpoint are Docker's ids.
	Network  string `json:"network"`
	Endpoint string `json:"endpoint"`
	// Served says that nftnet's own socket serves the port, because the kernel
	// cannot translate it: the container sees the host's address.
	Served bool `json:"served,omitempty"`
}

// Published lists the ports that are published now, by port number.
func (d *Driver) Published() []Published {
	d.mu.Lock()
	defer d.mu.Unlock()
	type row struct {
		port     desired.Port
		endpoint desired.Endpoint
	}
	var rows []row
	for _, e := range d.state.SortedEndpoints() {
		for _, p := range e.Published {
			rows = append(rows, row{p, e})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.port.Host.Port(), b.port.Host.Port()), cmp.Compare(a.port.Proto, b.port.Proto),
			a.port.Host.Addr().Compare(b.port.Host.Addr()))
	})
	out := make([]Published, len(rows))
	for i, r := range rows {
		out[i] = Published{
			Host: r.port.Host.String(), Container: r.port.Container.String(), Proto: desired.ProtoName(r.port.Proto),
			Network: r.endpoint.NetworkID, Endpoint: r.endpoint.ID, Served: !r.port.Translated(),
		}
	}
	return out
}
