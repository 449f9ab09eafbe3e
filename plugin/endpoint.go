package plugin

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/link"
	"nftnet/plugin/option"
	"nftnet/plugin/portmap"
)

func (d *Driver) createEndpoint(_ context.Context, req libnetwork.CreateEndpointRequest) (libnetwork.CreateEndpointResponse, error) {
	if err := checkID("endpoint", req.EndpointID); err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	n, ok := d.network(req.NetworkID)
	if !ok {
		return libnetwork.CreateEndpointResponse{}, unknownNetwork(req.NetworkID)
	}
	e, given, err := parseEndpoint(req, n)
	if err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	if err := d.dropPredecessors(e); err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	defer d.lockEndpoint(e.ID)()
	defer d.calls.RLock(n.ID)()
	before := read(d, "create endpoint", func(s desired.State) desired.State { return s.Part(n.ID, e.ID) })
	check := func(s desired.State) error {
		if _, ok := s.Networks[n.ID]; !ok {
			return unknownNetwork(n.ID)
		}
		if other, ok := s.Endpoints[e.ID]; ok && other.NetworkID != n.ID {
			return fmt.Errorf("endpoint %.12s is one of network %.12s already", e.ID, other.NetworkID)
		}
		return nil
	}
	if err := d.change("create endpoint", before, check, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	if given {
		return libnetwork.CreateEndpointResponse{}, nil
	}
	return libnetwork.CreateEndpointResponse{Interface: &libnetwork.EndpointInterface{MacAddress: e.MAC}}, nil
}

// network is a network of the state.
func (d *Driver) network(id string) (desired.Network, bool) {
	defer d.mu.Lock("look up network")()
	n, ok := d.state.Networks[id]
	return n, ok
}

// endpoint is an endpoint of the state.
func (d *Driver) endpoint(id string) (desired.Endpoint, bool) {
	defer d.mu.Lock("look up endpoint")()
	e, ok := d.state.Endpoints[id]
	return e, ok
}

// endpointOf is an endpoint of one network.
func (d *Driver) endpointOf(networkID, id string) (desired.Endpoint, bool) {
	e, ok := d.endpoint(id)
	return e, ok && e.NetworkID == networkID
}

// lockEndpoint keeps others from an endpoint and from its container, which a
// call may name before the state knows it.
func (d *Driver) lockEndpoint(id string, sandbox ...string) (unlock func()) {
	for {
		e, _ := d.endpoint(id)
		keys := slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(append([]string{id, e.Sandbox}, sandbox...), func(k string) bool { return k == "" }))))
		var unlocks []func()
		for _, k := range keys {
			unlocks = append(unlocks, d.calls.Lock(k))
		}
		unlock := func() {
			for _, u := range unlocks {
				u()
			}
		}
		if now, _ := d.endpoint(id); now.Sandbox == e.Sandbox {
			return unlock
		}
		unlock()
	}
}

func unknownNetwork(id string) error {
	return fmt.Errorf("network %.12s is unknown to nftnet: it was made while another state file was in use, remove and create it again", id)
}

// parseEndpoint reads the addresses of an endpoint. given says whether Docker
// gave the link address itself: then it must not be answered.
func parseEndpoint(req libnetwork.CreateEndpointRequest, n desired.Network) (e desired.Endpoint, given bool, err error) {
	e = desired.Endpoint{ID: req.EndpointID, NetworkID: n.ID, AntiSpoof: n.AntiSpoof, EtherTypes: n.EtherTypes, FreeBind: n.FreeBind}
	if err := option.ParseEndpoint(&e, req.Options); err != nil {
		return e, false, err
	}
	if n.IPv4.Mode == desired.ModeUnprotected || n.IPv6.Mode == desired.ModeUnprotected {
		if len(e.Allow) > 0 {
			return e, false, fmt.Errorf("option %s is not allowed in network %.12s: its gateway mode %s opens every port to everybody",
				option.Allow, n.ID, desired.ModeUnprotected)
		}
	}
	e.Allow = e.Allow.Over(n.Allow)
	in := libnetwork.EndpointInterface{}
	if req.Interface != nil {
		in = *req.Interface
	}
	if e.IPv4, err = parseAddr(in.Address, n.IPv4, "IPv4"); err != nil {
		return e, false, err
	}
	if e.IPv6, err = parseAddr(in.AddressIPv6, n.IPv6, "IPv6"); err != nil {
		return e, false, err
	}
	if in.MacAddress != "" {
		mac, err := net.ParseMAC(in.MacAddress)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return e, true, fmt.Errorf("MAC address %q is not allowed: a unicast address of 6 bytes is", in.MacAddress)
		}
		e.MAC = mac.String()
		return e, true, nil
	}
	e.MAC = linkAddr(e).String()
	return e, false, nil
}

func parseAddr(text string, s desired.Subnet, family string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !s.IsValid() || !s.Prefix.Contains(p.Addr()) {
		return netip.Addr{}, fmt.Errorf("%s address %q is not an address of the network's subnet %s", family, text, s.Prefix)
	}
	return p.Addr(), nil
}

// linkAddr makes the link address of a container from its IPv4 address, as
// Docker does: a neighbour that still has the address in its ARP cache is right
// when a container gets it again. 02 marks it as locally administered.
func linkAddr(e desired.Endpoint) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	if e.IPv4.IsValid() {
		a := e.IPv4.As4()
		copy(mac[2:], a[:])
		return mac
	}
	_, _ = rand.Read(mac[1:])
	return mac
}

