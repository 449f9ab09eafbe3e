package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// holderEnv makes this test binary listen on a socket, as systemd does for a
// program that does not run yet. The value is the socket's path; "copy" stands
// for a child that has its descriptors and did not start its own program yet.
const holderEnv = "NFTNET_ENGINE_HOLDER"

// holdSocket obeys words on its standard input: "start" and "copy" start a
// process that has the socket too, "stop" ends it, "accept" answers whether
// somebody connected.
func holdSocket(where string) {
	if where == "copy" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: where})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := l.File()
	if err != nil {
		fmt.Println(err)
		return
	}
	var child *exec.Cmd
	fmt.Println("listens")
	for words := bufio.NewScanner(os.Stdin); words.Scan(); {
		switch words.Text() {
		case "start", "copy":
			child = exec.Command("sleep", "1000")
			if words.Text() == "copy" {
				child = exec.Command(os.Args[0])
				child.Env = append(os.Environ(), holderEnv+"=copy")
				_, _ = child.StdinPipe()
			}
			child.ExtraFiles = []*os.File{file}
			fmt.Println(child.Start())
		case "stop":
			fmt.Println(child.Process.Kill())
			_ = child.Wait()
		case "accept":
			_ = l.SetDeadline(time.Now().Add(100 * time.Millisecond))
			conn, err := l.Accept()
			if err == nil {
				_ = conn.Close()
			}
			fmt.Println(err == nil)
		}
	}
	if child != nil {
		_ = child.Process.Kill()
	}
}

// holder is a process that holds a socket for another.
type holder struct {
	activator
	path    string
	in      io.Writer
	answers *bufio.Scanner
}

func newHolder(t *testing.T) *holder {
	t.Helper()
	h := &holder{path: filepath.Join(t.TempDir(), "docker.sock")}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"="+h.path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	h.in, h.answers = in, bufio.NewScanner(out)
	if !h.answers.Scan() || h.answers.Text() != "listens" {
		t.Fatalf("holder: %q", h.answers.Text())
	}
	comm, err := os.ReadFile(processFile(cmd.Process.Pid, "comm"))
	if err != nil {
		t.Fatal(err)
	}
	h.activator = activator{pid: cmd.Process.Pid, name: strings.TrimSpace(string(comm))}
	return h
}

func (h *holder) say(t *testing.T, word string) string {
	t.Helper()
	if _, err := fmt.Fprintln(h.in, word); err != nil {
		t.Fatal(err)
	}
	if !h.answers.Scan() {
		t.Fatalf("holder does not answer %q", word)
	}
	return h.answers.Text()
}

func TestHoldsAlone(t *testing.T) {
	h := newHolder(t)
	check := func(when string, a activator, path string, want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: held alone is %v", when, want), func() bool { return a.holdsAlone(path) == want })
	}
	check("at first", h.activator, h.path, true)
	if h.say(t, "copy") != "<nil>" {
		t.Fatal("no copy")
	}
	check("beside a child without a program", h.activator, h.path, true)
	h.say(t, "stop")
	if h.say(t, "start") != "<nil>" {
		t.Fatal("no program")
	}
	check("beside a program", h.activator, h.path, false)
	h.say(t, "stop")
	check("after its end", h.activator, h.path, true)

	link := filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(filepath.Dir(h.path), link); err != nil {
		t.Fatal(err)
	}
	check("by another name", h.activator, filepath.Join(link, "docker.sock"), true)
	check("by another process", activator{pid: os.Getpid(), name: h.name}, h.path, false)
	check("by a process of another name", activator{pid: h.pid, name: "systemd"}, h.path, false)
	check("at a missing path", h.activator, h.path+"x", false)
}

// TestConnectLetsSleep: asking for names starts no engine.
func TestConnectLetsSleep(t *testing.T) {
	h := newHolder(t)
	c, err := newClient("unix://"+h.path, h.activator)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.reachable(ctx); !errors.Is(err, errAsleep) || err.Error() != "docker engine at unix://"+h.path+": "+errAsleep.Error() {
		t.Errorf("got %v", err)
	}
	// A client that has talked to the engine before it stopped.
	if inv, err := c.Inventory(ctx, ""); err == nil {
		t.Errorf("got %+v", inv)
	}
	if got := h.say(t, "accept"); got != "false" {
		t.Error("it connected while nobody but the activator listened")
	}
}

// TestFollowLetsSleep: a socket that is held for an engine which somebody stopped
// is left alone, and used as soon as there is an engine.
func TestFollowLetsSleep(t *testing.T) {
	h := newHolder(t)
	log := new(logCounter)
	f := newFollower("unix://"+h.path, log.logger(), nil, nil)
	f.socket, f.wait, f.asleep, f.firstWord = h.activator, time.Millisecond, time.Millisecond, time.Second
	follow(t, f)
	eventually(t, "it tried", func() bool { return log.count(errAsleep.Error()) > 3 })
	if got := h.say(t, "accept"); got != "false" {
		t.Error("it connected while nobody but the activator listened")
	}
	h.say(t, "start")
	eventually(t, "it connected", func() bool { return h.say(t, "accept") == "true" })
}
