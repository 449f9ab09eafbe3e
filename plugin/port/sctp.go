package port

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"nftnet/internal/desired"
)

// sctpSocket holds an SCTP port, which no socket serves. The kernel may
// translate SCTP without having sockets for it: then nobody can take the port,
// and file is nil.
type sctpSocket struct{ file *os.File }

func bindSCTP(p desired.Port) (socket, error) {
	family := unix.AF_INET6
	if p.Host.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return sctpSocket{}, nil
	}
	if err != nil {
		return nil, err
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.Host.Port()), Addr: p.Host.Addr().Unmap().As4()}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(p.Host.Port()), Addr: p.Host.Addr().As16()}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil && p.FreeBind {
		err = freeBind(fd, p.Host.Addr())
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return sctpSocket{os.NewFile(uintptr(fd), p.Key())}, nil
}

func adoptSCTP(f *os.File, p desired.Port) (socket, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	err = control(raw, func(inherited int) (err error) {
		fd, err = unix.FcntlInt(uintptr(inherited), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sctpSocket{os.NewFile(uintptr(fd), p.Key())}, nil
}

func (s sctpSocket) serve(netip.AddrPort, desired.Sources) {}
func (s sctpSocket) hush()                                 {}
func (s sctpSocket) settle()                               {}
func (s sctpSocket) retire()                               {}

// SyscallConn returns an error where the kernel has no SCTP sockets.
func (s sctpSocket) SyscallConn() (syscall.RawConn, error) { return s.file.SyscallConn() }

func (s sctpSocket) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
