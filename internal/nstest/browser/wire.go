package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// wire carries the debugging protocol: JSON messages that end in a zero byte.
type wire struct {
	to, from *os.File
	events   events

	mu      sync.Mutex
	last    int
	waiting map[int]chan message
	err     error
}

// message is an answer, which has the id of its call, or an event.
type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct{ Message string }
}

// start starts a browser that reads calls from its file 3 and writes to 4.
func start(cmd *exec.Cmd) (*wire, error) {
	theirIn, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), to.Close())
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	err = cmd.Start()
	err = errors.Join(err, theirIn.Close(), theirOut.Close())
	if err != nil {
		return nil, errors.Join(err, to.Close(), from.Close())
	}
	w := &wire{to: to, from: from, waiting: map[int]chan message{}}
	go w.read()
	return w, nil
}

// read hands out what the browser says until it ends.
func (w *wire) read() {
	in := bufio.NewReader(w.from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			w.fail(fmt.Errorf("the browser has ended: %w", err))
			return
		}
		var m message
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			w.fail(fmt.Errorf("the browser says %.200q: %w", text, err))
			return
		}
		if m.ID == 0 {
			w.events.note(m)
			continue
		}
		w.mu.Lock()
		answer := w.waiting[m.ID]
		delete(w.waiting, m.ID)
		w.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// fail ends all calls.
func (w *wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	for id, answer := range w.waiting {
		close(answer)
		delete(w.waiting, id)
	}
}

// call asks for something and waits for the answer.
func (w *wire) call(session, method string, params object) (json.RawMessage, error) {
	answer := make(chan message, 1)
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return nil, w.err
	}
	w.last++
	id := w.last
	w.waiting[id] = answer
	w.mu.Unlock()
	if params == nil {
		params = object{}
	}
	call := object{"id": id, "method": method, "params": params}
	if session != "" {
		call["sessionId"] = session
	}
	text, err := json.Marshal(call)
	if err != nil {
		return nil, err
	}
	if _, err := w.to.Write(append(text, 0)); err != nil {
		return nil, err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return nil, w.err
		case m.Error != nil:
			return nil, errors.New(m.Error.Message)
		}
		return m.Result, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("no answer after %v", patience)
	}
}

// stop asks the browser to end, and ends what is left of its processes.
func (w *wire) stop(cmd *exec.Cmd) {
	_, _ = w.call("", "Browser.close", nil)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
	}
	_ = w.to.Close()
	_ = w.from.Close()
}
