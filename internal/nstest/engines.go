package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// EngineVersion names a Docker engine that a test can choose.
type EngineVersion string

const (
	// Engine20 is the engine that is installed, or the one that NFTNET_DOCKERD
	// names: 20.10 on Debian 12.
	Engine20 EngineVersion = "20.10"
	// Engine26 and Engine28 are those that scripts/engines unpacks.
	Engine26 EngineVersion = "26.1"
	Engine28 EngineVersion = "28.5"
)

// Engines lists the engines that the driver has to work with.
func Engines() []EngineVersion { return []EngineVersion{Engine20, Engine26, Engine28} }

// Major returns the first number of the engine's real version, which may be
// later than its name says. It fails the test where the engine is missing.
func (v EngineVersion) Major(t testing.TB) int {
	t.Helper()
	args := append(v.command(t), "--version")
	out, err := run(exec.Command(args[0], args[1:]...), args)
	if err != nil {
		t.Fatalf("engine %s: %v", v, err)
	}
	major, err := parseMajor(out)
	if err != nil {
		t.Fatalf("engine %s: %v", v, err)
	}
	return major
}

// versionLine is what dockerd --version prints.
var versionLine = regexp.MustCompile(`^Docker version (\d+)\.`)

func parseMajor(line string) (int, error) {
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return 0, fmt.Errorf("dockerd --version printed %q, which holds no version", line)
	}
	return strconv.Atoi(m[1])
}

// command returns the command that starts the engine, to which arguments are
// added. It fails the test where the engine is missing.
func (v EngineVersion) command(t testing.TB) []string {
	t.Helper()
	program, err := v.program()
	if err != nil {
		t.Fatalf("engine %s: %v", v, err)
	}
	dir := filepath.Dir(program)
	if dir == "." {
		return []string{program}
	}
	// dockerd and containerd look for their helpers on PATH: each engine has to
	// find its own.
	return []string{"env", "PATH=" + dir + ":" + os.Getenv("PATH"), program}
}

// program returns the dockerd of the engine, as a path or as a name to look for
// on PATH.
func (v EngineVersion) program() (string, error) {
	if v == Engine20 {
		if named := os.Getenv("NFTNET_DOCKERD"); named != "" {
			return named, nil
		}
		return "dockerd", nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	program := filepath.Join(root, ".tools/engines", string(v), "bin/dockerd")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("not on this machine: run scripts/engines, which fetches it: %w", err)
	}
	return program, nil
}

// moduleRoot returns the directory of go.mod. A test runs in the directory of
// its package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod in the working directory or above it")
		}
		dir = parent
	}
}
