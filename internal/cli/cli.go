// Package cli is the command line: flags, and what each command asks of the
// other packages.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Main runs the command that the arguments of this process name, until it ends
// or the process gets SIGINT or SIGTERM, and returns the exit status. What went
// wrong is printed on standard error.
func Main(version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root(version).ExecuteContext(ctx)
	var status exitStatus
	switch {
	case errors.As(err, &status):
		if status.err != nil {
			fmt.Fprintln(os.Stderr, "nftnet:", status.err)
		}
		return status.code
	case errors.Is(err, errObstacle):
		// What is wrong has been printed.
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, "nftnet:", err)
		return 1
	}
	return 0
}

// errObstacle ends the program with a failure that is printed already.
var errObstacle = errors.New("something is in the way")

// exitStatus ends the program with a status of its own. What there is to say
// beyond err has been printed.
type exitStatus struct {
	code int
	err  error
}

func (e exitStatus) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e exitStatus) Unwrap() error { return e.err }

func root(version string) *cobra.Command {
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
	cmd.AddCommand(serveCommand(version), inspectCommand(version), portsCommand(), redirectCommand(), pruneCommand(), statusCommand(version), versionCommand(version))
	return cmd
}
