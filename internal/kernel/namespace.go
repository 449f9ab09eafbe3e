package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nsGetNSType asks a file of the kernel's for the kind of its namespace
// (NS_GET_NSTYPE of linux/nsfs.h).
const nsGetNSType = 0xb703

// OpenNamespace connects to nftables in the network namespace that a file
// stands for, such as /proc/1234/ns/net or /run/netns/blue.
func OpenNamespace(path string) (*Conn, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no right to look at the network namespace %s: root has it: %w", path, syscall.EACCES)
	case err != nil:
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), nsGetNSType)
	if err != nil || kind != unix.CLONE_NEWNET {
		return nil, fmt.Errorf("%s is no network namespace", path)
	}
	conn, err := OpenAt(int(f.Fd()))
	if errors.Is(err, syscall.EPERM) {
		return nil, fmt.Errorf("entering the network namespace %s needs root, or CAP_SYS_ADMIN: %w", path, syscall.EPERM)
	}
	return conn, err
}
