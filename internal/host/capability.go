package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Capabilities that programs of this module need, by their numbers
// (linux/capability.h).
var capabilities = map[string]uint{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN}

// RequireCapability returns an error where this process lacks a capability.
func RequireCapability(name string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities of this process: %w", err)
	}
	bit := capabilities[name]
	if data[bit/32].Effective&(1<<(bit%32)) != 0 {
		return nil
	}
	return fmt.Errorf("%s is missing: run this as root, or give the process that capability", name)
}
