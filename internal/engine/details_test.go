package engine

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// containerShape is a running container as engines answer for it.
const containerShape = `{"Id":"c1","Name":"/web","State":{"Status":"running","Running":true},
 "Config":{"ExposedPorts":{"80/tcp":{},"90/udp":{},"99/sctp":{}}},
 "HostConfig":{"NetworkMode":"b","PublishAllPorts":true,"PortBindings":{
  "80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"::1","HostPort":""},{"HostIp":"","HostPort":"0"}],
  "90/udp":[{"HostIp":"127.0.0.1","HostPort":"9000-9002"}],
  "70/tcp":[{"HostIp":"","HostPort":"7000"}]}},
 "NetworkSettings":{"SandboxKey":"/run/docker/netns/abc","Networks":{
  "b":{"NetworkID":"nb","EndpointID":"eb","Gateway":"10.0.1.1","DriverOpts":{}},
  "a":{"NetworkID":"na","EndpointID":"ea","Gateway":"10.0.2.1","IPv6Gateway":"fd00:2::1","GwPriority":-1,"DriverOpts":{"nftnet.antispoof":"off"}},
  "nil":null}}}`

func TestDetailsDecode(t *testing.T) {
	c, requests := engineOf(t, answers{"/containers/web/json": {containerShape}})
	got, err := c.Details(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	want := Details{
		ID: "c1", Name: "web", State: "running", Running: true, SandboxKey: "/run/docker/netns/abc", PublishAll: true,
		Exposed: []ExposedPort{{6, 80}, {17, 90}, {132, 99}},
		Bindings: []PortBinding{
			{Proto: 6, Port: 70, HostPort: 7000, HostPortEnd: 7000},
			{Proto: 6, Port: 80},
			{Proto: 6, Port: 80, HostPort: 8080, HostPortEnd: 8080},
			{Proto: 6, Port: 80, HostIP: netip.IPv6Loopback()},
			{Proto: 17, Port: 90, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 9000, HostPortEnd: 9002},
		},
		Attachments: []Attachment{
			{
				Network: "a", NetworkID: "na", EndpointID: "ea", Priority: -1, Options: map[string]string{"nftnet.antispoof": "off"},
				Gateway4: netip.MustParseAddr("10.0.2.1"), Gateway6: netip.MustParseAddr("fd00:2::1"),
			},
			{Network: "b", NetworkID: "nb", EndpointID: "eb", Gateway4: netip.MustParseAddr("10.0.1.1")},
		},
	}
	if d := cmp.Diff(want, got, equateAddrs, cmpopts.IgnoreUnexported(Details{})); d != "" {
		t.Error(d)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	// A port that is not exposed publishes nothing; an exposed one without a
	// binding does where all are published.
	wantMap := []PortBinding{want.Bindings[1], want.Bindings[2], want.Bindings[3], want.Bindings[4], {Proto: 132, Port: 99}}
	if d := cmp.Diff(wantMap, got.portMap(), equateAddrs); d != "" {
		t.Errorf("port map: %s", d)
	}
}

func TestDetailsErrors(t *testing.T) {
	container := func(ports, bindings string) []string {
		return []string{`{"Id":"c1","Name":"/c","State":{"Status":"running"},"Config":{"ExposedPorts":` + ports +
			`},"HostConfig":{"PortBindings":` + bindings + `},"NetworkSettings":{}}`}
	}
	c, _ := engineOf(t, answers{
		"/containers/bare/json":    {`{"Id":"c1"}`},
		"/containers/broken/json":  {"fail: broken"},
		"/containers/dccp/json":    container(`{"80/dccp":{}}`, `null`),
		"/containers/zero/json":    container(`{}`, `{"0/tcp":[{}]}`),
		"/containers/address/json": container(`{}`, `{"80/tcp":[{"HostIp":"nonsense"}]}`),
		"/containers/port/json":    container(`{}`, `{"80/tcp":[{"HostPort":"70000"}]}`),
		"/containers/range/json":   container(`{}`, `{"80/tcp":[{"HostPort":"90-80"}]}`),
	})
	for name, want := range map[string]string{
		"gone":    "container gone: the docker engine has no such container",
		"bare":    "docker engine at " + c.host + " does not tell the state of container bare",
		"broken":  "docker engine at " + c.host + ": Error response from daemon: broken",
		"dccp":    "container dccp: port 80/dccp is not a port: PORT/tcp, PORT/udp and PORT/sctp are",
		"zero":    "container zero: port 0/tcp is not a port: PORT/tcp, PORT/udp and PORT/sctp are",
		"address": `container address: publish 80/tcp: host address "nonsense" is not an address`,
		"port":    `container port: publish 80/tcp: host port "70000" is not a port or a range of ports`,
		"range":   `container range: publish 80/tcp: host port "90-80" is not a port or a range of ports`,
	} {
		_, err := c.Details(t.Context(), name)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if is := errors.Is(err, ErrNoContainer); is != (name == "gone") {
			t.Errorf("%s: ErrNoContainer is %v", name, is)
		}
	}
}

// TestGateways: what the engine chooses is in the same order on all versions but
// for containers on an IPv4-only and on a dual-stack network.
func TestGateways(t *testing.T) {
	gateway := netip.MustParseAddr
	v4 := func(name string, priority int) Attachment {
		return Attachment{Network: name, EndpointID: "e-" + name, Priority: priority, Gateway4: gateway("10.0.0.1")}
	}
	v6 := func(name string, priority int) Attachment {
		return Attachment{Network: name, EndpointID: "e-" + name, Priority: priority, Gateway6: gateway("fd00::1")}
	}
	dual := func(name string, priority int) Attachment {
		a := v4(name, priority)
		a.Gateway6 = gateway("fd00::1")
		return a
	}
	internal := Attachment{Network: "0-internal", EndpointID: "e-0-internal"}
	stopped := v4("0-stopped", 9)
	stopped.EndpointID = ""
	rows := []struct {
		name           string
		list           []Attachment
		four, six      string
		later4, later6 string
	}{
		{"none", nil, "", "", "", ""},
		{"internal", []Attachment{internal}, "", "", "", ""},
		{"by name", []Attachment{v4("b", 0), internal, v4("a", 0)}, "e-a", "", "e-a", ""},
		{"not in use", []Attachment{stopped, v4("b", 0)}, "e-b", "", "e-b", ""},
		{"by priority", []Attachment{v4("a", 0), v4("b", 1)}, "e-b", "", "e-b", ""},
		{"dual first", []Attachment{v4("a", 0), dual("b", 0)}, "e-b", "e-b", "e-b", "e-b"},
		{"one of each family", []Attachment{v4("a", 0), v6("b", 0)}, "e-a", "e-b", "e-a", "e-b"},
		{"priority against dual", []Attachment{v4("a", 5), dual("b", 0)}, "e-b", "e-b", "e-a", "e-b"},
	}
	for _, row := range rows {
		d := Details{Attachments: row.list}
		if four, six := d.Gateways(); four != row.four || six != row.six {
			t.Errorf("%s: %q and %q, want %q and %q", row.name, four, six, row.four, row.six)
		}
		d.perFamily = true
		if four, six := d.Gateways(); four != row.later4 || six != row.later6 {
			t.Errorf("%s, later engines: %q and %q, want %q and %q", row.name, four, six, row.later4, row.later6)
		}
	}
}

func TestFirstGateway(t *testing.T) {
	for _, row := range []struct{ subnet, of, want string }{
		{"10.0.0.0/24", "", "10.0.0.1"},
		{"10.0.0.0/24", "10.0.0.128/25", "10.0.0.128"},
		{"10.0.0.0/24", "10.0.0.0/25", "10.0.0.1"},
		{"fd00:50::/64", "", "fd00:50::1"},
		{"fd00:50::/64", "fd00:50::8000/113", "fd00:50::8000"},
	} {
		p := Pool{Subnet: netip.MustParsePrefix(row.subnet)}
		if row.of != "" {
			p.Range = netip.MustParsePrefix(row.of)
		}
		if got := p.FirstGateway().String(); got != row.want {
			t.Errorf("%s, range %q: %s, want %s", row.subnet, row.of, got, row.want)
		}
	}
}

// TestRequests: those of a running engine are compared with what it really sent
// (TestStates).
func TestRequests(t *testing.T) {
	c, _ := engineOf(t, answers{"/containers/web/json": {containerShape}})
	d, err := c.Details(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	a := Endpoint{ID: "ea", NetworkID: "na", MAC: "02:42:0a:00:02:02", IPv4: netip.MustParsePrefix("10.0.2.2/24")}
	create := d.CreateRequest(a)
	if want := (EndpointInterface{Address: "10.0.2.2/24", MacAddress: a.MAC}); create.Interface != want {
		t.Errorf("interface %+v, want %+v", create.Interface, want)
	}
	if got := create.Options["nftnet.antispoof"]; got != "off" {
		t.Errorf("option %v, want off", got)
	}
	if got := d.JoinRequest(a); got.SandboxKey != d.SandboxKey || got.Options["nftnet.antispoof"] != nil {
		t.Errorf("join: %+v", got)
	}
	if r, published := d.ConnectivityRequest(a); !published || r.Options[labelNoProxy6To4] != false {
		t.Errorf("the gateway of both families: %v, %+v", published, r)
	}
	b := Endpoint{ID: "eb", NetworkID: "nb"}
	if r, published := d.ConnectivityRequest(b); published {
		t.Errorf("an endpoint that is no gateway: %+v", r)
	}
	d.perFamily = true
	if r, published := d.ConnectivityRequest(b); !published || r.Options[labelNoProxy6To4] != true {
		t.Errorf("the gateway of IPv4 beside one of IPv6: %v, %+v", published, r)
	}
	null := Network{IPAM: "null", Pools: []Pool{{Subnet: netip.MustParsePrefix("0.0.0.0/0")}}}
	if got := null.CreateRequest().IPv4Data[0].Gateway; got != "" {
		t.Errorf("a network without addresses has gateway %s", got)
	}
}
