package host

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProcessOf: a thread is told as its process, and one that is gone, or
// whose number is another's now, as the kernel named it.
func TestProcessOf(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	name := comm("/proc/thread-self")
	for _, row := range []struct {
		thread int
		name   string
		want   Process
	}{
		{thread, name, Process{Name: comm("/proc/self"), PID: os.Getpid()}},
		{thread, "nft", Process{Name: "nft", PID: thread}},
		{1 << 30, "nft", Process{Name: "nft", PID: 1 << 30}},
	} {
		if got := ProcessOf(row.thread, row.name); got != row.want {
			t.Errorf("thread %d, %q: %+v, want %+v", row.thread, row.name, got, row.want)
		}
	}
}
