package pager

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal makes a terminal: what is written to out comes out at screen.
func terminal(t *testing.T, lines, width int) (out, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(lines), Col: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	out, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	return out, screen
}

// onScreen shows text on a terminal of ten lines of forty columns, and returns
// what comes to be seen.
func onScreen(t *testing.T, text string) (string, error) {
	t.Helper()
	out, screen := terminal(t, 10, 40)
	seen := make(chan string, 1)
	go func() {
		// It ends with an error, EIO, when the last writer is gone.
		b, _ := io.ReadAll(screen)
		seen <- strings.ReplaceAll(string(b), "\r\n", "\n")
	}()
	err := Show(out, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	_ = out.Close()
	select {
	case s := <-seen:
		return s, err
	case <-time.After(10 * time.Second):
		t.Fatal("the terminal is open still")
		return "", err
	}
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\x1b[1mline %d\x1b[m\n", i+1)
	}
	return b.String()
}

func TestShow(t *testing.T) {
	long, short := lines(30), lines(9)
	for name, row := range map[string]struct{ pager, text, want string }{
		"long":              {"sed s/line/LINE/", long, strings.ReplaceAll(long, "line", "LINE")},
		"short":             {"sed s/line/LINE/", short, short},
		"one line too many": {"sed s/line/LINE/", lines(10), strings.ReplaceAll(lines(10), "line", "LINE")},
		"wrapped":           {"tr x y", strings.Repeat("x", 400) + "\n", strings.Repeat("y", 400) + "\n"},
		"colours only":      {"tr x y", strings.Repeat("\x1b[31m", 400) + "x\n", strings.Repeat("\x1b[31m", 400) + "x\n"},
		"quit early":        {"head -n 1", strings.Repeat(long, 3000), "\x1b[1mline 1\x1b[m\n"},
		"that fails":        {"exec false", strings.Repeat(long, 3000), ""},
		"cat":               {"cat", long, long},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NFTNET_PAGER", row.pager)
			got, err := onScreen(t, row.text)
			if err != nil || got != row.want {
				t.Errorf("%v, on the screen is\n%q, want\n%q", err, got, row.want)
			}
		})
	}
}

// TestNoPager: one that is not there is done without.
func TestNoPager(t *testing.T) {
	t.Setenv("NFTNET_PAGER", "exec /nonexistent/pager 2>/dev/null")
	if got, err := onScreen(t, lines(30)); err != nil || got != lines(30) {
		t.Errorf("%v, on the screen is %q", err, got)
	}
}

// TestLess: less gets colours, and its words from us unless the user has some.
func TestLess(t *testing.T) {
	t.Setenv("PAGER", `echo "$LESS"`)
	t.Setenv("LESS", "S")
	if got, err := onScreen(t, lines(30)); err != nil || got != "S\n" {
		t.Errorf("%v, LESS is %q", err, got)
	}
	if err := os.Unsetenv("LESS"); err != nil {
		t.Fatal(err)
	}
	if got, err := onScreen(t, lines(30)); err != nil || got != "FRX\n" {
		t.Errorf("%v, LESS is %q", err, got)
	}
}

// TestNoTerminal: files and pipes get all, and errors come through.
func TestNoTerminal(t *testing.T) {
	t.Setenv("NFTNET_PAGER", "false")
	var b bytes.Buffer
	broken := errors.New("broken")
	err := Show(&b, func(w io.Writer) error {
		_, _ = io.WriteString(w, lines(30))
		return broken
	})
	if b.String() != lines(30) || !errors.Is(err, broken) {
		t.Errorf("%v, written is %q", err, b.String())
	}
	out, _ := terminal(t, 10, 40)
	if err := Show(out, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("on a terminal: %v", err)
	}
}

func TestCommand(t *testing.T) {
	for _, row := range []struct{ nftnet, pager, want string }{
		{"", "", "less"}, {"", "more", "more"}, {"less -S", "more", "less -S"}, {"cat", "more", ""}, {" ", "", ""},
	} {
		env := map[string]string{"NFTNET_PAGER": row.nftnet, "PAGER": row.pager}
		if got := command(func(name string) string { return env[name] }); got != row.want {
			t.Errorf("%+v: %q", row, got)
		}
	}
}
