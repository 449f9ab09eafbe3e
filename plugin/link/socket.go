package link

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// newsBuffer is how many bytes of news the kernel keeps for a reader that is
// late: some thousand messages.
const newsBuffer = 4 << 20

// newsSocket receives notifications of rtnetlink.
type newsSocket struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// openNews joins groups of rtnetlink. With everywhere, news of other network
// namespaces comes too, of those that this one has an id for; it needs
// CAP_NET_BROADCAST.
func openNews(everywhere bool, groups ...int) (*newsSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// The socket is one of the runtime's poller: closing it ends a read.
	s := &newsSocket{file: os.NewFile(uintptr(fd), "rtnetlink"), buf: make([]byte, 64<<10)}
	if err := s.join(fd, everywhere, groups); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

func (s *newsSocket) join(fd int, everywhere bool, groups []int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind a netlink socket: %w", err)
	}
	// Without CAP_NET_ADMIN the host's limit holds, and overruns come sooner.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, newsBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, newsBuffer)
	}
	if everywhere {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1); err != nil {
			return fmt.Errorf("listen to other network namespaces (needs CAP_NET_BROADCAST): %w", err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("join group %d of rtnetlink: %w", g, err)
		}
	}
	var err error
	s.raw, err = s.file.SyscallConn()
	return err
}

// errOverrun says that the kernel had more news than the socket holds and
// dropped some.
var errOverrun = errors.New("news was lost")

// read waits for news, or with wait false returns none where there is none. The
// messages are valid until the next call. After close it returns os.ErrClosed.
func (s *newsSocket) read(wait bool) ([]syscall.NetlinkMessage, error) {
	var n int
	var received error
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			n, _, received = unix.Recvfrom(int(fd), s.buf, 0)
			if received != unix.EINTR {
				return !wait || received != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		// The poller fails for one reason only.
		return nil, os.ErrClosed
	case received == unix.EAGAIN:
		return nil, nil
	case received == unix.ENOBUFS:
		return nil, errOverrun
	case received != nil:
		return nil, fmt.Errorf("receive from rtnetlink: %w", received)
	}
	return syscall.ParseNetlinkMessage(s.buf[:n])
}

func (s *newsSocket) close() error { return s.file.Close() }
