package view

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"nftnet/inspect"
)

// anchor names an object in the page. It stands in addresses as it is: every
// byte of a name that could mean something there is written as ~ and its
// number, so that no two objects have the same anchor.
func anchor(o inspect.Object) string {
	words := []string{string(o.Kind), string(o.Family), anchorWord(o.Table)}
	switch o.Kind {
	case inspect.KindRuleset:
		return string(o.Kind)
	case inspect.KindHook:
		words = []string{string(o.Kind), string(o.Layer), anchorWord(string(o.Hook))}
		if o.Device != "" {
			words = append(words, anchorWord(o.Device))
		}
	case inspect.KindChain:
		words = append(words, anchorWord(o.Chain))
	case inspect.KindRule:
		words = append(words, anchorWord(o.Chain), strconv.Itoa(o.Index+1))
	case inspect.KindSet:
		words = append(words, anchorWord(o.Set))
	case inspect.KindElement:
		words = append(words, anchorWord(o.Set), strconv.Itoa(o.Index+1))
	}
	return strings.Join(words, ".")
}

func anchorWord(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// visible makes control characters visible, and those that turn the direction
// of writing: a comment must not look like a rule that it is not.
func visible(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r <= 0xff:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	return r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}
