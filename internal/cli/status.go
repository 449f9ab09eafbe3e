package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/message"
	"nftnet/internal/control"
	"nftnet/internal/host"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

func statusCommand(version string) *cobra.Command {
	var socket, docker, format, color, lang string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether the networks work and, if not, what stops them",
		Long: `Tell whether the driver answers, which networks it has, and what stops their
packets: forwarding that is switched off, a table that is missing, and chains of
other tables that drop what the driver's own table accepts. An accept
ends one chain only: who has a chain of their own with policy drop has to accept
there, too.

All chains of other tables are looked at that packets to and from containers
meet: connections from outside to published ports, from containers to the
outside, the answers to both, and those between containers where the host sends
bridged frames through the IP hooks. A chain that drops them is named, with the
rule or policy, and with the command that fixes it. An "error" drops them for
certain. A "warn" may: it depends on something that cannot be known here, such
as who asks. Rules that drop some packets only are no obstacle.

Nothing is changed. Needs root, or CAP_NET_ADMIN. The exit status is 0 where no
error was found, and 1 where one was, or where the state could not be read.`,
		Example: `  nftnet status
  nftnet status --format json | jq -r '.findings[].mend'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			options, err := inspectFlags{color: color}.options()
			if err != nil {
				return err
			}
			say, err := language(lang)
			if err != nil {
				return err
			}
			s, err := readStatus(cmd.Context(), socket, docker, say, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), s.json(version))
			} else {
				err = s.print(cmd.OutOrStdout(), options)
			}
			if err == nil && s.found(inspect.Error) {
				err = errObstacle
			}
			return err
		},
	}
	socketFlag(cmd, &socket)
	languageFlag(cmd, &lang)
	dockerFlag(cmd, &docker)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().StringVar(&color, "color", "auto", "auto, always or never; auto is for a terminal without NO_COLOR")
	completeWords(cmd, map[string][]string{"format": {"text", "json"}, "color": {"auto", "always", "never"}})
	return cmd
}

// status is what the command tells.
type status struct {
	host          inspect.Host
	table, keeper bool
	// published counts the ports, served ones among them.
	published int
	findings  []inspect.Finding
}

func readStatus(ctx context.Context, socket, docker string, say *message.Catalogue, errOut io.Writer) (status, error) {
	rs, err := readRuleset(ctx)
	if err != nil {
		return status{}, err
	}
	driver := control.Client{Socket: socket}
	ports, driverErr := driver.Ports(ctx)
	names, err := dockerNames(ctx, docker)
	if err != nil {
		fmt.Fprintln(errOut, "nftnet: names are missing:", err)
	}
	names.Language = say
	s := status{published: len(ports)}
	s.table = rs.Table(ruleset.FamilyInet, layout.Table) != nil
	s.keeper = rs.Table(ruleset.FamilyInet, layout.KeeperTable) != nil
	s.host = inspect.Host{Driver: cause(driverErr), Socket: socket, Sites: sites(rs, names, ports)}
	for _, n := range others(names) {
		if slices.ContainsFunc(s.host.Sites, func(o inspect.Site) bool { return o.Network.Bridge == n.Bridge }) {
			continue
		}
		s.host.Inside = append(s.host.Inside, n.Bridge)
		for _, p := range n.Subnets {
			s.host.Subnets = append(s.host.Subnets, p.Prefix)
		}
	}
	s.host.IPv4, s.host.IPv6 = inspect.Sysctls(host.IPv4()), inspect.Sysctls(host.IPv6())
	s.host.Legacy = host.LegacyTables()
	s.findings = inspect.NewModel(rs, names).Findings(s.host)
	if driverErr != nil {
		return s, nil
	}
	problems, err := driver.Problems(ctx)
	if err != nil {
		// An older driver runs still, or this one is busy: the rest is known.
		problems = []control.Problem{{Code: "problems-unknown", Level: "warn", Text: fmt.Sprintf("the driver does not tell what it could not repair: %v", err)}}
	}
	s.findings = append(s.findings, problemFindings(problems)...)
	return s, nil
}

// problemFindings are what the driver itself knows to be wrong.
func problemFindings(list []control.Problem) []inspect.Finding {
	var out []inspect.Finding
	for _, p := range list {
		f := inspect.Finding{Mend: p.Command}
		f.Object, f.Topic = inspect.Object{Kind: inspect.KindRuleset}, inspect.TopicObstacle
		f.Level, f.Sentence = inspect.Level(p.Level), sentence(p.Text, p.Fix)
		if p.Network != "" {
			f.Networks = []string{p.Network}
		}
		out = append(out, f)
	}
	return out
}

// sentence joins what is wrong and what to do about it.
func sentence(text, fix string) string {
	text = strings.ToUpper(text[:1]) + text[1:] + "."
	if fix != "" {
		text += " " + strings.ToUpper(fix[:1]) + fix[1:] + "."
	}
	return text
}

// cause is what the kernel says about a socket that cannot be reached; the rest
// of such an error repeats where that is.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
