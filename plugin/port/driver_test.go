package port

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/fdstore"
	"nftnet/internal/fdstore/fdstoretest"
)

// driverPorts holds the ports, in JSON, of a process of this program that plays
// the driver.
const driverPorts = "NFTNET_TEST_DRIVER_PORTS"

// servedPort is a port that the process serves.
type servedPort struct {
	Port    desired.Port
	Clients Clients
}

// drive holds and serves ports until its standard input ends.
func drive(text string) error {
	var ports []servedPort
	if err := json.Unmarshal([]byte(text), &ports); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	store, err := fdstore.Take(log)
	if err != nil {
		return err
	}
	h := NewHolder(log, store)
	for _, p := range ports {
		if err := h.Hold(p.Port, "a"); err != nil {
			return err
		}
	}
	for _, p := range ports {
		h.Serve(p.Port, p.Clients)
	}
	h.DropUnclaimed()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := store.Barrier(ctx); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return h.Close()
}

// driverProcess is a driver in a process of its own.
type driverProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// startDriver starts a driver under a service manager and waits until it
// serves. The command before it may be empty.
func startDriver(t *testing.T, m *fdstoretest.Manager, before []string, ports ...servedPort) *driverProcess {
	t.Helper()
	text, err := json.Marshal(ports)
	if err != nil {
		t.Fatal(err)
	}
	args := append(before, os.Args[0])
	d := &driverProcess{cmd: exec.Command(args[0], args[1:]...)}
	d.cmd.Env = append(os.Environ(), driverPorts+"="+string(text))
	d.cmd.Stderr = os.Stderr
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(d.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the driver says %q, %v", line, err)
	}
	return d
}

// stop ends the driver as a service manager does.
func (d *driverProcess) stop(t *testing.T) {
	t.Helper()
	_ = d.stdin.Close()
	if err := d.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (d *driverProcess) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}
