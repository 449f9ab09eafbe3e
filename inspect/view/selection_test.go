package view_test

import (
	"bytes"
	"encoding/json"
	htmltext "html"
	"regexp"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
)

// TestSelection: every view shows what is selected, says what that is, and
// leaves out the rest.
func TestSelection(t *testing.T) {
	m := hostModel(hostNames())
	n, err := inspect.FindNetwork(hostNames().Networks, "web")
	if err != nil {
		t.Fatal(err)
	}
	o := view.Options{Only: m.SelectNetwork(n), Width: 100}
	var nft bytes.Buffer
	if err := view.NFT(&nft, m, o); err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(view.NewDocument(m, o))
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"text": text(t, m, o), "nft": nft.String(), "JSON": string(document), "HTML": plainText(html(t, m, o, view.Page{}))} {
		if !strings.Contains(got, "10.0.1.2 . 80") {
			t.Errorf("%s lacks the network's port:\n%s", name, got)
		}
		for _, foreign := range []string{"10.0.2.", "network lab", "192.0.2.0/24", "FORWARD\n"} {
			// The page has a map of all hooks.
			if strings.Contains(got, foreign) && (name != "HTML" || foreign != "FORWARD\n") {
				t.Errorf("%s shows %q, which is not the network's:\n%s", name, foreign, got)
			}
		}
		if says := strings.Contains(strings.Join(strings.Fields(got), " "), "are left out"); says != (name != "nft") {
			t.Errorf("%s says what is left out: %t", name, says)
		}
	}
	// It says so without explanations, too: less is shown than there is.
	o.HideNotes = true
	if got := text(t, m, o); !strings.HasPrefix(got, "Shown is what names network web: ") {
		t.Errorf("without explanations:\n%.300s", got)
	}
}

var tag = regexp.MustCompile(`(?s)<(style|script|svg).*?</(style|script|svg)>|<[^>]*>`)

// plainText is what a page shows, without its looks.
func plainText(page string) string { return htmltext.UnescapeString(tag.ReplaceAllString(page, "")) }
