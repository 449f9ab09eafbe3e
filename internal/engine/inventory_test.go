package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var equateAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// answers are the bodies of a made-up engine by the end of the path. A list
// stands for one body after the other, the last one for all that follow.
type answers map[string][]string

// engineOf answers each path with its bodies, and counts the requests.
func engineOf(t *testing.T, list answers) (c *Client, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	times := map[string]*atomic.Int64{}
	for path := range list {
		times[path] = new(atomic.Int64)
	}
	host := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		path := strings.TrimPrefix(r.URL.Path, "/v1.41")
		if path == "/_ping" {
			return
		}
		requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		bodies, ok := list[path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			bodies = []string{`{"message":"no such thing"}`}
			_, _ = w.Write([]byte(bodies[0]))
			return
		}
		n := int(times[path].Add(1)) - 1
		body := bodies[min(n, len(bodies)-1)]
		if message, failed := strings.CutPrefix(body, "fail: "); failed {
			w.WriteHeader(http.StatusInternalServerError)
			body = fmt.Sprintf(`{"message":%q}`, message)
		}
		_, _ = w.Write([]byte(body))
	})
	c, err := Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, requests
}

const hostNetwork = `{"Name":"host","Id":"h","Driver":"host"}`

// network is a network in the shape of an answer, with endpoints by their keys.
func networkJSON(id, driver, endpoints string) string {
	return fmt.Sprintf(`{"Name":"name-%s","Id":%q,"Driver":%q,"Containers":{%s}}`, id, id, driver, endpoints)
}

func list(objects ...string) string { return "[" + strings.Join(objects, ",") + "]" }

// endpointJSON is an endpoint of a network's answer.
func endpointJSON(key, id string) string {
	return fmt.Sprintf(`%q:{"Name":"name-%s","EndpointID":%q}`, key, key, id)
}

// containerJSON is a container of the list, with an endpoint in network n.
func containerJSON(id, state, endpoint string) string {
	return fmt.Sprintf(`{"Id":%q,"Names":["/name-%s"],"State":%q,"NetworkSettings":{"Networks":{"name-n":{"NetworkID":"n","EndpointID":%q}}}}`,
		id, id, state, endpoint)
}

// shapes are two networks as engines 20.10 and 28.5 answer for them.
const (
	network20 = `{"Name":"dual","Id":"d20","Scope":"local","Driver":"nftnet","EnableIPv6":true,
  "IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"fd00:50::/64"},
   {"Subnet":"10.51.0.0/24","IPRange":"10.51.0.128/25","Gateway":"10.51.0.77","AuxiliaryAddresses":{"DefaultGatewayIPv4":"10.51.0.99"}}]},
  "Internal":true,"ConfigFrom":{"Network":"conf"},"Options":{"com.docker.network.driver.mtu":"1400"},"Labels":{"a":"b"},
  "Containers":{"c1":{"Name":"old","EndpointID":"e1","MacAddress":"02:42:0a:32:00:02","IPv4Address":"10.51.0.130/24","IPv6Address":"fd00:50::2/64"},
   "ep-e2":{"Name":"starting","EndpointID":"e2","MacAddress":"","IPv4Address":"10.51.0.131/24","IPv6Address":""},
   "c3":{"Name":"gone","EndpointID":"e3","MacAddress":"02:42:0a:32:00:04","IPv4Address":"","IPv6Address":"fd00:50::4/64"}}}`
	network28 = `{"Name":"six","Id":"s28","Scope":"local","Driver":"nftnet","EnableIPv4":false,"EnableIPv6":true,
  "IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"fd14:58ac:ce9b:1::/64","Gateway":"fd14:58ac:ce9b:1::1"}]},
  "Internal":false,"ConfigFrom":{"Network":""},"Options":{},"Labels":{},"Containers":{}}`
)

