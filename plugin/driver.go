// Package plugin is nftnet's libnetwork remote driver: it turns Docker's calls
// into desired state, and desired state into bridges, links, port sockets and
// rules.
//
// Every call goes the same way: the state on disk first, then the kernel, both
// so that doing them again changes nothing. What a call undoes is never written
// by hand: the state without the thing is applied.
package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/firewalld"
	"nftnet/plugin/link"
	"nftnet/plugin/port"
	"nftnet/plugin/store"
)

// Config is what a Driver needs.
type Config struct {
	// State is the path of the state file.
	State string
	Log   *slog.Logger
	// ContainerName asks Docker for the name of an endpoint's container, for
	// errors that speak of another container; empty where it does not know. It
	// must end soon: Docker waits for the driver meanwhile. It may be nil.
	ContainerName func(ctx context.Context, endpointID string) string
	// Closed publishes ports of networks that do not say otherwise to nobody but
	// the sources that are named.
	Closed bool
	// Firewalld keeps the bridges in a zone of the firewalld on the system bus.
	Firewalld bool
}

// Driver answers Docker's calls. Its methods may be called from several
// goroutines.
type Driver struct {
	log           *slog.Logger
	defaults      defaults
	containerName func(ctx context.Context, endpointID string) string

	store *store.Store
	nft   *kernel.Conn
	ports *port.Holder
	// flows works beside the calls, guard watches the table.
	flows *flows
	guard *guard
	// bridgeFamily says whether the kernel has tables of family bridge.
	bridgeFamily bool
	// keeper holds the keeper table open; nil on a kernel without owners.
	keeper *kernel.Conn
	// zones is firewalld's part; nil where Config does not ask for it.
	zones *firewalld.Zone

	// mu protects state, and keeps a change to it together with the change to
	// the kernel.
	mu    sync.Mutex
	state desired.State
	whole *rs.Ruleset
	// userRules is the copy of what the user has in DOCKER-USER, and
	// userRulesText the same as it stands in the state file.
	userRules     kernel.Saved
	userRulesText []byte
}

// Open reads the state file and brings the kernel to what it asks for.
func Open(ctx context.Context, c Config) (*Driver, error) {
	s, err := store.Open(c.State)
	if err != nil {
		return nil, err
	}
	nft, err := kernel.Open()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d := &Driver{
		log: c.Log, defaults: defaults{closed: c.Closed}, containerName: c.ContainerName,
		store: s, nft: nft, ports: port.NewHolder(c.Log), flows: &flows{log: c.Log},
	}
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.startZones(c.Firewalld)
	return d, nil
}

// begin restores the state, and watches over it from then on. The watch is
// opened before the table is read, so that no change slips between.
func (d *Driver) begin(ctx context.Context) error {
	var err error
	if d.keeper, err = openKeeper(d.log); err != nil {
		return err
	}
	d.bridgeFamily = hasBridgeFamily(d.nft, d.log)
	watch, err := kernel.OpenWatch()
	if err != nil {
		return err
	}
	d.guard = &guard{watch: watch}
	if err := d.restore(ctx); err != nil {
		return err
	}
	d.guard.start(d)
	return nil
}

// Close gives back what the process holds. Networks, links and rules stay:
// containers keep their connections, and the next start takes up from here.
func (d *Driver) Close() error {
	var errs []error
	d.stopZones()
	if d.guard != nil {
		errs = append(errs, d.guard.stop())
		d.keepUserRules()
	}
	d.flows.wait()
	if d.keeper != nil {
		errs = append(errs, d.keeper.Close())
	}
	return errors.Join(append(errs, d.ports.Close(), d.nft.Close(), d.store.Close())...)
}

var dockerID = regexp.MustCompile(`^[0-9a-f]{12,128}$`)

func checkID(what, id string) error {
	if !dockerID.MatchString(id) {
		return badRequest("%s %q is not an id of Docker's: at least 12 digits from 0-9 and a-f are", what, id)
	}
	return nil
}

func (d *Driver) getCapabilities(context.Context, empty) (capabilities, error) {
	return capabilities{Scope: "local", ConnectivityScope: "local", GwAllocChecker: true}, nil
}

