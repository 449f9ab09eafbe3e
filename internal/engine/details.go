package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
)

// Details are what an engine tells of one container only.
type Details struct {
	ID, Name string
	// State and Running are those of [Endpoint], but never late.
	State   string
	Running bool
	// SandboxKey is the path of the container's network namespace, as the engine
	// names it: the one that Join had. Engines before 28 keep it when the
	// container stops, where it is of no use. It is empty of a container that was
	// never started, and of one in the network of another (--net container:x).
	SandboxKey string
	// Exposed are the ports of --expose, --publish and the image, and Bindings
	// what --publish asked for. Which host port Docker's driver chose for a range
	// or for none is in neither: an engine does not know it.
	Exposed  []ExposedPort
	Bindings []PortBinding
	// PublishAll reports --publish-all: exposed ports without a binding are
	// published on a port of the driver's choice.
	PublishAll bool
	// Attachments are the networks that the container is connected to, by name.
	Attachments []Attachment

	// perFamily: see Gateways.
	perFamily bool
}

// Attachment is a container's connection to a network of any driver.
type Attachment struct {
	// Network is the network's name.
	Network string
	// NetworkID and EndpointID are empty of a container that was never started,
	// EndpointID mostly of a stopped one.
	NetworkID, EndpointID string
	// Options are the driver-opts of this connection; nil if none.
	Options map[string]string
	// Gateway4 and Gateway6 are what the driver answered to Join; zero if none.
	Gateway4, Gateway6 netip.Addr
	// Priority is gw-priority; 0 with engines before 28, which do not have it.
	Priority int
}

// ExposedPort is a port of a container, in the words of libnetwork.
type ExposedPort struct {
	// Proto is the number of the protocol: 6 TCP, 17 UDP, 132 SCTP.
	Proto uint8
	Port  uint16
}

// PortBinding is a port that a user publishes, in the words of libnetwork.
// HostPort and HostPortEnd are the same for one port, a range to choose from, or
// 0 for any. HostIP is zero for every address of the host. IP is never set.
type PortBinding struct {
	Proto       uint8
	IP          netip.Addr
	Port        uint16
	HostIP      netip.Addr
	HostPort    uint16
	HostPortEnd uint16
}

// ErrNoContainer is the error of [Client.Details] for a container that the
// engine does not have.
var ErrNoContainer = errors.New("the docker engine has no such container")

// Details asks for one container, by its id or name.
//
// The engine answers only when it is not starting or stopping the container, and
// it waits for the driver's answers meanwhile: whoever serves the driver's calls
// must not hold what they need while it waits here. It takes as long as ctx
// allows, at most 30 seconds.
func (c *Client) Details(ctx context.Context, id string) (Details, error) {
	ctx, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	one, err := c.api.ContainerInspect(ctx, id)
	switch {
	case errdefs.IsNotFound(err):
		return Details{}, fmt.Errorf("container %s: %w", id, ErrNoContainer)
	case err != nil:
		return Details{}, c.failed(err, "in time")
	case one.ContainerJSONBase == nil || one.State == nil || one.HostConfig == nil || one.Config == nil || one.NetworkSettings == nil:
		return Details{}, fmt.Errorf("docker engine at %s does not tell the state of container %s", c.host, id)
	}
	d, err := detailsOf(one)
	if err != nil {
		return Details{}, fmt.Errorf("container %s: %w", id, err)
	}
	d.perFamily = versions.GreaterThan(c.version, lastJoint)
	return d, nil
}

func detailsOf(one container.InspectResponse) (Details, error) {
	d := Details{
		ID: one.ID, Name: strings.TrimPrefix(one.Name, "/"), State: one.State.Status, Running: isRunning(one.State.Status),
		SandboxKey: one.NetworkSettings.SandboxKey, PublishAll: one.HostConfig.PublishAllPorts,
	}
	for p := range one.Config.ExposedPorts {
		exposed, err := exposedPort(p)
		if err != nil {
			return d, err
		}
		d.Exposed = append(d.Exposed, exposed)
	}
	for p, list := range one.HostConfig.PortBindings {
		exposed, err := exposedPort(p)
		if err != nil {
			return d, err
		}
		for _, b := range list {
			binding, err := bindingOf(exposed, b.HostIP, b.HostPort)
			if err != nil {
				return d, fmt.Errorf("publish %s: %w", p, err)
			}
			d.Bindings = append(d.Bindings, binding)
		}
	}
	for name, e := range one.NetworkSettings.Networks {
		if e != nil {
			d.Attachments = append(d.Attachments, attachmentOf(name, e))
		}
	}
	slices.SortFunc(d.Exposed, ExposedPort.compare)
	slices.SortFunc(d.Bindings, PortBinding.compare)
	slices.SortFunc(d.Attachments, func(a, b Attachment) int { return strings.Compare(a.Network, b.Network) })
	return d, nil
}

