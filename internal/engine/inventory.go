package engine

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

const (
	// inventoryTimeout bounds an inventory for callers without a deadline.
	inventoryTimeout = 30 * time.Second
	// inspectors is how many networks are inspected at a time: the answers come
	// from the engine's memory, so that more would only load it.
	inspectors = 4
)

// Inventory is what an engine believed of the networks of a driver, and of the
// endpoints in them, between two moments.
//
// The engine has no request that answers all of it at once, and its views
// disagree while containers start and stop (seen on 20.10.24, 26.1.5 and 28.5.2):
//
//   - The list of networks, and a network's own answer with its endpoints, come
//     from libnetwork's store. They never wait for a call to a driver. A network
//     appears after the driver answered CreateNetwork and disappears before
//     DeleteNetwork is called; an endpoint appears after the driver answered
//     CreateEndpoint and disappears before DeleteEndpoint is called.
//   - The list of containers is a copy that the engine makes when a change is
//     complete. While a container starts it has no endpoints there; while it
//     stops it has them still; and a container whose start failed, or which did
//     not survive the engine's end, may show a dead endpoint until it starts
//     again.
//
// Endpoints are therefore those of the networks' own answers, and the list of
// containers only adds what it knows of them. Whether an id is certainly absent
// is answered by [Inventory.NetworkStanding] and [Inventory.EndpointStanding].
type Inventory struct {
	// Began is when the first request was made, by this machine's clock.
	Began time.Time
	// Networks are the driver's networks, by id, that the engine had before and
	// after it was asked for their endpoints.
	Networks []Network
	// Endpoints are those of Networks, by network and id.
	Endpoints []Endpoint

	networks  map[string]Standing  // every network of the engine, of all drivers
	answered  map[string]bool      // networks that answered with their endpoints
	endpoints map[endpointKey]bool // what they answered
	attached  map[string]bool      // endpoints by the list of containers that run
}

type endpointKey struct{ network, id string }

// Network is one network in an inventory.
type Network struct {
	ID, Name string
	// Driver is the name that the network was made with: of a managed plugin
	// with its tag ("nftnet:latest").
	Driver string
	// Scope is "local", or "swarm": networks of a swarm may be listed on a node
	// before their driver was called there.
	Scope    string
	Internal bool
	// IPv4 and IPv6 report which families are enabled. Engines before 28 do not
	// answer for IPv4: there it is enabled where the network has a subnet of it.
	IPv4, IPv6 bool
	// Options are the -o options of docker network create, with those of a
	// network that --config-from named.
	Options map[string]string
	Labels  map[string]string
	// ConfigFrom is the name of the network that --config-from named.
	ConfigFrom string
	// IPAM is the name of the IPAM driver, "default" for Docker's own.
	IPAM string
	// Pools are the subnets, IPv4 before IPv6. Empty with IPAM driver "null".
	Pools []Pool
}

// Pool is a subnet of a network.
type Pool struct {
	Subnet netip.Prefix
	// Gateway is zero where the user gave the subnet and no gateway, until the
	// engine restarts: then it is the address that Docker chose. It is zero also
	// where the driver asked for none (GwAllocCheck). See [Pool.FirstGateway].
	Gateway netip.Addr
	// Range is the part of Subnet that Docker takes addresses from; zero if all.
	Range netip.Prefix
	// Aux are the addresses of --aux-address by their names; nil if none.
	Aux map[string]netip.Addr
}

// Endpoint is one connection of a container to a network in an inventory.
type Endpoint struct {
	ID, NetworkID string
	// Network is the network's name.
	Network string
	// Joined reports whether the endpoint is in a container's namespace: it is
	// not between the answer to CreateEndpoint and that to Join.
	Joined bool
	// ContainerID is empty unless Joined.
	ContainerID string
	// Container is the container's name, also of one that is not Joined yet.
	Container string
	// State is the container's, as docker ps has it: "running", "paused",
	// "restarting", "removing"; "created" or "exited" of one that is starting. It
	// is empty where the container is not Joined, or went away meanwhile.
	State string
	// Running reports whether the container's processes run, if only paused ones.
	// Like State it lags: a container runs in it when its start is complete.
	Running bool
	// MAC is the link address; empty if Docker does not know it.
	MAC string
	// IPv4 and IPv6 are the addresses with the length of the subnet's prefix;
	// zero for a family that the endpoint does not have.
	IPv4, IPv6 netip.Prefix
}

