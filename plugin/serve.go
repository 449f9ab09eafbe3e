package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"nftnet/plugin/libnetwork"
	"slices"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/sdk"

	"nftnet/internal/control"
)

// Manifest is what the driver tells Docker that it is.
const manifest = `{"Implements":["NetworkDriver"]}`

// maxBody bounds the length of a call in bytes: one with 65,535 published ports
// has some 8 MiB.
const maxBody = 32 << 20

// requestError is a request that is none: it is answered with status 400, so
// that Docker does not take the answer for that of the driver.
type requestError struct{ text string }

func (e *requestError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &requestError{fmt.Sprintf(format, args...)}
}

// Server answers calls on a listener.
type Server struct {
	driver  *Driver
	log     *slog.Logger
	handler sdk.Handler
	calls   sync.WaitGroup
	// stopping ends when calls are not to wait for other programs any more.
	stopping context.Context
	stop     context.CancelFunc
}

// NewServer is the HTTP side of a driver.
func NewServer(d *Driver, log *slog.Logger) *Server {
	s := &Server{driver: d, log: log, handler: sdk.NewHandler(manifest)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	handle(s, "GetCapabilities", d.getCapabilities)
	handle(s, "GwAllocCheck", d.gwAllocCheck)
	handle(s, "CreateNetwork", d.createNetwork)
	handle(s, "DeleteNetwork", d.deleteNetwork)
	handle(s, "CreateEndpoint", d.createEndpoint)
	handle(s, "DeleteEndpoint", d.deleteEndpoint)
	handle(s, "EndpointOperInfo", d.endpointOperInfo)
	handle(s, "Join", d.join)
	handle(s, "Leave", d.leave)
	handle(s, "ProgramExternalConnectivity", d.programExternalConnectivity)
	handle(s, "RevokeExternalConnectivity", d.revokeExternalConnectivity)
	// Discovery tells of other hosts of a cluster: there are none in local scope.
	handle(s, "DiscoverNew", func(context.Context, json.RawMessage) (libnetwork.Empty, error) { return libnetwork.Empty{}, nil })
	handle(s, "DiscoverDelete", func(context.Context, json.RawMessage) (libnetwork.Empty, error) { return libnetwork.Empty{}, nil })
	s.handler.HandleFunc(control.PathPorts, func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		defer s.calls.Done()
		answer(w, http.StatusOK, d.Published())
	})
	handleRedirects(s)
	handleProblems(s)
	return s
}

// noBody are the calls that Docker sends without a body.
var noBody = map[string]bool{"GetCapabilities": true, "EndpointOperInfo": true}

// changes reports whether a call changes anything.
func changes(name string) bool {
	switch name {
	case "GetCapabilities", "GwAllocCheck", "EndpointOperInfo", "DiscoverNew", "DiscoverDelete":
		return false
	}
	return true
}

// handle registers a call of the protocol. The log gets one line for each.
func handle[Req, Resp any](s *Server, name string, fn func(context.Context, Req) (Resp, error)) {
	s.handler.HandleFunc("/NetworkDriver."+name, func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		defer s.calls.Done()
		start := time.Now()
		var req Req
		err := decode(r.Body, &req)
		if errors.Is(err, io.EOF) && noBody[name] {
			err = nil
		}
		if err != nil {
			s.log.Warn("call", "name", name, "error", err)
			s.driver.unreadCall()
			answer(w, http.StatusBadRequest, libnetwork.ErrorResponse{Err: err.Error()})
			return
		}
		var resp Resp
		if changes(name) {
			if err = s.driver.ready(); err != nil {
				// Docker does not repeat it: what it does not know later was to go.
				s.driver.unreadCall()
			}
		}
		if err == nil {
			ctx, done := s.context(r)
			resp, err = fn(ctx, req)
			done()
		}
		attrs := append([]any{"name", name}, idAttrs(req)...)
		attrs = append(attrs, "took", time.Since(start).Round(time.Microsecond))
		var bad *requestError
		switch {
		case errors.As(err, &bad):
			s.log.Warn("call", append(attrs, "error", err)...)
			answer(w, http.StatusBadRequest, libnetwork.ErrorResponse{Err: err.Error()})
		case err != nil:
			s.log.Error("call", append(attrs, "error", err)...)
			// What Docker made of it is not known.
			s.driver.compareSoon()
			answer(w, http.StatusOK, libnetwork.ErrorResponse{Err: err.Error()})
		default:
			s.log.Info("call", attrs...)
			answer(w, http.StatusOK, resp)
		}
	})
}