func attachmentOf(name string, e *network.EndpointSettings) Attachment {
	a := Attachment{
		Network: name, NetworkID: e.NetworkID, EndpointID: e.EndpointID, Priority: e.GwPriority,
		Gateway4: addressOf(e.Gateway), Gateway6: addressOf(e.IPv6Gateway),
	}
	if len(e.DriverOpts) > 0 {
		a.Options = e.DriverOpts
	}
	return a
}

func (p ExposedPort) compare(q ExposedPort) int {
	return cmp.Or(cmp.Compare(p.Proto, q.Proto), cmp.Compare(p.Port, q.Port))
}

func (b PortBinding) compare(c PortBinding) int {
	return cmp.Or(cmp.Compare(b.Proto, c.Proto), cmp.Compare(b.Port, c.Port), b.HostIP.Compare(c.HostIP),
		cmp.Compare(b.HostPort, c.HostPort), cmp.Compare(b.HostPortEnd, c.HostPortEnd))
}

// protocols are the numbers of the protocols that have ports, by Docker's names.
var protocols = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}

// dockerPort is a port of a container in Docker's API: "80/tcp".
type dockerPort interface {
	Proto() string
	Int() int
}

func exposedPort(p dockerPort) (ExposedPort, error) {
	number, known := protocols[p.Proto()]
	if !known || p.Int() < 1 || p.Int() > 65535 {
		return ExposedPort{}, fmt.Errorf("port %v is not a port: PORT/tcp, PORT/udp and PORT/sctp are", p)
	}
	return ExposedPort{Proto: number, Port: uint16(p.Int())}, nil
}

// bindingOf reads a host port of Docker's API: "8080", "8080-8090", or "" for
// any, which may also be "0".
func bindingOf(p ExposedPort, hostIP, hostPort string) (PortBinding, error) {
	b := PortBinding{Proto: p.Proto, Port: p.Port, HostIP: addressOf(hostIP)}
	if hostIP != "" && !b.HostIP.IsValid() {
		return b, fmt.Errorf("host address %q is not an address", hostIP)
	}
	if hostPort == "" {
		return b, nil
	}
	first, last, isRange := strings.Cut(hostPort, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from > to {
		return b, fmt.Errorf("host port %q is not a port or a range of ports", hostPort)
	}
	b.HostPort, b.HostPortEnd = uint16(from), uint16(to)
	return b, nil
}

// lastJoint is the last version of the API whose engines (28) take the first
// endpoint that has gateways of both families as the gateway of both. Later ones
// choose for each family alone (moby daemon/libnetwork/default_gateway.go).
const lastJoint = "1.51"

// Gateways returns the endpoints that give the container its default routes, and
// therefore get its published ports: often the same one, of any driver. Empty
// means none of that family.
func (d Details) Gateways() (endpoint4, endpoint6 string) {
	for _, a := range d.byPriority() {
		if a.EndpointID == "" {
			continue
		}
		has4, has6 := a.Gateway4.IsValid(), a.Gateway6.IsValid()
		if has4 && has6 && !d.perFamily {
			return a.EndpointID, a.EndpointID
		}
		if has4 && endpoint4 == "" {
			endpoint4 = a.EndpointID
		}
		if has6 && endpoint6 == "" {
			endpoint6 = a.EndpointID
		}
	}
	return endpoint4, endpoint6
}

// byPriority sorts the attachments as libnetwork sorts endpoints
// (daemon/libnetwork/sandbox.go, Less). Internal networks need no rule: they have
// no gateway.
func (d Details) byPriority() []Attachment {
	gateways := func(a Attachment) (n int) {
		for _, g := range []netip.Addr{a.Gateway4, a.Gateway6} {
			if g.IsValid() {
				n++
			}
		}
		return n
	}
	return slices.SortedFunc(slices.Values(d.Attachments), func(a, b Attachment) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(gateways(b), gateways(a)), strings.Compare(a.Network, b.Network))
	})
}
