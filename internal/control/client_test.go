package control_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"nftnet/internal/control"
)

// serve answers on a socket, and is a client of it.
func serve(t *testing.T, h http.Handler) control.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "driver.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return control.Client{Socket: socket}
}

// TestClient: what the driver answers comes back, and what it is asked arrives.
func TestClient(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nftnet/ports", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"host": "0.0.0.0:80", "container": "10.0.0.2:8080", "proto": "tcp", "served": true}]`)
	})
	mux.HandleFunc("GET /nftnet/redirects", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"name": "80-tcp", "proto": "tcp", "port": 80, "to": 3000}]`)
	})
	mux.HandleFunc("POST /nftnet/redirects", func(w http.ResponseWriter, req *http.Request) {
		var r control.Redirect
		if err := json.NewDecoder(req.Body).Decode(&r); err != nil {
			t.Error(err)
		}
		r.Name = "named"
		_ = json.NewEncoder(w).Encode(r)
	})
	mux.HandleFunc("POST /nftnet/redirects/rm", func(w http.ResponseWriter, req *http.Request) {
		var r control.RedirectName
		if err := json.NewDecoder(req.Body).Decode(&r); err != nil || r.Name != "named" {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(control.Refusal{Err: fmt.Sprintf("there is no redirect %q", r.Name)})
			return
		}
		fmt.Fprint(w, "{}")
	})
	c := serve(t, mux)
	ports, err := c.Ports(t.Context())
	if want := []control.Port{{Host: "0.0.0.0:80", Container: "10.0.0.2:8080", Proto: "tcp", Served: true}}; err != nil || !reflect.DeepEqual(ports, want) {
		t.Errorf("ports: %+v, %v", ports, err)
	}
	redirects, err := c.Redirects(t.Context())
	if want := []control.Redirect{{Name: "80-tcp", Proto: "tcp", Port: 80, To: 3000}}; err != nil || !reflect.DeepEqual(redirects, want) {
		t.Errorf("redirects: %+v, %v", redirects, err)
	}
	added, err := c.AddRedirect(t.Context(), control.Redirect{Proto: "udp", Port: 53, To: 5353})
	if want := (control.Redirect{Name: "named", Proto: "udp", Port: 53, To: 5353}); err != nil || added != want {
		t.Errorf("added: %+v, %v", added, err)
	}
	if err := c.RemoveRedirect(t.Context(), "named"); err != nil {
		t.Error(err)
	}
	if err := c.RemoveRedirect(t.Context(), "none"); err == nil || err.Error() != `there is no redirect "none"` {
		t.Errorf("the driver's refusal: %v", err)
	}
}

// TestNoDriver: an error says which socket, and what to do.
func TestNoDriver(t *testing.T) {
	other := serve(t, http.NotFoundHandler())
	if _, err := other.Ports(t.Context()); err == nil || !strings.Contains(err.Error(), other.Socket+" is no nftnet of this version: it answers 404") {
		t.Errorf("another program: %v", err)
	}
	words := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	if _, err := words.Ports(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "read the driver's answer: ") {
		t.Errorf("what is no JSON: %v", err)
	}
	missing := control.Client{Socket: filepath.Join(t.TempDir(), "none.sock")}
	if _, err := missing.Ports(t.Context()); err == nil || !strings.HasPrefix(err.Error(), `"nftnet serve" is not running on `+missing.Socket) {
		t.Errorf("no socket: %v", err)
	}
}
