package link

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Attached reports whether the host's end of an endpoint's veth pair is there,
// if by a name that somebody gave it. The kernel deletes it with the network
// namespace of the container.
func Attached(e desired.Endpoint) (bool, error) {
	if e.HostLink == "" {
		return false, nil
	}
	if kind, err := Kind(e.HostLink); err != nil || kind == kindVeth {
		return err == nil, err
	}
	list, err := dumpLinks(linkFilter{kind: kindVeth})
	if err != nil {
		return false, fmt.Errorf("look for interface %s under another name: %w", e.HostLink, err)
	}
	mac := vethMAC(e.ID)
	return slices.ContainsFunc(list, func(l seenLink) bool { return bytes.Equal(l.mac, mac) }), nil
}

// Connected reports whether an endpoint's veth pair leads into another network
// namespace, as that of a container that runs does.
func Connected(e desired.Endpoint) (bool, error) {
	if e.HostLink == "" {
		return false, nil
	}
	l, err := linkNamed(e.HostLink, kindVeth)
	if isMissing(err) {
		return false, nil
	}
	return err == nil && l.peerNamespace != here, err
}

// Life says whether something lives, as far as it can be seen.
type Life int

// The answers of [SandboxAlive].
const (
	Unknown Life = iota
	Alive
	Dead
)

// String returns the word for a log.
func (l Life) String() string { return [...]string{"unknown", "alive", "dead"}[l] }

// SandboxAlive reports whether a container's network namespace is still
// mounted where Docker put it (Endpoint.Sandbox). It is Dead where the folder of
// such mounts can be seen and this one is not in it, and Unknown where the
// folder cannot be seen, or holds a file in place of the mount: a driver with
// mounts of its own, such as a managed plugin, sees none of Docker's.
func SandboxAlive(key string) Life {
	var fs unix.Statfs_t
	switch err := unix.Statfs(key, &fs); {
	case err == nil && fs.Type == unix.NSFS_MAGIC:
		return Alive
	case errors.Is(err, unix.ENOENT) && filepath.IsAbs(key) && unix.Statfs(filepath.Dir(key), &fs) == nil:
		return Dead
	}
	return Unknown
}
