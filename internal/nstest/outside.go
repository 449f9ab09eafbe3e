package nstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// Outside runs fn with the helpers of this package outside of go test, for
// programs that show something in a sandbox. What fn's helpers report goes to
// log; the first failure ends fn, cleanups run in any case, and all failures
// are returned.
func Outside(ctx context.Context, log io.Writer, fn func(testing.TB)) error {
	t := &outside{ctx: ctx, log: log}
	// A failure ends the goroutine, as it ends that of a test.
	t.run(func() { fn(t) })
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		t.run(last)
	}
	return errors.Join(t.failures...)
}

// outside is the part of testing.TB that the package uses; the embedded
// interface is nil and only there because testing.TB cannot be implemented
// otherwise.
type outside struct {
	testing.TB
	ctx context.Context
	log io.Writer

	mu       sync.Mutex
	failures []error
	cleanups []func()
}

func (t *outside) run(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func (t *outside) fail(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, errors.New(text))
}

func (t *outside) Helper()                  {}
func (t *outside) Name() string             { return "outside" }
func (t *outside) Context() context.Context { return t.ctx }

func (t *outside) Cleanup(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, fn)
}

func (t *outside) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

func (t *outside) Log(args ...any)                 { _, _ = fmt.Fprintln(t.log, args...) }
func (t *outside) Logf(format string, args ...any) { _, _ = fmt.Fprintf(t.log, format+"\n", args...) }
func (t *outside) Error(args ...any)               { t.fail(fmt.Sprint(args...)) }
func (t *outside) Errorf(format string, args ...any) {
	t.fail(fmt.Sprintf(format, args...))
}

func (t *outside) Fatal(args ...any) {
	t.fail(fmt.Sprint(args...))
	runtime.Goexit()
}

func (t *outside) Fatalf(format string, args ...any) {
	t.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (t *outside) TempDir() string {
	dir, err := os.MkdirTemp("", "nftnet-")
	if err != nil {
		t.Fatalf("make temporary directory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (t *outside) Skip(args ...any) { t.Fatal(slices.Concat([]any{"cannot be skipped: "}, args)...) }
