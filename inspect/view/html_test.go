package view_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/message"
	"nftnet/inspect/view"
	"nftnet/internal/nstest/golden"
	"nftnet/internal/ruleset"
)

func html(t *testing.T, m *inspect.Model, o view.Options, p view.Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := view.HTML(&b, m, o, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// body is the page without its style and script, which are files of their own.
func body(page string) string {
	page = regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAllString(page, "<style></style>")
	page = regexp.MustCompile(`(?s)<script>.*?</script>`).ReplaceAllString(page, "<script></script>")
	return regexp.MustCompile(`sha256-.*?&#39;`).ReplaceAllString(page, "sha256-&#39;")
}

func TestHTML(t *testing.T) {
	got := html(t, smallModel(), view.Options{}, view.Page{Host: "gate", Taken: "2026-11-22 10:00 UTC"})
	golden.Check(t, filepath.Join("testdata", "page.html"), body(got))
	if again := html(t, smallModel(), view.Options{}, view.Page{Host: "gate", Taken: "2026-11-22 10:00 UTC"}); again != got {
		t.Error("the same model makes another page")
	}
	for _, foreign := range []string{"http://", "https://", "@import", "url("} {
		if strings.Contains(got, foreign) {
			t.Errorf("the page holds %q: it must stand alone", foreign)
		}
	}
}

// TestHTMLShowsWhatTextShows: every sentence and every line of nft's that the
// text has is in the page.
func TestHTMLShowsWhatTextShows(t *testing.T) {
	m := hostModel(hostNames())
	page := plain(html(t, m, view.Options{}, view.Page{}))
	for _, o := range m.Objects() {
		if o.Kind == inspect.KindHook {
			continue
		}
		for _, n := range m.Explain(o) {
			if !strings.Contains(page, n.Sentence) {
				t.Errorf("%s: the page lacks %q", o, n.Sentence)
			}
		}
	}
	for _, table := range m.Ruleset.Tables {
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				if !strings.Contains(page, r.String()) {
					t.Errorf("the page lacks %q", r)
				}
				if words, ok := r.IPTables(); ok && strings.Contains(r.String(), "xt ") && !strings.Contains(page, "iptables "+words) {
					t.Errorf("the page lacks %q", words)
				}
			}
		}
		for _, s := range table.Sets {
			for _, e := range s.Elements {
				if !strings.Contains(page, e.String()) {
					t.Errorf("the page lacks %q", e)
				}
			}
		}
	}
}

// plain is the page's text, without what stands in tags.
func plain(page string) string {
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body(page), "")
	return strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&#43;", "+", "&amp;", "&").Replace(text)
}