func TestInventoryDecodes(t *testing.T) {
	c, requests := engineOf(t, answers{
		"/networks":     {list(hostNetwork, network20, network28)},
		"/networks/d20": {network20},
		"/networks/s28": {network28},
		"/containers/json": {`[{"Id":"c1","Names":["/web/alias","/web"],"State":"paused","NetworkSettings":{"Networks":{
   "dual":{"NetworkID":"d20","EndpointID":"e1"},"nil":null}}},{"Id":"c9","Names":["/none"],"State":"running"}]`},
	})
	got, err := c.Inventory(t.Context(), "nftnet")
	if err != nil {
		t.Fatal(err)
	}
	want := Inventory{
		Networks: []Network{{
			ID: "d20", Name: "dual", Driver: "nftnet", Scope: "local", Internal: true, IPv4: true, IPv6: true,
			Options: map[string]string{"com.docker.network.driver.mtu": "1400"}, Labels: map[string]string{"a": "b"},
			ConfigFrom: "conf", IPAM: "default", Pools: []Pool{
				{
					Subnet: netip.MustParsePrefix("10.51.0.0/24"), Gateway: netip.MustParseAddr("10.51.0.77"),
					Range: netip.MustParsePrefix("10.51.0.128/25"),
					Aux:   map[string]netip.Addr{"DefaultGatewayIPv4": netip.MustParseAddr("10.51.0.99")},
				},
				{Subnet: netip.MustParsePrefix("fd00:50::/64")},
			},
		}, {
			ID: "s28", Name: "six", Driver: "nftnet", Scope: "local", IPv6: true, IPAM: "default",
			Pools: []Pool{{Subnet: netip.MustParsePrefix("fd14:58ac:ce9b:1::/64"), Gateway: netip.MustParseAddr("fd14:58ac:ce9b:1::1")}},
		}},
		Endpoints: []Endpoint{
			{
				ID: "e1", NetworkID: "d20", Network: "dual", Joined: true, ContainerID: "c1", Container: "web", State: "paused", Running: true,
				MAC: "02:42:0a:32:00:02", IPv4: netip.MustParsePrefix("10.51.0.130/24"), IPv6: netip.MustParsePrefix("fd00:50::2/64"),
			},
			{ID: "e2", NetworkID: "d20", Network: "dual", Container: "starting", IPv4: netip.MustParsePrefix("10.51.0.131/24")},
			{
				ID: "e3", NetworkID: "d20", Network: "dual", Joined: true, ContainerID: "c3", Container: "gone",
				MAC: "02:42:0a:32:00:04", IPv6: netip.MustParsePrefix("fd00:50::4/64"),
			},
		},
	}
	if d := cmp.Diff(want, got, equateAddrs, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Inventory{}), cmpopts.IgnoreFields(Inventory{}, "Began")); d != "" {
		t.Error(d)
	}
	if n := requests.Load(); n != 5 {
		t.Errorf("%d requests, want 3 and one for each of 2 networks", n)
	}
}

func TestInventoryChoosesTheDriver(t *testing.T) {
	names := []string{"nftnet", "nftnet:latest", "registry.example/org/nftnet:v1", "bridge", "nftnets"}
	all := answers{"/containers/json": {"[]"}}
	objects := make([]string, len(names))
	for i, driver := range names {
		id := string(rune('a' + i))
		objects[i] = networkJSON(id, driver, "")
		all["/networks/"+id] = []string{objects[i]}
	}
	all["/networks"] = []string{list(objects...)}
	c, _ := engineOf(t, all)
	for driver, want := range map[string]string{"": "abc", "nftnet": "a", "nftnet:latest": "b", "bridge": "d", "none": ""} {
		inv, err := c.Inventory(t.Context(), driver)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, n := range inv.Networks {
			got += n.ID
		}
		if got != want {
			t.Errorf("driver %q has networks %q, want %q", driver, got, want)
		}
		// A network of another driver is no ghost.
		if s := inv.NetworkStanding("d"); s != Known {
			t.Errorf("driver %q: the network of another driver is %s", driver, s)
		}
	}
}

