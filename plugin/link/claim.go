package link

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neededBy says who else needs forwarding; empty for nobody. As forwarding was
// off when the driver came, that is an interface with an IPv6 network that came
// later, or a bridge that had none.
func (f *Forwarding) neededBy(s Survey, links []seenLink) (string, error) {
	if f.was.Claimed {
		return "another program has switched it on, too", nil
	}
	if file := forwardingFile(); file != "" {
		return file + " switches it on", nil
	}
	routed, err := routedLinks()
	if err != nil {
		return "", err
	}
	v := s.view()
	for _, l := range links {
		before, known := f.was.Links[l.index]
		late := !known || l.kind == KindBridge && !before.Network && !v.isUplink(l)
		if late && s.hasNetwork(l, routed) {
			return "interface " + l.name + " has an IPv6 network", nil
		}
	}
	return "", nil
}

// hasNetwork reports whether an interface has IPv6 addresses or routes beyond its
// link.
func (s Survey) hasNetwork(l seenLink, routed map[int]bool) bool {
	return routed[l.index] || slices.ContainsFunc(s.addrs[l.index], func(a seenAddr) bool { return isWide(a.prefix.Addr()) })
}

func isWide(a netip.Addr) bool { return a.Is6() && a.IsGlobalUnicast() }

// isUplink reports whether a bridge has a port that leads off the host.
func (v view) isUplink(br seenLink) bool {
	return slices.ContainsFunc(v.survey.links, func(l seenLink) bool {
		return l.master == br.index && l.kind != kindVeth && l.kind != "tun"
	})
}

// routedLinks are the interfaces, by index, that IPv6 routes lead to, except
// those of everybody and of the link alone.
func routedLinks() (map[int]bool, error) {
	routes, err := netlink.RouteList(nil, unix.AF_INET6)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	out := map[int]bool{}
	for _, r := range routes {
		if r.Dst == nil || r.Type != unix.RTN_UNICAST {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		if bits, _ := r.Dst.Mask.Size(); ok && bits > 0 && isWide(a) {
			out[r.LinkIndex] = true
		}
	}
	return out, nil
}

// sysctlFiles are where programs read kernel parameters from at a boot
// (sysctl.d(5)).
var sysctlFiles = []string{
	"/etc/sysctl.conf", "/etc/sysctl.d/*.conf", "/run/sysctl.d/*.conf",
	"/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf", "/lib/sysctl.d/*.conf",
}

// forwardingFile is the file by which an administrator switches IPv6 forwarding
// on; empty where there is none.
func forwardingFile() string {
	for _, pattern := range sysctlFiles {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if switchesForwardingOn(name) {
				return name
			}
		}
	}
	return ""
}

func switchesForwardingOn(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), "=")
		key = strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(key), "-"), "/", ".")
		if value = strings.TrimSpace(value); ok && key == sysctlName(pathForward6) && value != "" && value != "0" {
			return true
		}
	}
	return false
}

// watchWrites begins to notice who else writes the parameter: a program that
// switches on what is on leaves no other trace. f.mu is held.
func (f *Forwarding) watchWrites() {
	if f.writes != nil {
		return
	}
	w, err := openWrites(pathForward6)
	if err != nil {
		f.log.Debug("watch who else switches IPv6 forwarding on", "error", err)
		return
	}
	f.writes = w
}

// noticeClaim notes that another program has switched forwarding on, although it
// was on; f.mu is held.
func (f *Forwarding) noticeClaim() {
	if f.was == nil || !f.writes.drain() || f.was.Claimed {
		return
	}
	if on, _, err := readSysctl(pathForward6); err != nil || on == 0 {
		return
	}
	f.was.Claimed = true
	f.save()
}

// writeWatch notices writes to a kernel parameter: of those that change nothing
// the kernel sends no message but by inotify(7). A nil one notices nothing.
type writeWatch struct{ fd int }

func openWrites(parameter string) (*writeWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(sysctlRoot, parameter), unix.IN_MODIFY); err != nil {
		return nil, errors.Join(fmt.Errorf("watch net/%s: %w", parameter, err), unix.Close(fd))
	}
	return &writeWatch{fd}, nil
}

// drain reports whether there was a write since the last call.
func (w *writeWatch) drain() bool {
	if w == nil {
		return false
	}
	var buf [4096]byte
	some := false
	for {
		n, err := unix.Read(w.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return some
		}
		some = true
	}
}

func (w *writeWatch) close() {
	if w != nil {
		_ = unix.Close(w.fd)
	}
}
