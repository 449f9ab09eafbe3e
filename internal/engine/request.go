package engine

import (
	"net/netip"
	"slices"
)

// The messages that an engine sent to the driver, made again from what it
// remembers, for a driver that lost its state. Their JSON is that of libnetwork's
// remote driver protocol (moby daemon/libnetwork/drivers/remote/api).

// Labels of libnetwork (moby daemon/libnetwork/netlabel).
const (
	labelGeneric     = "com.docker.network.generic"
	labelInternal    = "com.docker.network.internal"
	labelEnableIPv4  = "com.docker.network.enable_ipv4"
	labelEnableIPv6  = "com.docker.network.enable_ipv6"
	labelPortMap     = "com.docker.network.portmap"
	labelExposed     = "com.docker.network.endpoint.exposedports"
	labelNoProxy6To4 = "com.docker.network.driver.private.no_proxy_6to4"
)

// CreateNetwork is the request of that name.
type CreateNetwork struct {
	NetworkID string
	Options   map[string]any
	IPv4Data  []IPAMData
	IPv6Data  []IPAMData
}

// IPAMData is a subnet in a [CreateNetwork]. Gateway and the addresses have the
// length of the subnet's prefix.
type IPAMData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

// CreateEndpoint is the request of that name.
type CreateEndpoint struct {
	NetworkID, EndpointID string
	Interface             EndpointInterface
	Options               map[string]any
}

// EndpointInterface holds the addresses of a [CreateEndpoint]: IP addresses with
// the length of the subnet's prefix, empty for a family that there is not.
type EndpointInterface struct {
	Address, AddressIPv6, MacAddress string
}

// Join is the request of that name.
type Join struct {
	NetworkID, EndpointID, SandboxKey string
	Options                           map[string]any
}

// ProgramExternalConnectivity is the request of that name.
type ProgramExternalConnectivity struct {
	NetworkID, EndpointID string
	Options               map[string]any
}

// CreateRequest returns the call that made the network.
//
// Two things may differ from the call that came first. Where the engine does not
// tell a gateway, because the user named none and the engine has not been
// restarted since, it is [Pool.FirstGateway]: the address that Docker took,
// except where the driver asked for none. And an empty AuxAddresses is left out.
func (n Network) CreateRequest() CreateNetwork {
	options := n.Options
	if options == nil {
		options = map[string]string{}
	}
	r := CreateNetwork{
		NetworkID: n.ID,
		Options:   map[string]any{labelEnableIPv4: n.IPv4, labelEnableIPv6: n.IPv6, labelGeneric: options},
		IPv4Data:  []IPAMData{}, IPv6Data: []IPAMData{},
	}
	// Engines leave it out where it is false.
	if n.Internal {
		r.Options[labelInternal] = true
	}
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() {
			r.IPv4Data = append(r.IPv4Data, p.data(n.IPAM))
		} else {
			r.IPv6Data = append(r.IPv6Data, p.data(n.IPAM))
		}
	}
	return r
}

func (p Pool) data(ipam string) IPAMData {
	d := IPAMData{AddressSpace: "LocalDefault", Pool: p.Subnet.String()}
	gateway := p.Gateway
	if !gateway.IsValid() && ipam == "default" {
		gateway = p.FirstGateway()
	}
	if gateway.IsValid() {
		d.Gateway = netip.PrefixFrom(gateway, p.Subnet.Bits()).String()
	}
	for name, a := range p.Aux {
		if !a.IsValid() {
			continue
		}
		if d.AuxAddresses == nil {
			d.AuxAddresses = map[string]string{}
		}
		d.AuxAddresses[name] = netip.PrefixFrom(a, p.Subnet.Bits()).String()
	}
	return d
}

// FirstGateway returns the address that Docker's own IPAM driver gives a network
// whose user named no gateway: the first of the range, or else of the subnet,
// without the subnet's own. It is given before any other, so that no address of
// --aux-address can have it.
func (p Pool) FirstGateway() netip.Addr {
	first := p.Subnet.Addr()
	if p.Range.IsValid() {
		first = p.Range.Addr()
	}
	if first == p.Subnet.Addr() {
		first = first.Next()
	}
	return first
}

// CreateRequest returns the call that made an endpoint of the container. It
// names the link address also where the driver had chosen it: the container's
// interface has it.
func (d Details) CreateRequest(e Endpoint) CreateEndpoint {
	r := CreateEndpoint{NetworkID: e.NetworkID, EndpointID: e.ID, Options: d.portOptions()}
	r.Interface.MacAddress = e.MAC
	if e.IPv4.IsValid() {
		r.Interface.Address = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		r.Interface.AddressIPv6 = e.IPv6.String()
	}
	for _, a := range d.Attachments {
		if a.EndpointID != e.ID {
			continue
		}
		for key, value := range a.Options {
			r.Options[key] = value
		}
	}
	return r
}

// JoinRequest returns the call that put an endpoint into the container.
func (d Details) JoinRequest(e Endpoint) Join {
	return Join{NetworkID: e.NetworkID, EndpointID: e.ID, SandboxKey: d.SandboxKey, Options: d.portOptions()}
}

// ConnectivityRequest returns the call that gave an endpoint the container's
// published ports. It reports false for an endpoint that is not the container's
// gateway: such a one has none.
func (d Details) ConnectivityRequest(e Endpoint) (ProgramExternalConnectivity, bool) {
	gateway4, gateway6 := d.Gateways()
	if e.ID != gateway4 && e.ID != gateway6 {
		return ProgramExternalConnectivity{}, false
	}
	r := ProgramExternalConnectivity{NetworkID: e.NetworkID, EndpointID: e.ID, Options: d.portOptions()}
	r.Options[labelNoProxy6To4] = gateway6 != "" && gateway6 != e.ID
	return r, true
}

// portOptions are the ports of the container as each call has them. Docker leaves
// them out of the CreateEndpoint of an internal network.
func (d Details) portOptions() map[string]any {
	exposed := d.Exposed
	if exposed == nil {
		exposed = []ExposedPort{}
	}
	return map[string]any{labelExposed: exposed, labelPortMap: d.portMap()}
}

// portMap is what is published. Docker goes by the exposed ports: a binding of a
// port that is not exposed publishes nothing (moby daemon/network.go,
// buildPortsRelatedCreateEndpointOptions).
func (d Details) portMap() []PortBinding {
	out := []PortBinding{}
	for _, p := range d.Exposed {
		at := len(out)
		for _, b := range d.Bindings {
			if b.Proto == p.Proto && b.Port == p.Port {
				out = append(out, b)
			}
		}
		if d.PublishAll && len(out) == at {
			out = append(out, PortBinding{Proto: p.Proto, Port: p.Port})
		}
	}
	slices.SortFunc(out, PortBinding.compare)
	return out
}
