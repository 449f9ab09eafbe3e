package cli

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nftnet/inspect"
	"nftnet/internal/kernel"
)

// TestWhoChanged: a thread is told as its process, and one that is gone, or
// whose number is another's now, as the kernel named it.
func TestWhoChanged(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	name := comm("/proc/thread-self")
	for _, row := range []struct {
		from kernel.Generation
		want inspect.Process
	}{
		{kernel.Generation{PID: uint32(thread), Process: name}, inspect.Process{Name: comm("/proc/self"), PID: os.Getpid()}},
		{kernel.Generation{PID: uint32(thread), Process: "nft"}, inspect.Process{Name: "nft", PID: thread}},
		{kernel.Generation{PID: 1 << 30, Process: "nft"}, inspect.Process{Name: "nft", PID: 1 << 30}},
	} {
		if got := whoChanged(row.from); got != row.want {
			t.Errorf("%+v: %+v, want %+v", row.from, got, row.want)
		}
	}
}
