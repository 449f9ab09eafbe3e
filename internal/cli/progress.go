package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// Work that is done within the patience of a person is not spoken of.
const patience, tick = time.Second, time.Second

// progress tells on a terminal what takes so long, until stop is called.
func progress(errOut io.Writer, what string) (stop func()) {
	if file, ok := errOut.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}
	}
	return tellProgress(errOut, what, patience, tick)
}

// tellProgress rewrites one line of w each tick, and removes it at the end.
func tellProgress(w io.Writer, what string, patience, tick time.Duration) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(ended)
		wait := time.NewTimer(patience)
		defer wait.Stop()
		for told := false; ; told = true {
			select {
			case <-end:
				if told {
					_, _ = io.WriteString(w, "\r\x1b[K")
				}
				return
			case <-wait.C:
				_, _ = fmt.Fprintf(w, "\r\x1b[Knftnet: %s: %s", what, time.Since(start).Round(time.Second))
				wait.Reset(tick)
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