// context is that of a request, which ends at a stop too.
func (s *Server) context(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	detach := context.AfterFunc(s.stopping, cancel)
	return ctx, func() {
		detach()
		cancel()
	}
}

// decode reads a call's body. An empty one is an error: after a broken
// connection Docker sends a call again without its body (facts: moby
// pkg/plugins/client.go callWithRetry), and would take an answer to nothing for
// the answer to its call.
func decode(body io.Reader, into any) error {
	dec := json.NewDecoder(io.LimitReader(body, maxBody))
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	return nil
}

// idAttrs are the ids in a request, for the log.
func idAttrs(req any) []any {
	var network, endpoint string
	switch r := req.(type) {
	case libnetwork.CreateNetworkRequest:
		network = r.NetworkID
	case libnetwork.NetworkRequest:
		network = r.NetworkID
	case libnetwork.CreateEndpointRequest:
		network, endpoint = r.NetworkID, r.EndpointID
	case libnetwork.EndpointRequest:
		network, endpoint = r.NetworkID, r.EndpointID
	case libnetwork.JoinRequest:
		network, endpoint = r.NetworkID, r.EndpointID
	case libnetwork.ConnectivityRequest:
		network, endpoint = r.NetworkID, r.EndpointID
	}
	var out []any
	if network != "" {
		out = append(out, "network", fmt.Sprintf("%.12s", network))
	}
	if endpoint != "" {
		out = append(out, "endpoint", fmt.Sprintf("%.12s", endpoint))
	}
	return out
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	// Docker would send its next call by a connection that a restart has closed
	// meanwhile, and send it again without its body.
	w.Header().Set("Connection", "close")
	w.WriteHeader(status)
	// The caller is gone where this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// How long a stop waits for calls under way, and then for those whose
// connections it has closed: a call that is sent by halves never ends.
const (
	drainTimeout = 400 * time.Millisecond
	cutTimeout   = 200 * time.Millisecond
)

// Serve answers calls until ctx ends, then waits for those under way.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	t := newTracker(l)
	defer s.stop()
	stop := context.AfterFunc(ctx, func() {
		s.stop()
		_ = l.Close()
	})
	defer stop()
	err := s.handler.Serve(t)
	if ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	done := make(chan struct{})
	go func() {
		// A connection that was accepted and not read yet is a call, too: each is
		// closed with its answer.
		t.wait()
		s.calls.Wait()
		close(done)
	}()
	if within(done, drainTimeout) {
		return nil
	}
	t.cut()
	if !within(done, cutTimeout) {
		s.log.Warn("calls were still under way at the stop", "waited", drainTimeout+cutTimeout)
	}
	return nil
}

func within(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// tracker knows the open connections of a listener.
type tracker struct {
	net.Listener
	mu    sync.Mutex
	none  *sync.Cond
	conns map[net.Conn]bool
}

func newTracker(l net.Listener) *tracker {
	t := &tracker{Listener: l, conns: map[net.Conn]bool{}}
	t.none = sync.NewCond(&t.mu)
	return t
}

// wait returns when no connection is open.
func (t *tracker) wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.conns) > 0 {
		t.none.Wait()
	}
}

// Accept implements net.Listener.
func (t *tracker) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: c, tracker: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[tracked] = true
	return tracked, nil
}

// cut closes the open connections.
func (t *tracker) cut() {
	t.mu.Lock()
	conns := slices.Collect(maps.Keys(t.conns))
	t.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

type trackedConn struct {
	net.Conn
	tracker *tracker
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.tracker.mu.Lock()
	delete(c.tracker.conns, c)
	if len(c.tracker.conns) == 0 {
		c.tracker.none.Broadcast()
	}
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}
