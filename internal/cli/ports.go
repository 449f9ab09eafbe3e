package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/internal/control"
)

func portsCommand() *cobra.Command {
	var socket, format, docker string
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "List the published ports and the containers they lead to",
		Long: `List the host ports that containers on nftnet networks publish.

"docker ps" cannot show them: it lists ports of Docker's own drivers only. The
list comes from the running driver, the names from Docker where it answers.`,
		Example: `  nftnet ports
  nftnet ports --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, "text", "json"); err != nil {
				return err
			}
			list, err := control.Client{Socket: socket}.Ports(cmd.Context())
			if err != nil {
				return err
			}
			names, err := dockerNames(cmd.Context(), docker)
			if err != nil && len(list) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nftnet: names are missing:", err)
			}
			rows := namedPorts(list, names)
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return printPorts(cmd.OutOrStdout(), rows)
		},
	}
	socketFlag(cmd, &socket)
	dockerFlag(cmd, &docker)
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// namedPort is a published port with the names that Docker gives to its
// network and container, empty where Docker does not answer.
type namedPort struct {
	control.Port
	NetworkName   string `json:"network_name,omitempty"`
	ContainerName string `json:"container_name,omitempty"`
}

func namedPorts(list []control.Port, names inspect.Names) []namedPort {
	networks, containers := map[string]string{}, map[string]string{}
	for _, n := range names.Networks {
		networks[n.ID] = n.Name
	}
	for _, e := range names.Endpoints {
		containers[e.ID] = e.Container
	}
	out := make([]namedPort, len(list))
	for i, p := range list {
		out[i] = namedPort{p, networks[p.Network], containers[p.Endpoint]}
	}
	return out
}

func printPorts(w io.Writer, list []namedPort) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no ports are published")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tPROTOCOL\tLEADS TO\tCONTAINER\tNETWORK\tBY\tFOR")
	for _, p := range list {
		by := "kernel"
		switch {
		case p.Served:
			by = "port socket"
		case p.Routed:
			by = "routing"
		}
		sources := strings.Join(p.Sources, ",")
		if p.Closed {
			sources = "this host alone"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(p.Host, "-"), p.Proto, p.Container,
			cmp.Or(p.ContainerName, "endpoint "+p.Endpoint[:12]), cmp.Or(p.NetworkName, p.Network[:12]), by, cmp.Or(sources, "everybody"))
	}
	return t.Flush()
}
