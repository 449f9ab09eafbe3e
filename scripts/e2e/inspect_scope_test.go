package e2e

import (
	"strings"
	"testing"
)

// TestInspectContainer: the engine's DNS rules are in the container's own
// namespace.
func TestInspectContainer(t *testing.T) {
	w := web(t)
	out := w.nftnet(t, "inspect", "--container", "c1")
	for _, want := range []string{
		"chain DOCKER_OUTPUT", "chain DOCKER_POSTROUTING", "goes to udp port 53 of 127.0.0.11", "-j DNAT --to-destination 127.0.0.11:",
	} {
		if !strings.Contains(prose(out), want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	if strings.Contains(out, "nftnet") {
		t.Error("the host's table is shown")
	}
	pid := w.engine.Docker(t, "inspect", "-f", "{{.State.Pid}}", "c1")
	if byPID := w.nftnet(t, "inspect", "--netns", pid, "--no-counters"); !strings.Contains(byPID, "chain DOCKER_OUTPUT") {
		t.Errorf("by the process id: %.400s", byPID)
	}
	w.engine.Docker(t, "run", "-d", "--name", "beside", "--network", "container:c1", w.image, "/peer", "serve", "-http", ":8999")
	if beside := w.nftnet(t, "inspect", "--container", "beside", "--brief"); !strings.Contains(beside, "chain DOCKER_OUTPUT") {
		t.Errorf("of a container in the network of another one: %.400s", beside)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestInspectNetwork: what is there for one network, and nothing of the other.
func TestInspectNetwork(t *testing.T) {
	w := web(t)
	w.dual(t, "other", 82)
	w.run(t, "c2", "other", "-p", "9090:80")
	id := w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", "web")
	for _, query := range []string{"web", id, id[:12], "nft-" + id[:11]} {
		out := w.nftnet(t, "inspect", "--network", query)
		text := prose(out)
		for _, want := range []string{
			"Shown is what names network web: " + id[:12] + " in a comment, bridge nft-" + id[:11], "are left out",
			"tcp port 8080 on any IPv4 address of this host goes to 10.81.0.2 port 80, container c1 of network web",
			"udp port 5353 on any IPv6 address of this host goes to fd00:81::2 port 53, container c1 of network web",
			"table bridge nftnet",
		} {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
				t.Errorf("--network %s lacks %q", query, want)
			}
		}
		for _, foreign := range []string{"9090", "10.82.0", "fd00:82:", "container c2", "chain DOCKER-USER"} {
			if strings.Contains(text, foreign) {
				t.Errorf("--network %s shows %q, which is not its own", query, foreign)
			}
		}
		if t.Failed() {
			t.Fatal(out)
		}
	}
	// Without Docker a network is known by its bridge and its id.
	out, err := w.Sandbox.Command("env", "DOCKER_HOST=unix:///run/nothing.sock", binary, "inspect", "--network", id[:12]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "names are missing: ") || !strings.Contains(string(out), "10.81.0.2 . 80") || strings.Contains(string(out), "10.82.0") {
		t.Errorf("without Docker: %v\n%s", err, out)
	}
	if nft := w.nftnet(t, "inspect", "--network", "other", "--format", "nft"); !strings.Contains(nft, "10.82.0.2 . 80") || strings.Contains(nft, "10.81.0") {
		t.Errorf("--format nft:\n%s", nft)
	}
	if user := w.nftnet(t, "inspect", "--chain", "DOCKER-USER"); !strings.Contains(user, "Shown is chain DOCKER-USER of table inet nftnet") &&
		!strings.Contains(user, "belongs to the user") || strings.Contains(user, "publish4") {
		t.Errorf("--chain:\n%s", user)
	}
	for flag, want := range map[string]string{"--network": "web\tnetwork of driver nftnet", "--container": "c1"} {
		if offered := w.nftnet(t, "__complete", "inspect", flag, ""); !strings.Contains(offered, want+"\n") {
			t.Errorf("completion of %s: %q", flag, offered)
		}
	}
	w.engine.Docker(t, "create", "--name", "idle", w.image, "/peer")
	w.engine.Docker(t, "run", "-d", "--name", "hosted", "--network", "host", w.image, "/peer", "serve", "-http", ":8999")
	for _, row := range []struct {
		args []string
		word string
	}{
		{[]string{"--network", "nosuch"}, `no network "nosuch": there are bridge, other, web`},
		{[]string{"--chain", "nosuch"}, `no chain "nosuch": there are `},
		{[]string{"--container", "nosuch"}, `no container "nosuch": running are c1, c2, hosted`},
		{[]string{"--container", "idle"}, "container idle is not running (created)"},
		{[]string{"--container", "hosted"}, "container hosted has no network namespace of its own"},
		{[]string{"--netns", "nosuch"}, "there is no network namespace /run/netns/nosuch"},
		{[]string{"--netns", "999999999"}, "there is no process 999999999"},
		{[]string{"--netns", "/etc/hostname"}, "/etc/hostname is no network namespace"},
		{[]string{"--netns", "1", "--container", "c1"}, "--container and --netns are not allowed together"},
		{[]string{"--chain", "x", "--network", "web"}, "--chain and --network are not allowed together"},
		{[]string{"--docker", "unix:///run/nothing.sock", "--container", "c1"}, `container "c1" cannot be found without docker: `},
	} {
		_, err := w.Try(append([]string{"env", "DOCKER_HOST=unix://" + w.engine.Socket, binary, "inspect"}, row.args...)...)
		if err == nil || !strings.Contains(err.Error(), row.word) {
			t.Errorf("inspect %v: %v, want an error with %q", row.args, err, row.word)
		}
	}
}
