package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteOutput(t *testing.T) {
	hello := func(w io.Writer) error {
		_, err := fmt.Fprint(w, "hello")
		return err
	}
	var standard bytes.Buffer
	if err := writeOutput("", &standard, hello); err != nil || standard.String() != "hello" {
		t.Errorf("standard output: %q, %v", standard.String(), err)
	}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := writeOutput(path, nil, hello); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no such table")
	if err := writeOutput(path, nil, func(io.Writer) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want %v", err, failed)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "hello" {
		t.Errorf("after a failure the file holds %q, %v", text, err)
	}
	if err := writeOutput(filepath.Join(path, "x"), nil, hello); err == nil {
		t.Error("a file below a file can be written")
	}
}