// gwAllocCheck says whether Docker is to reserve an address for the gateway:
// not where the bridge has none and no default route needs one, so that both
// addresses of a /31 are the containers'.
func (d *Driver) gwAllocCheck(_ context.Context, req gwAllocCheckRequest) (gwAllocCheckResponse, error) {
	var n desired.Network
	var err error
	if n.Internal, err = req.Options.flag(optionInternal, false); err != nil {
		return gwAllocCheckResponse{}, err
	}
	if err := parseGeneric(&n, &networkChoices{}, req.Options[optionGeneric]); err != nil {
		return gwAllocCheckResponse{}, err
	}
	return gwAllocCheckResponse{
		SkipIPv4: n.IPv4.Mode == desired.ModeIsolated || n.InhibitIPv4 && n.Internal,
		SkipIPv6: n.IPv6.Mode == desired.ModeIsolated,
	}, nil
}

func (d *Driver) createNetwork(_ context.Context, req createNetworkRequest) (empty, error) {
	if err := checkID("network", req.NetworkID); err != nil {
		return empty{}, err
	}
	n, choices, err := d.defaults.parseNetwork(req)
	if err != nil {
		return empty{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if again, ok := d.state.Networks[n.ID]; ok {
		// What was found out at the first time stays.
		n.Adopted, n.MTU = again.Adopted, again.MTU
		n.IPv4.Kept, n.IPv6.Kept = again.IPv4.Kept, again.IPv6.Kept
	}
	if err := d.checkNetwork(n); err != nil {
		return empty{}, err
	}
	if _, again := d.state.Networks[n.ID]; !again {
		if err := fit(&n, choices); err != nil {
			return empty{}, err
		}
	}
	err = d.change(n.ID, "", func(s *desired.State) { s.Networks[n.ID] = n })
	return empty{}, err
}

// checkNetwork refuses a network that another one stands in the way of.
func (d *Driver) checkNetwork(n desired.Network) error {
	for _, other := range d.state.SortedNetworks() {
		if other.ID == n.ID {
			continue
		}
		if other.Bridge == n.Bridge {
			return fmt.Errorf("option %s: %q is the bridge of network %.12s already: allowed is a name of its own",
				optionBridgeName, n.Bridge, other.ID)
		}
		for _, a := range n.Subnets() {
			for _, b := range other.Subnets() {
				if a.Prefix.Overlaps(b.Prefix) {
					return fmt.Errorf("subnet %s overlaps subnet %s of network %.12s: allowed is a subnet of its own",
						a.Prefix, b.Prefix, other.ID)
				}
			}
		}
	}
	return nil
}

// fit makes a new network fit the host that it comes to: it adopts a bridge
// that is there, takes the MTU of the default route, and keeps away from the
// host's own routes.
func fit(n *desired.Network, c networkChoices) error {
	kind, err := link.Kind(n.Bridge)
	switch {
	case err != nil:
		return err
	case kind == link.KindBridge:
		if err := adopt(n); err != nil {
			return fmt.Errorf("option %s: %q cannot be adopted: %w", optionBridgeName, n.Bridge, err)
		}
	case kind != "":
		return fmt.Errorf("option %s: an interface named %q exists and is a %s: allowed is a bridge, or a name of its own",
			optionBridgeName, n.Bridge, kind)
	}
	if n.MTU == 0 && !n.Internal {
		if n.MTU, err = link.RouteMTU(n.IPv6.IsValid()); err != nil {
			return err
		}
	}
	if c.overlap {
		return nil
	}
	for _, s := range n.Subnets() {
		route, err := link.RouteInto(s.Prefix, n.Bridge)
		if err != nil {
			return err
		}
		if route != "" {
			return fmt.Errorf("subnet %s clashes with the host's route %s: allowed is a subnet that the host has no route to, or option %s=true",
				s.Prefix, route, optionOverlap)
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

func (d *Driver) deleteNetwork(_ context.Context, req networkRequest) (empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
	if !ok {
		return empty{}, nil
	}
	var errs []error
	for _, e := range d.state.EndpointsOf(n.ID) {
		errs = append(errs, d.drop(e))
	}
	errs = append(errs, d.change(n.ID, "", func(s *desired.State) { delete(s.Networks, n.ID) }))
	return empty{}, errors.Join(errs...)
}

func (d *Driver) createEndpoint(_ context.Context, req createEndpointRequest) (createEndpointResponse, error) {
	if err := checkID("endpoint", req.EndpointID); err != nil {
		return createEndpointResponse{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
	if !ok {
		return createEndpointResponse{}, unknownNetwork(req.NetworkID)
	}
	e, given, err := parseEndpoint(req, n)
	if err != nil {
		return createEndpointResponse{}, err
	}
	if err := d.dropPredecessors(e); err != nil {
		return createEndpointResponse{}, err
	}
	if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return createEndpointResponse{}, err
	}
	if given {
		return createEndpointResponse{}, nil
	}
	return createEndpointResponse{Interface: &endpointInterface{MacAddress: e.MAC}}, nil
}

func unknownNetwork(id string) error {
	return fmt.Errorf("network %.12s is unknown to nftnet: it was made while another state file was in use, remove and create it again", id)
}

// parseEndpoint reads the addresses of an endpoint. given says whether Docker
// gave the link address itself: then it must not be answered.
func parseEndpoint(req createEndpointRequest, n desired.Network) (e desired.Endpoint, given bool, err error) {
	e = desired.Endpoint{ID: req.EndpointID, NetworkID: n.ID, AntiSpoof: n.AntiSpoof, FreeBind: n.FreeBind}
	if err := parseEndpointOptions(&e, req.Options); err != nil {
		return e, false, err
	}
	if n.IPv4.Mode == desired.ModeUnprotected || n.IPv6.Mode == desired.ModeUnprotected {
		if len(e.Allow) > 0 {
			return e, false, fmt.Errorf("option %s is not allowed in network %.12s: its gateway mode %s opens every port to everybody",
				optionAllow, n.ID, desired.ModeUnprotected)
		}
	}
	e.Allow = e.Allow.Over(n.Allow)
	in := endpointInterface{}
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

func (d *Driver) deleteEndpoint(_ context.Context, req endpointRequest) (empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return empty{}, nil
	}
	return empty{}, d.drop(e)
}

func (d *Driver) endpoint(networkID, id string) (desired.Endpoint, bool) {
	e, ok := d.state.Endpoints[id]
	return e, ok && e.NetworkID == networkID
}

func (d *Driver) endpointOperInfo(context.Context, endpointRequest) (operInfoResponse, error) {
	return operInfoResponse{Value: map[string]any{}}, nil
}

func (d *Driver) join(_ context.Context, req joinRequest) (joinResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.state.Networks[req.NetworkID]
	if !ok {
		return joinResponse{}, unknownNetwork(req.NetworkID)
	}
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return joinResponse{}, fmt.Errorf("endpoint %.12s is unknown in network %.12s", req.EndpointID, req.NetworkID)
	}
	if e.HostLink != "" {
		// Docker joins once: the link of an earlier try may be gone with its
		// sandbox.
		again := e
		again.HostLink = ""
		if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = again }); err != nil {
			return joinResponse{}, err
		}
	}
	e.HostLink, e.Sandbox = link.HostName(e.ID), req.SandboxKey
	if err := d.change(n.ID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e }); err != nil {
		return joinResponse{}, err
	}
	return joinAnswer(n, e), nil
}

// joinAnswer names the link that Docker is to move into the container. An
// internal network has no gateway: without one and without the word to the
// contrary Docker would add one of its own.
func joinAnswer(n desired.Network, e desired.Endpoint) joinResponse {
	r := joinResponse{
		InterfaceName:         interfaceName{SrcName: link.ContainerName(e.ID), DstPrefix: n.IfacePrefix},
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

func (d *Driver) leave(_ context.Context, req endpointRequest) (empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return empty{}, nil
	}
	e.HostLink, e.Published = "", nil
	err := d.change(e.NetworkID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e })
	return empty{}, err
}

func (d *Driver) programExternalConnectivity(ctx context.Context, req connectivityRequest) (empty, error) {
	err := d.publish(req)
	var taken *publishedError
	if errors.As(err, &taken) && d.containerName != nil {
		if name := d.containerName(ctx, taken.owner.ID); name != "" {
			err = fmt.Errorf("%w (container %s)", err, name)
		}
	}
	return empty{}, err
}

// publish gives an endpoint the ports that a request asks for, instead of those
// that it has.
func (d *Driver) publish(req connectivityRequest) error {
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

func (d *Driver) revokeExternalConnectivity(_ context.Context, req endpointRequest) (empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoint(req.NetworkID, req.EndpointID)
	if !ok {
		return empty{}, nil
	}
	return empty{}, d.unpublish(e)
}

// unpublish takes back all ports of an endpoint; d.mu is held.
func (d *Driver) unpublish(e desired.Endpoint) error {
	e.Published = nil
	return d.change(e.NetworkID, e.ID, func(s *desired.State) { s.Endpoints[e.ID] = e })
}

// drop forgets an endpoint and all that it had; d.mu is held.
func (d *Driver) drop(e desired.Endpoint) error {
	return d.change(e.NetworkID, e.ID, func(s *desired.State) { delete(s.Endpoints, e.ID) })
}
