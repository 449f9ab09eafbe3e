package portmap

import (
	"fmt"
	"strings"
	"testing"

	"nftnet/internal/desired"
)

// end is an endpoint of the test's container on a network of its own: families
// "4", "6" or "46".
func end(id, families string, gateway uint64) desired.Endpoint {
	e := desired.Endpoint{ID: id, NetworkID: "net-" + id, HostLink: "veth-" + id, Sandbox: "box", Gateway: gateway,
		Asked: []desired.Binding{{Proto: 6, Port: 80, HostPort: 8080, HostPortEnd: 8080}}}
	if strings.Contains(families, "4") {
		e.IPv4 = addr("10." + id + ".0.2")
	}
	if strings.Contains(families, "6") {
		e.IPv6 = addr("fd00:" + id + "::2")
	}
	return e
}

func container(endpoints ...desired.Endpoint) Container {
	c := Container{Endpoints: endpoints, Networks: map[string]desired.Network{}, HasIPv6: true}
	for _, e := range endpoints {
		c.Networks[e.NetworkID] = desired.Network{ID: e.NetworkID}
	}
	return c
}

// shown is what a container publishes: host address and where it leads.
func shown(t *testing.T, c Container) string {
	t.Helper()
	wishes, err := c.Wishes()
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	for _, w := range wishes {
		for _, x := range w.Targets {
			out = append(out, fmt.Sprintf("%s>%s", x.Host, x.To))
		}
	}
	return strings.Join(out, " ")
}

// TestPortsFollowTheGateway: each family of the host leads to the endpoint that
// Docker made its gateway last, and to the other family where it has none.
func TestPortsFollowTheGateway(t *testing.T) {
	noRelay := end("1", "4", 1)
	noRelay.NoRelay = true
	for name, row := range map[string]struct {
		c    Container
		want string
	}{
		"one dual endpoint":                 {container(end("1", "46", 1)), "0.0.0.0>10.1.0.2 ::>fd00:1::2"},
		"IPv4 only":                         {container(end("1", "4", 1)), "0.0.0.0>10.1.0.2 ::>10.1.0.2"},
		"IPv6 only":                         {container(end("1", "6", 1)), "0.0.0.0>fd00:1::2 ::>fd00:1::2"},
		"no gateway":                        {container(end("1", "46", 0)), ""},
		"another driver's IPv6 gateway":     {container(noRelay), "0.0.0.0>10.1.0.2"},
		"the later gateway wins":            {container(end("1", "46", 1), end("2", "46", 2)), "0.0.0.0>10.2.0.2 ::>fd00:2::2"},
		"a later gateway of IPv4 alone":     {container(end("1", "46", 1), end("2", "4", 2)), "0.0.0.0>10.2.0.2 ::>fd00:1::2"},
		"a later gateway of IPv6 alone":     {container(end("1", "46", 1), end("2", "6", 2)), "0.0.0.0>10.1.0.2 ::>fd00:2::2"},
		"a gateway of each family":          {container(end("1", "6", 1), end("2", "4", 2)), "0.0.0.0>10.2.0.2 ::>fd00:1::2"},
		"an endpoint that is no gateway":    {container(end("1", "4", 1), end("2", "46", 0)), "0.0.0.0>10.1.0.2 ::>10.1.0.2"},
		"the earlier one has more families": {container(end("1", "46", 2), end("2", "4", 1)), "0.0.0.0>10.1.0.2 ::>fd00:1::2"},
	} {
		if got := shown(t, row.c); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestIPv6OffInsideTheContainer(t *testing.T) {
	c := container(end("1", "46", 1))
	c.Off = map[string]bool{"1": true}
	if got, want := shown(t, c), "0.0.0.0>10.1.0.2 ::>10.1.0.2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRoutedFamiliesNeedNoHostPort(t *testing.T) {
	c := container(end("1", "46", 1), end("2", "46", 0))
	for id, n := range c.Networks {
		n.IPv6.Mode = desired.ModeRouted
		c.Networks[id] = n
	}
	if got, want := shown(t, c), "0.0.0.0>10.1.0.2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// The second endpoint is no gateway, and its own address is published.
	for _, e := range c.Endpoints {
		ports, err := c.Direct(e)
		if err != nil || len(ports) != 1 || ports[0].Container.Addr() != e.IPv6 || ports[0].Kind() != desired.Direct {
			t.Errorf("endpoint %s publishes %v, %v; want its IPv6 address", e.ID, ports, err)
		}
	}
}

// TestBindingOfTheGatewaysNetwork: where a port goes by default is said by the
// network that serves the family.
func TestBindingOfTheGatewaysNetwork(t *testing.T) {
	c := container(end("1", "46", 1), end("2", "4", 2))
	n := c.Networks["net-2"]
	n.HostBinding = addr("127.0.0.1")
	c.Networks["net-2"] = n
	if got, want := shown(t, c), "127.0.0.1>10.2.0.2 ::>fd00:1::2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHeirs(t *testing.T) {
	revoked := end("2", "46", 0)
	revoked.Revoked = true
	left := end("2", "46", 0)
	left.HostLink = ""
	for name, row := range map[string]struct {
		c    Container
		want string
	}{
		"the only gateway goes":              {container(end("1", "46", 1), end("2", "46", 0)), "[2]"},
		"one for each family":                {container(end("1", "46", 1), end("2", "4", 0), end("3", "6", 0)), "[2 3]"},
		"another is gateway of both":         {container(end("1", "46", 1), end("2", "46", 2), end("3", "46", 0)), "[]"},
		"another is gateway of IPv4":         {container(end("1", "46", 2), end("2", "4", 1), end("3", "46", 0)), "[3]"},
		"Docker revoked the other":           {container(end("1", "46", 1), revoked), "[]"},
		"the other has left":                 {container(end("1", "46", 1), left), "[]"},
		"the one that goes was no gateway":   {container(end("1", "46", 0), end("2", "46", 0)), "[]"},
		"nobody else":                        {container(end("1", "46", 1)), "[]"},
		"the other lacks the family of this": {container(end("1", "4", 1), end("2", "6", 0)), "[2]"},
	} {
		if got := fmt.Sprint(row.c.Heirs(row.c.Endpoints[0])); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestNumbersAreKept(t *testing.T) {
	e := end("1", "4", 1)
	for _, host := range []string{"0.0.0.0:40001", "[::]:40001", "0.0.0.0:8080"} {
		p := desired.Port{Proto: 6, Host: addrPort(host), Container: addrPort("10.1.0.2:80")}
		e.Published = append(e.Published, p)
	}
	had := container(e).Had()
	for _, row := range []struct {
		r    Request
		want string
	}{
		{Request{Proto: 6, Port: 80}, "[40001 8080]"},
		{Request{Proto: 6, Port: 80, First: 8000, Last: 9000}, "[8080]"},
		{Request{Proto: 17, Port: 80}, "[]"},
		{Request{Proto: 6, Port: 81}, "[]"},
	} {
		if got := fmt.Sprint(had.For(row.r)); got != row.want {
			t.Errorf("%+v: %s, want %s", row.r, got, row.want)
		}
	}
}
