package port

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connection is a client's, and the one to its container.
type connection struct {
	client, container *net.TCPConn
	// from is the client's address, without a zone.
	from netip.Addr

	// mu protects what follows.
	mu sync.Mutex
	// gone ends what goes on for the client; nil for nothing.
	gone func()
	// silent is since when the client has sent its end and had nothing from the
	// container.
	silent time.Time
	// carried counts what the container sent.
	carried atomic.Uint64
	seen    uint64
}

// halfIdle is how long a client that has sent its end waits for a container that
// sends nothing: who has closed its connection looks the same. Where there are
// many connections it is less.
const (
	halfIdle       = 60 * time.Second
	halfIdleOfMany = 5 * time.Second
)

// onGone has fn called when the client turns out to be gone, until stop.
func (c *connection) onGone(fn func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = fn
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gone = nil
	}
}

// endIfGone ends what goes on for a client that has reset its connection, which
// nobody notices who does not read from it, or has sent its end and had nothing
// for so long.
func (c *connection) endIfGone(idle time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil {
		return
	}
	raw, err := c.client.SyscallConn()
	if err != nil {
		return
	}
	fds := []unix.PollFd{{Events: unix.POLLRDHUP}}
	if err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, _ = unix.Poll(fds, 0)
	}); err != nil {
		return
	}
	switch events := fds[0].Revents; {
	case events&unix.POLLERR != 0:
		c.gone()
	case events&unix.POLLRDHUP != 0:
		if n := c.carried.Load(); c.silent.IsZero() || n != c.seen {
			c.silent, c.seen = time.Now(), n
		} else if time.Since(c.silent) > idle {
			c.gone()
		}
	}
}

// relay carries a client's connection to the container, each direction until
// its sender closes it, and ends it when the socket leads elsewhere.
func (c *connection) relay(l *lead) {
	// What the container has sent to its end, the client may still get; a
	// transfer that was cut must not look like one that is complete.
	var complete atomic.Bool
	cut := func() {
		if complete.Load() {
			_ = c.client.Close()
		} else {
			reset(c.client)
		}
		reset(c.container)
	}
	defer context.AfterFunc(l.ctx, cut)()
	defer c.onGone(cut)()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(c.container, c.client, nil) })
	both.Go(func() { complete.Store(copyHalf(c.client, c.container, &c.carried)) })
	both.Wait()
	_ = c.client.Close()
	_ = c.container.Close()
}

// copyHalf carries one direction and reports whether it came to its end. An
// error on the way resets both ends, so that neither waits for the other.
func copyHalf(dst, src *net.TCPConn, carried *atomic.Uint64) bool {
	if err := carry(dst, src, carried); err != nil {
		reset(dst)
		_ = src.Close()
		return false
	}
	_ = dst.CloseWrite()
	return true
}

// chunk is the room for data under way. A connection has one only while data
// can be read and written. splice(2) would save the copy, but a pipe is two
// files for each direction, which io.Copy keeps for later.
type chunk [64 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// carry copies until the end of src.
func carry(dst, src *net.TCPConn, carried *atomic.Uint64) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	for {
		if err := await(from.Read, unix.POLLIN); err != nil {
			return err
		}
		if err := await(to.Write, unix.POLLOUT); err != nil {
			return err
		}
		n, err := carryOnce(dst, src)
		if carried != nil {
			carried.Add(uint64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func carryOnce(dst, src *net.TCPConn) (int, error) {
	buf := chunks.Get().(*chunk)
	defer chunks.Put(buf)
	n, err := src.Read(buf[:])
	if n > 0 {
		_, err = dst.Write(buf[:n])
	}
	return n, err
}

// await waits, by the Read or Write of a [syscall.RawConn], until a socket is
// ready.
func await(by func(func(uintptr) bool) error, events int16) error {
	return by(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
		return n > 0 || err != nil && !errors.Is(err, syscall.EINTR)
	})
}
