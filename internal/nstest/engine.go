package nstest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nftnet/internal/nstest/wire"
)

const (
	// engineTimeout is how long an engine may take to answer after its start.
	engineTimeout = 30 * time.Second
	// engineStopTimeout leaves the engine the time that it grants containers
	// which ignore SIGTERM, and plugins that do not answer.
	engineStopTimeout = time.Minute
)

// Engine is a Docker engine in a sandbox.
type Engine struct {
	// Socket is the path of the socket of the engine's API, inside and outside
	// of the sandbox.
	Socket string

	sb   *Sandbox
	args []string
	proc *Process

	mu     sync.Mutex
	loaded bool
}

// StartEngine starts dockerd, or the program that NFTNET_DOCKERD names, in the
// sandbox, and waits until it answers. It runs until the test ends; then it is
// killed with its containers. A sandbox has one engine at a time.
func (sb *Sandbox) StartEngine(t testing.TB, args ...string) *Engine {
	t.Helper()
	return sb.StartEngineVersion(t, Engine20, args...)
}

// StartEngineVersion is StartEngine with an engine of the test's choice.
func (sb *Sandbox) StartEngineVersion(t testing.TB, v EngineVersion, args ...string) *Engine {
	t.Helper()
	e := &Engine{sb: sb, Socket: filepath.Join(sb.Dir, "docker.sock")}
	e.args = append(v.command(t),
		"--data-root", filepath.Join(sb.Dir, "data"),
		"--exec-root", filepath.Join(sb.Dir, "exec"),
		"--pidfile", e.pidfile(),
		"--host", "unix://"+e.Socket,
		"--cgroup-parent", cgroupParent(sb.Dir),
		"--containerd-namespace", sb.name,
		"--containerd-plugins-namespace", sb.name+"-plugins",
		"--log-level", "warn",
	)
	e.args = append(e.args, args...)
	t.Cleanup(func() {
		if e.proc != nil {
			e.proc.kill()
			e.proc.dump(t)
		}
	})
	e.Start(t)
	return e
}

func (e *Engine) pidfile() string { return filepath.Join(e.sb.Dir, "dockerd.pid") }

func (e *Engine) containerdPidfile() string {
	return filepath.Join(e.sb.Dir, "exec/containerd/containerd.pid")
}

// Start starts a stopped or killed engine again, with the arguments it had.
func (e *Engine) Start(t testing.TB) {
	t.Helper()
	// Reboot killed it without waiting.
	if e.proc != nil && !e.proc.wait(time.Second) {
		t.Fatalf("start engine: it runs already, pid %d", e.proc.Pid())
	}
	// A killed engine leaves its pid behind, which may be another's by now.
	for _, f := range []string{e.pidfile(), e.containerdPidfile()} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("start engine: %v", err)
		}
	}
	p, err := e.sb.start("dockerd", e.args)
	if err != nil {
		t.Fatalf("start engine: %v", err)
	}
	e.proc = p
	up := poll(engineTimeout, func() bool {
		err = e.ping()
		return err == nil || p.ended()
	})
	switch {
	case p.ended():
		t.Fatalf("engine ended while it started: %v", p.err)
	case !up:
		t.Fatalf("engine does not answer after %v: %v", engineTimeout, err)
	}
}

func (e *Engine) ping() error {
	_, err := wire.Get(context.Background(), e.client(engineTimeout), "http://docker/_ping")
	return err
}

// client talks to the engine's API. It makes a new connection for every
// request.
func (e *Engine) client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
			},
		},
	}
}

// Stop ends dockerd by SIGTERM. Unless it was started with --live-restore, it
// stops its containers before.
func (e *Engine) Stop(t testing.TB) {
	t.Helper()
	e.proc.stop(t, engineStopTimeout)
}

// Kill ends dockerd by SIGKILL; its containerd ends with it. The containers keep
// running: the next Start takes them over if dockerd has --live-restore, and
// kills them otherwise. (Under systemd containerd is a service of its own and
// would outlive dockerd.)
func (e *Engine) Kill(t testing.TB) {
	t.Helper()
	pid, _ := os.ReadFile(e.containerdPidfile())
	e.proc.Kill(t)
	// A new engine would take a containerd that is about to end for its own.
	mounts := filepath.Join("/proc", strings.TrimSpace(string(pid)), "mountinfo")
	if !poll(stopTimeout, func() bool { _, err := os.ReadFile(mounts); return err != nil }) {
		t.Fatalf("containerd (pid %s) did not end with the engine", pid)
	}
}

// Restart stops the engine and starts it again.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	e.Stop(t)
	e.Start(t)
}

// Process returns the running, or last, dockerd.
func (e *Engine) Process() *Process { return e.proc }

// Docker runs the docker command with the engine and returns its standard
// output, trimmed. It fails the test when the command fails.
func (e *Engine) Docker(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, err := e.TryDocker(args...)
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// TryDocker is Docker that returns the error, and apart from it what the
// command printed on standard error.
func (e *Engine) TryDocker(args ...string) (stdout, stderr string, err error) {
	stdout, stderr, err = output(e.docker(args...))
	return strings.TrimSpace(stdout), strings.TrimSpace(stderr), err
}

// docker returns a docker command that talks to the engine and knows nothing of
// the user's configuration.
func (e *Engine) docker(args ...string) *exec.Cmd {
	return e.sb.Command(append([]string{"docker", "--host", "unix://" + e.Socket, "--config", filepath.Join(e.sb.Dir, "cli")}, args...)...)
}

// Create makes a container by the engine's API, for what the client does not
// ask of an old engine.
func (e *Engine) Create(t testing.TB, name string, container map[string]any) {
	t.Helper()
	if err := e.Post("/containers/create?name="+name, container); err != nil {
		t.Fatalf("create container %s: %v", name, err)
	}
}

// Post sends a request to the engine's API, for what the installed client is
// too old to ask of a new engine, or too new to ask of an old one. The path
// begins with a slash and names no version of the API: the engine's latest is
// meant. The error holds what the engine answered.
func (e *Engine) Post(path string, request map[string]any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	resp, err := e.client(commandTimeout).Post("http://docker"+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("post %s: %s: %s", path, resp.Status, bytes.TrimSpace(answer))
	}
	return nil
}

// WaitLog waits until a container has printed a text: "ready" by "/peer serve".
// It fails the test when the text does not come.
func (e *Engine) WaitLog(t testing.TB, container, text string) {
	t.Helper()
	var stdout, stderr string
	var err error
	if !poll(stopTimeout, func() bool {
		stdout, stderr, err = e.TryDocker("logs", container)
		return err != nil || strings.Contains(stdout, text)
	}) || err != nil {
		t.Fatalf("container %s did not print %q: %v: %s%s", container, text, err, stdout, stderr)
	}
}

// Peer runs /peer with the arguments in a container and returns the Reply that
// it got.
func (e *Engine) Peer(t testing.TB, container string, args ...string) (Reply, error) {
	t.Helper()
	stdout, stderr, err := e.TryDocker(append([]string{"exec", container, "/peer"}, args...)...)
	if err != nil {
		return Reply{}, fmt.Errorf("peer %s in %s: %w: %s", strings.Join(args, " "), container, err, stderr)
	}
	return wire.Decode([]byte(stdout))
}
