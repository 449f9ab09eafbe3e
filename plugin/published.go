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
	// Routed says that the container's own address is the published one: Host is
	// empty.
	Routed bool `json:"routed,omitempty"`
	// Sources may reach the port; nil for everybody.
	Sources []string `json:"sources,omitempty"`
	// Closed says that nobody may but the host.
	Closed bool `json:"closed,omitempty"`
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
			Container: r.port.Container.String(), Proto: desired.ProtoName(r.port.Proto),
			Network: r.endpoint.NetworkID, Endpoint: r.endpoint.ID, Routed: r.port.Direct(),
			Served: !r.port.Translated() && !r.port.Direct(),
		}
		if !r.port.Direct() {
			out[i].Host = r.port.Host.String()
		}
		sources := r.endpoint.Allow.For(r.port.Proto, r.port.Container.Port())
		out[i].Closed = sources.Limited && len(sources.Prefixes) == 0
		for _, p := range sources.Prefixes {
			out[i].Sources = append(out[i].Sources, p.String())
		}
	}
	return out
}
