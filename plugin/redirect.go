package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"syscall"

	"nftnet/internal/desired"
	"nftnet/plugin/port"
)

// Where the driver's socket answers what redirects there are (GET), adds one
// (POST a [Redirect]), and removes one (POST a [RedirectName]).
const (
	PathRedirects      = "/nftnet/redirects"
	PathRemoveRedirect = PathRedirects + "/rm"
)

// Redirect is a host redirect in the driver's answers and requests.
type Redirect struct {
	// Name may be left out of a request: "80-tcp" is the name then.
	Name string `json:"name"`
	// Proto is "tcp", "udp" or "sctp"; tcp where a request leaves it out.
	Proto string `json:"proto"`
	// Port of the host leads to To, on every address where Address is empty.
	Port    uint16 `json:"port"`
	To      uint16 `json:"to"`
	Address string `json:"address,omitempty"`
}

// RedirectName is the request that removes a redirect.
type RedirectName struct {
	Name string `json:"name"`
}

// Refusal is the body of an answer with an error status.
type Refusal = errorResponse

// statusError is an error that is answered with an HTTP status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// handleRedirects registers the requests of the administrator.
func handleRedirects(s *Server) {
	handleOwn(s, "GET "+PathRedirects, func(context.Context, struct{}) ([]Redirect, error) { return s.driver.Redirects(), nil })
	handleOwn(s, "POST "+PathRedirects, s.driver.AddRedirect)
	handleOwn(s, "POST "+PathRemoveRedirect, func(_ context.Context, req RedirectName) (empty, error) {
		return empty{}, s.driver.RemoveRedirect(req.Name)
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
			resp, err = fn(r.Context(), req)
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
		answer(w, status, errorResponse{err.Error()})
	})
}

// Redirects lists the redirects by port.
func (d *Driver) Redirects() []Redirect {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []Redirect{}
	for _, r := range d.state.SortedRedirects() {
		out = append(out, shownRedirect(r))
	}
	return out
}

func shownRedirect(r desired.Redirect) Redirect {
	out := Redirect{Name: r.Name, Proto: desired.ProtoName(r.Proto), Port: r.Port, To: r.To}
	if r.Address.IsValid() {
		out.Address = r.Address.String()
	}
	return out
}

// parseRedirect reads a request and fills in what it leaves out.
func parseRedirect(req Redirect) (desired.Redirect, error) {
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
func (d *Driver) AddRedirect(ctx context.Context, req Redirect) (Redirect, error) {
	r, err := parseRedirect(req)
	if err != nil {
		return Redirect{}, &statusError{http.StatusBadRequest, fmt.Errorf("cannot redirect port %d: %w", req.Port, err)}
	}
	if err := d.named(ctx, d.addRedirect(r)); err != nil {
		return Redirect{}, err
	}
	return shownRedirect(r), nil
}

func (d *Driver) addRedirect(r desired.Redirect) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkRedirect(r); err != nil {
		return &statusError{http.StatusConflict, err}
	}
	if err := d.holdRedirect(r); err != nil {
		status := http.StatusConflict
		if port.IsMissingAddress(err) {
			status = http.StatusBadRequest
		}
		return &statusError{status, err}
	}
	err := d.changePart(d.state.RedirectPart(r.Name), func(s *desired.State) { s.Redirects[r.Name] = r })
	if err != nil {
		d.release(r.Ports(), redirectOwner(r))
	}
	return err
}

// checkRedirect refuses a redirect that another one, or a published port,
// stands in the way of. d.mu is held.
func (d *Driver) checkRedirect(r desired.Redirect) error {
	for _, other := range d.state.SortedRedirects() {
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
	if other, ok := d.state.Redirects[r.Name]; ok {
		return fmt.Errorf("cannot add %s: the name is taken by %s, give another one by --name", r, other)
	}
	for _, e := range d.state.SortedEndpoints() {
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

// named adds the container's name to an error that tells of an endpoint. d.mu
// is not held: Docker is asked.
func (d *Driver) named(ctx context.Context, err error) error {
	var taken *redirectTakenError
	if !errors.As(err, &taken) || d.containerName == nil {
		return err
	}
	if name := d.containerName(ctx, taken.owner.ID); name != "" {
		return fmt.Errorf("%w (container %s)", err, name)
	}
	return err
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

// redirected refuses to publish a port that a redirect has or leads to; d.mu is
// held.
func (d *Driver) redirected(p desired.Port) error {
	for _, r := range d.state.SortedRedirects() {
		if r.InTheWay(p) {
			return &redirectedError{port: p, redirect: r}
		}
	}
	return nil
}

// redirectOwner is who holds the ports of a redirect.
func redirectOwner(r desired.Redirect) string { return "redirect " + r.Name }

// holdRedirect holds the sockets of a redirect's port, all or none.
func (d *Driver) holdRedirect(r desired.Redirect) error {
	for _, p := range r.Ports() {
		if p.Host.Addr() == netip.IPv6Unspecified() && !port.HasIPv6() {
			continue
		}
		if err := d.ports.Hold(p, redirectOwner(r)); err != nil {
			d.release(r.Ports(), redirectOwner(r))
			return err
		}
	}
	return nil
}

// holdRedirects holds the ports of the restored redirects. The rules stand
// where a port cannot be held: they work without it.
func (d *Driver) holdRedirects() {
	for _, r := range d.state.SortedRedirects() {
		if err := d.holdRedirect(r); err != nil {
			d.log.Error("a redirected port was taken while nftnet was not running", "redirect", r.Name, "error", err)
		}
	}
}

// RemoveRedirect removes a redirect.
func (d *Driver) RemoveRedirect(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.state.Redirects[name]; !ok {
		return &statusError{http.StatusNotFound, fmt.Errorf("there is no redirect %q: nftnet redirect ls lists them", name)}
	}
	return d.changePart(d.state.RedirectPart(name), func(s *desired.State) { delete(s.Redirects, name) })
}
