package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// ghosts gives the driver a network and an endpoint of which Docker knows
// nothing, as a crash between a call and what Docker writes down leaves them.
// The endpoint is on a network of Docker's, at an address that is free.
func (w *world) ghosts(t *testing.T, network string) (networkID, endpointID string) {
	t.Helper()
	networkID, endpointID = strings.Repeat("5eed", 16), strings.Repeat("e9", 32)
	w.mustCall(t, "CreateNetwork", networkBody(networkID, 99))
	on := w.engine.Docker(t, "network", "inspect", "-f", "{{.ID}}", network)
	endpoint := map[string]any{"NetworkID": on, "EndpointID": endpointID}
	with := func(more map[string]any) map[string]any {
		for k, v := range endpoint {
			more[k] = v
		}
		return more
	}
	w.mustCall(t, "CreateEndpoint", with(map[string]any{
		"Interface": map[string]any{"Address": "10.81.0.77/24", "AddressIPv6": "fd00:81::77/64"},
	}))
	w.mustCall(t, "Join", with(map[string]any{"SandboxKey": "/var/run/docker/netns/0123456789ab"}))
	w.mustCall(t, "ProgramExternalConnectivity", with(map[string]any{"Options": map[string]any{
		"com.docker.network.portmap": []map[string]any{{"Proto": 6, "Port": 80, "HostPort": 8099, "HostPortEnd": 8099}},
	}}))
	return networkID, endpointID
}

// prune runs "nftnet prune" with an answer to what it asks, and returns what it
// prints.
func (w *world) prune(answer string, args ...string) (string, error) {
	cmd := w.Command(append([]string{"env", "DOCKER_HOST=unix://" + w.engine.Socket, binary, "prune", "--socket", socket}, args...)...)
	cmd.Stdin = strings.NewReader(answer)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestA74Prune: what Docker does not know is shown, and removed when the user
// says so.
func TestA74Prune(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.run(t, "c1", "web", "-p", "8080:80")
	w.agrees(t, 5*time.Second)
	networkID, endpointID := w.ghosts(t, "web")
	names := []string{networkID[:networkDigits], endpointID[:endpointDigits]}
	shows := func(what, out string) {
		t.Helper()
		for _, id := range names {
			if !strings.Contains(out, id) {
				t.Errorf("%s does not show %s:\n%s", what, id, out)
			}
		}
	}
	there := func(when string) {
		t.Helper()
		if left := strings.Join(w.disagreements(t), "\n"); !strings.Contains(left, names[0]) || !strings.Contains(left, names[1]) {
			t.Errorf("what Docker does not know is gone %s; what differs:\n%s", when, left)
		}
	}

	out, _ := w.Try("env", "DOCKER_HOST=unix://"+w.engine.Socket, binary, "status", "--socket", socket)
	shows("nftnet status", out)
	out, err := w.prune("", "--format", "json")
	if err != nil || !json.Valid([]byte(out)) {
		t.Errorf("nftnet prune --format json: %v, %q", err, out)
	}
	shows("nftnet prune --format json", out)
	there("after a list of it")
	for _, answer := range []string{"n\n", ""} {
		out, _ := w.prune(answer)
		shows("nftnet prune", out)
		there("though the answer was no")
	}

	// Where Docker cannot be asked, nothing is a ghost.
	w.engine.Stop(t)
	if out, err := w.prune("", "--yes"); err == nil || !strings.Contains(strings.ToLower(out), "docker") {
		t.Errorf("nftnet prune without an engine: %v, %q; want an error that says whom it cannot ask", err, out)
	}
	if links := w.links(t); !strings.Contains(links, "nft-"+names[0]) {
		t.Errorf("prune without an engine removed a network; links: %s", links)
	}
	w.engine.Start(t)
	w.engine.Docker(t, "start", "c1")
	w.engine.WaitLog(t, "c1", "ready")

	if out, err := w.prune("", "--yes"); err != nil {
		t.Errorf("nftnet prune --yes: %v, %s", err, out)
	}
	w.agrees(t, 5*time.Second)
	w.bindable(t, 8099)
	settles(t, 5*time.Second, "the container that stays", func() []string { return w.unanswered(8080) })
	if out, err := w.prune("", "--yes"); err != nil {
		t.Errorf("nftnet prune --yes with nothing to remove: %v, %s", err, out)
	}
}

// TestA74SubnetOfAGhost: the subnet, and the port, of what Docker does not know
// are free to whoever asks for them.
func TestA74SubnetOfAGhost(t *testing.T) {
	w := newWorld(t)
	w.dual(t, "web", 81)
	w.ghosts(t, "web")
	w.dual(t, "again", 99)
	w.run(t, "c1", "again", "-p", "8099:80")
	settles(t, 5*time.Second, "the container on the subnet of a ghost", func() []string { return w.unanswered(8099) })
	w.run(t, "c2", "web", "--ip", "10.81.0.77", "--ip6", "fd00:81::77", "-p", "8080:80")
	settles(t, 5*time.Second, "the container at the address of a ghost", func() []string { return w.unanswered(8080) })
	w.agrees(t, 20*time.Second)
}
