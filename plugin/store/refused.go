package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// A RefusedError says that the disk did not take a change, which is then as if
// it had not been asked for. Err is the system's reason (ENOSPC, EDQUOT, EROFS,
// EIO), for errors.Is.
type RefusedError struct {
	Path string
	Err  error
	// Free and Size are what the file system of Path has left for this process
	// and in all, in bytes; both 0 where it does not tell.
	Free, Size uint64
}

// advice is what the user can do about a reason. %s is the folder of the file.
var advice = map[syscall.Errno]string{
	syscall.ENOSPC: "free some space for %s and try again",
	syscall.EDQUOT: "raise the disk quota for %s and try again",
	syscall.EROFS:  "make the file system of %s writable and try again (if the kernel made it read-only, dmesg tells why)",
	syscall.EIO:    "check the disk of %s (dmesg tells what failed)",
	syscall.EPERM:  "check the attributes of the files in %s (lsattr)",
	syscall.EACCES: "run nftnet as root, or give it the right to write to %s",
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("state file %s cannot be written: %v", e.Path, e.Err)
	if e.Size > 0 {
		text += fmt.Sprintf(" (%s of %s left on its file system)", amount(e.Free), amount(e.Size))
	}
	var reason syscall.Errno
	if errors.As(e.Err, &reason) && advice[reason] != "" {
		text += ": " + fmt.Sprintf(advice[reason], filepath.Dir(e.Path))
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// refused describes why the file at path was not written: as a RefusedError
// where the system gives the reason.
func refused(path string, err error) error {
	var already *RefusedError
	if err == nil || errors.As(err, &already) {
		return err
	}
	if reason := syscall.Errno(0); !errors.As(err, &reason) {
		return fmt.Errorf("state file %s: %w", path, err)
	}
	// The path is told already, and that of a file not complete yet says nothing.
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	e := &RefusedError{Path: path, Err: err}
	var st syscall.Statfs_t
	if syscall.Statfs(filepath.Dir(path), &st) == nil {
		e.Free, e.Size = st.Bavail*uint64(st.Frsize), st.Blocks*uint64(st.Frsize)
	}
	return e
}

// isFull reports whether err says that there is no room, so that a smaller
// change may still fit.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// amount writes a number of bytes for people.
func amount(n uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/(1<<10), 0
	for ; f >= 1<<10 && i < len(units)-1; i++ {
		f /= 1 << 10
	}
	return fmt.Sprintf("%.4g %s", f, units[i])
}
