package inspect

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nftnet/inspect/message"
)

// sayers are the functions that take the id of a template, the place of the
// id among their arguments and that of the first name.
var sayers = map[string]struct{ id, names int }{
	"Say": {0, 1}, "Count": {0, 2}, "not": {1, 2}, "flagged": {0, 2},
}

// call is a use of a template in the program.
type call struct {
	where string
	id    string
	// begins marks an id of which only the beginning stands in the source.
	begins bool
	by     string
	names  []string
}

// TestTemplates: every id in the program is in the catalogue, with arguments
// for all of its names, and every template is used.
func TestTemplates(t *testing.T) {
	used := map[string]bool{}
	words := literals(t)
	for _, c := range calls(t) {
		ids := templates(c)
		if len(ids) == 0 {
			t.Errorf("%s: the catalogue has no %q", c.where, c.id)
		}
		for _, id := range ids {
			used[id] = true
			if c.begins {
				continue
			}
			for _, name := range placeholders(message.English.Templates[id]) {
				if !slices.Contains(c.names, name) {
					t.Errorf("%s: %q has no argument for {%s}", c.where, id, name)
				}
			}
		}
	}
	for id := range message.English.Templates {
		if !used[id] && !slices.Contains(words, strings.TrimSuffix(id, ".not")) {
			t.Errorf("nothing says %q", id)
		}
	}
}

var placeholder = regexp.MustCompile(`\{([a-z]+)\}`)

func placeholders(template string) []string {
	var out []string
	for _, m := range placeholder.FindAllStringSubmatch(template, -1) {
		out = append(out, m[1])
	}
	return out
}

// templates lists the templates that a call may fill.
func templates(c call) []string {
	var out []string
	for id := range message.English.Templates {
		switch {
		case c.begins && strings.HasPrefix(id, c.id),
			c.by == "Count" && (id == c.id+".one" || id == c.id+".many"),
			c.by != "Count" && id == c.id,
			c.by == "not" && id == c.id+".not":
			out = append(out, id)
		}
	}
	return out
}

func sources(t *testing.T) []*ast.File {
	t.Helper()
	var out []*ast.File
	for _, dir := range []string{".", "view", "message"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "english.go" {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
	}
	return out
}

func calls(t *testing.T) []call {
	t.Helper()
	var out []call
	for _, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := e.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			s, ok := sayers[sel.Sel.Name]
			if !ok || len(e.Args) <= s.id {
				return true
			}
			c := call{where: f.Name.Name, by: sel.Sel.Name, names: []string{"n"}}
			c.id, c.begins = literal(e.Args[s.id])
			if c.id == "" {
				return true
			}
			for i := s.names; i < len(e.Args); i += 2 {
				name, _ := literal(e.Args[i])
				c.names = append(c.names, name)
			}
			if e.Ellipsis.IsValid() {
				c.begins = true
			}
			out = append(out, c)
			return true
		})
	}
	return out
}

// literal is the string that an expression is or begins with.
func literal(x ast.Expr) (s string, begins bool) {
	switch x := x.(type) {
	case *ast.BasicLit:
		s, _ = strconv.Unquote(x.Value)
	case *ast.BinaryExpr:
		s, _ = literal(x.X)
		return s, s != ""
	}
	return s, false
}

// literals lists every string in the program, for ids that are kept in
// variables, and each with the endings that are put behind it there.
func literals(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				s, _ := strconv.Unquote(l.Value)
				out = append(out, s, s+".one", s+".many", s+".prefix", s+".bytes", s+".over", s+".bytes.over", s+".device")
			}
			// An id that begins so may end in any way.
			if b, ok := n.(*ast.BinaryExpr); ok {
				if s, begins := literal(b); begins && strings.Contains(s, ".") {
					for id := range message.English.Templates {
						if strings.HasPrefix(id, s) {
							out = append(out, id)
						}
					}
				}
			}
			return true
		})
	}
	return out
}

func TestSay(t *testing.T) {
	c := message.Catalogue{Templates: map[string]string{
		"a": "{x} and {y} and {", "b": "{n} thing", "b.one": "{n} thing", "b.many": "{n} things",
		"list.comma": ", ", "list.and": " and ", "list.or": " or ",
	}, Plural: message.English.Plural}
	rows := []struct{ got, want string }{
		{c.Say("a", "x", "{y}", "y", "2"), "{y} and 2 and {"},
		{c.Say("a", "x"), "{x} and {y} and {"},
		{c.Say("unheard of"), "unheard of"},
		{c.Count("b", 1), "1 thing"},
		{c.Count("b", 0), "0 things"},
		{c.And(nil), ""},
		{c.And([]string{"a"}), "a"},
		{c.And([]string{"a", "b"}), "a and b"},
		{c.Or([]string{"a", "b", "c"}), "a, b or c"},
	}
	for _, r := range rows {
		if r.got != r.want {
			t.Errorf("got %q, want %q", r.got, r.want)
		}
	}
}
