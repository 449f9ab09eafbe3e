package nstest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// ImageName is the name that Image gives its image.
const ImageName = "nftnet-test"

// applets are the commands of busybox that an image has, where busybox does.
var applets = []string{"sh", "sleep", "wget", "nc", "ip", "ping", "cat", "ls", "route", "arping"}

// Image makes, once per engine, the image that tests run, and returns its name.
// It holds /bin/busybox with some of its commands, and /peer, the server and
// client of package peer. It has no entry point.
func (e *Engine) Image(t testing.TB) string {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.loaded {
		return ImageName
	}
	e.importImage(t, ImageName)
	e.loaded = true
	return ImageName
}

// ImageNamed makes the same image under another name, with a command that its
// containers run: it stands for an image of the world outside.
func (e *Engine) ImageNamed(t testing.TB, name string, command ...string) {
	t.Helper()
	words, err := json.Marshal(command)
	if err != nil {
		t.Fatalf("make image %s: %v", name, err)
	}
	e.importImage(t, name, "--change", "CMD "+string(words))
}

func (e *Engine) importImage(t testing.TB, name string, args ...string) {
	t.Helper()
	t.Helper()
	image, err := imageTar()
	if err != nil {
		t.Fatalf("make image: %v", err)
	}
	cmd := e.docker(append(append([]string{"import"}, args...), "-", name)...)
	cmd.Stdin = bytes.NewReader(image)
	if _, err := run(cmd, []string{"docker", "import", name}); err != nil {
		t.Fatalf("import image: %v", err)
	}
}

// imageTar returns the image's file system. It is the same for all engines.
var imageTar = sync.OnceValues(func() ([]byte, error) {
	busybox, commands, err := readBusybox()
	if err != nil {
		return nil, err
	}
	peer, err := buildPeer()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var entries []tar.Header
	for _, dir := range []string{"bin/", "etc/", "tmp/"} {
		entries = append(entries, tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
	}
	for _, c := range commands {
		entries = append(entries, tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + c, Linkname: "busybox"})
	}
	for _, h := range entries {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if err := addProgram(w, "bin/busybox", busybox); err != nil {
		return nil, err
	}
	if err := addProgram(w, "peer", peer); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
})

func addProgram(w *tar.Writer, name string, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// readBusybox returns the program and which of the applets it has.
func readBusybox() (program []byte, commands []string, err error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, nil, fmt.Errorf("find busybox (Debian's busybox-static): %w", err)
	}
	if program, err = os.ReadFile(path); err != nil {
		return nil, nil, err
	}
	list, err := run(exec.Command(path, "--list"), []string{"busybox", "--list"})
	if err != nil {
		return nil, nil, err
	}
	have := strings.Fields(list)
	for _, c := range applets {
		if slices.Contains(have, c) {
			commands = append(commands, c)
		}
	}
	return program, commands, nil
}

// buildPeer builds package peer as a static program.
func buildPeer() ([]byte, error) {
	dir := filepath.Join(os.TempDir(), newName("peer"))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args := []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "peer"), "nftnet/internal/nstest/peer"}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := run(cmd, args); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "peer"))
}
