package plugin

import (
	"context"

	"nftnet/plugin/libnetwork"
)

// Docker answers what the engine believes. All of it may fail: the engine may be
// down, or wait for the driver itself.
type Docker interface {
	// ContainerName returns the name of an endpoint's container; empty where
	// Docker does not say. It ends soon: a call waits for it.
	ContainerName(ctx context.Context, endpointID string) string
	// Believes returns the networks of the driver that Docker knows, with their
	// endpoints. It waits for no call of Docker's.
	Believes(ctx context.Context) (Belief, error)
	// Calls returns the calls that made an endpoint of a running container. It may
	// wait for calls of Docker's to end.
	Calls(ctx context.Context, e BelievedEndpoint) (EndpointCalls, error)
	// Follow calls fn whenever Docker can be asked again, and when networks or
	// containers went, until ctx ends.
	Follow(ctx context.Context, fn func())
}

// Standing says what Docker thinks of an id.
type Standing int

// Unsure is what Docker does not say.
const (
	Unsure Standing = iota
	Known
	Unknown
)

// Belief is what Docker knows of the driver's networks.
type Belief struct {
	Networks  []BelievedNetwork
	Endpoints []BelievedEndpoint
	// Network and Endpoint say whether Docker has them.
	Network  func(id string) Standing
	Endpoint func(networkID, id string) Standing
}

// BelievedNetwork is a network, with the call that made it.
type BelievedNetwork struct {
	Name   string
	Create libnetwork.CreateNetworkRequest
}

// BelievedEndpoint is an endpoint of a container.
type BelievedEndpoint struct {
	ID, NetworkID, Network string
	// ContainerID is empty while Docker attaches the container.
	ContainerID, Container string
	// Running says that the container runs.
	Running bool
}

// EndpointCalls are the calls that made an endpoint.
type EndpointCalls struct {
	Create libnetwork.CreateEndpointRequest
	Join   libnetwork.JoinRequest
	// Program is nil of an endpoint that is not its container's gateway.
	Program *libnetwork.ConnectivityRequest
}
