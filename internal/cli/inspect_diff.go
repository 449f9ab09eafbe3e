package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
)

// The statuses of diff(1).
const (
	exitDifferent = 1
	exitTrouble   = 2
)

// trouble gives an error the status that diff(1) has for it.
func trouble(err error) error {
	if err == nil {
		return nil
	}
	return exitStatus{exitTrouble, err}
}

func diffCommand() *cobra.Command {
	f := inspectFlags{}
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what changed between two rulesets",
		Long: `Say what is different in ruleset B from ruleset A, in nft's words and in plain
ones. Each is "live", for what the kernel runs now, or a file that
"nftnet inspect --save FILE" wrote.

Tables, chains, policies, rules, sets and elements are compared; counters,
handles, and the order of everything but rules are not. A rule that only stands
at another place is marked ">". The exit status is that of diff: 0 where nothing
is different, 1 where something is, 2 where the comparison failed.`,
		Example: `  nftnet inspect --save before.nftnet
  docker run -d -p 8080:80 nginx
  nftnet inspect diff before.nftnet live`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return trouble(fmt.Errorf("diff takes two rulesets, files or %q, and not %d", liveSource, len(args)))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			different, err := runDiff(cmd.Context(), f, args[0], args[1], cmd.OutOrStdout(), cmd.ErrOrStderr())
			if err == nil && different {
				err = exitStatus{code: exitDifferent}
			} else {
				err = trouble(err)
			}
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return trouble(err) })
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "text", "text or json")
	flags.BoolVar(&f.noExplain, "no-explain", false, "leave out the plain words")
	flags.BoolVar(&f.all, "all", false, "show every changed element of large sets")
	dockerFlag(cmd, &f.docker)
	flags.StringVar(&f.color, "color", "auto", "auto, always or never; auto is for a terminal without NO_COLOR")
	flags.IntVar(&f.width, "width", 0, "columns of prose (default: the terminal's, at most 100)")
	languageFlag(cmd, &f.lang)
	completeWords(cmd, map[string][]string{"format": {"text", "json"}, "color": {"auto", "always", "never"}})
	return cmd
}

// runDiff prints what is different in b from a, and says whether anything is.
func runDiff(ctx context.Context, f inspectFlags, a, b string, out, errOut io.Writer) (bool, error) {
	if err := checkFormat(f.format, "text", "json"); err != nil {
		return false, err
	}
	options, err := f.options()
	if err != nil {
		return false, err
	}
	before, err := readSource(ctx, a)
	if err != nil {
		return false, err
	}
	after, err := readSource(ctx, b)
	if err != nil {
		return false, err
	}
	say, err := language(f.lang)
	if err != nil {
		return false, err
	}
	model, changes := compare(before, after, inspect.Names{Language: say})
	if len(changes) > 0 {
		// The names are those of now: good enough for what is gone, too.
		names, err := dockerNames(ctx, f.docker)
		if err != nil {
			fmt.Fprintln(errOut, "nftnet: names are missing:", err)
		}
		names.Language = say
		model, changes = compare(before, after, names)
	}
	if f.format == "json" {
		return len(changes) > 0, printJSON(out, view.NewChangesDocument(changes))
	}
	return len(changes) > 0, view.Changes(out, changes, model, options)
}

// compare lists what is different in after from before, and is the model of
// after.
func compare(before, after ruleset.Ruleset, names inspect.Names) (*inspect.Model, []inspect.Change) {
	model := inspect.NewModel(after, names)
	return model, model.Changes(inspect.NewModel(before, names))
}