// dropPredecessors drops endpoints that hold an address which Docker has given
// to another now: their containers died without a call to the driver.
func (d *Driver) dropPredecessors(e desired.Endpoint) error {
	for _, other := range read(d, "create endpoint", func(s desired.State) []desired.Endpoint { return s.EndpointsOf(e.NetworkID) }) {
		same := (e.IPv4.IsValid() && other.IPv4 == e.IPv4) || (e.IPv6.IsValid() && other.IPv6 == e.IPv6)
		if other.ID == e.ID || !same {
			continue
		}
		d.log.Info("drop endpoint whose address Docker gave to another", "endpoint", other.ID, "by", e.ID)
		if err := d.dropEndpoint("create endpoint", other.ID); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) deleteEndpoint(_ context.Context, req libnetwork.EndpointRequest) (libnetwork.Empty, error) {
	if _, ok := d.endpointOf(req.NetworkID, req.EndpointID); !ok {
		return libnetwork.Empty{}, nil
	}
	return libnetwork.Empty{}, d.dropEndpoint("delete endpoint", req.EndpointID)
}

// dropEndpoint forgets an endpoint and all that it had.
func (d *Driver) dropEndpoint(by, id string) error {
	defer d.lockEndpoint(id)()
	d.inside.forget(id)
	return d.part(by, id, func(s *desired.State) { delete(s.Endpoints, id) })
}

// part takes an endpoint out of its container, wholly or in part: the others
// take over its ports. The endpoint's key is held.
func (d *Driver) part(by, id string, alter func(*desired.State)) error {
	e, ok := d.endpoint(id)
	if !ok {
		return nil
	}
	if e.Gateway > 0 {
		d.inherit(e.Owner())
	}
	return d.reassign(by, e.Owner(), lenient, alter)
}

func (d *Driver) endpointOperInfo(context.Context, libnetwork.EndpointRequest) (libnetwork.OperInfoResponse, error) {
	return libnetwork.OperInfoResponse{Value: map[string]any{}}, nil
}

func (d *Driver) join(_ context.Context, req libnetwork.JoinRequest) (libnetwork.JoinResponse, error) {
	defer d.lockEndpoint(req.EndpointID, req.SandboxKey)()
	n, ok := d.network(req.NetworkID)
	if !ok {
		return libnetwork.JoinResponse{}, unknownNetwork(req.NetworkID)
	}
	e, ok := d.endpointOf(req.NetworkID, req.EndpointID)
	if !ok {
		return libnetwork.JoinResponse{}, unknownEndpoint(req.NetworkID, req.EndpointID)
	}
	if e.HostLink != "" {
		// Docker joins once: the link of an earlier try may be gone with its
		// sandbox.
		if err := d.part("join", e.ID, detached(e.ID)); err != nil {
			return libnetwork.JoinResponse{}, err
		}
	}
	part := read(d, "join", func(s desired.State) desired.State { return s.Part(n.ID, e.ID) })
	e = part.Endpoints[e.ID]
	e.HostLink, e.Sandbox, e.Asked, e.Revoked = link.HostName(e.ID), req.SandboxKey, bindings(req.Options.PortMap), false
	alone := portmap.Container{Endpoints: []desired.Endpoint{e}, Networks: part.Networks}
	var err error
	if e.Published, err = alone.Direct(e); err != nil {
		// What is wrong with a port is said where it is published: Docker sends ports
		// with Join that it never publishes.
		e.Published = nil
	}
	if err := d.change("join", part, nil, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return libnetwork.JoinResponse{}, err
	}
	if e.Gateway > 0 {
		// Its ports came before the sandbox that is to own them.
		if err := d.reassign("join", e.Owner(), lenient, func(*desired.State) {}); err != nil {
			return libnetwork.JoinResponse{}, err
		}
	}
	d.inside.follow(e)
	return joinAnswer(n, e), nil
}

func unknownEndpoint(network, endpoint string) error {
	return fmt.Errorf("endpoint %.12s is unknown in network %.12s", endpoint, network)
}

// detached takes the link from an endpoint.
func detached(id string) func(*desired.State) {
	return func(s *desired.State) {
		e := s.Endpoints[id]
		e.HostLink, e.Published, e.Gateway, e.Asked, e.NoRelay = "", nil, 0, nil, false
		s.Endpoints[id] = e
	}
}

// joinAnswer names the link that Docker is to move into the container. An
// internal network has no gateway: without one and without the word to the
// contrary Docker would add one of its own.
func joinAnswer(n desired.Network, e desired.Endpoint) libnetwork.JoinResponse {
	r := libnetwork.JoinResponse{
		InterfaceName:         libnetwork.InterfaceName{SrcName: link.ContainerName(e.ID), DstPrefix: n.IfacePrefix},
		DisableGatewayService: n.Internal,
	}
	if n.Internal {
		return r
	}
	if gw := n.IPv4.DefaultRoute(); e.IPv4.IsValid() && gw.IsValid() {
		r.Gateway = gw.String()
	}
	if gw := n.IPv6.DefaultRoute(); e.IPv6.IsValid() && gw.IsValid() {
		r.GatewayIPv6 = gw.String()
	}
	return r
}

func (d *Driver) leave(_ context.Context, req libnetwork.EndpointRequest) (libnetwork.Empty, error) {
	defer d.lockEndpoint(req.EndpointID)()
	if _, ok := d.endpointOf(req.NetworkID, req.EndpointID); !ok {
		return libnetwork.Empty{}, nil
	}
	d.inside.forget(req.EndpointID)
	return libnetwork.Empty{}, d.part("leave", req.EndpointID, detached(req.EndpointID))
}
