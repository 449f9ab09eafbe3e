package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nftnet/inspect/message"
)

// autoLanguage takes the language from the environment.
const autoLanguage = "auto"

func languageFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "lang", fromEnv("NFTNET_LANG", autoLanguage),
		"language of the explanations: en, zh, or auto for that of LC_ALL, LC_MESSAGES or LANG (environment: NFTNET_LANG)")
	completeWords(cmd, map[string][]string{"lang": append([]string{autoLanguage}, message.Languages()...)})
}

// language is the catalogue that the user asks for.
func language(name string) (*message.Catalogue, error) {
	if name == autoLanguage {
		name = message.OfLocale(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG")))
	}
	c, ok := message.In(name)
	if !ok {
		return nil, fmt.Errorf("language %q is not allowed: %s are", name,
			strings.Join(slices.Concat([]string{autoLanguage}, message.Languages()), ", "))
	}
	return &c, nil
}
