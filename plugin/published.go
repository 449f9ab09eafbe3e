package plugin

import (
	"cmp"
	"slices"

	"nftnet/internal/control"
	"nftnet/internal/desired"
)

// Published lists the ports that are published now, by port number.
func (d *Driver) Published() []control.Port {
	type row struct {
		port     desired.Port
		endpoint desired.Endpoint
	}
	var rows []row
	for _, e := range read(d, "list ports", desired.State.SortedEndpoints) {
		for _, p := range e.Published {
			rows = append(rows, row{p, e})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.port.Host.Port(), b.port.Host.Port()), cmp.Compare(a.port.Proto, b.port.Proto),
			a.port.Host.Addr().Compare(b.port.Host.Addr()))
	})
	out := make([]control.Port, len(rows))
	for i, r := range rows {
		out[i] = control.Port{
			Container: r.port.Container.String(), Proto: desired.ProtoName(r.port.Proto),
			Network: r.endpoint.NetworkID, Endpoint: r.endpoint.ID, Routed: r.port.Kind() == desired.Direct,
			Served: r.port.Kind() == desired.Served,
		}
		if r.port.Kind() != desired.Direct {
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
