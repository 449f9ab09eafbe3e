// Package engine asks the Docker engine what it believes of its networks and
// containers. It only reads, and it is the only importer of Docker's client.
//
// It fills [inspect.Names], the inspector's own plain type, so that package
// inspect works without Docker and knows nothing of its client. For the driver
// it makes an [Inventory], and follows the engine's restarts ([Follow]).
package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"nftnet/inspect"
)

// timeout is how long an engine may take for all of its answers: an inspector
// without names is better than one that hangs with the engine.
const timeout = 2 * time.Second

// Client is a connection to an engine.
type Client struct {
	api  *client.Client
	host string
	// dial connects to the engine's Unix socket.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// version is the engine's own version of the API, which may be later than
	// the one that the client speaks.
	version string
}

// Connect connects to the engine at host ("unix:///var/run/docker.sock"); an
// empty host takes what DOCKER_HOST says, or the default socket. The version of
// the API is agreed upon with the engine. An error says in one line why there
// will be no names. An engine that is stopped, and that systemd would start for
// its socket's sake, is not started.
func Connect(ctx context.Context, host string) (*Client, error) {
	c, err := newClient(host, systemd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := c.reachable(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// newClient makes a client that has not asked anything yet. It connects to a Unix
// socket unless nobody but a holds it.
func newClient(host string, a activator) (*Client, error) {
	c := &Client{dial: a.dialer()}
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	api, err := client.NewClientWithOpts(append(options, c.onSocket)...)
	if err != nil {
		return nil, fmt.Errorf("docker engine at %s: %w", hostName(host), err)
	}
	c.api = api
	return c, nil
}

// onSocket is the client's option that has it dial by c.dial.
func (c *Client) onSocket(api *client.Client) error {
	c.host = api.DaemonHost()
	path, ok := c.socket()
	if !ok {
		return nil
	}
	return client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.dial(ctx, "unix", path)
	})(api)
}

func hostName(host string) string {
	if host == "" {
		host = os.Getenv(client.EnvOverrideHost)
	}
	if host == "" {
		host = client.DefaultDockerHost
	}
	return host
}

// reachable asks the engine for a sign of life. The socket is tried first by
// hand: Docker's client does not tell a missing socket from a forbidden one.
func (c *Client) reachable(ctx context.Context) error {
	if path, ok := c.socket(); ok {
		conn, err := c.dial(ctx, "unix", path)
		if err != nil {
			return c.fail(err)
		}
		_ = conn.Close()
	}
	ping, err := c.api.Ping(ctx)
	c.version = ping.APIVersion
	return c.fail(err)
}

// socket returns the path of the engine's socket, if it is a Unix socket.
func (c *Client) socket() (path string, ok bool) { return strings.CutPrefix(c.host, "unix://") }

// fail says in one line what an error means; nil for nil. The request had
// [timeout].
func (c *Client) fail(err error) error { return c.failed(err, "within "+timeout.String()) }

// failed is fail for a request that had another time, named in words.
func (c *Client) failed(err error, bound string) error {
	if err == nil {
		return nil
	}
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("docker engine at %s did not answer %s: %w", c.host, bound, context.DeadlineExceeded)
	case errors.As(err, &op) && op.Op == "dial":
		// What was dialled is the host that stands before it.
		err = op.Err
	}
	return fmt.Errorf("docker engine at %s: %w", c.host, oneLine{err})
}

// oneLine is an error without line breaks: the client's own have some.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

// Close ends the connection.
func (c *Client) Close() error { return c.api.Close() }

// Names reads the names of all networks, and of the endpoints of all running
// containers.
func (c *Client) Names(ctx context.Context) (inspect.Names, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	networks, err := c.api.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return inspect.Names{}, c.fail(err)
	}
	containers, err := c.api.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return inspect.Names{}, c.fail(err)
	}
	var n inspect.Names
	for _, net := range networks {
		n.Networks = append(n.Networks, networkName(net))
	}
	for _, one := range containers {
		n.Endpoints = append(n.Endpoints, endpointNames(one)...)
	}
	return n, nil
}

func networkName(n network.Summary) inspect.Network {
	out := inspect.Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Bridge: bridgeOf(n)}
	for _, p := range pools(n) {
		out.Subnets = append(out.Subnets, inspect.Subnet{Prefix: p.Subnet, Gateway: p.Gateway})
	}
	return out
}

// optionBridge is the option by which users name a network's bridge.
const optionBridge = "com.docker.network.bridge.name"

// bridgeOf is the bridge of a network: the one that the user named, or the one
// that its driver names after the network's id.
func bridgeOf(n network.Summary) string {
	if name := n.Options[optionBridge]; name != "" {
		return name
	}
	switch {
	case n.Driver == "bridge" && len(n.ID) >= 12:
		return "br-" + n.ID[:12]
	case isOurs(n.Driver) && len(n.ID) >= 11:
		return "nft-" + n.ID[:11]
	}
	return ""
}

// isOurs reports whether a driver is nftnet, whatever repository and tag the
// plugin was installed from.
func isOurs(driver string) bool {
	base := driver[strings.LastIndexByte(driver, '/')+1:]
	name, _, _ := strings.Cut(base, ":")
	return name == "nftnet"
}

func endpointNames(c container.Summary) []inspect.Endpoint {
	if c.NetworkSettings == nil {
		return nil
	}
	var out []inspect.Endpoint
	for _, e := range c.NetworkSettings.Networks {
		if e == nil || e.EndpointID == "" {
			continue
		}
		ep := inspect.Endpoint{ID: e.EndpointID, NetworkID: e.NetworkID, Container: containerName(c)}
		for _, s := range []string{e.IPAddress, e.GlobalIPv6Address} {
			if a, err := netip.ParseAddr(s); err == nil {
				ep.Addrs = append(ep.Addrs, a)
			}
		}
		out = append(out, ep)
	}
	return out
}

// containerName is the container's own name. Containers that link to it add
// names of the form /other/alias.
func containerName(c container.Summary) string {
	for _, n := range c.Names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return c.ID[:min(len(c.ID), 12)]
}
