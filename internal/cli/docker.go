package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"nftnet/internal/engine"
	"nftnet/plugin"
)

// dockerEngine is the engine as the driver asks it: at DOCKER_HOST, or at its
// usual socket.
type dockerEngine struct{ log *slog.Logger }

// ContainerName implements plugin.Docker.
func (dockerEngine) ContainerName(ctx context.Context, endpointID string) string {
	return containerName(ctx, endpointID)
}

// Believes implements plugin.Docker.
func (dockerEngine) Believes(ctx context.Context) (plugin.Belief, error) {
	client, err := engine.Connect(ctx, "")
	if err != nil {
		return plugin.Belief{}, err
	}
	defer client.Close()
	list, err := client.Inventory(ctx, "")
	if err != nil {
		return plugin.Belief{}, err
	}
	b := plugin.Belief{
		Network:  func(id string) plugin.Standing { return standings[list.NetworkStanding(id)] },
		Endpoint: func(network, id string) plugin.Standing { return standings[list.EndpointStanding(network, id)] },
	}
	for _, n := range list.Networks {
		believed := plugin.BelievedNetwork{Name: n.Name}
		if err := convert(n.CreateRequest(), &believed.Create); err != nil {
			return plugin.Belief{}, fmt.Errorf("network %s: %w", n.Name, err)
		}
		b.Networks = append(b.Networks, believed)
	}
	for _, e := range list.Endpoints {
		b.Endpoints = append(b.Endpoints, plugin.BelievedEndpoint{
			ID: e.ID, NetworkID: e.NetworkID, Network: e.Network, ContainerID: e.ContainerID, Container: e.Container,
			Running: e.Running && e.Joined,
		})
	}
	return b, nil
}

var standings = map[engine.Standing]plugin.Standing{
	engine.Unsure: plugin.Unsure, engine.Known: plugin.Known, engine.Unknown: plugin.Unknown,
}

// Calls implements plugin.Docker.
func (dockerEngine) Calls(ctx context.Context, e plugin.BelievedEndpoint) (plugin.EndpointCalls, error) {
	var out plugin.EndpointCalls
	client, err := engine.Connect(ctx, "")
	if err != nil {
		return out, err
	}
	defer client.Close()
	list, err := client.Inventory(ctx, "")
	if err != nil {
		return out, err
	}
	details, err := client.Details(ctx, e.ContainerID)
	if err != nil {
		return out, err
	}
	for _, x := range list.Endpoints {
		if x.ID == e.ID {
			return endpointCalls(details, x)
		}
	}
	return out, fmt.Errorf("container %s: Docker has no endpoint %.12s any more", e.Container, e.ID)
}

func endpointCalls(d engine.Details, e engine.Endpoint) (plugin.EndpointCalls, error) {
	var out plugin.EndpointCalls
	if err := convert(d.CreateRequest(e), &out.Create); err != nil {
		return out, err
	}
	if err := convert(d.JoinRequest(e), &out.Join); err != nil {
		return out, err
	}
	program, ok := d.ConnectivityRequest(e)
	if !ok {
		return out, nil
	}
	return out, convert(program, &out.Program)
}

// convert makes the driver's message of the engine's: their JSON is the same.
func convert(from, into any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// Follow implements plugin.Docker.
func (d dockerEngine) Follow(ctx context.Context, fn func()) {
	again := func(context.Context) { fn() }
	engine.Follow(ctx, "", d.log, again, again)
}
