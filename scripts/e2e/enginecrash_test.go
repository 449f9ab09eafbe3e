package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// terminate sends SIGTERM to a process that the test started.
func terminate(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatalf("stop process %d: %v", pid, err)
	}
}

// TestA64EngineCrash: the engine is killed without live-restore and starts
// again. Containers that are always restarted get their ports back, and what is
// removed leaves nothing.
func TestA64EngineCrash(t *testing.T) {
	for name, crash := range map[string]func(*testing.T, *world){
		"engine": func(t *testing.T, w *world) { w.engine.Kill(t) },
		"engine and containers": func(t *testing.T, w *world) {
			running := w.containers(t)
			w.engine.Kill(t)
			for _, c := range running {
				// One may have ended with its engine.
				_ = syscall.Kill(c.State.Pid, syscall.SIGKILL)
			}
		},
		"engine, and the driver restarted": func(t *testing.T, w *world) {
			w.engine.Kill(t)
			w.driver.Stop(t)
			w.restartDriver(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.tableText(t)
			w.dual(t, "web", 81)
			// Docker gives the lowest free address: without these two each of the
			// others gets its own again, and takes over from itself.
			w.run(t, "once", "web", "-p", "8090:80")
			w.run(t, "quiet", "web")
			always := map[string]int{"web1": 8081, "web2": 8082, "web3": 8083}
			for c, port := range always {
				w.run(t, c, "web", "--restart", "always", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:53/udp", port))
			}
			crash(t, w)
			w.engine.Start(t)
			w.restarted(t, always)
			w.engine.Docker(t, "start", "once", "quiet")
			w.engine.WaitLog(t, "once", "ready")
			settles(t, 5*time.Second, "the container that was started again", func() []string { return w.unanswered(8090) })
			w.agrees(t, 20*time.Second)

			w.engine.Docker(t, "rm", "-f", "web1", "web2", "web3", "once", "quiet")
			w.bindable(t, 8081, 8082, 8083, 8090)
			if out := w.nftnet(t, "ports"); out != "no ports are published" {
				t.Errorf("nftnet ports after all containers are removed:\n%s", out)
			}
			w.agrees(t, 20*time.Second)
			w.engine.Docker(t, "network", "rm", "web")
			w.agrees(t, 20*time.Second)
			w.tableIs(t, before, "after all is removed")
		})
	}
}

// restarted waits until the containers answer on their ports, and says what the
// engine says of those that do not.
func (w *world) restarted(t *testing.T, ports map[string]int) {
	t.Helper()
	silent := func() (out []string) {
		for name, port := range ports {
			for _, way := range w.unanswered(port) {
				out = append(out, name+": "+way)
			}
		}
		return out
	}
	if settles(t, 30*time.Second, "containers that are always restarted", silent) {
		return
	}
	for _, c := range w.containers(t) {
		t.Logf("%s: running %v, %s", c.Name, c.State.Running, c.State.Error)
	}
	if strings.TrimSpace(w.nftnet(t, "ports")) != "" {
		t.Logf("nftnet ports:\n%s", w.nftnet(t, "ports"))
	}
}
