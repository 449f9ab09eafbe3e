package plugin

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/internal/control"
)

// redirect sends a request of the administrator.
func (r *rig) redirect(t testing.TB, path string, body any) (int, string) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return r.post(t, strings.TrimPrefix(path, "/"), text)
}

func (r *rig) redirects(t testing.TB) string {
	t.Helper()
	resp, err := r.client.Get("http://driver" + control.PathRedirects)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("list redirects: %d, %v", resp.StatusCode, err)
	}
	return strings.TrimSpace(string(text))
}

func (r *rig) mustRedirect(t testing.TB, body m) {
	t.Helper()
	if status, text := r.redirect(t, control.PathRedirects, body); status != http.StatusOK {
		t.Fatalf("add redirect %v: %d %s", body, status, text)
	}
}

func TestRedirectComesAndGoes(t *testing.T) {
	r := newRig(t)
	before := table(t)
	if got := r.redirects(t); got != "[]" {
		t.Errorf("there are redirects at the start: %s", got)
	}
	status, text := r.redirect(t, control.PathRedirects, m{"port": 80, "to": 3000})
	want := `{"name":"80-tcp","proto":"tcp","port":80,"to":3000}`
	if status != http.StatusOK || strings.TrimSpace(text) != want {
		t.Errorf("add: %d %s, want %s", status, text, want)
	}
	r.mustRedirect(t, m{"name": "dns", "proto": "udp", "port": 53, "to": 5353, "address": "127.0.0.1"})
	r.mustRedirect(t, m{"port": 443, "to": 3443, "address": "::1"})
	r.mustRedirect(t, m{"port": 80, "to": 3000, "proto": "sctp"})
	r.consistent(t)
	got := table(t)
	for _, words := range []string{
		`tcp . 80 comment "redirect=80-tcp" : goto redirect-80-tcp`,
		`127.0.0.1 . udp . 53 comment "redirect=dns" : goto redirect-dns`,
		`::1 . tcp . 443 comment "redirect=443-tcp" : goto redirect-443-tcp`,
		`redirect to :3000`,
	} {
		if !strings.Contains(got, words) {
			t.Errorf("the table lacks %q:\n%s", words, got)
		}
	}
	for _, addr := range []string{"0.0.0.0:80", "[::]:80", "127.0.0.1:80"} {
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			t.Errorf("another program can listen on %s", addr)
		}
	}
	for i, name := range []string{"80-tcp", "dns", "443-tcp", "80-sctp"} {
		if n := strings.Count(r.redirects(t), `"name"`); n != 4-i {
			t.Errorf("%d redirects are listed, want %d", n, 4-i)
		}
		if status, text := r.redirect(t, control.PathRemoveRedirect, m{"name": name}); status != http.StatusOK {
			t.Errorf("remove %s: %d %s", name, status, text)
		}
		r.consistent(t)
	}
	if after := table(t); after != before {
		t.Errorf("something is left:\n%s", after)
	}
	if n := r.held(); n != 0 {
		t.Errorf("%d ports are still held", n)
	}
}

func TestRefusedRedirects(t *testing.T) {
	r := newRig(t)
	other, err := net.Listen("tcp4", "127.0.0.1:8088")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.mustRedirect(t, m{"name": "web", "port": 80, "to": 3000})
	before := table(t)
	for name, row := range map[string]struct {
		body   any
		status int
		words  string
	}{
		"no object":     {"text", 400, "request body"},
		"port missing":  {m{"to": 3000}, 400, "1 to 65535"},
		"port too high": {m{"port": 65536, "to": 3000}, 400, "65536"},
		"to itself":     {m{"port": 81, "to": 81}, 400, "to itself"},
		"protocol":      {m{"port": 81, "to": 82, "proto": "icmp"}, 400, `protocol "icmp" is not allowed: tcp, udp and sctp are`},
		"name":          {m{"port": 81, "to": 82, "name": "a b"}, 400, `name "a b" is not allowed`},
		"name a number": {m{"port": 81, "to": 82, "name": "81"}, 400, `name "81" is not allowed`},
		"name too long": {m{"port": 81, "to": 82, "name": strings.Repeat("x", 64)}, 400, "is not allowed: up to 63"},
		"address":       {m{"port": 81, "to": 82, "address": "localhost"}, 400, `address "localhost" is not allowed`},
		"any address":   {m{"port": 81, "to": 82, "address": "0.0.0.0"}, 400, "leave it out for every address"},
		"link-local":    {m{"port": 81, "to": 82, "address": "fe80::1"}, 400, "no link-local one"},
		"not ours":      {m{"port": 81, "to": 82, "address": "198.51.100.1"}, 400, "cannot redirect host port 198.51.100.1:81/tcp: the host has no such address"},
		"taken":         {m{"port": 8088, "to": 82}, 409, "cannot redirect host port 0.0.0.0:8088/tcp: another program on this host has it"},
		"same name":     {m{"name": "web", "port": 81, "to": 82}, 409, "the name is taken by redirect web (80/tcp to 3000)"},
		"again":         {m{"name": "web", "port": 80, "to": 3000}, 409, "redirect web (80/tcp to 3000) has port 0.0.0.0:80/tcp already"},
		"same port":     {m{"name": "web2", "port": 80, "to": 3001, "address": "127.0.0.1"}, 409, "redirect web (80/tcp to 3000) has port 0.0.0.0:80/tcp already"},
		"to a redirect": {m{"port": 81, "to": 80}, 409, "redirect web (80/tcp to 3000) has port"},
		"of a target":   {m{"port": 3000, "to": 82}, 409, "redirect web (80/tcp to 3000) leads to port 0.0.0.0:3000/tcp"},
	} {
		if status, text := r.redirect(t, control.PathRedirects, row.body); status != row.status || !strings.Contains(errText(t, text), row.words) {
			t.Errorf("%s: %d %s, want %d with %q", name, status, text, row.status, row.words)
		}
	}
	if status, text := r.redirect(t, control.PathRemoveRedirect, m{"name": "none"}); status != 404 || !strings.Contains(errText(t, text), `no redirect "none"`) {
		t.Errorf("remove an unknown one: %d %s", status, text)
	}
	if after := table(t); after != before {
		t.Errorf("the table changed:\n%s", after)
	}
	r.consistent(t)
}

