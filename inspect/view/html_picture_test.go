package view_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/nstest/browser"
	"nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"
)

var pictures = flag.String("pictures", "", "write pictures of the page into this directory")

// usersTable is a firewall that a user might have beside the driver's tables.
const usersTable = `
table inet filter {
	set admins {
		type ipv4_addr
		flags interval
		elements = { 192.0.2.0/28, 198.51.100.7 }
	}
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "lo" accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 ip saddr @admins counter packets 42 bytes 2520 accept comment "the office"
		tcp dport { 80, 443 } jump web
		limit rate 5/minute burst 5 packets log prefix "dropped: "
		counter packets 1337 bytes 80220
	}
	chain web {
		ip saddr 203.0.113.0/24 drop comment "crawlers"
		ct state new limit rate over 50/second burst 5 packets drop
		counter packets 90210 bytes 5412600 accept
	}
	chain forward {
		type filter hook forward priority filter + 10; policy accept;
		oifname "nft-4f2a9c01d3e" ct state new counter packets 12 bytes 720 comment "new connections into web"
	}
}
`

// liveModel is a host with two networks and a firewall of its user's, loaded
// into the kernel and read back.
func liveModel(t *testing.T, ns *nstest.NS) *inspect.Model {
	t.Helper()
	rs := ruleset.Merge(nat.Ruleset(hostState()), isolation.Ruleset(hostState())).Sorted()
	load := exec.Command("ip", "netns", "exec", ns.Name(), "nft", "-f", "-")
	load.Stdin = strings.NewReader(usersTable + rs.String())
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("load the ruleset: %v\n%s", err, out)
	}
	conn, err := kernel.OpenAt(int(ns.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read, err := inspect.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return inspect.NewModel(read, hostNames())
}

// page writes a page into a file and gives its address.
func page(t *testing.T, m *inspect.Model, o view.Options, p view.Page) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := view.HTML(f, m, o, p); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// TestPicture makes the pictures of the README.
func TestPicture(t *testing.T) {
	if *pictures == "" {
		t.Skip("pictures are made by make picture")
	}
	ns := nstest.NewNS(t, "picture")
	url := page(t, liveModel(t, ns), view.Options{}, view.Page{Host: "gate"})
	b := browser.Start(t, ns)
	for _, row := range []struct {
		name, scheme, at string
		width, height    int
	}{
		{"inspect", "light", "", 1400, 900},
		{"inspect-chain", "dark", "chain.inet.filter.input", 1400, 900},
	} {
		b.Size(row.width, row.height)
		b.Media("prefers-color-scheme", row.scheme)
		b.Open(url + "?" + row.name + "#" + row.at)
		b.SaveScreenshot(filepath.Join(*pictures, row.name+".png"))
	}
}
