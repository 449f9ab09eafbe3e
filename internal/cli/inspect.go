package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
)

// inspectFlags are what the user asks of the inspector.
type inspectFlags struct {
	// version is the program's own, which JSON carries.
	version string

	format, table, docker, color string
	output                       string
	width                        int
	handles, noCounters, brief   bool
	noExplain, all               bool
	save                         string
	lang                         string
	watch                        watchFlags
	scope                        scopeFlags
	source                       sourceFlags
}

func inspectCommand(version string) *cobra.Command {
	f := inspectFlags{version: version}
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Print the live ruleset with a plain sentence for each chain and rule",
		Long: `Print the nftables ruleset of this host with a plain sentence for each hook,
chain, rule and set: what it matches, what it does, and what follows for the
packet. Any ruleset is read, whoever made it: nftnet, Docker, iptables-nft,
firewalld, ufw. What is not understood yet is shown as such, never left out. --container, --netns and --file
read another ruleset than the host's own; --table, --chain and --network show a
part of one, and say what they leave out.

Bridges, addresses and comments carry the names of Docker's networks and
containers, where Docker answers on its socket. Nothing is changed. Needs root,
or CAP_NET_ADMIN; --file does not.`,
		Example: `  nftnet inspect                       everything
  nftnet inspect --table nftnet        one table
  nftnet inspect --chain DOCKER-USER   one chain, with the sets it looks up
  nftnet inspect --network web         what is there for one Docker network
  nftnet inspect --container web-1     the ruleset inside a container
  nftnet inspect --file rules.nft      a saved ruleset, as nft would load it
  nftnet inspect --brief               hooks and chains only
  nftnet inspect --format nft          as nft list ruleset prints it
  nftnet inspect --format json         as nft -j list ruleset prints it, and more
  nftnet inspect --format document     with the explanations, for programs
  nftnet inspect --format html --output firewall.html
                                       one page for a browser
  nftnet inspect --save FILE           keep it, to compare with later
  nftnet inspect --watch               who changes what, as it happens`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkWatch(cmd); err != nil {
				return err
			}
			switch {
			case f.save != "":
				return saveSnapshot(f.save)
			case f.watch.on:
				return runWatch(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return f.show(cmd.OutOrStdout(), func(out io.Writer) error {
				return runInspect(cmd.Context(), f, out, cmd.ErrOrStderr())
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "text", "text, nft, json, document or html")
	flags.StringVarP(&f.output, "output", "o", "", "write into this file instead of standard output")
	flags.StringVar(&f.table, "table", "", `show one table only: "NAME", or "FAMILY NAME" as in "ip filter"`)
	flags.BoolVar(&f.handles, "handles", false, "show the kernel's handle of each object")
	flags.BoolVar(&f.noCounters, "no-counters", false, "leave out the numbers of counters")
	flags.BoolVar(&f.noExplain, "no-explain", false, "leave out the explanations")
	flags.BoolVar(&f.brief, "brief", false, "show hooks and chains only")
	flags.BoolVar(&f.all, "all", false, "show every element of large sets")
	dockerFlag(cmd, &f.docker)
	f.scope.register(cmd)
	f.source.register(cmd)
	flags.StringVar(&f.color, "color", "auto", "auto, always or never; auto is for a terminal without NO_COLOR")
	flags.IntVar(&f.width, "width", 0, "columns of prose (default: the terminal's, at most 100)")
	flags.StringVar(&f.save, "save", "", `write the ruleset to a file for "nftnet inspect diff", and print nothing`)
	f.watch.register(cmd)
	languageFlag(cmd, &f.lang)
	cmd.AddCommand(diffCommand())
	completeWords(cmd, map[string][]string{"format": {"text", "nft", "json", "document", "html"}, "color": {"auto", "always", "never"}})
	completeInspect(cmd, &f)
	return cmd
}

func runInspect(ctx context.Context, f inspectFlags, out, errOut io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	options, err := f.options()
	if err != nil {
		return err
	}
	if f.source.rootless() {
		return runAsRoot(ctx)
	}
	if f.format == "nft" && f.whole() {
		return streamNFT(ctx, options, out)
	}
	stop := progress(errOut, "reading the ruleset")
	rs, err := f.source.read(ctx, f.docker)
	stop()
	if err != nil {
		return err
	}
	if err := f.tableError(rs, options); err != nil {
		return err
	}
	names := f.scope.names(ctx, f, errOut)
	if names.Language, err = language(f.lang); err != nil {
		return err
	}
	if f.source == (sourceFlags{}) {
		names.Listening = hostListeners()
	}
	model := inspect.NewModel(rs, names)
	if options.Only, err = f.scope.selection(model, names, options); err != nil {
		return err
	}
	switch f.format {
	case "nft":
		return view.NFT(out, model, options)
	case "json":
		return view.JSON(out, model, options, f.version)
	case "document":
		return view.WriteDocument(out, model, options)
	case "html":
		return view.HTML(out, model, options, f.source.page())
	}
	return view.Text(out, model, options)
}

func (f inspectFlags) options() (view.Options, error) {
	o := view.Options{
		Handles: f.handles, HideCounters: f.noCounters, HideNotes: f.noExplain, Brief: f.brief, All: f.all, Width: f.width,
	}
	switch f.color {
	case "always", "never":
		o.Color = f.color == "always"
	case "auto":
		o.Color = term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""
	default:
		return o, fmt.Errorf("color %q is not allowed: auto, always and never are", f.color)
	}
	if f.width < 0 {
		return o, fmt.Errorf("width %d is not allowed: a number of columns above 0 is, or 0 for the terminal's", f.width)
	}
	if o.Width == 0 {
		o.Width = terminalWidth()
	}
	words := strings.Fields(f.table)
	switch {
	case len(words) == 1:
		o.Table = words[0]
	case len(words) == 2 && slices.Contains(ruleset.Families, ruleset.Family(words[0])):
		o.Family, o.Table = ruleset.Family(words[0]), words[1]
	case len(words) > 0:
		return o, fmt.Errorf("table %q is not allowed: a name is, or one of the families %v and a name", f.table, ruleset.Families)
	}
	return o, nil
}

// Lines of prose longer than this are hard to read on any terminal.
const maxWidth, defaultWidth = 100, 80

func terminalWidth() int {
	w, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || w <= 0 {
		return defaultWidth
	}
	return min(w, maxWidth)
}

func hasTable(rs ruleset.Ruleset, o view.Options) bool {
	for _, t := range rs.Tables {
		if t.Name == o.Table && (o.Family == "" || t.Family == o.Family) {
			return true
		}
	}
	return false
}

func tableList(rs ruleset.Ruleset) string {
	if len(rs.Tables) == 0 {
		return "no tables"
	}
	names := make([]string, len(rs.Tables))
	for i, t := range rs.Tables {
		names[i] = fmt.Sprintf("%s %s", t.Family, t.Name)
	}
	return strings.Join(names, ", ")
}