// TestStanding: each row is one way in which the engine's answers agree, or do
// not, about network n and endpoint e.
func TestStanding(t *testing.T) {
	const ours = "nftnet"
	without, with := networkJSON("n", ours, ""), networkJSON("n", ours, endpointJSON("c", "e"))
	rows := []struct {
		name              string
		answers           answers
		network, endpoint Standing
	}{
		{"both there", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {with}, "/containers/json": {list(containerJSON("c", "running", "e"))},
		}, Known, Known},
		{"neither there", answers{
			"/networks": {list(hostNetwork)}, "/containers/json": {"[]"},
		}, Unknown, Unknown},
		{"the endpoint is gone", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {without}, "/containers/json": {list(containerJSON("c", "running", "other"))},
		}, Known, Unknown},
		{"the container starts: not in its list yet", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {with}, "/containers/json": {list(containerJSON("c", "created", ""))},
		}, Known, Known},
		{"the container was removed between two answers", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {with}, "/containers/json": {"[]"},
		}, Known, Known},
		{"the container stops: in its list still", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {without}, "/containers/json": {list(containerJSON("c", "running", "e"))},
		}, Known, Unsure},
		{"left over in the list, exited", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {without}, "/containers/json": {list(containerJSON("c", "exited", "e"))},
		}, Known, Unknown},
		{"left over in the list, its start failed", answers{
			"/networks": {list(hostNetwork, without)}, "/networks/n": {without}, "/containers/json": {list(containerJSON("c", "created", "e"))},
		}, Known, Unknown},
		{"left over in the list, of a network that is gone", answers{
			"/networks": {list(hostNetwork)}, "/containers/json": {list(containerJSON("c", "dead", "e"))},
		}, Unknown, Unknown},
		{"a running container has it in a network that is gone", answers{
			"/networks": {list(hostNetwork)}, "/containers/json": {list(containerJSON("c", "restarting", "e"))},
		}, Unknown, Unsure},
		{"the network is removed before it is asked", answers{
			"/networks": {list(hostNetwork, without), list(hostNetwork)}, "/containers/json": {"[]"},
		}, Unsure, Unsure},
		{"the network is removed after it was asked", answers{
			"/networks": {list(hostNetwork, without), list(hostNetwork)}, "/networks/n": {with}, "/containers/json": {"[]"},
		}, Unsure, Unsure},
		{"the network is made meanwhile", answers{
			"/networks": {list(hostNetwork), list(hostNetwork, without)}, "/networks/n": {with}, "/containers/json": {"[]"},
		}, Unsure, Unsure},
		{"the network does not answer, and is listed still", answers{
			"/networks": {list(hostNetwork, without)}, "/containers/json": {"[]"},
		}, Known, Unsure},
		{"of another driver", answers{
			"/networks": {list(hostNetwork, networkJSON("n", "bridge", ""))}, "/containers/json": {"[]"},
		}, Known, Unsure},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, _ := engineOf(t, row.answers)
			inv, err := c.Inventory(t.Context(), ours)
			if err != nil {
				t.Fatal(err)
			}
			if got := inv.NetworkStanding("n"); got != row.network {
				t.Errorf("network is %s, want %s", got, row.network)
			}
			if got := inv.EndpointStanding("n", "e"); got != row.endpoint {
				t.Errorf("endpoint is %s, want %s", got, row.endpoint)
			}
			for _, e := range inv.Endpoints {
				if s := inv.EndpointStanding(e.NetworkID, e.ID); s != Known {
					t.Errorf("endpoint %s is listed and %s", e.ID, s)
				}
			}
		})
	}
	if got := (Inventory{}).NetworkStanding("n"); got != Unsure {
		t.Errorf("an inventory that was not taken says that a network is %s", got)
	}
	if got := (Inventory{}).EndpointStanding("n", "e"); got != Unsure {
		t.Errorf("an inventory that was not taken says that an endpoint is %s", got)
	}
}

// TestInventoryFails: half an inventory would make ghosts.
func TestInventoryFails(t *testing.T) {
	n := networkJSON("n", "nftnet", "")
	good := answers{"/networks": {list(hostNetwork, n)}, "/networks/n": {n}, "/containers/json": {"[]"}}
	rows := []struct{ name, path, body, want string }{
		{"first list", "/networks", "fail: disk\nfull", "Error response from daemon: disk full"},
		{"a network", "/networks/n", "fail: broken", "Error response from daemon: broken"},
		{"containers", "/containers/json", "fail: broken", "Error response from daemon: broken"},
		{"no networks at all", "/networks", "[]", "it lists no networks, not even its own"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			bad := answers{}
			for path, bodies := range good {
				bad[path] = bodies
			}
			bad[row.path] = []string{row.body}
			c, _ := engineOf(t, bad)
			inv, err := c.Inventory(t.Context(), "nftnet")
			if want := "docker engine at " + c.host + ": " + row.want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if s := inv.NetworkStanding("n"); s != Unsure {
				t.Errorf("after the error the network is %s", s)
			}
		})
	}
	t.Run("last list", func(t *testing.T) {
		bad := answers{"/networks": {good["/networks"][0], "fail: broken"}, "/networks/n": {n}, "/containers/json": {"[]"}}
		c, _ := engineOf(t, bad)
		if _, err := c.Inventory(t.Context(), "nftnet"); err == nil {
			t.Error("no error")
		}
	})
}

// TestInventoryEndsWithItsContext: an engine that hangs holds nobody.
func TestInventoryEndsWithItsContext(t *testing.T) {
	host := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path == "/_ping" {
			return
		}
		<-r.Context().Done()
	})
	c, err := Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.Inventory(ctx, "nftnet")
	if want := "docker engine at " + host + " did not answer in time: context deadline exceeded"; !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := c.Details(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("details: %v", err)
	}
}
