package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/nstest"
)

// driver answers the requests of commands on a socket.
type driver struct {
	socket   string
	problems []control.Problem
	ghosts   []control.Ghost
	// refuse is what every request about Docker is answered with.
	refuse string
	// pruned are the ids that it was asked to remove.
	pruned []string
}

func startDriver(t *testing.T, d *driver) *driver {
	t.Helper()
	d.socket = filepath.Join(t.TempDir(), "driver.sock")
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(pattern string, fn func(*http.Request) any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v := fn(r)
			if d.refuse != "" && !strings.Contains(pattern, control.PathPorts) {
				w.WriteHeader(http.StatusInternalServerError)
				v = control.Refusal{Err: d.refuse}
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	answer("GET "+control.PathPorts, func(*http.Request) any { return []control.Port{} })
	answer("GET "+control.PathProblems, func(*http.Request) any { return d.problems })
	answer("GET "+control.PathGhosts, func(*http.Request) any { return d.ghosts })
	answer("POST "+control.PathPrune, func(r *http.Request) any {
		var req control.Prune
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		d.pruned = req.IDs
		// One of them is known to Docker by now.
		return control.Pruned{Removed: d.ghosts[:1]}
	})
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	s.Start()
	t.Cleanup(s.Close)
	return d
}

func twoGhosts() []control.Ghost {
	return []control.Ghost{
		{Kind: "network", ID: strings.Repeat("1", 64), Bridge: "nft-11111111111", Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}},
		{Kind: "endpoint", ID: strings.Repeat("2", 64), Network: strings.Repeat("3", 64), Addresses: []string{"10.3.0.2"}, Ports: []string{"0.0.0.0:8080->80/tcp"}},
	}
}

// runWith is run with something on standard input.
func runWith(t *testing.T, in string, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := root("test")
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

// TestPrune: what is found is shown and removed when its user says so.
func TestPrune(t *testing.T) {
	const tableText = `KIND      ID            BRIDGE           ADDRESSES                PORTS
network   111111111111  nft-11111111111  10.1.0.0/24 fd00:1::/64  -
endpoint  222222222222  -                10.3.0.2                 0.0.0.0:8080->80/tcp
`
	const question = "Remove them? [y/N] "
	ids := []string{strings.Repeat("1", 64), strings.Repeat("2", 64)}
	for name, row := range map[string]struct {
		in      string
		args    []string
		out     string
		errOut  string
		removed bool
		err     error
	}{
		"yes":       {"y\n", nil, tableText + "removed 1\n", question, true, nil},
		"yes, long": {"Yes\n", nil, tableText + "removed 1\n", question, true, nil},
		"no":        {"n\n", nil, tableText, question, false, errNotConfirmed},
		"a word":    {"yesterday\n", nil, tableText, question, false, errNotConfirmed},
		"nothing":   {"", nil, tableText, question, false, errNotConfirmed},
		"--yes":     {"", []string{"--yes"}, tableText + "removed 1\n", "", true, nil},
		"-y":        {"n\n", []string{"-y"}, tableText + "removed 1\n", "", true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDriver(t, &driver{ghosts: twoGhosts()})
			out, errOut, err := runWith(t, row.in, append([]string{"prune", "--socket", d.socket}, row.args...)...)
			if out != row.out || errOut != row.errOut || !errors.Is(err, row.err) {
				t.Errorf("%v\n%s%s\nwant %v\n%s%s", err, out, errOut, row.err, row.out, row.errOut)
			}
			if row.removed != slices.Equal(d.pruned, ids) || !row.removed && d.pruned != nil {
				t.Errorf("asked to remove %v", d.pruned)
			}
		})
	}
}

// TestPruneJSON: programs look, or say --yes, and are never asked.
func TestPruneJSON(t *testing.T) {
	for name, row := range map[string]struct {
		ghosts  []control.Ghost
		args    []string
		removed int
	}{
		"look": {twoGhosts(), nil, 0}, "remove": {twoGhosts(), []string{"--yes"}, 1}, "none": {[]control.Ghost{}, []string{"--yes"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDriver(t, &driver{ghosts: row.ghosts})
			out, errOut, err := runWith(t, "y\n", append([]string{"prune", "--format", "json", "--socket", d.socket}, row.args...)...)
			var got pruneJSON
			if jsonErr := json.Unmarshal([]byte(out), &got); err != nil || jsonErr != nil || errOut != "" {
				t.Fatalf("%v, %v: %s%s", err, jsonErr, out, errOut)
			}
			if got.Found == nil || got.Removed == nil || len(got.Found) != len(row.ghosts) || len(got.Removed) != row.removed {
				t.Errorf("answer %s", out)
			}
			if (d.pruned != nil) != (row.removed > 0) {
				t.Errorf("asked to remove %v", d.pruned)
			}
		})
	}
}

// TestPruneFinds: nothing, a driver that cannot ask Docker, and none.
func TestPruneFinds(t *testing.T) {
	d := startDriver(t, &driver{ghosts: []control.Ghost{}})
	if out, errOut, err := runWith(t, "", "prune", "--socket", d.socket); out != "Docker knows all networks and endpoints\n" || errOut != "" || err != nil {
		t.Errorf("none: %v %s%s", err, out, errOut)
	}
	d.refuse = "cannot ask Docker which networks it knows, so nothing is a ghost: no engine"
	if out, _, err := runWith(t, "y\n", "prune", "--yes", "--socket", d.socket); err == nil || err.Error() != d.refuse || out != "" {
		t.Errorf("no engine: %v %s", err, out)
	}
	if _, _, err := runWith(t, "y\n", "prune", "--socket", filepath.Join(t.TempDir(), "none.sock")); err == nil || !strings.Contains(err.Error(), "is not running on") {
		t.Errorf("no driver: %v", err)
	}
	if _, _, err := runWith(t, "", "prune", "--format", "yaml"); err == nil || !strings.Contains(err.Error(), `format "yaml" is not allowed`) {
		t.Errorf("format: %v", err)
	}
	if d.pruned != nil {
		t.Errorf("asked to remove %v", d.pruned)
	}
}

// TestStatusShowsProblems: what the driver knows to be wrong is said with the line
// that repairs it, and an error makes the exit status 1.
func TestStatusShowsProblems(t *testing.T) {
	nstest.RequireInside(t)
	cut := control.Problem{
		Code: "container-cut-off", Level: "error", Network: "n", Container: "web", Text: "container web is cut off from network front: its link is gone",
		Command: "docker network disconnect -f front web && docker network connect front web",
	}
	warn := control.Problem{Code: "port-not-held", Level: "warn", Text: "host port 0.0.0.0:80/tcp is published, and nftnet does not hold it", Fix: "end the program that has the port"}
	for name, row := range map[string]struct {
		problems []control.Problem
		words    []string
		status   int
	}{
		"none": {[]control.Problem{}, nil, 0},
		"warn": {[]control.Problem{warn}, []string{"warn", "Host port 0.0.0.0:80/tcp is published, and nftnet does not hold it. End the program that has the port."}, 0},
		"error": {[]control.Problem{cut, warn}, []string{
			"error", "Container web is cut off from network front: its link is gone.", cut.Command, "End the program that has the port."}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			// A table, as a driver that runs has.
			if out, err := exec.Command("nft", "add", "table", "inet", "nftnet").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Cleanup(func() { _ = exec.Command("nft", "flush", "ruleset").Run() })
			d := startDriver(t, &driver{problems: row.problems})
			cmd := program(t, "status", "--socket", d.socket, "--docker", noDocker)
			out, err := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != row.status {
				t.Errorf("exit status %d (%v), want %d:\n%s", got, err, row.status, out)
			}
			plain := strings.Join(strings.Fields(string(out)), " ")
			for _, w := range row.words {
				if !strings.Contains(plain, w) {
					t.Errorf("it does not say %q:\n%s", w, out)
				}
			}
			text, _, err := run(t, "status", "--format", "json", "--socket", d.socket, "--docker", noDocker)
			var answer statusJSON
			if jsonErr := json.Unmarshal([]byte(text), &answer); jsonErr != nil || answer.OK != (row.status == 0) || errors.Is(err, errObstacle) != (row.status == 1) {
				t.Errorf("%v, %v: %s", err, jsonErr, text)
			}
			if row.status == 1 && !strings.Contains(text, `docker network connect front web`) {
				t.Errorf("the command is missing of %s", text)
			}
		})
	}
}

// program is the program itself, in a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), envProgram+"=1", "DOCKER_HOST="+noDocker)
	return cmd
}

// TestHangupDoesNoHarm: the driver goes on after a SIGHUP, says so, and ends by
// SIGTERM.
func TestHangupDoesNoHarm(t *testing.T) {
	nstest.RequireInside(t)
	socket := filepath.Join(t.TempDir(), "nftnet.sock")
	var log notes
	cmd := program(t, "serve", "--socket", socket, "--state", filepath.Join(t.TempDir(), "state.db"))
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	wait := func(words string, count int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); strings.Count(log.String(), words) < count; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q %d times:\n%s", words, count, log.String())
			}
		}
	}
	wait("serving", 1)
	for i := range 3 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		wait("SIGHUP does nothing", i+1)
		if _, err := (control.Client{Socket: socket}).Ports(t.Context()); err != nil {
			t.Fatalf("after a SIGHUP: %v", err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v:\n%s", err, log.String())
		}
	case <-time.After(30 * time.Second):
		t.Errorf("it does not end:\n%s", log.String())
	}
}