func errText(t testing.TB, body string) string {
	t.Helper()
	var refused control.Refusal
	if err := json.Unmarshal([]byte(body), &refused); err != nil {
		t.Errorf("answer %q: %v", body, err)
	}
	return refused.Err
}

// TestRedirectAndPublishedPort: whoever is first keeps the port, and is named.
func TestRedirectAndPublishedPort(t *testing.T) {
	r := newRig(t)
	r.network(t, 1)
	r.attach(t, 1, 0, published(8080, 80))
	r.attach(t, 1, 1)
	for _, body := range []m{
		{"port": 8080, "to": 3000}, {"port": 8080, "to": 3000, "address": "127.0.0.1"}, {"port": 81, "to": 8080},
	} {
		status, text := r.redirect(t, control.PathRedirects, body)
		if status != 409 || !strings.Contains(text, "endpoint "+id(1000)[:12]) || !strings.Contains(text, "publishes host port 0.0.0.0:8080/tcp (container the-owner)") {
			t.Errorf("redirect %v: %d %s", body, status, text)
		}
	}
	r.mustRedirect(t, m{"port": 80, "to": 3000})
	for port, words := range map[int]string{
		80:   "cannot publish host port 0.0.0.0:80/tcp: redirect 80-tcp (80/tcp to 3000) has it already (nftnet redirect rm 80-tcp gives it up)",
		3000: "cannot publish host port 0.0.0.0:3000/tcp: redirect 80-tcp (80/tcp to 3000) leads there",
	} {
		refusal, _ := r.call(t, "ProgramExternalConnectivity", with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{published(port, 80)}}))
		if !strings.Contains(refusal, words) {
			t.Errorf("publish %d: %q, want %q", port, refusal, words)
		}
	}
	// A range goes on to the port behind it.
	r.ok(t, "ProgramExternalConnectivity", with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{
		{"Proto": 6, "Port": 80, "HostPort": 80, "HostPortEnd": 81}}}))
	if !strings.Contains(table(t), "tcp . 81 ") {
		t.Errorf("port 81 is not published:\n%s", table(t))
	}
	r.consistent(t)
}

// TestRedirectIsKept over a stop, and one that is gone does not come back.
func TestRedirectIsKept(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	r := newRigAt(t, state)
	r.mustRedirect(t, m{"port": 80, "to": 3000})
	r.mustRedirect(t, m{"port": 81, "to": 3000})
	r.redirect(t, control.PathRemoveRedirect, m{"name": "81-tcp"})
	before, list := table(t), r.redirects(t)
	r.stop()
	r = newRigAt(t, state)
	if after := table(t); after != before {
		t.Errorf("a restart changed the table:\n%s\nit was:\n%s", after, before)
	}
	if got := r.redirects(t); got != list || r.held() != 2 {
		t.Errorf("after the restart: %s and %d held ports, want %s and 2", got, r.held(), list)
	}
}

// FuzzRedirects sends any body to the requests of redirects, with a published
// port in their way: they answer, and state, table and sockets agree.
func FuzzRedirects(f *testing.F) {
	for _, body := range []string{
		`{"port":80,"to":3000}`, `{"name":"80-tcp"}`, `{"name":"dns","proto":"udp","port":53,"to":5353,"address":"127.0.0.1"}`,
		`{"port":8080,"to":3000,"address":"::1"}`, `{"port":3000,"to":80}`, `{"name":"_"}`, ``, `[]`,
	} {
		for _, remove := range []bool{false, true} {
			f.Add(remove, []byte(body))
		}
	}
	r := newRig(f)
	r.network(f, 1)
	r.attach(f, 1, 1, published(8080, 80))
	f.Fuzz(func(t *testing.T, remove bool, body []byte) {
		path := control.PathRedirects
		if remove {
			path = control.PathRemoveRedirect
		}
		status, text := r.post(t, strings.TrimPrefix(path, "/"), body)
		if status != 200 && status/100 != 4 || !json.Valid([]byte(text)) {
			t.Errorf("%s: status %d: %s", path, status, text)
		}
		r.consistent(t)
	})
}
