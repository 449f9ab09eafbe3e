package plugin

import (
	"context"
	"errors"
	"fmt"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/link"
	"nftnet/plugin/option"
)

// gwAllocCheck says whether Docker is to reserve an address for the gateway:
// not where the bridge has none and no default route needs one, so that both
// addresses of a /31 are the containers'.
func (d *Driver) gwAllocCheck(_ context.Context, req libnetwork.GwAllocCheckRequest) (libnetwork.GwAllocCheckResponse, error) {
	n, err := option.ParseGateways(req.Options)
	if err != nil {
		return libnetwork.GwAllocCheckResponse{}, err
	}
	return libnetwork.GwAllocCheckResponse{
		SkipIPv4: n.IPv4.Mode == desired.ModeIsolated || n.InhibitIPv4 && n.Internal,
		SkipIPv6: n.IPv6.Mode == desired.ModeIsolated,
	}, nil
}

func (d *Driver) createNetwork(_ context.Context, req libnetwork.CreateNetworkRequest) (libnetwork.Empty, error) {
	if err := checkID("network", req.NetworkID); err != nil {
		return libnetwork.Empty{}, err
	}
	n, choices, err := d.defaults.ParseNetwork(req)
	if err != nil {
		return libnetwork.Empty{}, err
	}
	defer d.calls.Lock(n.ID)()
	before := read(d, "create network", func(s desired.State) desired.State { return s.Part(n.ID, "") })
	if again, ok := before.Networks[n.ID]; ok {
		// What was found out at the first time stays.
		n.Adopted, n.MTU = again.Adopted, again.MTU
		n.IPv4.Kept, n.IPv6.Kept = again.IPv4.Kept, again.IPv6.Kept
	}
	if err := d.makeRoom(n); err != nil {
		return libnetwork.Empty{}, err
	}
	if _, again := before.Networks[n.ID]; !again {
		if err := fit(&n, choices); err != nil {
			return libnetwork.Empty{}, err
		}
	}
	check := func(s desired.State) error { return checkNetwork(s, n) }
	return libnetwork.Empty{}, d.change("create network", before, check, func(s *desired.State) { s.Networks[n.ID] = n })
}

// clashError says that a network cannot be had beside another.
type clashError struct {
	other desired.Network
	text  string
}

func (e *clashError) Error() string { return e.text }

// checkNetwork refuses a network that cannot be had beside another.
func checkNetwork(s desired.State, n desired.Network) error {
	for _, other := range s.SortedNetworks() {
		if other.ID == n.ID {
			continue
		}
		if other.Bridge == n.Bridge {
			return &clashError{other, fmt.Sprintf("option %s: %q is the bridge of network %.12s already: allowed is a name of its own",
				option.BridgeName, n.Bridge, other.ID)}
		}
		for _, a := range n.Subnets() {
			for _, b := range other.Subnets() {
				if a.Prefix.Overlaps(b.Prefix) {
					return &clashError{other, fmt.Sprintf("subnet %s overlaps subnet %s of network %.12s: allowed is a subnet of its own",
						a.Prefix, b.Prefix, other.ID)}
				}
			}
		}
	}
	return nil
}

// overlapping are the choices of a network that is there already: its subnet is
// its own.
var overlapping = option.Choices{Overlap: true}

// fit makes a new network fit the host that it comes to: it adopts a bridge
// that is there, takes the MTU of the default route, and keeps away from the
// host's own routes.
func fit(n *desired.Network, c option.Choices) error {
	kind, err := link.Kind(n.Bridge)
	switch {
	case err != nil:
		return err
	case kind == link.KindBridge:
		if err := adopt(n); err != nil {
			return fmt.Errorf("option %s: %q cannot be adopted: %w", option.BridgeName, n.Bridge, err)
		}
	case kind != "":
		return fmt.Errorf("option %s: an interface named %q exists and is a %s: allowed is a bridge, or a name of its own",
			option.BridgeName, n.Bridge, kind)
	}
	if n.MTU == 0 && !n.Internal {
		if n.MTU, err = link.RouteMTU(n.IPv6.IsValid()); err != nil {
			return err
		}
	}
	if c.Overlap {
		return nil
	}
	for _, s := range n.Subnets() {
		route, err := link.RouteInto(s.Prefix, n.Bridge)
		if err != nil {
			return err
		}
		if route != "" {
			return fmt.Errorf("subnet %s clashes with the host's route %s: allowed is a subnet that the host has no route to, or option %s=true",
				s.Prefix, route, option.Overlap)
		}
	}
	return nil
}

// adopt makes a bridge of the user's the network's.
func adopt(n *desired.Network) error {
	n.Adopted = true
	for _, s := range []*desired.Subnet{&n.IPv4, &n.IPv6} {
		if !s.Gateway.IsValid() {
			continue
		}
		var err error
		if s.Kept, err = link.HasAddress(n.Bridge, s.Gateway); err != nil {
			return err
		}
	}
	return link.CheckAdopted(*n)
}

func (d *Driver) deleteNetwork(_ context.Context, req libnetwork.NetworkRequest) (libnetwork.Empty, error) {
	return libnetwork.Empty{}, d.dropNetwork("delete network", req.NetworkID)
}

// dropNetwork forgets a network with its endpoints.
func (d *Driver) dropNetwork(by, id string) error {
	endpoints := func() []desired.Endpoint {
		return read(d, by, func(s desired.State) []desired.Endpoint { return s.EndpointsOf(id) })
	}
	for {
		var errs []error
		for _, e := range endpoints() {
			errs = append(errs, d.dropEndpoint(by, e.ID))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		unlock := d.calls.Lock(id)
		// No endpoint is added while the network's key is held.
		if len(endpoints()) == 0 {
			part := read(d, by, func(s desired.State) desired.State { return s.Part(id, "") })
			err := d.settle(by, part, func(s *desired.State) { delete(s.Networks, id) })
			unlock()
			return err
		}
		unlock()
	}
}
