package e2e

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

var cycles = flag.Int("cycles", 50, "how often TestCycles makes and removes a network with a container")

// usage is what a process has of the machine.
type usage struct {
	descriptors, threads, kilobytes int
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB", u.descriptors, u.threads, u.kilobytes)
}

var statusField = regexp.MustCompile(`(?m)^(Threads|RssAnon):\s*(\d+)`)

// usageOf reads /proc: RssAnon is the memory that the process has written to.
func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.descriptors = len(open)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range statusField.FindAllStringSubmatch(string(status), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "Threads" {
			u.threads = n
		} else {
			u.kilobytes = n
		}
	}
	return u
}

const (
	// warmUp cycles fill pools and caches.
	warmUp = 10
	// A runtime may start some threads more, and its heap grows to twice what
	// is alive before it collects: memory that is kept for each cycle, a
	// goroutine's at least, exceeds this in a thousand.
	moreThreads, moreKilobytes = 4, 6 << 10
	// The engine may have another connection open to the driver.
	moreGoroutines = 5
)

// TestCycles makes and removes networks with containers and redirects: the
// driver has as much of the machine afterwards as before.
func TestCycles(t *testing.T) {
	w := emptyWorld(t)
	w.startDriverWith(t, "GOTRACEBACK=all")
	w.startEngine(t)
	empty := w.tableText(t)
	cycle := func(n int) {
		t.Helper()
		w.dual(t, "web", 81)
		w.engine.Docker(t, "run", "-d", "--name", "c1", "--network", "web", "-p", "8080:80", "-p", "5353:53/udp", w.image, "sleep", "1000")
		w.engine.Docker(t, "rm", "-f", "c1")
		w.engine.Docker(t, "network", "rm", "web")
		if n%10 == 0 {
			w.mustRedirect(t, "add", "80", "3000")
			w.mustRedirect(t, "rm", "80")
		}
	}
	for n := range warmUp {
		cycle(n)
	}
	before := usageOf(t, w.driver.Pid())
	peak := before
	begin := time.Now()
	for n := range *cycles {
		cycle(n)
		now := usageOf(t, w.driver.Pid())
		peak.threads, peak.kilobytes = max(peak.threads, now.threads), max(peak.kilobytes, now.kilobytes)
	}
	t.Logf("%d cycles in %v: before %v; most %v", *cycles, time.Since(begin).Round(time.Second), before, peak)
	settles(t, 10*time.Second, "descriptors of the driver", func() []string {
		if now := usageOf(t, w.driver.Pid()); now.descriptors > before.descriptors {
			return []string{fmt.Sprintf("now %v; before %v", now, before)}
		}
		return nil
	})
	after := usageOf(t, w.driver.Pid())
	if after.threads > before.threads+moreThreads || after.kilobytes > before.kilobytes+moreKilobytes {
		t.Errorf("the driver has %v after %d cycles; before %v", after, *cycles, before)
	}
	w.agrees(t, 5*time.Second)
	w.tableIs(t, empty, "after all cycles")
	if l := w.links(t); l != "" {
		t.Errorf("links are left: %s", l)
	}

	many := w.goroutines(t)
	w.restartDriver(t)
	cycle(0)
	few := w.goroutines(t)
	t.Logf("after: %v; %d goroutines, after one cycle of a new driver %d", after, many, few)
	if many > few+moreGoroutines {
		t.Errorf("the driver has %d goroutines after %d cycles, after one it has %d", many, *cycles, few)
	}
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+ .*\[`)

// goroutines counts those of the driver. It ends the driver: Go's runtime prints
// them all on SIGQUIT.
func (w *world) goroutines(t *testing.T) int {
	t.Helper()
	if err := syscall.Kill(w.driver.Pid(), syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if err := w.driver.Wait(t, 10*time.Second); err == nil {
		t.Error("the driver ends with status 0 on SIGQUIT")
	}
	n := len(goroutine.FindAllString(w.driver.Log(), -1))
	if n == 0 {
		t.Errorf("the driver printed no goroutines on SIGQUIT:\n%s", tail(w.driver, 20))
	}
	return n
}
