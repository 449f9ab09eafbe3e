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

// wrap breaks s at blanks, and between the characters of scripts that have
// none, into lines of at most width columns; a longer word stands alone.
func wrap(s string, width int) []string {
	var lines []string
	line, used := "", 0
	for _, p := range pieces(s) {
		wide := lipgloss.Width(p.text)
		blank := 0
		if p.blank {
			blank = 1
		}
		switch {
		case line == "":
			line, used = p.text, wide
		case used+blank+wide > width:
			lines = append(lines, line)
			line, used = p.text, wide
		default:
			line, used = line+strings.Repeat(" ", blank)+p.text, used+blank+wide
		}
	}
	return append(lines, line)
}

// piece is text that stays together; blank says whether a blank stands before
// it.
type piece struct {
	text  string
	blank bool
}

// pieces splits a sentence where a line may end. Chinese may be broken before
// every character but a closing mark, and not behind an opening one.
func pieces(s string) []piece {
	const closing, opening = "，。；：、！？）”》", "（“《"
	var out []piece
	for _, word := range strings.Fields(s) {
		blank, last := true, rune(0)
		for _, r := range word {
			wideBreak := (lipgloss.Width(string(r)) > 1 || lipgloss.Width(string(last)) > 1) && last != 0
			if wideBreak && !strings.ContainsRune(closing, r) && !strings.ContainsRune(opening, last) || last == 0 {
				out = append(out, piece{"", blank})
				blank = false
			}
			out[len(out)-1].text += string(r)
			last = r
		}
	}
	return out
}

// pad fills s with blanks to width columns.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}
