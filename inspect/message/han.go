package message

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// marks are full-width: no blank stands beside them.
const marks = "，。；：、！？（）“”《》"

// joinChinese puts a blank between Chinese characters and Latin letters or
// digits, and none beside a full-width mark. It looks at the joint alone: what
// a user wrote stays as it is.
func joinChinese(text, piece string) string {
	if text == "" || piece == "" {
		return text + piece
	}
	last, _ := utf8.DecodeLastRuneInString(text)
	first, _ := utf8.DecodeRuneInString(piece)
	switch {
	case strings.ContainsRune(marks, last):
		return text + strings.TrimLeft(piece, " ")
	case strings.ContainsRune(marks, first):
		return strings.TrimRight(text, " ") + piece
	case last == ' ' || first == ' ':
		return strings.TrimRight(text, " ") + " " + strings.TrimLeft(piece, " ")
	case unicode.Is(unicode.Han, last) && isLatin(first), isLatin(last) && unicode.Is(unicode.Han, first):
		return text + " " + piece
	}
	return text + piece
}

func isLatin(r rune) bool { return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) }
