package view

import (
	"fmt"
	"strings"
	"unicode"

	"charm.land/lipgloss/v2"

	"nftnet/inspect"
)

// style writes text in a colour, or as it is.
type style func(string) string

// palette is the look of the text view.
type palette struct {
	header, nft style
	levels      map[inspect.Level]style
}

// newPalette uses the 16 colours that every terminal has in its user's own
// choice of light and dark.
func newPalette(color bool) palette {
	plain := func(s string) string { return s }
	if !color {
		return palette{
			header: plain, nft: plain,
			levels: map[inspect.Level]style{inspect.Info: plain, inspect.Warn: plain, inspect.Unknown: plain, inspect.Error: plain},
		}
	}
	of := func(s lipgloss.Style) style { return func(t string) string { return s.Render(t) } }
	return palette{
		header: of(lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Cyan)),
		nft:    plain,
		levels: map[inspect.Level]style{
			inspect.Info:    of(lipgloss.NewStyle().Faint(true)),
			inspect.Warn:    of(lipgloss.NewStyle().Foreground(lipgloss.Yellow)),
			inspect.Unknown: of(lipgloss.NewStyle().Foreground(lipgloss.Magenta)),
			inspect.Error:   of(lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)),
		},
	}
}

// printable makes the control characters of names and comments visible: a
// foreign ruleset must not steer the terminal that shows it.
func printable(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			_, _ = fmt.Fprintf(&b, "\\x%02x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// wrap breaks s at blanks into lines of at most width columns; a longer word
// stands alone.
func wrap(s string, width int) []string {
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(s) {
		wide := lipgloss.Width(word)
		switch {
		case line == "":
			line, used = word, wide
		case used+1+wide > width:
			lines = append(lines, line)
			line, used = word, wide
		default:
			line, used = line+" "+word, used+1+wide
		}
	}
	return append(lines, line)
}

// pad fills s with blanks to width columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}
