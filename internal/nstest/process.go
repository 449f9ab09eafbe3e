package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// stopTimeout is how long a process may take to end after SIGTERM.
	stopTimeout = 15 * time.Second
	// logTail is how much of a process's output goes into the log of a failed
	// test.
	logTail = 64 << 10
)

// Process is a command that runs in a sandbox until it ends, is stopped, or the
// test ends.
type Process struct {
	name string
	log  string
	// command makes the command of each start, which owns its extra files: an
	// error may come with one.
	command func() (*exec.Cmd, error)

	// What follows is that of the last start.
	cmd  *exec.Cmd
	from int64
	done chan struct{}
	err  error
}

// Start starts a long-lived command in the sandbox. Its output goes to the file
// name.log in Dir, and into the test's log if the test fails. The process is
// killed when the test ends.
func (sb *Sandbox) Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return sb.StartWith(t, name, asIs, args...)
}

// StartWith is Start with a function that prepares the command of the first
// start and of each Restart: its environment and ExtraFiles, for example, which
// are closed after the start.
func (sb *Sandbox) StartWith(t testing.TB, name string, prepare func(*exec.Cmd) error, args ...string) *Process {
	t.Helper()
	p := sb.process(name, prepare, args)
	if err := p.start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		p.kill()
		p.dump(t)
	})
	return p
}

// Restart starts the command of a process that has ended once more. A failed
// test's log shows the output of the last start only.
func (p *Process) Restart(t testing.TB) {
	t.Helper()
	if !p.ended() {
		t.Fatalf("restart %s: it runs already, pid %d", p.name, p.Pid())
	}
	if err := p.start(); err != nil {
		t.Fatalf("restart %s: %v", p.name, err)
	}
}

func (sb *Sandbox) start(name string, args []string) (*Process, error) {
	p := sb.process(name, asIs, args)
	return p, p.start()
}

func asIs(*exec.Cmd) error { return nil }

// process returns a process that is to be started.
func (sb *Sandbox) process(name string, prepare func(*exec.Cmd) error, args []string) *Process {
	return &Process{name: name, log: filepath.Join(sb.Dir, name+".log"), command: func() (*exec.Cmd, error) {
		cmd := sb.Command(args...)
		return cmd, prepare(cmd)
	}}
}

func (p *Process) start() error {
	// Several processes of one name, one after the other, share the file.
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	cmd, err := p.command()
	if err == nil {
		cmd.Stdout, cmd.Stderr = f, f
		err = cmd.Start()
	}
	for _, extra := range cmd.ExtraFiles {
		_ = extra.Close()
	}
	if err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.from, p.done, p.err = cmd, info.Size(), done, nil
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
	return nil
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log returns what the process printed so far.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("(log of %s: %v)", p.name, err)
	}
	return string(b[min(p.from, int64(len(b))):])
}

func (p *Process) dump(t testing.TB) {
	if !t.Failed() {
		return
	}
	log := p.Log()
	if cut := len(log) - logTail; cut > 0 {
		log = "…" + log[cut:]
	}
	t.Logf("output of %s (pid %d):\n%s", p.name, p.Pid(), log)
}

// WaitFor waits until the process has printed a text. It fails the test when
// the process ends without it, or timeout passes.
func (p *Process) WaitFor(t testing.TB, text string, timeout time.Duration) {
	t.Helper()
	ended := false
	poll(timeout, func() bool {
		ended = p.ended()
		return ended || strings.Contains(p.Log(), text)
	})
	switch {
	case strings.Contains(p.Log(), text):
	case ended:
		t.Fatalf("%s ended (%v) before it printed %q", p.name, p.err, text)
	default:
		t.Fatalf("%s did not print %q in %v", p.name, text, timeout)
	}
}

// Wait waits until the process has ended and returns how: nil for status 0. It
// fails the test when the process still runs after timeout.
func (p *Process) Wait(t testing.TB, timeout time.Duration) error {
	t.Helper()
	if !p.wait(timeout) {
		t.Fatalf("%s (pid %d) still runs after %v", p.name, p.Pid(), timeout)
	}
	return p.err
}

// Stop ends the process by SIGTERM and waits for its end. One that does not end
// is killed, and the test fails.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.stop(t, stopTimeout)
}

func (p *Process) stop(t testing.TB, timeout time.Duration) {
	t.Helper()
	// An error means that the process ended by itself.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if p.wait(timeout) {
		return
	}
	p.kill()
	t.Fatalf("%s (pid %d) did not end in %v after SIGTERM, so it was killed", p.name, p.Pid(), timeout)
}

// Kill ends the process by SIGKILL, so that it can do nothing more, and waits
// for its end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if !p.kill() {
		t.Fatalf("%s (pid %d) does not end after SIGKILL", p.name, p.Pid())
	}
}

func (p *Process) kill() bool {
	_ = p.cmd.Process.Kill()
	return p.wait(stopTimeout)
}

func (p *Process) wait(timeout time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(timeout):
		return false
	}
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool { return p.ended() }

func (p *Process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
