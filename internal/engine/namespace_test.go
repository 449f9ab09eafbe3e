package engine

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNamespace(t *testing.T) {
	sandbox := filepath.Join(t.TempDir(), "sandbox")
	if err := os.WriteFile(sandbox, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	running := func(more string) string {
		return `{"Id":"c","State":{"Running":true,"Pid":77}` + more + `}`
	}
	answers := map[string]string{
		"own":     running(`,"HostConfig":{"NetworkMode":"web"},"NetworkSettings":{"SandboxKey":"` + sandbox + `"}`),
		"process": running(`,"HostConfig":{"NetworkMode":"web"},"NetworkSettings":{"SandboxKey":"/nonexistent"}`),
		"beside":  running(`,"HostConfig":{"NetworkMode":"container:own"}`),
		"orphan":  running(`,"HostConfig":{"NetworkMode":"container:gone"}`),
		"host":    running(`,"HostConfig":{"NetworkMode":"host"}`),
		"bare":    `{"Id":"c"}`,
		"stopped": `{"Id":"c","State":{"Running":false,"Status":"exited"},"HostConfig":{"NetworkMode":"web"}}`,
	}
	names := answer(t)
	host := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutSuffix(r.URL.Path, "/json")
		name = filepath.Base(name)
		if !ok || name == "containers" {
			names(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		body, ok := answers[name]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"message":"No such container"}`
		}
		_, _ = w.Write([]byte(body))
	})
	c, err := Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for name, want := range map[string]string{
		"own":     sandbox,
		"process": "/proc/77/ns/net",
		"beside":  sandbox,
		"orphan":  `container orphan is in the network of another one: no container "gone": running are c2c2c2c2c2c2, gone, web-1`,
		"host":    "container host has no network namespace of its own: it is in the host's (--network host)",
		"bare":    "docker engine at " + host + " does not tell the state of container bare",
		"stopped": "container stopped is not running (exited): only a running one has a network namespace",
		"nosuch":  `no container "nosuch": running are c2c2c2c2c2c2, gone, web-1`,
	} {
		got, err := c.Namespace(t.Context(), name)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// A process number of another machine means nothing here.
	c.host = "tcp://192.0.2.1:2375"
	if got, err := c.Namespace(t.Context(), "process"); err == nil || !strings.Contains(err.Error(), "is not on this machine") {
		t.Errorf("of another machine: %q, %v", got, err)
	}
}
