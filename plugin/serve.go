package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"nftnet/plugin/libnetwork"
	"os"
	"path/filepath"
	"sync"
	"syscall"
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
}

// NewServer is the HTTP side of a driver.
func NewServer(d *Driver, log *slog.Logger) *Server {
	s := &Server{driver: d, log: log, handler: sdk.NewHandler(manifest)}
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
	return s
}

// noBody are the calls that Docker sends without a body.
var noBody = map[string]bool{"GetCapabilities": true}

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
			answer(w, http.StatusBadRequest, libnetwork.ErrorResponse{Err: err.Error()})
			return
		}
		resp, err := fn(r.Context(), req)
		attrs := append([]any{"name", name}, idAttrs(req)...)
		attrs = append(attrs, "took", time.Since(start).Round(time.Microsecond))
		var bad *requestError
		switch {
		case errors.As(err, &bad):
			s.log.Warn("call", append(attrs, "error", err)...)
			answer(w, http.StatusBadRequest, libnetwork.ErrorResponse{Err: err.Error()})
		case err != nil:
			s.log.Error("call", append(attrs, "error", err)...)
			answer(w, http.StatusOK, libnetwork.ErrorResponse{Err: err.Error()})
		default:
			s.log.Info("call", attrs...)
			answer(w, http.StatusOK, resp)
		}
	})
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
	w.WriteHeader(status)
	// The caller is gone where this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// drainTimeout bounds how long a stop waits for calls under way.
const drainTimeout = 10 * time.Second

// Serve answers calls until ctx ends, then waits for those under way.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	err := s.handler.Serve(l)
	if ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	done := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(drainTimeout):
		return fmt.Errorf("calls were still under way %s after the stop", drainTimeout)
	}
}

// Listen makes the driver's socket. One that a dead process left behind is
// replaced; one that is answered is an error.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("socket %s is served by another process: is nftnet running already?", path)
	} else if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	// The socket commands the host's network: root's group at most.
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", path, err), l.Close())
	}
	return l, nil
}
