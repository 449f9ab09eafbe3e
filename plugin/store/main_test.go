package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nftnet/internal/nstest"
)

// envMounts holds the id of the process that has a mount namespace of its own.
const envMounts = "NFTNET_TEST_MOUNTS"

// envChild names what a process does that a test started.
const envChild = "NFTNET_TEST_CHILD"

// TestMain runs the tests in a mount namespace of their own: what they mount
// goes with them.
func TestMain(m *testing.M) {
	if do, ok := children[os.Getenv(envChild)]; ok {
		os.Exit(do(os.Args[1:]))
	}
	if os.Geteuid() == 0 && os.Getenv(envMounts) != strconv.Itoa(os.Getpid()) {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", enterMounts())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enterMounts begins the program anew in a mount namespace; it returns where
// that fails only.
func enterMounts() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv(envMounts, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, os.Environ())
}

// children are what processes do that tests start; the result is the exit code.
var children = map[string]func(args []string) int{
	"hold":   childHold,
	"writes": childWrites,
}

// child is a process that a test started.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// start starts a process that does what name says; the test ends it.
func start(t *testing.T, name string, args ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe, args...)}
	c.cmd.Env = append(os.Environ(), envChild+"="+name)
	c.cmd.Stderr = os.Stderr

	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// line is the next line that the process writes.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the process wrote nothing more: %v", c.lines.Err())
	}
	return c.lines.Text()
}

// mountTmpfs mounts a tmpfs of size bytes.
func mountTmpfs(t *testing.T, size int) string {
	t.Helper()
	nstest.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// image is a file system in a file.
type image struct{ file, dir string }

// newImage makes one, whose blocks the file has not yet, with the options of
// mkfs.ext4.
func newImage(t *testing.T, folder string, size int64, options ...string) *image {
	t.Helper()
	nstest.RequireRoot(t)
	i := &image{file: filepath.Join(folder, "image"), dir: t.TempDir()}
	if err := os.WriteFile(i.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(i.file, size); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", append([]string{"-q", "-F", "-m", "0", "-b", "4096"}, append(options, i.file)...)...)
	i.mount(t)
	t.Cleanup(func() { i.unmount(t) })
	return i
}

func (i *image) mount(t *testing.T) {
	t.Helper()
	run(t, "mount", "-o", "loop", i.file, i.dir)
}

func (i *image) unmount(t *testing.T) {
	t.Helper()
	if err := unix.Unmount(i.dir, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Errorf("unmount: %v", err)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fill takes all space of a folder's file system; empty gives it back.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "fill")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1 << 20; n > 0; {
		wrote, err := f.Write(make([]byte, n))
		switch {
		case errors.Is(err, unix.ENOSPC):
			if wrote == 0 {
				n /= 2
			}
		case err != nil:
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
