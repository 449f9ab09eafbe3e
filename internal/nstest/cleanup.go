package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// destroyTimeout bounds the wait for killed processes to be gone.
const destroyTimeout = 15 * time.Second

// tempDir returns the directory for sandboxes as mount tables show it.
func tempDir() (string, error) { return filepath.EvalSymlinks(os.TempDir()) }

// destroy ends the sandbox in dir and removes dir.
func destroy(dir string) error { return errors.Join(endProcesses(dir), removeDir(dir)) }

// endProcesses ends all processes of the sandbox in dir, with them its mounts,
// and removes its control groups.
func endProcesses(dir string) error {
	groups := map[string]bool{}
	gone := poll(destroyTimeout, func() bool {
		pids := processes(dir)
		for _, pid := range pids {
			for _, g := range cgroups(strconv.Itoa(pid)) {
				groups[g] = true
				thaw(g)
			}
			// The process may be gone already.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	if !gone {
		return fmt.Errorf("processes %v of %s do not end", processes(dir), dir)
	}
	return removeCgroups(dir, groups)
}

// processes returns the processes with a mount from dir: all of a sandbox's,
// since its mount namespaces, and those of its containers, have one. On a file
// system of its own, as /tmp often is, a mount's source begins below dir's
// parents: the name of dir alone is looked for, which no other has.
func processes(dir string) []int {
	var pids []int
	name := []byte(filepath.Base(dir))
	files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, f := range files {
		// A process that ends meanwhile cannot be read, and need not be.
		mounts, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(mounts, name) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// containerID is how runc names control groups.
var containerID = regexp.MustCompile("^[0-9a-f]{64}$")

// cgroups returns the control groups of a process that were made for a
// container, as paths below the root of their hierarchy. The other groups it
// inherited; they are not the sandbox's.
func cgroups(pid string) []string {
	b, _ := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	var groups []string
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && containerID.MatchString(filepath.Base(f[2])) {
			groups = append(groups, f[2])
		}
	}
	return groups
}

// thaw lets the processes of a paused container run: frozen by version 1 of
// control groups, they would not even die.
func thaw(group string) {
	_ = os.WriteFile(filepath.Join("/sys/fs/cgroup/freezer", group, "freezer.state"), []byte("THAWED"), 0)
}

// removeCgroups removes the group that holds the containers of a sandbox, and
// other groups found on the way: managed plugins have theirs beside it.
func removeCgroups(dir string, groups map[string]bool) error {
	// The test itself may run in a container.
	for _, g := range cgroups("self") {
		delete(groups, g)
	}
	groups[cgroupParent(dir)] = true
	var left []string
	poll(destroyTimeout, func() bool {
		left = nil
		for g := range groups {
			// Hierarchies of version 2 are mounted on the first, of version 1
			// below it.
			for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
				trees, _ := filepath.Glob(root + g)
				left = append(left, slices.DeleteFunc(trees, removeTree)...)
			}
		}
		return len(left) == 0
	})
	if len(left) > 0 {
		return fmt.Errorf("control groups %v cannot be removed", left)
	}
	return nil
}

// cgroupParent returns the control group that holds the containers of the
// sandbox in dir.
func cgroupParent(dir string) string { return "/" + filepath.Base(dir) }

// removeTree removes a control group with those below it and reports whether it
// is gone.
func removeTree(group string) bool {
	var dirs []string
	filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		// The kernel empties a group some time after its last process ended.
		_ = syscall.Rmdir(d)
	}
	_, err := os.Stat(group)
	return errors.Is(err, fs.ErrNotExist)
}

// removeDir removes dir. The kernel undoes the mounts of a killed process some
// time after it, and until then a directory may be busy.
func removeDir(dir string) error {
	var err error
	poll(destroyTimeout, func() bool {
		err = os.RemoveAll(dir)
		return err == nil
	})
	return err
}

// sweepOnce removes once per process what earlier ones left behind.
var sweeping sync.Once

func sweepOnce(t testing.TB) {
	t.Helper()
	sweeping.Do(func() {
		if err := sweep(); err != nil {
			t.Logf("remove what an earlier test left behind: %v", err)
		}
	})
}

// sweep removes the sandboxes and namespaces of processes that were killed
// before they could, as "go test" does to a test that exceeds its time.
func sweep() error {
	var errs []error
	temp, err := tempDir()
	if err != nil {
		return err
	}
	dirs, _ := filepath.Glob(filepath.Join(temp, prefix+"*"))
	for _, dir := range slices.DeleteFunc(dirs, owned) {
		errs = append(errs, destroy(dir))
	}
	names, _ := filepath.Glob("/run/netns/" + prefix + "*")
	for _, path := range slices.DeleteFunc(names, owned) {
		errs = append(errs, ip("netns", "del", filepath.Base(path)))
	}
	return errors.Join(errs...)
}

// owned reports whether the process that made a thing still runs, or its name
// is not one that newName gives.
func owned(path string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), prefix), "-")
	if _, err := strconv.Atoi(pid); err != nil {
		return true
	}
	_, err := os.Stat(filepath.Join("/proc", pid))
	return err == nil
}
