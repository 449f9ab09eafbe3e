package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"nftnet/internal/control"
)

// fromEnv is the value of an environment variable, or another where it is not
// set: a flag given by the user stands before both.
func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func socketFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "socket", fromEnv("NFTNET_SOCKET", control.DefaultSocket),
		"socket on which Docker finds the driver, by its file name (environment: NFTNET_SOCKET)")
}

func dockerFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "docker", "",
		"Docker's socket, for names (environment: DOCKER_HOST; default unix:///var/run/docker.sock)")
}

// checkFormat refuses a --format that a command does not have.
func checkFormat(format string, allowed ...string) error {
	for _, a := range allowed {
		if format == a {
			return nil
		}
	}
	return fmt.Errorf("format %q is not allowed: %v are", format, allowed)
}

// completeWords tells the shell which words flags take.
func completeWords(cmd *cobra.Command, flags map[string][]string) {
	for name, words := range flags {
		// It fails for a flag that does not exist only.
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
}
