package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// The kernel builds dump messages as large as the reader's buffer, up to
	// 32 KiB, and walks a chain from its first rule for each: small buffers make
	// a dump quadratic.
	receiveBuffer = 64 << 10
	// Room in the socket for the answers to a batch.
	socketBuffer = 8 << 20
	// The kernel answers at once; this bounds a wait for an answer that was lost.
	answerTimeout = 30 * time.Second
)

// header is the fixed part of a netlink message (linux/netlink.h).
type header struct {
	typ   uint16
	flags uint16
	seq   uint32
	// port is the netlink port of who sent the message, or caused it.
	port uint32
}

const headerLen = 16

// socket is a netlink socket of the netfilter family. Messages are sent and
// received as bytes, so that every answer keeps its sequence number: that is
// how an error finds the change that caused it.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	seq  uint32
	buf  []byte
	// second is a buffer beside buf, for dumps.
	second []byte
}

// openSocket opens a socket in the network namespace behind the descriptor
// netns, or in the caller's own where netns is 0.
func openSocket(netns int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open netfilter netlink socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netfilter netlink socket: %w", err), conn.Close())
	}
	// Best effort: smaller buffers and longer error messages do no harm.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	_ = conn.SetOption(netlink.CapAcknowledge, true)
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	return &socket{conn: conn, raw: raw, buf: make([]byte, receiveBuffer)}, nil
}

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) nextSeq() uint32 {
	s.seq++
	return s.seq
}

// appendMessage adds a message of nftables to b (struct nlmsghdr and struct
// nfgenmsg before the attributes).
func appendMessage(b []byte, h header, family uint8, resource uint16, body []byte) []byte {
	n := headerLen + 4 + len(body)
	b = binary.NativeEndian.AppendUint32(b, uint32(n))
	b = binary.NativeEndian.AppendUint16(b, h.typ)
	b = binary.NativeEndian.AppendUint16(b, h.flags)
	b = binary.NativeEndian.AppendUint32(b, h.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (s *socket) send(b []byte) error {
	if len(b) > socketBuffer/2 {
		if err := s.conn.SetWriteBuffer(2 * len(b)); err != nil {
			return fmt.Errorf("enlarge the socket's send buffer to %d bytes: %w", 2*len(b), err)
		}
	}
	var sendErr error
	err := s.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

// receive hands every message of the next datagram to fn, an answer of the
// kernel.
func (s *socket) receive(fn func(header, []byte) error) error {
	return s.receiveBy(time.Now().Add(answerTimeout), fn)
}

// receiveBy is receive with a deadline; the zero time waits for ever.
func (s *socket) receiveBy(deadline time.Time, fn func(header, []byte) error) error {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	b, err := s.next(s.buf)
	if err != nil {
		return err
	}
	return eachMessage(b, fn)
}

// receiveInto is the next datagram, an answer of the kernel.
func (s *socket) receiveInto(buf []byte) ([]byte, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, fmt.Errorf("set read deadline: %w", err)
	}
	return s.next(buf)
}

func (s *socket) next(buf []byte) ([]byte, error) {
	var n int
	var recvErr error
	err := s.raw.Read(func(fd uintptr) bool {
		n, _, recvErr = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC)
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	if err := errors.Join(err, recvErr); err != nil {
		return nil, fmt.Errorf("receive from netfilter: %w", err)
	}
	if n > len(buf) {
		return nil, fmt.Errorf("receive from netfilter: message of %d bytes does not fit %d", n, len(buf))
	}
	return buf[:n], nil
}

// eachMessage splits a datagram into its messages.
func eachMessage(b []byte, fn func(header, []byte) error) error {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return errTruncated
		}
		h := header{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			port:  binary.NativeEndian.Uint32(b[12:]),
		}
		if err := fn(h, b[headerLen:n]); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// errnoOf reads the error of an NLMSG_ERROR message; nil for an acknowledgement.
func errnoOf(body []byte) error {
	if len(body) < 4 {
		return errTruncated
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	return syscall.Errno(-code)
}

// errInterrupted says that the ruleset changed while it was being read.
var errInterrupted = errors.New("the ruleset changed while it was read")

// dump asks for all objects of a kind and hands each one's attributes to fn.
func (s *socket) dump(msg int, family uint8, body []byte, fn func(family uint8, as attrs, raw []byte) error) error {
	return s.request(msg, unix.NLM_F_DUMP, family, body, fn)
}

// get asks for one object.
func (s *socket) get(msg int, family uint8, body []byte, fn func(family uint8, as attrs, raw []byte) error) error {
	return s.request(msg, unix.NLM_F_ACK, family, body, fn)
}

func (s *socket) request(msg int, flags uint16, family uint8, body []byte, fn func(uint8, attrs, []byte) error) error {
	seq := s.nextSeq()
	h := header{typ: nftMessage(msg), flags: unix.NLM_F_REQUEST | flags, seq: seq}
	if err := s.send(appendMessage(nil, h, family, 0, body)); err != nil {
		return fmt.Errorf("send to netfilter: %w", err)
	}
	receive := s.receive
	if flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
		ahead := s.readAhead(seq)
		defer ahead.stop()
		receive = ahead.receive
	}
	interrupted := false
	for done := false; !done; {
		err := receive(func(h header, b []byte) error {
			if h.seq != seq {
				return nil
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch h.typ {
			case unix.NLMSG_DONE:
				done = true
				return errnoOf(b)
			case unix.NLMSG_ERROR:
				done = true
				return errnoOf(b)
			}
			if len(b) < 4 {
				return errTruncated
			}
			as, err := parseAttrs(b[4:])
			if err != nil {
				return err
			}
			return fn(b[0], as, b[4:])
		})
		if err != nil {
			return err
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

func nftMessage(msg int) uint16 { return uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | msg) }

// drain throws away what is still in the socket from a request that failed
// half way.
func (s *socket) drain() {
	_ = s.raw.Read(func(fd uintptr) bool {
		for range 1 << 16 {
			if _, _, err := unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.ENOBUFS) {
				break
			}
		}
		return true
	})
}

// isTimeout says whether an answer did not come in time.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
