package cli

import (
	"cmp"
	"slices"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// completeInspect tells the shell the names that there are. What cannot be read
// is not offered: a shell has no place for an error.
func completeInspect(cmd *cobra.Command, f *inspectFlags) {
	tables := func(cmd *cobra.Command) []string {
		return offer(f.completionRuleset(cmd), func(t *ruleset.Table) []string {
			return []string{cobra.CompletionWithDesc(t.Name, "table of family "+string(t.Family))}
		})
	}
	chains := func(cmd *cobra.Command) []string {
		o, err := f.options()
		return offer(f.completionRuleset(cmd), func(t *ruleset.Table) []string {
			if err == nil && (o.Table != "" && o.Table != t.Name || o.Family != "" && o.Family != t.Family) {
				return nil
			}
			var out []string
			for _, c := range t.Chains {
				out = append(out, cobra.CompletionWithDesc(c.Name, "chain of table "+string(t.Family)+" "+t.Name))
			}
			return out
		})
	}
	networks := func(cmd *cobra.Command) []string {
		names, _ := dockerNames(cmd.Context(), f.docker)
		var out []string
		for _, n := range networksOf(f.completionRuleset(cmd), names) {
			out = append(out, cobra.CompletionWithDesc(cmp.Or(n.Name, n.Bridge), "network of driver "+cmp.Or(n.Driver, layout.Driver)))
		}
		return out
	}
	containers := func(cmd *cobra.Command) []string {
		names, _ := dockerNames(cmd.Context(), f.docker)
		return containersOf(names)
	}
	for flag, list := range map[string]func(*cobra.Command) []string{
		"table": tables, "chain": chains, "network": networks, "container": containers,
	} {
		// It fails for a flag that does not exist only.
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			out := list(cmd)
			slices.Sort(out)
			return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
		})
	}
}

// completionRuleset is what is to be inspected; empty where it cannot be read,
// or where reading it would take the user's input.
func (f *inspectFlags) completionRuleset(cmd *cobra.Command) ruleset.Ruleset {
	if f.source.file == "-" || f.source.rootless() {
		return ruleset.Ruleset{}
	}
	rs, err := f.source.read(cmd.Context(), f.docker)
	if err != nil {
		return ruleset.Ruleset{}
	}
	return rs
}

func offer(rs ruleset.Ruleset, of func(*ruleset.Table) []string) []string {
	var out []string
	for i := range rs.Tables {
		out = append(out, of(&rs.Tables[i])...)
	}
	return out
}

func containersOf(names inspect.Names) []string {
	var out []string
	for _, e := range names.Endpoints {
		out = append(out, e.Container)
	}
	return out
}
