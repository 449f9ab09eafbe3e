package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"nftnet/internal/control"
)

func pruneCommand() *cobra.Command {
	var socket, format string
	var yes bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove networks and endpoints that Docker does not know",
		Long: `Remove the networks and endpoints that the driver has and Docker does not know.

They are left behind where Docker or the driver is killed in the middle of a call:
a bridge, a subnet, a published port that nothing in Docker belongs to. Docker is
asked twice, two seconds apart, and while it cannot be asked nothing is removed.
What has been found is shown and confirmed first; --yes does not ask, and with
--format json nothing is removed without it.`,
		Example: `  nftnet prune
  nftnet prune --yes --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			return prune(cmd, control.Client{Socket: socket}, format, yes)
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "remove without asking")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	completeWords(cmd, map[string][]string{"format": {"text", "json"}})
	return cmd
}

var errNotConfirmed = errors.New("nothing was removed: answer y, or use --yes")

// pruneJSON is what was found and what was removed of it, for programs.
type pruneJSON struct {
	Found   []control.Ghost `json:"found"`
	Removed []control.Ghost `json:"removed"`
}

func prune(cmd *cobra.Command, driver control.Client, format string, yes bool) error {
	ghosts, err := driver.Ghosts(cmd.Context())
	if err != nil {
		return err
	}
	out := pruneJSON{Found: ghosts, Removed: []control.Ghost{}}
	text := format == "text"
	if text {
		if err := printGhosts(cmd.OutOrStdout(), ghosts); err != nil {
			return err
		}
	}
	if len(ghosts) > 0 && !yes && text && !confirmed(cmd) {
		return errNotConfirmed
	}
	// Programs are not asked: they say --yes, or look.
	if len(ghosts) > 0 && (yes || text) {
		ids := make([]string, len(ghosts))
		for i, g := range ghosts {
			ids[i] = g.ID
		}
		if out.Removed, err = driver.Prune(cmd.Context(), ids); err != nil {
			return err
		}
	}
	if !text {
		return printJSON(cmd.OutOrStdout(), out)
	}
	if len(ghosts) == 0 {
		return nil
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed %d\n", len(out.Removed))
	return err
}

// confirmed asks; no answer is no.
func confirmed(cmd *cobra.Command) bool {
	fmt.Fprint(cmd.ErrOrStderr(), "Remove them? [y/N] ")
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

func printGhosts(w io.Writer, list []control.Ghost) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "Docker knows all networks and endpoints")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tID\tBRIDGE\tADDRESSES\tPORTS")
	for _, g := range list {
		addresses := append(g.Subnets, g.Addresses...)
		fmt.Fprintf(t, "%s\t%.12s\t%s\t%s\t%s\n", g.Kind, g.ID, dash(g.Bridge), dash(strings.Join(addresses, " ")), dash(strings.Join(g.Ports, " ")))
	}
	return t.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
