// Command nftnet is a Docker network driver in native nftables, and an
// inspector of any nftables ruleset.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"nftnet/internal/fdstore"
	"nftnet/plugin"
)

// version is set by the Makefile.
var version = "devel"

const (
	defaultSocket = "/run/docker/plugins/nftnet.sock"
	defaultState  = "/var/lib/nftnet/state.db"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	var status exitStatus
	switch {
	case errors.As(err, &status):
		if status.err != nil {
			fmt.Fprintln(os.Stderr, "nftnet:", status.err)
		}
		os.Exit(status.code)
	case errors.Is(err, errObstacle):
		// What is wrong has been printed.
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "nftnet:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nftnet",
		Short: "Docker networks in native nftables, and firewalls in plain words",
		Long: `nftnet is three things:

  a network driver for Docker. While "nftnet serve" runs,
      docker network create -d nftnet web
      docker run -d --network web -p 8080:80 IMAGE
  makes the bridge, the isolation and the published port in one nftables table,
  inet nftnet, without iptables and without a proxy process for each port;

  redirects of host ports. "nftnet redirect add 80 3000" lets a server without
  privileges answer on port 80, with Docker or without;

  an inspector. "nftnet inspect" prints the live nftables ruleset of this host,
  whoever made it, with a plain sentence for each chain and rule.

"nftnet status" tells whether the networks work and, if not, what is in the way.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(serveCommand(), inspectCommand(), portsCommand(), redirectCommand(), statusCommand(), versionCommand())
	return cmd
}

// fromEnv is the value of an environment variable, or another where it is not
// set: a flag given by the user stands before both.
func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func socketFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "socket", fromEnv("NFTNET_SOCKET", defaultSocket),
		"socket on which Docker finds the driver, by its file name (environment: NFTNET_SOCKET)")
}

func dockerFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "docker", "",
		"Docker's socket, for names (environment: DOCKER_HOST; default unix:///var/run/docker.sock)")
}

func serveCommand() *cobra.Command {
	var socket, state, level, publish string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the network driver",
		Long: `Run the network driver until it is told to stop.

Docker finds it by its socket; the socket's file name is the driver's name in
"docker network create -d NAME". What Docker asked for is kept in the state file,
and restored from there at the start. A stop leaves networks and connections of
containers as they are; the next start takes up from there. Only the sockets
that keep other programs off published ports, and that serve [::1], close.

Needs root, or CAP_NET_ADMIN and write access to /proc/sys/net. The log goes to
standard error, one line for each call of Docker. systemd is told when the
driver is ready (Type=notify).`,
		Example: `  nftnet serve
  nftnet serve --state /srv/nftnet/state.db --log-level warn`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if publish != "open" && publish != "closed" {
				return fmt.Errorf("--publish %q is not allowed: open and closed are", publish)
			}
			return serve(cmd.Context(), socket, level, plugin.Config{State: state, Closed: publish == "closed"})
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVar(&state, "state", fromEnv("NFTNET_STATE", defaultState),
		"file that keeps the networks, endpoints and redirects (environment: NFTNET_STATE)")
	cmd.Flags().StringVar(&publish, "publish", fromEnv("NFTNET_PUBLISH", "open"),
		"open, or closed: new networks publish ports to nobody but the sources in their nftnet.allow (environment: NFTNET_PUBLISH)")
	cmd.Flags().StringVar(&level, "log-level", fromEnv("NFTNET_LOG_LEVEL", "info"),
		"debug, info, warn or error (environment: NFTNET_LOG_LEVEL)")
	return cmd
}

func serve(ctx context.Context, socket, level string, config plugin.Config) (err error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("log level %q is not allowed: debug, info, warn and error are", level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
	raiseDescriptors(log)
	// The socket comes first: who has it has the host's table, too.
	shelf, err := fdstore.Take(log)
	if err != nil {
		return err
	}
	listener, err := pluginListener(shelf, socket)
	if err != nil {
		return err
	}
	config.Shelf, config.Log, config.ContainerName, config.Firewalld = shelf, log, containerName, true
	driver, err := plugin.Open(ctx, config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	log.Info("serving", "socket", socket, "state", config.State, "version", version)
	notify(log, daemon.SdNotifyReady)
	err = plugin.NewServer(driver, log).Serve(ctx, listener)
	notify(log, daemon.SdNotifyStopping)
	log.Info("stopped: networks and containers stay connected")
	return err
}

// pluginListener takes the driver's socket over from the former process, or makes it.
func pluginListener(shelf *fdstore.Store, path string) (net.Listener, error) {
	const name = "plugin"
	if l, ok := shelf.Listener(name); ok {
		if l.Addr().String() == path {
			return l, nil
		}
		_ = l.Close()
	}
	l, err := plugin.Listen(path)
	if err == nil {
		shelf.Put(name, l.(*net.UnixListener))
	}
	return l, err
}

// wantedDescriptors serves ten thousand published ports in both families and
// three protocols.
const wantedDescriptors = 1 << 17

// raiseDescriptors raises the limit of open files: each published port has a
// socket for each family. Beyond the hard limit it takes CAP_SYS_RESOURCE.
func raiseDescriptors(log *slog.Logger) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("read the limit of open files", "error", err)
		return
	}
	if limit.Cur >= wantedDescriptors {
		return
	}
	hard := limit.Max
	limit = syscall.Rlimit{Cur: wantedDescriptors, Max: max(hard, wantedDescriptors)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		return
	}
	limit = syscall.Rlimit{Cur: hard, Max: hard}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("raise the limit of open files", "error", err)
	}
	log.Info("limit of open files bounds the published ports", "limit", hard)
}

// nameTimeout bounds how long an error waits for a name.
const nameTimeout = time.Second

// containerName asks Docker whose an endpoint is; empty where it does not say.
func containerName(ctx context.Context, endpointID string) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	names, err := dockerNames(ctx, "")
	if err != nil {
		return ""
	}
	for _, e := range names.Endpoints {
		if e.ID == endpointID {
			return e.Container
		}
	}
	return ""
}

// notify tells systemd, where it started us.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "error", err)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "nftnet %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
