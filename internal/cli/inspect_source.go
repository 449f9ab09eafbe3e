package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/engine"
	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
	"nftnet/internal/saved"
)

// sourceFlags say which ruleset is read; by their zero value this host's own.
type sourceFlags struct {
	netns, container, file string
}

func (s *sourceFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.netns, "netns", "", "read the ruleset of a network namespace: its file, its name as in \"ip netns\", or a process id")
	flags.StringVar(&s.file, "file", "", "read a saved ruleset, in nft's text or JSON, from a file or \"-\", by the nft program in an empty namespace")
	flags.StringVar(&s.container, "container", "", "read the ruleset inside a Docker container's network namespace")
}

// read reads the ruleset that is asked for.
func (s *sourceFlags) read(ctx context.Context, docker string) (ruleset.Ruleset, error) {
	switch {
	case s.file != "":
		return readSource(ctx, s.file)
	case s.container != "":
		path, err := containerNamespace(ctx, docker, s.container)
		if err != nil {
			return ruleset.Ruleset{}, err
		}
		return readNamespace(ctx, path)
	case s.netns != "":
		return readNamespace(ctx, namespacePath(s.netns))
	}
	return readRuleset(ctx)
}

func containerNamespace(ctx context.Context, docker, name string) (string, error) {
	client, err := engine.Connect(ctx, docker)
	if err != nil {
		return "", fmt.Errorf("container %q cannot be found without docker: %w", name, err)
	}
	defer client.Close()
	return client.Namespace(ctx, name)
}

// namedNamespaces is where "ip netns" keeps its namespaces.
const namedNamespaces = "/run/netns"

// namespacePath is the file of a namespace that is given by its path, by the
// number of a process, or by the name that "ip netns" has for it.
func namespacePath(netns string) string {
	if _, err := strconv.ParseUint(netns, 10, 31); err == nil {
		return filepath.Join("/proc", netns, "ns/net")
	}
	if !strings.Contains(netns, "/") {
		return filepath.Join(namedNamespaces, netns)
	}
	return netns
}

func readNamespace(ctx context.Context, path string) (ruleset.Ruleset, error) {
	conn, err := kernel.OpenNamespace(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "/proc/"):
		return ruleset.Ruleset{}, fmt.Errorf("there is no process %s", strings.Split(path, "/")[2])
	case errors.Is(err, fs.ErrNotExist):
		return ruleset.Ruleset{}, fmt.Errorf("there is no network namespace %s: a file is allowed, a process id, or a name in %s", path, namedNamespaces)
	case err != nil:
		return ruleset.Ruleset{}, err
	}
	defer conn.Close()
	rs, err := inspect.Read(ctx, conn)
	if errors.Is(err, syscall.EPERM) {
		return rs, fmt.Errorf("reading the ruleset of %s needs root, or CAP_NET_ADMIN there: %w", path, err)
	}
	return rs, err
}

// page is what a page says of the ruleset: of which host it is, or of what else.
func (s *sourceFlags) page() view.Page {
	p := thisPage()
	switch {
	case s.file != "":
		p.Host = s.file
	case s.container != "":
		p.Host = s.container
	case s.netns != "":
		p.Host = s.netns
	}
	return p
}

func readFile(ctx context.Context, file string) (ruleset.Ruleset, error) {
	rs, err := saved.Read(ctx, file, os.Stdin)
	if errors.Is(err, saved.ErrUnprivileged) {
		return rs, fmt.Errorf("%w: root has it, or CAP_SYS_ADMIN", err)
	}
	return rs, err
}

// rootless says that a command needs no more rights than those over namespaces
// of its own, but has not got them.
func (s *sourceFlags) rootless() bool { return s.file != "" && os.Geteuid() != 0 }

// runAsRoot runs this command once more, with the same words, as the root of a
// user namespace of its own: there anybody may make network namespaces. It gets
// one itself, too, as it could not come back to that of the host's root.
func runAsRoot(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	err = cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		return errObstacle
	case err != nil:
		return fmt.Errorf("reading a file needs root, or the right to make user namespaces: %w", err)
	}
	return nil
}
