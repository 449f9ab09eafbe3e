package kernel

import (
	"io"

	"golang.org/x/sys/unix"
)

// ahead receives the datagrams of a dump while the one before is decoded: the
// kernel makes each when it is asked for, which takes as long as decoding it.
type ahead struct {
	filled chan datagram
	empty  chan []byte
	quit   chan struct{}
}

type datagram struct {
	bytes []byte
	err   error
}

// readAhead begins to receive the answer to a request.
func (s *socket) readAhead(seq uint32) *ahead {
	a := &ahead{filled: make(chan datagram), empty: make(chan []byte, 2), quit: make(chan struct{})}
	if s.second == nil {
		s.second = make([]byte, receiveBuffer)
	}
	a.empty <- s.buf
	a.empty <- s.second
	go a.run(s, seq)
	return a
}

// run receives until the dump ends, or nobody wants it any more. What is left in
// the socket then is thrown away by drain.
func (a *ahead) run(s *socket, seq uint32) {
	defer close(a.filled)
	for last := false; !last; {
		var buf []byte
		select {
		case buf = <-a.empty:
		case <-a.quit:
			return
		}
		b, err := s.receiveInto(buf)
		last = err != nil
		if err == nil {
			// A datagram that cannot be split is its decoder's to report.
			last = eachMessage(b, func(h header, _ []byte) error {
				if h.seq == seq && (h.typ == unix.NLMSG_DONE || h.typ == unix.NLMSG_ERROR) {
					return io.EOF
				}
				return nil
			}) != nil
		}
		select {
		case a.filled <- datagram{b, err}:
		case <-a.quit:
			return
		}
	}
}

// receive hands every message of the next datagram to fn.
func (a *ahead) receive(fn func(header, []byte) error) error {
	d, ok := <-a.filled
	if !ok {
		return io.ErrUnexpectedEOF
	}
	if d.err != nil {
		return d.err
	}
	err := eachMessage(d.bytes, fn)
	a.empty <- d.bytes[:cap(d.bytes)]
	return err
}

// stop returns when nothing is received any more.
func (a *ahead) stop() {
	close(a.quit)
	for range a.filled {
	}
}
