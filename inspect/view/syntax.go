package view

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// span is a piece of text of one look; with an anchor in To it is a link.
type span struct{ Text, Class, To string }

// The looks of nft's words. They are the names of classes in the page's style.
const (
	lookAccept    = "ok"
	lookDrop      = "no"
	lookJump      = "go"
	lookTranslate = "nat"
	lookValue     = "val"
	lookString    = "str"
	lookCount     = "cnt"
	lookComment   = "rem"
)

var looks = map[string]string{
	"accept": lookAccept, "drop": lookDrop, "reject": lookDrop,
	"jump": lookJump, "goto": lookJump, "return": lookJump, "continue": lookJump, "queue": lookJump, "vmap": lookJump,
	"dnat": lookTranslate, "snat": lookTranslate, "masquerade": lookTranslate, "redirect": lookTranslate, "tproxy": lookTranslate,
	"counter": lookCount, "comment": lookComment,
}

// links finds what nft's words in a table refer to; empty where that is not
// shown.
type links struct{ chain, set func(name string) string }

// syntax gives nft's words their looks and links. It reads words, not values,
// so that parts which are not understood look like all others. The texts of
// the spans together are the text.
func syntax(text string, to links) []span {
	x := lexer{to: to}
	for text != "" {
		n := wordLength(text)
		x.word(text[:n])
		text = text[n:]
	}
	return x.out
}

// lexer keeps what the words so far say of the next one.
type lexer struct {
	to    links
	out   []span
	last  string
	count int
}

func (x *lexer) add(text, class, to string) {
	if n := len(x.out); n > 0 && to == "" && x.out[n-1].To == "" && x.out[n-1].Class == class {
		x.out[n-1].Text += text
		return
	}
	x.out = append(x.out, span{text, class, to})
}

func (x *lexer) word(w string) {
	if strings.Trim(w, " \t\n") == "" {
		// Blanks belong to what stands before them, unless that is a link.
		class := ""
		if n := len(x.out); n > 0 && x.out[n-1].To == "" && x.count > 0 {
			class = x.out[n-1].Class
		}
		x.add(visible(w), class, "")
		return
	}
	class, to := x.look(w)
	x.add(visible(w), class, to)
	x.last = w
}

// look finds the look of a word, and what it leads to.
func (x *lexer) look(w string) (class, to string) {
	if x.count > 0 && slices.Contains([]string{"packets", "bytes"}, w) || x.count > 0 && isNumber(w) {
		x.count--
		return lookCount, ""
	}
	x.count = 0
	switch {
	case (x.last == "jump" || x.last == "goto") && !strings.Contains(delimiters, w):
		return lookJump, x.to.chain(w)
	case w[0] == '"' && x.last == "comment":
		return lookComment, ""
	case w[0] == '"':
		return lookString, ""
	case w[0] == '@':
		return lookValue, x.to.set(w[1:])
	case w == "counter":
		x.count = 4
	}
	if class, ok := looks[w]; ok {
		return class, ""
	}
	if isValue(w) {
		return lookValue, ""
	}
	return "", ""
}

func isNumber(w string) bool { return strings.Trim(w, "0123456789") == "" }

// isValue says whether a word is a number, an address or a range of them.
func isValue(w string) bool {
	digit := strings.ContainsAny(w, "0123456789")
	return w[0] >= '0' && w[0] <= '9' || digit && strings.ContainsAny(w, ":[") || strings.HasPrefix(w, "::")
}

const delimiters = "{},;()"

// wordLength is the length of the blanks, the quoted string, the delimiter or
// the word that begins a text.
func wordLength(text string) int {
	blank := func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }
	first, size := utf8.DecodeRuneInString(text)
	switch {
	case blank(first):
		return len(text) - len(strings.TrimLeftFunc(text, blank))
	case first == '"':
		return quotedLength(text)
	case strings.ContainsRune(delimiters, first):
		return size
	}
	end := strings.IndexFunc(text, func(r rune) bool { return blank(r) || r == '"' || strings.ContainsRune(delimiters, r) })
	if end < 0 {
		return len(text)
	}
	return end
}

// quotedLength is the length of the quoted string that begins a text.
func quotedLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}
