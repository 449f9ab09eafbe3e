package view

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"nftnet/inspect"
	"nftnet/inspect/message"
)

// Page is what the page of [HTML] says of itself. It may be empty: then the
// same ruleset always makes the same page.
type Page struct {
	// Host is the name of the host that the ruleset is of.
	Host string
	// Taken is when it was read, written for people.
	Taken string
}

//go:embed html
var htmlFiles embed.FS

// The parts of the page. The words are those of the model's language.
var (
	htmlTemplate = template.Must(template.New("page.gohtml").
			Funcs(htmlWords(message.English)).
			ParseFS(htmlFiles, "html/page.gohtml"))
	htmlStyle  = htmlFile("html/style.css")
	htmlScript = htmlFile("html/page.js")
)

func htmlFile(name string) string {
	b, err := htmlFiles.ReadFile(name)
	if err != nil {
		// The file is part of the program.
		panic(err)
	}
	return string(b)
}

// htmlWords are the page's own words in a language: its templates begin with
// "html.".
func htmlWords(c message.Catalogue) template.FuncMap {
	return template.FuncMap{
		"say":   func(id string, args ...string) string { return c.Say("html."+id, args...) },
		"count": func(id string, n int) string { return c.Count("html."+id, uint64(n)) },
	}
}

// HTML writes the model as one page that needs nothing else: no server, no
// network, and no JavaScript to be read. Rules and sets are always whole.
func HTML(w io.Writer, m *inspect.Model, o Options, p Page) error {
	t, err := htmlTemplate.Clone()
	if err != nil {
		return err
	}
	t.Funcs(htmlWords(m.Language()))
	b := bufio.NewWriter(w)
	if err := t.Execute(b, newHTMLPage(m, o, p)); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return b.Flush()
}

// htmlPage is what the template lays out.
type htmlPage struct {
	Page
	Style  template.CSS
	Script template.JS
	// Policy lets the browser run this script only, and fetch nothing: what a
	// hostile name or comment could smuggle in would not run either.
	Policy  string
	Summary []htmlNote
	Layers  []htmlLayer
	Tables  []htmlTable
}

func newHTMLPage(m *inspect.Model, o Options, p Page) htmlPage {
	h := newHTMLBuilder(m, o)
	page := htmlPage{
		Page:  Page{Host: visible(p.Host), Taken: visible(p.Taken)},
		Style: template.CSS(htmlStyle), Script: template.JS(htmlScript),
		Policy: fmt.Sprintf("default-src 'none'; img-src data:; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'",
			sourceHash(htmlStyle), sourceHash(htmlScript)),
		Summary: h.notes(inspect.Object{Kind: inspect.KindRuleset}),
		Layers:  h.layers(),
	}
	for i := range m.Ruleset.Tables {
		if t := &m.Ruleset.Tables[i]; o.shows(t) {
			page.Tables = append(page.Tables, h.table(t))
		}
	}
	return page
}

// sourceHash names a style or a script in a content security policy.
func sourceHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