// TestHTMLLinks: every link leads to something on the page, and no two things
// have the same anchor.
func TestHTMLLinks(t *testing.T) {
	for name, o := range map[string]view.Options{
		"all": {}, "brief": {Brief: true}, "one table": {Table: "filter"}, "no notes": {HideNotes: true}, "no counters": {HideCounters: true},
	} {
		page := html(t, hostModel(hostNames()), o, view.Page{})
		ids := map[string]bool{}
		for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if ids[m[1]] {
				t.Errorf("%s: two things are called %s", name, m[1])
			}
			ids[m[1]] = true
		}
		links := regexp.MustCompile(` href="#([^"]*)"`).FindAllStringSubmatch(page, -1)
		for _, m := range links {
			if !ids[m[1]] {
				t.Errorf("%s: a link leads to %s, which is not there", name, m[1])
			}
		}
		if len(links) < 4 {
			t.Errorf("%s: %d links", name, len(links))
		}
	}
	page := html(t, hostModel(hostNames()), view.Options{}, view.Page{})
	for _, want := range []string{
		`A packet gets here by <a href="#rule.inet.nftnet.FORWARD.1">rule 1 of FORWARD</a> (jump).`,
		`<span class="go">jump</span> <a href="#chain.inet.nftnet.DOCKER-USER" class="go">DOCKER-USER</a>`,
		`<a href="#set.inet.nftnet.publish4" class="val">@publish4</a>`,
		`Looked up by <a href="#rule.inet.nftnet.DOCKER.`,
		`After it: <a href="#chain.ip.filter.FORWARD">FORWARD of table ip filter</a>`,
	} {
		if !strings.Contains(page, want) && !strings.Contains(page, strings.Replace(want, "After it", "At the same priority, in an order that the kernel does not tell", 1)) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`

// evilModel has what a stranger may write wherever a ruleset lets him.
func evilModel() *inspect.Model {
	set := ruleset.Set{Name: evil, Key: ruleset.TypeIfname, Comment: evil, Elements: []ruleset.Element{{Key: ruleset.Iface("a<b>'\"&"), Comment: evil}}}
	in := ruleset.Meta{Key: ruleset.MetaIIFName}
	return inspect.NewModel(ruleset.Ruleset{Tables: []ruleset.Table{{
		Family: ruleset.FamilyInet, Name: evil, Comment: evil, Sets: []ruleset.Set{set},
		Flowtables: []ruleset.Flowtable{{Name: evil, Hook: ruleset.HookIngress, Devices: []string{evil}}},
		Objects:    []ruleset.Object{{Kind: "counter", Name: evil, State: ruleset.Counter{}, Comment: evil}},
		Chains: []ruleset.Chain{
			{Name: evil, Comment: "\u202e" + evil, Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookInput, Policy: ruleset.Accept}, Rules: []ruleset.Rule{
				ruleset.NewRule(ruleset.JumpTo("javascript:alert(1)")).Because(evil + "\x00\x1b[2J\u202e"),
				ruleset.NewRule(ruleset.Lookup{Left: in, Set: evil}, ruleset.JumpTo(evil)),
				ruleset.NewRule(ruleset.Is(in, ruleset.Iface("nft-4f2a9c01d3e"))),
			}},
			{Name: "javascript:alert(1)"},
			{Name: "</style><script>alert(2)</script>", Base: &ruleset.Base{Type: "filter", Hook: ruleset.HookIngress, Devices: []string{evil}}},
		},
	}}}, inspect.Names{Networks: []inspect.Network{{ID: webID, Name: evil, Bridge: "nft-4f2a9c01d3e"}}})
}

// TestHTMLEscapes: names and comments stay text.
func TestHTMLEscapes(t *testing.T) {
	page := html(t, evilModel(), view.Options{}, view.Page{Host: evil, Taken: evil})
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts, there is one", n)
	}
	for _, bad := range []string{"<img", "javascript:alert(1)\"", `="'><`, "\x1b", "\x00", "\u202e"} {
		if strings.Contains(body(page), bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if n := strings.Count(page, "&lt;script&gt;alert(1)"); n < 14 {
		t.Errorf("the name is shown %d times", n)
	}
	if !strings.Contains(page, `\u202e`) {
		t.Error("what turns the direction of writing is not shown")
	}
}

// TestHTMLWords: the page says everything by the catalogue, and all of it is
// there.
func TestHTMLWords(t *testing.T) {
	page := html(t, hostModel(hostNames()), view.Options{}, view.Page{})
	if m := regexp.MustCompile(`html\.[a-z.]+`).FindString(body(page)); m != "" {
		t.Errorf("the catalogue has no %s", m)
	}
	other := message.English
	other.Templates = map[string]string{}
	for id, words := range message.English.Templates {
		if strings.HasPrefix(id, "html.") && !strings.Contains(page, regexp.MustCompile(`[{"].*`).ReplaceAllString(words, "")) && !rare[id] {
			t.Errorf("%s is not on the page", id)
		}
	}
}

// rare are words that this page has no use for.
var rare = map[string]bool{
	"html.title.of": true, "html.taken": true, "html.layer.bridge": true, "html.layer.arp": true, "html.layer.device": true,
	"html.objects": true, "html.empty": true, "html.level.error": true, "html.level.warn": true, "html.more.one": true,
	"html.more.many": true, "html.unordered": true, "html.hook.none": true,
}

func TestHTMLEmpty(t *testing.T) {
	page := html(t, inspect.NewModel(ruleset.Ruleset{}, inspect.Names{}), view.Options{}, view.Page{})
	for _, want := range []string{"There are no tables.", "nftables lets every packet pass", "prerouting"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := view.HTML(broken{}, hostModel(inspect.Names{}), view.Options{}, view.Page{}); err == nil {
		t.Error("the error of the writer is lost")
	}
}
