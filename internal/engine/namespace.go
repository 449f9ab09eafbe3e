package engine

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
)

// Namespace finds the network namespace of a running container, by the
// container's name or the beginning of its id: the path of a file that stands
// for it.
func (c *Client) Namespace(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	one, err := c.running(ctx, name)
	if err != nil {
		return "", err
	}
	// A container may be in the network of another one, but that one in its own
	// only.
	if owner := one.HostConfig.NetworkMode.ConnectedContainer(); owner != "" {
		if one, err = c.running(ctx, owner); err != nil {
			return "", fmt.Errorf("container %s is in the network of another one: %w", name, err)
		}
	}
	if one.HostConfig.NetworkMode.IsHost() {
		return "", fmt.Errorf("container %s has no network namespace of its own: it is in the host's (--network host)", name)
	}
	return c.namespaceOf(name, one)
}

// running inspects a container, and refuses one that does not run.
func (c *Client) running(ctx context.Context, name string) (container.InspectResponse, error) {
	one, err := c.api.ContainerInspect(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return one, fmt.Errorf("no container %q: %s", name, c.containers(ctx))
	case err != nil:
		return one, c.fail(err)
	case one.ContainerJSONBase == nil || one.State == nil || one.HostConfig == nil:
		return one, fmt.Errorf("docker engine at %s does not tell the state of container %s", c.host, name)
	case !one.State.Running:
		return one, fmt.Errorf("container %s is not running (%s): only a running one has a network namespace", name, one.State.Status)
	}
	return one, nil
}

// containers says which containers run.
func (c *Client) containers(ctx context.Context) string {
	list, err := c.api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return "which there are cannot be told: " + c.fail(err).Error()
	}
	names := make([]string, len(list))
	for i, one := range list {
		names[i] = containerName(one)
	}
	if len(names) == 0 {
		return "none is running"
	}
	slices.Sort(names)
	return "running are " + strings.Join(names, ", ")
}

// namespaceOf prefers the engine's own name for the namespace: a process number
// may belong to another process by now, or mean one of the engine's machine.
func (c *Client) namespaceOf(name string, one container.InspectResponse) (string, error) {
	if s := one.NetworkSettings; s != nil && s.SandboxKey != "" {
		if _, err := os.Stat(s.SandboxKey); err == nil {
			return s.SandboxKey, nil
		}
	}
	if strings.HasPrefix(c.host, "unix://") && one.State.Pid > 0 {
		return fmt.Sprintf("/proc/%d/ns/net", one.State.Pid), nil
	}
	return "", fmt.Errorf("the network namespace of container %s is not on this machine: the docker engine is at %s", name, c.host)
}
