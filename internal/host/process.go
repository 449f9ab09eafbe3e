package host

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Process is a program that runs.
type Process struct {
	Name string
	PID  int
}

// ProcessOf finds the process of a thread of this name. The kernel names the
// thread that changed a ruleset; where that thread is gone, or its number is
// another's now, the process is as the kernel named it.
func ProcessOf(thread int, name string) Process {
	who := Process{Name: name, PID: thread}
	dir := processDir(thread)
	// Another process may have the number by now, or the kernel's numbers are not
	// those of our namespace.
	if comm(dir) != name {
		return who
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return who
	}
	for line := range bytes.Lines(status) {
		if id, ok := strings.CutPrefix(string(line), "Tgid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(id))
			name := comm(processDir(pid))
			if err == nil && name != "" {
				return Process{Name: name, PID: pid}
			}
		}
	}
	return who
}

func processDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// comm is the name of the process of a directory of /proc, empty where it is
// gone.
func comm(dir string) string {
	text, _ := os.ReadFile(dir + "/comm")
	return strings.TrimSuffix(string(text), "\n")
}
