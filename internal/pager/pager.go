// Package pager shows long output screen by screen, as git does.
package pager

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// Show writes what write writes to out: by a pager, where out is a terminal and
// it is longer than that, or else as it is.
func Show(out io.Writer, write func(io.Writer) error) error {
	file, ok := out.(*os.File)
	program := command(os.Getenv)
	if !ok || program == "" || !term.IsTerminal(int(file.Fd())) {
		return write(out)
	}
	var text bytes.Buffer
	if err := write(&text); err != nil {
		return err
	}
	width, height, err := term.GetSize(int(file.Fd()))
	// The prompt of the shell takes a line of the screen.
	if err != nil || rows(text.String(), width) < height {
		_, err = file.Write(text.Bytes())
		return err
	}
	return page(program, file, text.Bytes())
}

// command is the pager that the user wants; empty for none. "cat" is none, too:
// that is how people switch pagers off.
func command(env func(string) string) string {
	program := strings.TrimSpace(cmp.Or(env("NFTNET_PAGER"), env("PAGER"), "less"))
	if program == "cat" {
		return ""
	}
	return program
}

// environment is what the pager gets. Without a word of the user's less passes
// colours (R), ends where all fits the screen (F), and leaves it as it is (X).
func environment(env []string) []string {
	for _, v := range env {
		if strings.HasPrefix(v, "LESS=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "LESS=FRX")
}

// notFound and notExecutable are how a shell ends that cannot run a command.
const notExecutable, notFound = 126, 127

// page shows text by a pager, and without one where it cannot be run.
func page(program string, out *os.File, text []byte) error {
	// The shell splits what the user wrote into words.
	cmd := exec.Command("/bin/sh", "-c", program)
	cmd.Env = environment(os.Environ())
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_, err = out.Write(text)
		return err
	}
	_, err = in.Write(text)
	_ = in.Close()
	// Who has read enough ends the pager before it has read all.
	if errors.Is(err, syscall.EPIPE) {
		err = nil
	}
	var ended *exec.ExitError
	if errors.As(cmd.Wait(), &ended) && (ended.ExitCode() == notFound || ended.ExitCode() == notExecutable) {
		_, err = out.Write(text)
	}
	return err
}

// rows counts the lines that text takes on a screen of a width, on which long
// ones are wrapped.
func rows(text string, width int) int {
	n := 0
	for line := range strings.Lines(text) {
		n += 1 + max(columns(strings.TrimSuffix(line, "\n"))-1, 0)/max(width, 1)
	}
	return n
}

// columns counts the characters of a line without the sequences for colours,
// which begin with ESC [ and end with a letter.
func columns(line string) int {
	n := 0
	for {
		before, after, found := strings.Cut(line, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !found {
			return n
		}
		line = after[min(strings.IndexFunc(after+"m", isLetter)+1, len(after)):]
	}
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
