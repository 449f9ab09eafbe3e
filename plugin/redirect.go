package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"syscall"

	"nftnet/internal/control"
	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/port"
)

// statusError is an error that is answered with an HTTP status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// handleRedirects registers the requests of the administrator.
func handleRedirects(s *Server) {
	handleOwn(s, "GET "+control.PathRedirects, func(context.Context, struct{}) ([]control.Redirect, error) { return s.driver.Redirects(), nil })
	handleOwn(s, "POST "+control.PathRedirects, s.driver.AddRedirect)
	handleOwn(s, "POST "+control.PathRemoveRedirect, func(_ context.Context, req control.RedirectName) (libnetwork.Empty, error) {
		return libnetwork.Empty{}, s.driver.RemoveRedirect(req.Name)
	})
}

// handleOwn registers a request that is not of Docker's protocol: errors have
// a status.
func handleOwn[Req, Resp any](s *Server, pattern string, fn func(context.Context, Req) (Resp, error)) {
	s.handler.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		defer s.calls.Done()
		var req Req
		var resp Resp
		var err error
		if r.Method == http.MethodPost {
			if err = decode(r.Body, &req); err != nil {
				err = &statusError{http.StatusBadRequest, err}
			}
		}
		if err == nil {
			ctx, done := s.context(r)
			resp, err = fn(ctx, req)
			done()
		}
		if err == nil {
			level := slog.LevelInfo
			if r.Method == http.MethodGet {
				level = slog.LevelDebug // a list changes nothing
			}
			s.log.Log(r.Context(), level, "request", "name", pattern, "body", req)
			answer(w, http.StatusOK, resp)
			return
		}
		s.log.Warn("request", "name", pattern, "body", req, "error", err)
		status := http.StatusInternalServerError
		var known *statusError
		if errors.As(err, &known) {
			status = known.status
		}
		answer(w, status, control.Refusal{Err: err.Error()})
	})
}

// Redirects lists the redirects by port.
func (d *Driver) Redirects() []control.Redirect {
	out := []control.Redirect{}
	for _, r := range read(d, "list redirects", desired.State.SortedRedirects) {
		out = append(out, shownRedirect(r))
	}
	return out
}

func shownRedirect(r desired.Redirect) control.Redirect {
	out := control.Redirect{Name: r.Name, Proto: desired.ProtoName(r.Proto), Port: r.Port, To: r.To}
	if r.Address.IsValid() {
		out.Address = r.Address.String()
	}
	return out
}

// parseRedirect reads a request and fills in what it leaves out.
func parseRedirect(req control.Redirect) (desired.Redirect, error) {
	r := desired.Redirect{Name: req.Name, Port: req.Port, To: req.To}
	if req.Proto == "" {
		req.Proto = "tcp"
	}
	var ok bool
	if r.Proto, ok = desired.ProtoNumber(req.Proto); !ok {
		return r, fmt.Errorf("protocol %q is not allowed: tcp, udp and sctp are", req.Proto)
	}
	if req.Address != "" {
		a, err := netip.ParseAddr(req.Address)
		if err != nil {
			return r, fmt.Errorf("address %q is not allowed: one IPv4 or IPv6 address of this host is", req.Address)
		}
		r.Address = a.Unmap()
	}
	if r.Name == "" {
		r.Name = desired.RedirectName(r.Proto, r.Port)
	}
	return r, r.Validate()
}

// AddRedirect adds a redirect, and returns it as it is now.
func (d *Driver) AddRedirect(ctx context.Context, req control.Redirect) (control.Redirect, error) {
	r, err := parseRedirect(req)
	if err != nil {
		return control.Redirect{}, &statusError{http.StatusBadRequest, fmt.Errorf("cannot redirect port %d: %w", req.Port, err)}
	}
	err = d.pastDead(ctx, func() error { return d.addRedirect(r) })
	if err := d.named(ctx, err); err != nil {
		return control.Redirect{}, err
	}
	return shownRedirect(r), nil
}

// redirectsKey keeps changes of redirects and of published ports from each
// other: each looks whether the other has the port.
const redirectsKey = "redirects"

