package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInspectPage writes the page of a host with a container.
func TestInspectPage(t *testing.T) {
	w := web(t)
	path := filepath.Join(t.TempDir(), "page.html")
	if out := w.nftnet(t, "inspect", "--format", "html", "--output", path); out != "" {
		t.Errorf("it prints %q beside", out)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	printed := w.nftnet(t, "inspect", "--format", "html", "--table", "nftnet")
	for _, page := range []string{string(written), printed} {
		for _, want := range []string{
			"<!DOCTYPE html>", `id="chain.inet.nftnet.DOCKER-USER"`, "container c1 of network web", "Firewall of ",
			"tcp port 8080 on any IPv4 address of this host goes to 10.81.0.2 port 80",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
}
