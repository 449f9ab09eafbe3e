package view_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/ruleset"
)

// twoModels are a table before and after: a policy, a rule that moved, one that
// went, and more new elements than are shown.
func twoModels() (was, is *inspect.Model) {
	accept, drop := ruleset.NewRule(ruleset.Verdict{Kind: ruleset.Accept}), ruleset.NewRule(ruleset.Verdict{Kind: ruleset.Drop})
	make := func(policy ruleset.VerdictKind, elements int, rules ...ruleset.Rule) *inspect.Model {
		s := ruleset.Set{Name: "s", Key: ruleset.TypeInetService}
		for i := range elements {
			s.Elements = append(s.Elements, ruleset.Element{Key: ruleset.Port(uint16(1000 + i))})
		}
		base := &ruleset.Base{Type: "filter", Hook: ruleset.HookInput, Policy: policy}
		return inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{
			Family: ruleset.FamilyInet, Name: "t", Sets: []ruleset.Set{s},
			Chains: []ruleset.Chain{{Name: "c", Base: base, Rules: rules}},
		}}}, inspect.Names{})
	}
	return make(ruleset.Accept, 0, accept, drop.Because("b"), drop), make(ruleset.Drop, 23, drop, accept)
}

func TestChangesAsText(t *testing.T) {
	was, is := twoModels()
	var out bytes.Buffer
	if err := view.Changes(&out, is.Changes(was), is, view.Options{HideNotes: true}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got := len(lines); got != 29 {
		t.Fatalf("%d lines:\n%s", got, out.String())
	}
	if got, want := strings.Join(append(lines[:3:3], lines[21:]...), "\n"), `TABLE inet t
  set s
    + 1000
    + 1019
      … and 3 more (use --all)
  chain c
    - type filter hook input priority filter; policy accept;
    + type filter hook input priority filter; policy drop;
    - 2  drop comment "b"
    > 1 → 2  accept
`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	if err := view.Changes(&out, is.Changes(was), is, view.Options{All: true, Color: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\x1b[32m+ 1022\x1b[m", "\x1b[31m- 2  drop comment \"b\"\x1b[m", "\x1b[33m> 1 → 2  accept\x1b[m",
		"Moved from place 1 to 2: Every packet that gets here is accepted.", "Its policy was accept. Policy drop:",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, out.String())
		}
	}
}

func TestChangesAsJSON(t *testing.T) {
	was, is := twoModels()
	if d := view.NewChangesDocument(is.Changes(is)); !d.Equal || d.Changes == nil || len(d.Changes) != 0 {
		t.Errorf("of nothing: %+v", d)
	}
	text, err := json.Marshal(view.NewChangesDocument(is.Changes(was)))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"change":"moved","kind":"rule","object":"rule inet t c 2","family":"inet","table":"t","chain":"c","index":2,"from":1,"before":["accept"],"after":["accept"],`
	if !strings.Contains(string(text), want) || !strings.HasPrefix(string(text), `{"version":1,"equal":false,`) {
		t.Errorf("%s\nlacks %s", text, want)
	}
}
