package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/port"
)

func (d *Driver) programExternalConnectivity(ctx context.Context, req libnetwork.ConnectivityRequest) (libnetwork.Empty, error) {
	err := d.publish(req)
	var taken *publishedError
	if errors.As(err, &taken) && d.containerName != nil {
		if name := d.containerName(ctx, taken.owner.ID); name != "" {
			err = fmt.Errorf("%w (container %s)", err, name)
		}
	}
	return libnetwork.Empty{}, err
}

// publish gives an endpoint the ports that a request asks for, instead of those
// that it has.
func (d *Driver) publish(req libnetwork.ConnectivityRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
	if !ok {
		return unknownNetwork(req.NetworkID)
	}
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return fmt.Errorf("endpoint %.12s is unknown in network %.12s", req.EndpointID, req.NetworkID)
	}
	// Docker sends the ports of containers on internal networks too.
	if n.Internal {
		return nil
	}
	if err := d.unpublish(e); err != nil {
		return err
	}
	if err := d.takeOver(e); err != nil {
		return err
	}
	requests, err := parseBindings(req.Options.PortMap, n, port.HasIPv6())
	if err != nil {
		return err
	}
	e.Published, err = d.allocate(requests, n, e, req.Options.NoProxy6To4)
	if err != nil {
		return err
	}
	return d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e })
}

// siblings are the other endpoints of an endpoint's container.
func (d *Driver) siblings(e desired.Endpoint) []desired.Endpoint {
	if e.Sandbox == "" {
		return nil
	}
	return slices.DeleteFunc(d.state.SortedEndpoints(), func(o desired.Endpoint) bool {
		return o.ID == e.ID || o.Sandbox != e.Sandbox
	})
}

// takeOver ends the ports that siblings serve across families and e has an
// address for: Docker does not say that e is the container's gateway of that
// family now. d.mu is held.
func (d *Driver) takeOver(e desired.Endpoint) error {
	for _, other := range d.siblings(e) {
		kept := slices.DeleteFunc(slices.Clone(other.Published), func(p desired.Port) bool {
			return p.Across() && e.Has(p.Host.Addr())
		})
		if len(kept) == len(other.Published) {
			continue
		}
		other.Published = kept
		if err := d.change(other.NetworkID, other.ID, func(s *desired.State) { s.Endpoints[other.ID] = other }); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) revokeExternalConnectivity(_ context.Context, req libnetwork.EndpointRequest) (libnetwork.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return libnetwork.Empty{}, nil
	}
	return libnetwork.Empty{}, d.unpublish(e)
}

// unpublish takes back all ports of an endpoint; d.mu is held.
func (d *Driver) unpublish(e desired.Endpoint) error {
	e.Published = nil
	return d.change(e.NetworkID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e })
}