// Standing says what an engine thinks of an id.
type Standing int

const (
	// Unsure is an id of which the engine's answers contradict each other, or
	// that it was not asked for. It is the zero value: what an inventory does not
	// say is not known.
	Unsure Standing = iota
	// Known is an id that the engine has.
	Known
	// Unknown is an id that the engine does not have.
	Unknown
)

// String returns the standing as a word.
func (s Standing) String() string {
	switch s {
	case Known:
		return "known"
	case Unknown:
		return "unknown"
	default:
		return "unsure"
	}
}

// NetworkStanding says whether the engine has a network, of whatever driver. It
// is Known if it was listed first and last, and Unknown if neither.
//
// Unknown is final but for two cases that no answer of the engine shows, because
// it writes its store after the driver's answer and before its call: a network
// whose CreateNetwork call the driver answered only just before Began, and one
// that the driver is deleting now. A caller that compares must leave out ids
// that a call concerned since shortly before Began.
func (i Inventory) NetworkStanding(id string) Standing {
	if s, listed := i.networks[id]; listed {
		return s
	}
	if i.networks == nil {
		return Unsure
	}
	return Unknown
}

// EndpointStanding says whether the engine has an endpoint in a network. It is
// Known if the network answered with it. It is Unknown if the network is Unknown,
// or answered without it, and no running container is listed with it. It is
// Unsure in a network of another driver, and in one that came or went while the
// inventory was taken. What NetworkStanding says of calls holds here too, of
// CreateEndpoint, Leave and DeleteEndpoint.
func (i Inventory) EndpointStanding(networkID, id string) Standing {
	switch {
	case i.endpoints[endpointKey{networkID, id}]:
		return Known
	case i.attached[id]:
		return Unsure
	case i.answered[networkID], i.NetworkStanding(networkID) == Unknown:
		return Unknown
	default:
		return Unsure
	}
}

// Inventory asks the engine for the networks of a driver and their endpoints. An
// empty name stands for nftnet under any of its names: as a managed plugin it has
// the repository and tag that it was installed by.
//
// It makes three requests and one for each network of the driver, none for each
// container, and none of them waits for a driver's answer: it may be called
// during a call to the driver. It takes as long as ctx allows, at most 30 seconds.
func (c *Client) Inventory(ctx context.Context, driver string) (Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	out, err := c.inventory(ctx, driver)
	if err != nil {
		return Inventory{}, c.failed(err, "in time")
	}
	return out, nil
}

func (c *Client) inventory(ctx context.Context, driver string) (Inventory, error) {
	out := Inventory{Began: time.Now()}
	before, err := c.api.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return out, err
	}
	// Every engine has "host" and "none".
	if len(before) == 0 {
		return out, fmt.Errorf("it lists no networks, not even its own")
	}
	answers, err := c.inspectNetworks(ctx, slices.DeleteFunc(slices.Clone(before), func(n network.Summary) bool { return !isDriver(n.Driver, driver) }))
	if err != nil {
		return out, err
	}
	containers, err := c.api.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return out, err
	}
	after, err := c.api.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return out, err
	}
	out.networks = standings(before, after)
	out.attached = attachedTo(containers)
	out.fill(answers, containers)
	return out, nil
}

func isDriver(name, wanted string) bool {
	if wanted == "" {
		return isOurs(name)
	}
	return name == wanted
}

