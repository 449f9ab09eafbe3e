package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"nftnet/inspect/view"
)

// writeOutput lets write print to standard output or, where a path is given,
// into a file. A file is written when all is known: what fails leaves the file
// that was there as it was.
func writeOutput(path string, standard io.Writer, write func(io.Writer) error) error {
	if path == "" {
		return write(standard)
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// thisPage is what a page says of where and when it was made.
func thisPage() view.Page {
	// Without a name of the host the page does without.
	host, _ := os.Hostname()
	return view.Page{Host: host, Taken: time.Now().Format("2006-01-02 15:04 MST")}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
