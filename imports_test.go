package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// importTable reads the table of ARCHITECTURE.md: for each package, the
// packages of this module and the outside modules that it may import.
func importTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		for _, cell := range cells[2:4] {
			for word := range strings.SplitSeq(cell, "`") {
				if word = strings.Trim(word, " ,-"); word != "" {
					table[name] = append(table[name], word)
				}
			}
		}
		if table[name] == nil {
			table[name] = []string{}
		}
	}
	if len(table) < 5 {
		t.Fatalf("ARCHITECTURE.md has a table of %d packages", len(table))
	}
	return table
}

type listedPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// TestImports holds the packages to the table of who may import whom.
func TestImports(t *testing.T) {
	table := importTable(t)
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, "nftnet/")
		allowed, listed := table[name]
		if !listed {
			t.Errorf("package %s is missing in the table of ARCHITECTURE.md", name)
			continue
		}
		for _, imp := range p.Imports {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") && first != "nftnet" {
				continue // the standard library
			}
			imp = strings.TrimPrefix(imp, "nftnet/")
			if !slices.ContainsFunc(allowed, func(a string) bool { return imp == a || strings.HasPrefix(imp, a+"/") && strings.Contains(a, ".") }) {
				t.Errorf("%s imports %s: the table of ARCHITECTURE.md allows %v", name, imp, allowed)
			}
		}
	}
}
