package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"nftnet/internal/control"
)

func redirectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redirect",
		Short: "Let a program without privileges answer on a privileged port",
		Long: `Lead a port of this host to another port of this host.

A server that runs without privileges cannot take port 80. Let it listen on 3000,
and "nftnet redirect add 80 3000" leads there what comes to port 80: from outside,
from containers, and from the host itself by 127.0.0.1, [::1] and each of its
addresses. A redirect in a firewall's prerouting hook alone misses the last: what
the host sends to itself never comes there.

Redirects belong to the running driver, "nftnet serve", with Docker or without.
They stay through restarts and a flush of the ruleset, until they are removed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(redirectAddCommand(), redirectListCommand(), redirectRemoveCommand())
	return cmd
}

func redirectAddCommand() *cobra.Command {
	var socket string
	var req control.Redirect
	cmd := &cobra.Command{
		Use:   "add PORT TO",
		Short: "Lead PORT of this host to its port TO",
		Long: `Lead what comes to PORT of this host to its port TO.

The driver holds PORT from then on, so that no other program can take it; one that
somebody has, a program, a container or another redirect, is refused.

A packet is translated once: one to PORT arrives at TO and is looked at no more.
So TO is a port on which a program of this host listens itself; one that another
redirect has, or that a container publishes on every address, is refused, and so
is it to publish TO while the redirect stands. TO itself stays reachable, too.

From outside and from containers the packet goes to the address of the interface
that it came in by, from the host itself to 127.0.0.1 or [::1]: the server must
listen on every address to answer all. What it listens on now is looked up.

Connections that stand outlive the redirect.`,
		Example: `  nftnet redirect add 80 3000
  nftnet redirect add 443 8443 --name caddy-tls
  nftnet redirect add 53 5353 --proto udp --address 192.0.2.1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Port, err = parsePort(args[0]); err != nil {
				return err
			}
			if req.To, err = parsePort(args[1]); err != nil {
				return err
			}
			added, err := control.Client{Socket: socket}.AddRedirect(cmd.Context(), req)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "redirect %s: %s leads to port %d\n", added.Name, where(added), added.To)
			for _, line := range adviceFor(added) {
				fmt.Fprintln(cmd.ErrOrStderr(), line)
			}
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVar(&req.Proto, "proto", "tcp", "tcp, udp or sctp")
	cmd.Flags().StringVar(&req.Address, "address", "", "the one address of this host that is redirected (default every address)")
	cmd.Flags().StringVar(&req.Name, "name", "", `name of the redirect (default "PORT-PROTO", as 80-tcp)`)
	_ = cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "sctp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not allowed: a number from 1 to 65535 is", text)
	}
	return uint16(n), nil
}

// where says what a redirect takes.
func where(r control.Redirect) string {
	on := "every address of this host"
	if r.Address != "" {
		on = r.Address
	}
	return fmt.Sprintf("port %d/%s on %s", r.Port, r.Proto, on)
}

func redirectListCommand() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the redirects",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			list, err := control.Client{Socket: socket}.Redirects(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printRedirects(cmd.OutOrStdout(), list)
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func printRedirects(w io.Writer, list []control.Redirect) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "there are no redirects")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPORT\tPROTOCOL\tADDRESS\tLEADS TO\tSERVER")
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%d\t%s\n", r.Name, r.Port, r.Proto, cmp.Or(r.Address, "every"), r.To, serverOf(r))
	}
	return t.Flush()
}

func redirectRemoveCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:     "rm NAME|PORT[/PROTOCOL]...",
		Aliases: []string{"remove"},
		Short:   "Remove redirects",
		Long: `Remove redirects, by name or by port.

The port is free again at once. Connections that stand go on.`,
		Example: `  nftnet redirect rm 80-tcp
  nftnet redirect rm 80 53/udp`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			driver := control.Client{Socket: socket}
			list, err := driver.Redirects(cmd.Context())
			if err != nil {
				return err
			}
			names, err := redirectsNamed(list, args)
			for _, name := range names {
				if err == nil {
					err = driver.RemoveRedirect(cmd.Context(), name)
				}
			}
			return err
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeRedirects(cmd, socket, args), cobra.ShellCompDirectiveNoFileComp
		},
	}
	socketFlag(cmd, &socket)
	return cmd
}

// redirectsNamed finds the redirects that arguments mean, each once. Where one
// means none or several, nothing is to be removed.
func redirectsNamed(list []control.Redirect, args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		var found []string
		port, proto, _ := strings.Cut(arg, "/")
		for _, r := range list {
			if r.Name == arg || strconv.Itoa(int(r.Port)) == port && (proto == "" || proto == r.Proto) {
				found = append(found, r.Name)
			}
		}
		switch {
		case len(found) == 0:
			return nil, fmt.Errorf("there is no redirect %q: nftnet redirect ls lists them", arg)
		case len(found) > 1:
			return nil, fmt.Errorf("%q means several redirects: name one of %s", arg, strings.Join(found, ", "))
		case !slices.Contains(out, found[0]):
			out = append(out, found[0])
		}
	}
	return out, nil
}

// completeRedirects are the names that are not given yet; none where the driver
// does not answer.
func completeRedirects(cmd *cobra.Command, socket string, given []string) []string {
	list, err := control.Client{Socket: socket}.Redirects(cmd.Context())
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range list {
		if !slices.Contains(given, r.Name) {
			out = append(out, fmt.Sprintf("%s\t%s to %d", r.Name, where(r), r.To))
		}
	}
	return out
}
