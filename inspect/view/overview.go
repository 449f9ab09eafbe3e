package view

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"

	"nftnet/inspect"
)

// overview writes the hooks from left to right with the base chains below them
// in the order in which the kernel calls them; where the line is too short for
// that, the hooks stand below each other.
func (t *text) overview() {
	for _, hooks := range byLayer(t.m.Hooks) {
		columns := make([][]string, len(hooks))
		for i, h := range hooks {
			columns[i] = column(h)
		}
		if lines, ok := besides(columns, t.o.width()); ok {
			t.columns(lines)
		} else {
			t.stacked(columns)
		}
		t.blank()
	}
}

// byLayer groups hooks that a packet meets one after the other.
func byLayer(hooks []inspect.Hook) [][]inspect.Hook {
	var out [][]inspect.Hook
	for i, h := range hooks {
		if i == 0 || hooks[i-1].Object.Layer != h.Object.Layer {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], h)
	}
	return out
}

// column is a hook's name and its base chains, two lines each.
func column(h inspect.Hook) []string {
	head := string(h.Object.Hook)
	if h.Object.Device != "" {
		head += " " + h.Object.Device
	}
	lines := []string{printable(head)}
	for _, b := range h.Chains {
		lines = append(lines, fmt.Sprintf("%4d %s", b.At, printable(b.Chain.Name)),
			printable(fmt.Sprintf("     %s %s", b.Table.Family, b.Table.Name)))
	}
	if len(h.Chains) == 0 {
		lines = append(lines, "   -")
	}
	return lines
}

const columnGap = "  "

// besides puts columns side by side; false where that is wider than width.
func besides(columns [][]string, width int) ([]string, bool) {
	height, total := 0, -len(columnGap)
	widths := make([]int, len(columns))
	for i, c := range columns {
		height = max(height, len(c))
		for _, l := range c {
			widths[i] = max(widths[i], lipgloss.Width(l))
		}
		total += widths[i] + len(columnGap)
	}
	if total > width {
		return nil, false
	}
	lines := make([]string, height)
	for row := range lines {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cell := ""
			if row < len(c) {
				cell = c[row]
			}
			cells[i] = pad(cell, widths[i])
		}
		lines[row] = strings.TrimRight(strings.Join(cells, columnGap), " ")
	}
	return lines, true
}

func (t *text) columns(lines []string) {
	t.line(0, t.style.header, lines[0])
	for _, l := range lines[1:] {
		t.line(0, t.style.nft, l)
	}
}

func (t *text) stacked(columns [][]string) {
	for _, c := range columns {
		t.line(0, t.style.header, c[0])
		for i := 1; i < len(c); i += 2 {
			l := c[i]
			if i+1 < len(c) {
				l = pad(l, 30) + columnGap + strings.TrimSpace(c[i+1])
			}
			t.line(0, t.style.nft, l)
		}
	}
}
