package link

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// Sysctls are the kernel parameters that a state depends on, held open to be
// read often: a change of some, such as route_localnet, is nowhere announced.
// It is not safe for concurrent use.
type Sysctls struct {
	files map[string]*sysctlFile
}

// sysctlFile is a parameter's file; fd is -1 while the kernel has none, because
// its interface is gone.
type sysctlFile struct {
	fd   int
	want string
}

// NewSysctls opens the parameters that a state needs.
func NewSysctls(st desired.State) *Sysctls {
	s := &Sysctls{files: map[string]*sysctlFile{}}
	s.Follow(st)
	return s
}

// Follow replaces the parameters by those of another state. What both need stays
// open.
func (s *Sysctls) Follow(st desired.State) {
	want := map[string]string{}
	for _, n := range st.Networks {
		for _, p := range append(hostSettings(n), bridgeSettings(n)...) {
			if p.guarded(n) {
				want[p.path] = strconv.Itoa(p.want)
			}
		}
	}
	for path, f := range s.files {
		if _, stays := want[path]; !stays {
			f.close()
			delete(s.files, path)
		}
	}
	for path, v := range want {
		if f := s.files[path]; f != nil {
			f.want = v
			continue
		}
		s.files[path] = &sysctlFile{fd: -1, want: v}
	}
}

// Drifted reports whether a parameter has another value than the state needs. A
// parameter whose interface is gone does not count: that is a fault of its own,
// of which [Watch] tells.
func (s *Sysctls) Drifted() (bool, error) {
	for path, f := range s.files {
		same, err := f.holds(path)
		if err != nil {
			return false, fmt.Errorf("read net/%s: %w", path, err)
		}
		if !same {
			return true, nil
		}
	}
	return false, nil
}

// Close lets go of the files.
func (s *Sysctls) Close() {
	for _, f := range s.files {
		f.close()
	}
	clear(s.files)
}

func (f *sysctlFile) close() {
	if f.fd >= 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
}

// holds reports whether the parameter has the value that it should have, or is
// missing.
func (f *sysctlFile) holds(path string) (bool, error) {
	if f.fd >= 0 {
		if same, err := f.compare(); err == nil {
			return same, nil
		}
		// The interface went, or was renamed: the file of its name is another one.
		f.close()
	}
	fd, err := unix.Open(filepath.Join(sysctlRoot, path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	f.fd = fd
	return f.compare()
}

func (f *sysctlFile) compare() (bool, error) {
	var text [16]byte
	n, err := unix.Pread(f.fd, text[:], 0)
	if err != nil {
		return false, err
	}
	return string(bytes.TrimSpace(text[:n])) == f.want, nil
}
