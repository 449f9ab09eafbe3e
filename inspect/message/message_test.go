package message_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nftnet/inspect/message"
)

var argument = regexp.MustCompile(`\{\w+\}`)

// TestCataloguesAreComplete: each language has every sentence, with the same
// arguments.
func TestCataloguesAreComplete(t *testing.T) {
	for _, name := range message.Languages() {
		c, ok := message.In(name)
		if !ok {
			t.Fatalf("there is no catalogue %s", name)
		}
		for _, id := range slices.Sorted(maps.Keys(message.English.Templates)) {
			english := message.English.Templates[id]
			text, there := c.Templates[id]
			if !there {
				t.Errorf("%s lacks %q: %q", name, id, english)
				continue
			}
			if want, got := arguments(english), arguments(text); !slices.Equal(want, got) {
				t.Errorf("%s, %q: arguments %v, want %v", name, id, got, want)
			}
		}
		for id := range c.Templates {
			if _, ok := message.English.Templates[id]; !ok {
				t.Errorf("%s has %q, which no sentence asks for", name, id)
			}
		}
	}
}

func arguments(text string) []string {
	return slices.Compact(slices.Sorted(slices.Values(argument.FindAllString(text, -1))))
}

// english are words that no Chinese sentence has by mistake.
var english = regexp.MustCompile(`\b(the|this|that|of|and|is|are|packet|packets|rule|rules|which|it|from|here|its)\b`)

func TestChineseIsChinese(t *testing.T) {
	for id, text := range message.Chinese.Templates {
		plain := argument.ReplaceAllString(text, "")
		if word := english.FindString(plain); word != "" {
			t.Errorf("%q says %q: %s", id, word, text)
		}
		if strings.Contains(text, "  ") {
			t.Errorf("%q has two blanks: %q", id, text)
		}
	}
}

func TestOfLocale(t *testing.T) {
	for locale, want := range map[string]string{
		"": "en", "C": "en", "C.UTF-8": "en", "POSIX": "en", "en_GB.UTF-8": "en", "de_DE": "en",
		"zh_CN.UTF-8": "zh", "zh": "zh", "zh-Hans": "zh", "ZH_TW": "zh",
	} {
		if got := message.OfLocale(locale); got != want {
			t.Errorf("%q: %s, want %s", locale, got, want)
		}
	}
}

func TestChineseBlanks(t *testing.T) {
	for _, row := range []struct{ id, name, value, want string }{
		{"verb.in", "x", "网桥 br0（网络 web）", "从网桥 br0（网络 web）进入"},
		{"hook.name.ip", "hook", "forward", "钩子 forward"},
		{"verb.from", "x", "10.0.0.1", "来自 10.0.0.1"},
	} {
		if got := message.Chinese.Say(row.id, row.name, row.value); got != row.want {
			t.Errorf("%s: %q, want %q", row.id, got, row.want)
		}
	}
}
