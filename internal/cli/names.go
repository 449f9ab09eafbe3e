package cli

import (
	"context"
	"time"

	"nftnet/inspect"
	"nftnet/internal/engine"
)

// dockerNames asks Docker for the names of its networks and containers.
func dockerNames(ctx context.Context, host string) (inspect.Names, error) {
	client, err := engine.Connect(ctx, host)
	if err != nil {
		return inspect.Names{}, err
	}
	defer client.Close()
	return client.Names(ctx)
}

// nameTimeout bounds how long an error waits for a name.
const nameTimeout = time.Second

// containerName asks Docker whose an endpoint is; empty where it does not say.
func containerName(ctx context.Context, endpointID string) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	names, err := dockerNames(ctx, "")
	if err != nil {
		return ""
	}
	for _, e := range names.Endpoints {
		if e.ID == endpointID {
			return e.Container
		}
	}
	return ""
}
