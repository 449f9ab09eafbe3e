package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"nftnet/internal/fdstore"
	"nftnet/internal/host"
	"nftnet/internal/lockfile"
	"nftnet/plugin"
)

const defaultState = "/var/lib/nftnet/state.db"

func serveCommand(version string) *cobra.Command {
	var socket, state, level, publish, mask string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the network driver",
		Long: `Run the network driver until SIGTERM or SIGINT.

Docker finds it by its socket; the socket's file name is the driver's name in
"docker network create -d NAME". What Docker asked for is kept in the state file,
and restored from there at the start. A stop leaves networks and connections of
containers as they are; the next start takes up from there. Only the sockets
that keep other programs off published ports, and that serve [::1], close; under
systemd (FileDescriptorStoreMax=) they stay with it, and clients wait for the
next start.

What changes beside the driver is repaired within about a second: bridges, links,
addresses, kernel parameters, rules. "nftnet status" tells what could not be.

Needs root, or CAP_NET_ADMIN, CAP_NET_RAW and write access to /proc/sys/net. The
log goes to standard error, one line for each call of Docker. The driver notifies
systemd when it is ready (Type=notify). SIGHUP does nothing.`,
		Example: `  nftnet serve
  nftnet serve --state /srv/nftnet/state.db --log-level warn`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if publish != "open" && publish != "closed" {
				return fmt.Errorf("--publish %q is not allowed: open and closed are", publish)
			}
			marks, err := strconv.ParseUint(mask, 0, 32)
			if err != nil {
				return fmt.Errorf("--mark-mask %q is not allowed: a number of 32 bits is, such as %s, or 0 for no marks", mask, defaultMarkMask)
			}
			return serve(cmd.Context(), version, socket, level, plugin.Config{State: state, Closed: publish == "closed", MarkMask: uint32(marks)})
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVar(&state, "state", fromEnv("NFTNET_STATE", defaultState),
		"file that keeps the networks, endpoints and redirects (environment: NFTNET_STATE)")
	cmd.Flags().StringVar(&publish, "publish", fromEnv("NFTNET_PUBLISH", "open"),
		"open, or closed: new networks publish ports to nobody but the sources in their nftnet.allow (environment: NFTNET_PUBLISH)")
	cmd.Flags().StringVar(&mask, "mark-mask", fromEnv("NFTNET_MARK_MASK", defaultMarkMask),
		"bits of packet and connection marks that nftnet uses, on hosts with several uplinks only; 0 for none (environment: NFTNET_MARK_MASK)")
	cmd.Flags().StringVar(&level, "log-level", fromEnv("NFTNET_LOG_LEVEL", "info"),
		"debug, info, warn or error (environment: NFTNET_LOG_LEVEL)")
	return cmd
}

// defaultMarkMask has marks for 3 uplinks beside that of table main. Kubernetes
// (0xc000), Tailscale (0xff0000), Calico (0xffff0000), wg-quick (0xca6c, a mark that
// others must not take for theirs) and Istio (0x539) use other bits.
const defaultMarkMask = "0x3000"

func serve(ctx context.Context, version, socket, level string, config plugin.Config) (err error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("log level %q is not allowed: debug, info, warn and error are", level)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l, ReplaceAttr: briefError}))
	if err := host.RequireCapability("CAP_NET_ADMIN"); err != nil {
		return err
	}
	raiseDescriptors(log)
	shelf, err := fdstore.Take(log)
	if err != nil {
		return err
	}
	// The socket comes first: who has it has the host's table, too.
	listener, lock, err := driverSocket(socket, shelf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	ignoreHangups(ctx, log)
	config.Log, config.Docker, config.Firewalld, config.Shelf = log, dockerEngine{log}, true, shelf
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

// briefError writes an error as its own text: slog would write one of nftables
// with the whole batch, which can have megabytes.
func briefError(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.StringValue(err.Error())
	}
	return a
}

// driverSocketName is the name of the driver's own socket in the service
// manager's store.
const driverSocketName = "driver"

// driverSocket is the socket on which Docker calls: the one that an earlier
// driver left with the service manager, where calls wait meanwhile, or a new one.
func driverSocket(path string, shelf *fdstore.Store) (net.Listener, io.Closer, error) {
	if l, ok := shelf.Listener(driverSocketName); ok && l.Addr().String() == path {
		lock, err := lockfile.Take(path + lockfile.Suffix)
		if err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		return l, lock, nil
	}
	l, lock, err := lockfile.ListenUnix(path, 0o660)
	if err != nil {
		return nil, nil, err
	}
	shelf.Put(driverSocketName, l.(*net.UnixListener))
	return l, lock, nil
}

// ignoreHangups keeps a SIGHUP from ending the driver: there is no file of
// settings that it could read again.
func ignoreHangups(ctx context.Context, log *slog.Logger) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				log.Info("SIGHUP does nothing: nftnet has nothing to read again, a restart takes new flags")
			}
		}
	}()
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

// notify tells systemd, where it started us.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "error", err)
	}
}
