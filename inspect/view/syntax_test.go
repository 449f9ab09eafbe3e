package view

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nftnet/inspect"
)

// marked writes spans as their looks and links show them.
func marked(spans []span) string {
	var b strings.Builder
	for _, s := range spans {
		switch {
		case s.To != "":
			b.WriteString("[" + s.Text + "](" + s.To + ")")
		case s.Class != "":
			b.WriteString(s.Class + "<" + s.Text + ">")
		default:
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

// known finds anchors for names that begin with "x".
func known(kind string) func(string) string {
	return func(name string) string {
		if !strings.HasPrefix(name, "x") {
			return ""
		}
		return kind + name
	}
}

var testLinks = links{chain: known("c:"), set: known("s:")}

func TestSyntax(t *testing.T) {
	rows := []struct{ text, want string }{
		{`iifname "lo" accept`, `iifname str<"lo"> ok<accept>`},
		{`tcp dport 22-25 ip saddr 10.0.0.0/8 drop`, `tcp dport val<22-25> ip saddr val<10.0.0.0/8> no<drop>`},
		{`jump xweb`, `go<jump> [xweb](c:xweb)`},
		{`goto web`, `go<goto> go<web>`},
		{`ip saddr @xadmins counter packets 5 bytes 80 return`, `ip saddr [@xadmins](s:xadmins) cnt<counter packets 5 bytes 80> go<return>`},
		{`counter name "c" accept`, `cnt<counter >name str<"c"> ok<accept>`},
		{`ct state vmap { new : jump xa, invalid : drop }`, `ct state go<vmap> { new : go<jump> [xa](c:xa), invalid : no<drop> }`},
		{`accept comment "jump xa"`, `ok<accept> rem<comment> rem<"jump xa">`},
		{`dnat to [fd00::2]:80`, `nat<dnat> to val<[fd00::2]:80>`},
		{`ip6 daddr ::1 log prefix "a\"b {"`, `ip6 daddr val<::1> log prefix str<"a\"b {">`},
		{"jump {\n\tcounter\n}", "go<jump> {\n\tcnt<counter\n>}"},
		{`comment "` + "\x1b\u202e" + `"`, `rem<comment> rem<"\x1b\u202e">`},
	}
	for _, row := range rows {
		if got := marked(syntax(row.text, testLinks)); got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.text, got, row.want)
		}
	}
}

// TestSyntaxKeepsText: whatever a text is, nothing of it is lost.
func TestSyntaxKeepsText(t *testing.T) {
	words := rapid.SampledFrom([]string{" ", "\n", `"`, `\`, "@", "{", "jump ", "counter packets 1", "x", "9", "comment ", "€", "\xff", "\u202e", ""})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(words).Draw(t, "words"), "") + rapid.String().Draw(t, "text")
		var b strings.Builder
		for _, s := range syntax(text, testLinks) {
			b.WriteString(s.Text)
		}
		if b.String() != visible(text) {
			t.Errorf("%q became %q", text, b.String())
		}
	})
}

func TestLinked(t *testing.T) {
	phrases := longestFirst([]span{{Text: "rule 1 of A", To: "a1"}, {Text: "A", To: "a"}}, []span{{Text: "rule 1 of A-B", To: "ab1"}, {Text: "rule 1 of A.B", To: "a.b1"}})
	rows := []struct{ sentence, want string }{
		{"goes on after rule 1 of A.", "goes on after [rule 1 of A](a1)."},
		{"rule 1 of A-B (jump) or rule 1 of A (jump).", "[rule 1 of A-B](ab1) (jump) or [rule 1 of A](a1) (jump)."},
		{"rule 1 of A.B, then A.", "[rule 1 of A.B](a.b1), then [A](a)."},
		{"rule 1 of A_C and BA and A/x", "rule 1 of A_C and BA and A/x"},
		{"之后是rule 1 of A。", "之后是[rule 1 of A](a1)。"},
		{"rule 1 of A. Then more.", "[rule 1 of A](a1). Then more."},
		{"", ""},
	}
	for _, row := range rows {
		if got := marked(linked(row.sentence, phrases)); got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.sentence, got, row.want)
		}
	}
}

// TestAnchors: different objects have different anchors, which need no escapes.
func TestAnchors(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", ".", "~", "2e", "/", " ", "é", "\xff", "1"})
	object := rapid.Custom(func(t *rapid.T) inspect.Object {
		names := rapid.SliceOfN(name, 1, 4)
		o := inspect.Object{Kind: rapid.SampledFrom([]inspect.Kind{inspect.KindTable, inspect.KindChain, inspect.KindRule, inspect.KindSet, inspect.KindElement}).Draw(t, "kind"), Family: "inet"}
		o.Table = strings.Join(names.Draw(t, "table"), "")
		switch o.Kind {
		case inspect.KindChain, inspect.KindRule:
			o.Chain = strings.Join(names.Draw(t, "chain"), "")
		case inspect.KindSet, inspect.KindElement:
			o.Set = strings.Join(names.Draw(t, "set"), "")
		}
		if o.Kind == inspect.KindRule || o.Kind == inspect.KindElement {
			o.Index = rapid.IntRange(0, 20).Draw(t, "index")
		}
		return o
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := object.Draw(t, "a"), object.Draw(t, "b")
		if a != b && anchor(a) == anchor(b) {
			t.Errorf("%v and %v are both %s", a, b, anchor(a))
		}
		if strings.Trim(anchor(a), "abcdefghijklmnopqrstuvwxyz0123456789.~-_") != "" {
			t.Errorf("%v has the anchor %s", a, anchor(a))
		}
	})
}
