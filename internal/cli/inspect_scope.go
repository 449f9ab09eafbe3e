package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/pager"
	"nftnet/internal/ruleset"
)

// scopeFlags say which part of a ruleset is shown.
type scopeFlags struct {
	chain, network string
	noPager        bool
	// noDocker is why Docker does not answer; nil where it does.
	noDocker error
}

func (s *scopeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.chain, "chain", "", "show the chains of this name only, with the sets that they look up")
	flags.StringVar(&s.network, "network", "", "show only what is there for a Docker network: its name, id or bridge")
	flags.BoolVar(&s.noPager, "no-pager", false, "print long output to a terminal at once (environment: NFTNET_PAGER, PAGER; default less)")
}

// check refuses what cannot be asked together.
func (f inspectFlags) check() error {
	if f.scope.chain != "" && f.scope.network != "" {
		return fmt.Errorf("--chain and --network are not allowed together: one of them is")
	}
	var sources []string
	for flag, value := range map[string]string{"--netns": f.source.netns, "--container": f.source.container, "--file": f.source.file} {
		if value != "" {
			sources = append(sources, flag)
		}
	}
	if len(sources) > 1 {
		slices.Sort(sources)
		return fmt.Errorf("%s are not allowed together: one of them is", strings.Join(sources, " and "))
	}
	return checkFormat(f.format, "text", "nft", "json", "document", "html")
}

// show writes into the file that is asked for, or to a person screen by screen.
func (f inspectFlags) show(out io.Writer, write func(io.Writer) error) error {
	if f.output != "" || f.scope.noPager {
		return writeOutput(f.output, out, write)
	}
	return pager.Show(out, write)
}

// whole says that all of the host's own ruleset is asked for, or whole tables.
func (f inspectFlags) whole() bool {
	return f.source == (sourceFlags{}) && f.scope.chain == "" && f.scope.network == ""
}

// names asks Docker, where names are of use, and says why there are none.
func (s *scopeFlags) names(ctx context.Context, f inspectFlags, errOut io.Writer) inspect.Names {
	if (f.format == "nft" || f.format == "json") && s.network == "" {
		return inspect.Names{}
	}
	names, err := dockerNames(ctx, f.docker)
	if err != nil {
		s.noDocker = err
		fmt.Fprintln(errOut, "nftnet: names are missing:", err)
	}
	return names
}

// selection is the part of a model that is asked for; nil is all of it.
func (s *scopeFlags) selection(m *inspect.Model, names inspect.Names, o view.Options) (*inspect.Selection, error) {
	switch {
	case s.chain != "":
		return m.SelectChain(o.Family, o.Table, s.chain)
	case s.network == "":
		return nil, nil
	}
	n, err := inspect.FindNetwork(networksOf(m.Ruleset, names), s.network)
	if err != nil && s.noDocker != nil {
		return nil, fmt.Errorf("%w; networks have names where Docker answers only", err)
	}
	if err != nil {
		return nil, err
	}
	return m.SelectNetwork(n), nil
}

// networksOf are the networks that Docker knows, and those that the driver's
// table tells of beside them: all, where Docker does not answer.
func networksOf(rs ruleset.Ruleset, names inspect.Names) []inspect.Network {
	var out []inspect.Network
	known := map[string]bool{}
	for _, n := range names.Networks {
		known[n.Bridge] = true
		// Networks without a bridge, such as host and none, have nothing to show.
		if n.Bridge != "" || len(n.Subnets) > 0 {
			out = append(out, n)
		}
	}
	for _, s := range inspect.OwnSites(rs) {
		if !known[s.Network.Bridge] {
			s.Network.Subnets = subnetsOf(s.Network.Bridge)
			out = append(out, s.Network)
		}
	}
	return out
}

// tableError says that there is no such table.
func (f inspectFlags) tableError(rs ruleset.Ruleset, o view.Options) error {
	if f.table == "" || hasTable(rs, o) {
		return nil
	}
	return fmt.Errorf("there is no table %q: the ruleset has %s", strings.TrimSpace(f.table), tableList(rs))
}
