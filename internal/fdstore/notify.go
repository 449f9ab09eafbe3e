package fdstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// window is how many messages the service manager gets before it has to confirm
// them. Its socket is that of all services: it takes 11 datagrams where nobody
// raised net.unix.max_dgram_qlen, and systemd compares each descriptor to all
// those that it has. Without a bound, 1,000 ports would hold up the messages of
// everybody else.
const window = 8

// item is a name whose entry has work to do, or somebody who waits for all that
// stands before it.
type item struct {
	name   string
	waiter chan error
}

// message is a datagram for the service manager.
type message struct {
	text string
	// fd goes with it and is closed then; -1 for none.
	fd int
	// name is the one that the message is about, and removes says that it takes
	// it out of the store.
	name    string
	removes bool
}

// batch is what is sent before the next confirmation.
type batch struct {
	messages []message
	waiters  []chan error
}

// Barrier waits until the service manager has done all that was asked of it
// before (sd_notify_barrier(3)), or until ctx ends: then it returns ctx's error.
func (s *Store) Barrier(ctx context.Context) error {
	if s.manager == nil {
		return nil
	}
	done := make(chan error, 1)
	s.mu.Lock()
	s.queue = append(s.queue, item{waiter: done})
	s.start()
	s.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the service manager: %w", ctx.Err())
	}
}

// enqueue has a name's work done; mu is held.
func (s *Store) enqueue(name string, e *entry) {
	if !e.queued {
		e.queued = true
		s.queue = append(s.queue, item{name: name})
	}
	s.start()
}

// start has the queue emptied by one goroutine, which ends when it is; mu is
// held.
func (s *Store) start() {
	if !s.running {
		s.running = true
		go s.run()
	}
}

func (s *Store) run() {
	conn, dialErr := net.DialUnix("unixgram", nil, s.manager)
	if dialErr == nil {
		defer conn.Close()
	}
	for {
		b, ok := s.next()
		if !ok {
			return
		}
		err := dialErr
		if err == nil {
			err = s.deliver(conn, b.messages)
		} else {
			closeMessages(b.messages)
		}
		if err != nil && !s.failing {
			// Once is enough: thousands of ports may follow.
			s.log.Warn("reach the service manager", "socket", s.manager.Name, "error", err)
		}
		s.failing = err != nil
		s.confirm(b, err)
	}
}

// next takes a batch from the queue; without one, the goroutine is to end.
func (s *Store) next() (batch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b batch
	for len(s.queue) > 0 && len(b.messages) < window {
		first := s.queue[0]
		s.queue = s.queue[1:]
		if first.waiter != nil {
			b.waiters = append(b.waiters, first.waiter)
			continue
		}
		b.messages = append(b.messages, s.work(first.name)...)
	}
	if len(b.messages) == 0 && len(b.waiters) == 0 {
		s.queue, s.running = nil, false
		return b, false
	}
	return b, true
}

// work is what an entry's messages are; mu is held.
func (s *Store) work(name string) []message {
	e := s.entries[name]
	e.queued = false
	var out []message
	if e.remove {
		e.remove, e.sent = false, false
		out = append(out, message{text: "FDSTOREREMOVE=1\nFDNAME=" + name, fd: -1, name: name, removes: true})
	}
	if e.put != nil {
		// Not before: thousands may wait, and each costs a descriptor.
		fd, err := duplicate(e.put)
		if err == nil {
			// FDPOLL=0: a socket with an error, as UDP has one after each ICMP
			// message, is no reason to close it.
			out = append(out, message{text: "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, fd: fd, name: name})
		} else {
			s.log.Warn("store descriptor", "name", name, "error", err)
			s.length -= len(name) + 1
		}
		e.put, e.sent = nil, err == nil
	}
	s.forgetEmpty(name)
	return out
}

// deliver sends messages and waits until the service manager has read them.
func (s *Store) deliver(conn *net.UnixConn, messages []message) error {
	for i, m := range messages {
		var rights []byte
		if m.fd >= 0 {
			rights = unix.UnixRights(m.fd)
		}
		if err := send(conn, m.text, rights); err != nil {
			closeMessages(messages[i:])
			return fmt.Errorf("send %q: %w", m.text, err)
		}
		closeMessages(messages[i : i+1])
	}
	return barrier(conn)
}

// send waits while the service manager's queue is full. net.UnixConn sends no
// rights by a connected datagram socket, and the room in the queue wakes no
// other one.
func send(conn *net.UnixConn, text string, rights []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte(text), rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// barrier sends the end of a pipe, which the service manager closes when it has
// come to it.
func barrier(conn *net.UnixConn) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	defer r.Close()
	raw, err := w.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error {
			return send(conn, "BARRIER=1", unix.UnixRights(fd))
		})
	}
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	// Nobody writes: this returns when the last duplicate is closed.
	_, _ = r.Read(make([]byte, 1))
	return nil
}

func closeMessages(messages []message) {
	for _, m := range messages {
		if m.fd >= 0 {
			_ = unix.Close(m.fd)
		}
	}
}

// confirm ends the wait for a batch. After an error nobody knows what the
// service manager has: it is as if it had got all, so that a later drop is sent.
func (s *Store) confirm(b batch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range b.messages {
		if !m.removes {
			continue
		}
		if s.leaving[m.name]--; s.leaving[m.name] <= 0 {
			delete(s.leaving, m.name)
		}
	}
	for _, w := range b.waiters {
		w <- err
	}
}
