package message

import (
	"slices"
	"strings"
)

// catalogues are the languages by the names that a user gives.
var catalogues = map[string]Catalogue{"en": English, "zh": Chinese}

// Languages lists the names of the languages.
func Languages() []string { return []string{"en", "zh"} }

// In is the catalogue of a language; false where there is none.
func In(language string) (Catalogue, bool) {
	c, ok := catalogues[language]
	return c, ok
}

// OfLocale is the name of the language that a locale ("zh_CN.UTF-8") asks for;
// English where there is no such catalogue.
func OfLocale(locale string) string {
	name, _, _ := strings.Cut(strings.ToLower(locale), "_")
	name, _, _ = strings.Cut(name, ".")
	name, _, _ = strings.Cut(name, "-")
	if slices.Contains(Languages(), name) {
		return name
	}
	return "en"
}
