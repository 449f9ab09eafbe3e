package plugin

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/link"
	"nftnet/plugin/option"
)

func (d *Driver) createEndpoint(_ context.Context, req libnetwork.CreateEndpointRequest) (libnetwork.CreateEndpointResponse, error) {
	if err := checkID("endpoint", req.EndpointID); err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
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
	if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return libnetwork.CreateEndpointResponse{}, err
	}
	if given {
		return libnetwork.CreateEndpointResponse{}, nil
	}
	return libnetwork.CreateEndpointResponse{Interface: &libnetwork.EndpointInterface{MacAddress: e.MAC}}, nil
}

func unknownNetwork(id string) error {
	return fmt.Errorf("network %.12s is unknown to nftnet: it was made while another state file was in use, remove and create it again", id)
}

// parseEndpoint reads the addresses of an endpoint. given says whether Docker
// gave the link address itself: then it must not be answered.
func parseEndpoint(req libnetwork.CreateEndpointRequest, n desired.Network) (e desired.Endpoint, given bool, err error) {
	e = desired.Endpoint{ID: req.EndpointID, NetworkID: n.ID, AntiSpoof: n.AntiSpoof, FreeBind: n.FreeBind}
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
	for _, other := range d.state.EndpointsOf(e.NetworkID) {
		same := (e.IPv4.IsValid() && other.IPv4 == e.IPv4) || (e.IPv6.IsValid() && other.IPv6 == e.IPv6)
		if other.ID == e.ID || !same {
			continue
		}
		d.log.Info("drop endpoint whose address Docker gave to another", "endpoint", other.ID, "by", e.ID)
		if err := d.drop(other); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) deleteEndpoint(_ context.Context, req libnetwork.EndpointRequest) (libnetwork.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return libnetwork.Empty{}, nil
	}
	return libnetwork.Empty{}, d.drop(e)
}

func (d *Driver) endpoint(networkID, id string) (desired.Endpoint, bool) {
	e, ok := d.state.Endpoints[id]
	return e, ok && e.NetworkID == networkID
}

func (d *Driver) endpointOperInfo(context.Context, libnetwork.EndpointRequest) (libnetwork.OperInfoResponse, error) {
	return libnetwork.OperInfoResponse{Value: map[string]any{}}, nil
}

func (d *Driver) join(_ context.Context, req libnetwork.JoinRequest) (libnetwork.JoinResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
	if !ok {
		return libnetwork.JoinResponse{}, unknownNetwork(req.NetworkID)
	}
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return libnetwork.JoinResponse{}, fmt.Errorf("endpoint %.12s is unknown in network %.12s", req.EndpointID, req.NetworkID)
	}
	if e.HostLink != "" {
		// Docker joins once: the link of an earlier try may be gone with its
		// sandbox.
		again := e
		again.HostLink = ""
		if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = again }); err != nil {
			return libnetwork.JoinResponse{}, err
		}
	}
	e.HostLink, e.Sandbox = link.HostName(e.ID), req.SandboxKey
	if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return libnetwork.JoinResponse{}, err
	}
	return joinAnswer(n, e), nil
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
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return libnetwork.Empty{}, nil
	}
	e.HostLink, e.Published = "", nil
	err := d.change(e.NetworkID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e })
	return libnetwork.Empty{}, err
}