// inspectNetworks asks for networks with their endpoints, a few at a time. Those
// that are gone meanwhile are left out.
func (c *Client) inspectNetworks(ctx context.Context, list []network.Summary) ([]network.Inspect, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make([]network.Inspect, len(list))
	free := make(chan struct{}, inspectors)
	var wg sync.WaitGroup
	for i, n := range list {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			answer, err := c.api.NetworkInspect(ctx, n.ID, network.InspectOptions{})
			switch {
			case errdefs.IsNotFound(err):
			case err != nil:
				// The first error is the one to report; the others follow from it.
				cancel(err)
			default:
				answers[i] = answer
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.DeleteFunc(answers, func(n network.Inspect) bool { return n.ID == "" }), nil
}

// standings compares two lists of networks.
func standings(before, after []network.Summary) map[string]Standing {
	out := make(map[string]Standing, len(before))
	for _, n := range before {
		out[n.ID] = Unsure
	}
	for _, n := range after {
		if _, listed := out[n.ID]; listed {
			out[n.ID] = Known
		} else {
			out[n.ID] = Unsure
		}
	}
	return out
}

// attachedTo returns the endpoints that containers which run have by the list.
func attachedTo(containers []container.Summary) map[string]bool {
	out := map[string]bool{}
	for _, one := range containers {
		if one.NetworkSettings == nil || !isAlive(one.State) {
			continue
		}
		for _, e := range one.NetworkSettings.Networks {
			if e != nil && e.EndpointID != "" {
				out[e.EndpointID] = true
			}
		}
	}
	return out
}

// isAlive reports whether a container in a state may use its endpoints.
func isAlive(state string) bool {
	return !slices.Contains([]string{container.StateCreated, container.StateExited, container.StateDead}, state)
}

// isRunning reports whether a container in a state has processes.
func isRunning(state string) bool {
	return state == container.StateRunning || state == container.StatePaused
}

// fill takes the networks and endpoints from the engine's answers.
func (i *Inventory) fill(answers []network.Inspect, containers []container.Summary) {
	byID := make(map[string]container.Summary, len(containers))
	for _, one := range containers {
		byID[one.ID] = one
	}
	i.answered, i.endpoints = map[string]bool{}, map[endpointKey]bool{}
	for _, n := range answers {
		if i.networks[n.ID] != Known {
			continue
		}
		i.answered[n.ID] = true
		i.Networks = append(i.Networks, networkOf(n))
		for key, e := range n.Containers {
			i.endpoints[endpointKey{n.ID, e.EndpointID}] = true
			i.Endpoints = append(i.Endpoints, endpointOf(n, key, e, byID))
		}
	}
	slices.SortFunc(i.Networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(i.Endpoints, func(a, b Endpoint) int {
		return strings.Compare(a.NetworkID+" "+a.ID, b.NetworkID+" "+b.ID)
	})
}

func networkOf(n network.Inspect) Network {
	out := Network{
		ID: n.ID, Name: n.Name, Driver: n.Driver, Scope: n.Scope, Internal: n.Internal,
		IPv4: n.EnableIPv4, IPv6: n.EnableIPv6,
		Options: maps.Clone(n.Options), Labels: maps.Clone(n.Labels), ConfigFrom: n.ConfigFrom.Network,
		IPAM: n.IPAM.Driver, Pools: pools(n),
	}
	if slices.ContainsFunc(out.Pools, func(p Pool) bool { return p.Subnet.Addr().Is4() }) {
		out.IPv4 = true
	}
	return out
}

// pools returns the subnets of a network, IPv4 before IPv6.
func pools(n network.Inspect) []Pool {
	var out []Pool
	for _, c := range n.IPAM.Config {
		subnet, err := netip.ParsePrefix(c.Subnet)
		if err != nil {
			continue
		}
		p := Pool{Subnet: subnet.Masked(), Gateway: addressOf(c.Gateway)}
		if r, err := netip.ParsePrefix(c.IPRange); err == nil {
			p.Range = r.Masked()
		}
		for name, text := range c.AuxAddress {
			if p.Aux == nil {
				p.Aux = map[string]netip.Addr{}
			}
			p.Aux[name] = addressOf(text)
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Pool) int { return a.Subnet.Addr().BitLen() - b.Subnet.Addr().BitLen() })
	return out
}

// addressOf reads an address; some drivers write one with the length of its
// prefix. It is zero where there is none.
func addressOf(text string) netip.Addr {
	text, _, _ = strings.Cut(text, "/")
	a, _ := netip.ParseAddr(text)
	return a
}

// unjoined begins the key of an endpoint that is in no container's namespace
// (moby daemon/network.go, buildContainerAttachments); others have the
// container's id there.
const unjoined = "ep-"

func endpointOf(n network.Inspect, key string, e network.EndpointResource, containers map[string]container.Summary) Endpoint {
	out := Endpoint{ID: e.EndpointID, NetworkID: n.ID, Network: n.Name, Container: e.Name, MAC: e.MacAddress}
	// An error leaves zero: the endpoint has no address of that family.
	out.IPv4, _ = netip.ParsePrefix(e.IPv4Address)
	out.IPv6, _ = netip.ParsePrefix(e.IPv6Address)
	if strings.HasPrefix(key, unjoined) {
		return out
	}
	out.Joined, out.ContainerID = true, key
	if one, listed := containers[key]; listed {
		out.Container, out.State, out.Running = containerName(one), one.State, isRunning(one.State)
	}
	return out
}