func (d *Driver) addRedirect(r desired.Redirect) error {
	defer d.calls.Lock(redirectsKey)()
	if err := d.ready(); err != nil {
		return &statusError{http.StatusServiceUnavailable, err}
	}
	if err := read(d, "add redirect", func(s desired.State) error { return checkRedirect(s, r) }); err != nil {
		return &statusError{http.StatusConflict, err}
	}
	if err := d.holdRedirect(r); err != nil {
		status := http.StatusConflict
		if port.IsMissingAddress(err) {
			status = http.StatusBadRequest
		}
		return &statusError{status, err}
	}
	part := read(d, "add redirect", func(s desired.State) desired.State { return s.RedirectPart(r.Name) })
	err := d.change("add redirect", part, nil, func(s *desired.State) { s.Redirects[r.Name] = r })
	if err != nil {
		d.releaseRedirect(r)
	}
	return err
}

func (d *Driver) releaseRedirect(r desired.Redirect) {
	for _, p := range r.Ports() {
		d.kernel.Release(p, r.Owner())
	}
}

// checkRedirect refuses a redirect that cannot be had beside another one, or
// beside a published port.
func checkRedirect(s desired.State, r desired.Redirect) error {
	for _, other := range s.SortedRedirects() {
		for _, p := range other.Ports() {
			if r.InTheWay(p) {
				return fmt.Errorf("cannot add %s: %s has port %s already", r, other, p.Key())
			}
		}
		for _, p := range r.Ports() {
			if other.InTheWay(p) {
				return fmt.Errorf("cannot add %s: %s leads to port %s", r, other, p.Key())
			}
		}
	}
	if other, ok := s.Redirects[r.Name]; ok {
		return fmt.Errorf("cannot add %s: the name is taken by %s, give another one by --name", r, other)
	}
	for _, e := range s.SortedEndpoints() {
		for _, p := range e.Published {
			if r.InTheWay(p) {
				return &redirectTakenError{redirect: r, publishedError: publishedError{port: p, owner: e}}
			}
		}
	}
	return nil
}

// redirectTakenError says that a container publishes a port that a redirect
// takes or leads to.
type redirectTakenError struct {
	publishedError
	redirect desired.Redirect
}

func (e *redirectTakenError) Error() string {
	return fmt.Sprintf("cannot add %s: endpoint %.12s of network %.12s, at %s, publishes host port %s",
		e.redirect, e.owner.ID, e.owner.NetworkID, e.port.Container.Addr(), e.port.Key())
}

// redirectedError says that a redirect has a host port, or leads to it.
type redirectedError struct {
	port     desired.Port
	redirect desired.Redirect
}

func (e *redirectedError) Error() string {
	has := "has it already"
	if e.redirect.Port != e.port.Host.Port() {
		has = "leads there, to a program on this host"
	}
	return fmt.Sprintf("cannot publish host port %s: %s %s (nftnet redirect rm %s gives it up)", e.port.Key(), e.redirect, has, e.redirect.Name)
}

// Unwrap makes the port one that is taken.
func (e *redirectedError) Unwrap() error { return syscall.EADDRINUSE }

// redirected refuses to publish a port that a redirect has or leads to.
func (d *Driver) redirected(p desired.Port) error {
	return read(d, "look for redirects", func(s desired.State) error {
		for _, r := range s.SortedRedirects() {
			if r.InTheWay(p) {
				return &redirectedError{port: p, redirect: r}
			}
		}
		return nil
	})
}

// holdRedirect holds the sockets of a redirect's port, all or none.
func (d *Driver) holdRedirect(r desired.Redirect) error {
	for _, p := range r.Ports() {
		if p.Host.Addr() == netip.IPv6Unspecified() && !port.HasIPv6() {
			continue
		}
		if err := d.kernel.Hold(p, r.Owner()); err != nil {
			d.releaseRedirect(r)
			return err
		}
	}
	return nil
}

// RemoveRedirect removes a redirect.
func (d *Driver) RemoveRedirect(name string) error {
	defer d.calls.Lock(redirectsKey)()
	if err := d.ready(); err != nil {
		return &statusError{http.StatusServiceUnavailable, err}
	}
	part := read(d, "remove redirect", func(s desired.State) desired.State { return s.RedirectPart(name) })
	if len(part.Redirects) == 0 {
		return &statusError{http.StatusNotFound, fmt.Errorf("there is no redirect %q: nftnet redirect ls lists them", name)}
	}
	return d.change("remove redirect", part, nil, func(s *desired.State) { delete(s.Redirects, name) })
}
