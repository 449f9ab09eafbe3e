package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

func TestMain(m *testing.M) {
	if where := os.Getenv(holderEnv); where != "" {
		holdSocket(where)
		return
	}
	code := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

var binaryDir string

// buildDriver builds the driver of this tree, once.
var buildDriver = sync.OnceValues(func() (program string, err error) {
	if binaryDir, err = os.MkdirTemp("", "nftnet-engine-"); err != nil {
		return "", err
	}
	program = filepath.Join(binaryDir, "nftnet")
	build := exec.Command("go", "build", "-o", program, "nftnet")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nftnet: %w: %s", err, out)
	}
	return program, nil
})

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s not yet: %s", patience, what)
		}
	}
}

// world is a Docker host with the driver, and with somebody between the two who
// writes down what the engine says and can hold an answer back.
type world struct {
	*nstest.Sandbox
	*wire
	engine *nstest.Engine
	image  string
}

// newWorld makes a world without an engine.
func newWorld(t *testing.T) *world {
	t.Helper()
	nstest.RequireRoot(t)
	t.Parallel()
	program, err := buildDriver()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Sandbox: nstest.NewSandbox(t)}
	socket := filepath.Join(w.Dir, "driver.sock")
	driver := w.Start(t, "nftnet", program, "serve", "--state", filepath.Join(w.Dir, "state.db"), "--socket", socket)
	driver.WaitFor(t, "msg=serving", patience)
	w.wire = newWire(t, w.Path("/run/docker/plugins/nftnet.sock"), socket)
	return w
}

func (w *world) startEngine(t *testing.T, args ...string) {
	t.Helper()
	w.engine = w.StartEngine(t, args...)
	w.image = w.engine.Image(t)
}

// connect makes a client of the world's engine.
func (w *world) connect(t *testing.T) *Client {
	t.Helper()
	c, err := Connect(t.Context(), "unix://"+w.engine.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) inventory(t *testing.T) Inventory {
	t.Helper()
	inv, err := w.connect(t).Inventory(t.Context(), "nftnet")
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func (w *world) network(t *testing.T, name string, args ...string) (id string) {
	t.Helper()
	return w.engine.Docker(t, append(append([]string{"network", "create", "-d", "nftnet"}, args...), name)...)
}

// run starts a container that sleeps.
func (w *world) run(t *testing.T, name, network string, args ...string) {
	t.Helper()
	docker := append([]string{"run", "-d", "--name", name, "--network", network}, args...)
	w.engine.Docker(t, append(docker, w.image, "sleep", "1000")...)
}

// call is one call of the engine to the driver.
type call struct {
	name              string
	request, response map[string]any
}

func (c call) endpoint() string { id, _ := c.request["EndpointID"].(string); return id }
func (c call) network() string  { id, _ := c.request["NetworkID"].(string); return id }

// wire passes calls on to the driver.
type wire struct {
	mu     sync.Mutex
	calls  []call
	held   string
	resume chan struct{}
	at     chan call
}

func newWire(t *testing.T, listen, driver string) *wire {
	t.Helper()
	w := &wire{at: make(chan call, 1)}
	l, err := net.Listen("unix", listen)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", driver)
	}}}
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.pass(client, rw, r)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return w
}

func (w *wire) pass(client *http.Client, rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	resp, err := client.Post("http://driver"+r.URL.Path, r.Header.Get("Content-Type"), bytes.NewReader(body))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(resp.Body)
	c := call{name: strings.TrimPrefix(path.Base(r.URL.Path), "NetworkDriver.")}
	_ = json.Unmarshal(body, &c.request)
	_ = json.Unmarshal(answer, &c.response)
	w.mu.Lock()
	w.calls = append(w.calls, c)
	held, resume := w.held == c.name, w.resume
	w.mu.Unlock()
	if held {
		w.at <- c
		<-resume
	}
	rw.WriteHeader(resp.StatusCode)
	_, _ = rw.Write(answer)
}

// hold keeps the driver's answer to the next call of a name from the engine,
// while do runs, and calls meanwhile.
func (w *wire) hold(t *testing.T, name string, do func() error, meanwhile func(call)) {
	t.Helper()
	resume := make(chan struct{})
	w.mu.Lock()
	w.held, w.resume = name, resume
	w.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- do() }()
	let := sync.OnceFunc(func() {
		w.mu.Lock()
		w.held = ""
		w.mu.Unlock()
		close(resume)
	})
	defer let()
	select {
	case c := <-w.at:
		meanwhile(c)
	case err := <-done:
		t.Fatalf("ended without %s: %v", name, err)
	case <-time.After(patience):
		t.Fatalf("no %s", name)
	}
	let()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	case <-time.After(patience):
		t.Fatalf("does not end after %s", name)
	}
}

// last returns the last call of a name that is about an endpoint, or a network.
func (w *wire) last(name, id string) (call, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.calls) - 1; i >= 0; i-- {
		c := w.calls[i]
		if c.name == name && (c.endpoint() == id || c.endpoint() == "" && c.network() == id) {
			return c, true
		}
	}
	return call{}, false
}

// published reports whether an endpoint has the ports of its container: its last
// call of that kind gave them.
func (w *wire) published(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.calls) - 1; i >= 0; i-- {
		if w.calls[i].endpoint() != id {
			continue
		}
		switch w.calls[i].name {
		case "ProgramExternalConnectivity":
			return true
		case "RevokeExternalConnectivity", "Leave":
			return false
		}
	}
	return false
}
