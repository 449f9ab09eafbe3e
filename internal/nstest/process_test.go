package nstest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"nftnet/internal/nstest"
)

// TestStartWith: each start of a process has its own preparation, whose files
// are not left open.
func TestStartWith(t *testing.T) {
	t.Parallel()
	sb := nstest.NewSandbox(t)
	var files []*os.File
	p := sb.StartWith(t, "prepared", func(cmd *exec.Cmd) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		files = append(files, r)
		_, err = fmt.Fprintf(w, "start %d\n", len(files))
		cmd.ExtraFiles = []*os.File{r}
		cmd.Env = append(cmd.Environ(), "PREPARED=yes")
		return errors.Join(err, w.Close())
	}, "sh", "-c", `cat <&3; echo "$PREPARED"`)
	for _, want := range []string{"start 1\nyes\n", "start 2\nyes\n"} {
		if err := p.Wait(t, 20*second); err != nil || p.Log() != want {
			t.Errorf("the process ends with %v and prints %q, want %q", err, p.Log(), want)
		}
		if len(files) == 1 {
			p.Restart(t)
		}
	}
	for i, f := range files {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the file of start %d is left open", i+1)
		}
	}
}
