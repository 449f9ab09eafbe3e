package engine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nftnet/inspect"
)

const (
	webID = "4f2a9c01d3e5b6a7889900112233445566778899aabbccddeeff001122334455"
	labID = "b7d0e88812ab34cd56ef77889900aabbccddeeff00112233445566778899aabb"
	oldID = "0c9d8e7f6a5b4c3d2e1f00112233445566778899aabbccddeeff001122334455"
)

const networksJSON = `[
 {"Name":"web","Id":"` + webID + `","Driver":"registry.example/org/nftnet:latest",
  "IPAM":{"Config":[{"Subnet":"10.0.1.0/24","Gateway":"10.0.1.1/24"},{"Subnet":"fd00:1::/64","Gateway":"fd00:1::1"}]}},
 {"Name":"lab","Id":"` + labID + `","Driver":"bridge","Options":{}},
 {"Name":"bridge","Id":"` + oldID + `","Driver":"bridge","Options":{"com.docker.network.bridge.name":"docker0"}},
 {"Name":"host","Id":"11","Driver":"host","IPAM":{"Config":[{"Subnet":"nonsense"}]}}
]`

const containersJSON = `[
 {"Id":"c1c1c1c1c1c1c1c1","Names":["/proxy/alias","/web-1"],
  "NetworkSettings":{"Networks":{"web":{"NetworkID":"` + webID + `","EndpointID":"e1","IPAddress":"10.0.1.2","GlobalIPv6Address":"fd00:1::2"},
   "lab":{"NetworkID":"` + labID + `","EndpointID":"","IPAddress":""}}}},
 {"Id":"c2c2c2c2c2c2c2c2","Names":[],"NetworkSettings":{"Networks":{"lab":{"NetworkID":"` + labID + `","EndpointID":"e2","IPAddress":"10.0.2.2"}}}},
 {"Id":"c3","Names":["/gone"]}
]`

// fakeEngine answers on a unix socket as an engine of API version 1.41 does.
func fakeEngine(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handle, ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return "unix://" + socket
}

func answer(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		body := "OK"
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			t.Errorf("the engine was asked to %s %s", r.Method, r.URL)
		case strings.HasSuffix(r.URL.Path, "/v1.41/networks"):
			body = networksJSON
		case strings.HasSuffix(r.URL.Path, "/v1.41/containers/json"):
			body = containersJSON
		case r.URL.Path != "/_ping":
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	}
}

func TestNames(t *testing.T) {
	c, err := Connect(t.Context(), fakeEngine(t, answer(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	got, err := c.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := inspect.Names{
		Networks: []inspect.Network{
			{ID: webID, Name: "web", Driver: "registry.example/org/nftnet:latest", Bridge: "nft-4f2a9c01d3e", Subnets: []inspect.Subnet{
				{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")},
				{Prefix: netip.MustParsePrefix("fd00:1::/64"), Gateway: netip.MustParseAddr("fd00:1::1")},
			}},
			{ID: labID, Name: "lab", Driver: "bridge", Bridge: "br-b7d0e88812ab"},
			{ID: oldID, Name: "bridge", Driver: "bridge", Bridge: "docker0"},
			{ID: "11", Name: "host", Driver: "host"},
		},
		Endpoints: []inspect.Endpoint{
			{ID: "e1", NetworkID: webID, Container: "web-1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("fd00:1::2")}},
			{ID: "e2", NetworkID: labID, Container: "c2c2c2c2c2c2", Addrs: []netip.Addr{netip.MustParseAddr("10.0.2.2")}},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Error(d)
	}
}

func TestConnectTakesTheHostFromTheEnvironment(t *testing.T) {
	t.Setenv("DOCKER_HOST", fakeEngine(t, answer(t)))
	c, err := Connect(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestErrorsAreOneLine: the text stands behind "names are missing:".
func TestErrorsAreOneLine(t *testing.T) {
	release := make(chan struct{})
	hung := fakeEngine(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, host, want string
		is               error
	}{
		{"missing", "unix:///nonexistent/docker.sock", "docker engine at unix:///nonexistent/docker.sock: connect: no such file or directory", fs.ErrNotExist},
		{"not a socket", "unix://" + file, "docker engine at unix://" + file + ": connect: connection refused", syscall.ECONNREFUSED},
		{"hung", hung, "docker engine at " + hung + " did not answer within 2s: context deadline exceeded", context.DeadlineExceeded},
		{"nonsense", "nonsense", "docker engine at nonsense: unable to parse docker host `nonsense`", nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := Connect(t.Context(), row.host)
			if err == nil || err.Error() != row.want {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
			if row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("%v is not %v", err, row.is)
			}
			if took := time.Since(start); took > timeout+time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestForbidden: root may open every socket, so the kernel's answer is made up.
func TestForbidden(t *testing.T) {
	c := &Client{host: "unix:///run/docker.sock"}
	err := c.fail(&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)})
	if want := "docker engine at unix:///run/docker.sock: connect: permission denied"; err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("the error is not fs.ErrPermission")
	}
}

func TestAnswersThatAreErrors(t *testing.T) {
	ping := answer(t)
	host := fakeEngine(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_ping" {
			ping(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"message":"first\nsecond"}`))
	})
	c, err := Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, err = c.Names(t.Context())
	if want := "docker engine at " + host + ": Error response from daemon: first second"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
