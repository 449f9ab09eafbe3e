package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/internal/engine"
	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

// sourceFlags say which ruleset is read; by their zero value this host's own.
type sourceFlags struct {
	netns, container string
}

func (s *sourceFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.netns, "netns", "", "read the ruleset of a network namespace: its file, its name as in \"ip netns\", or a process id")
	flags.StringVar(&s.container, "container", "", "read the ruleset inside a Docker container's network namespace")
}

// read reads the ruleset that is asked for.
func (s *sourceFlags) read(ctx context.Context, docker string) (ruleset.Ruleset, error) {
	switch {
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
