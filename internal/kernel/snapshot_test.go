package kernel_test

import (
	"bytes"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// aFirewall has some of everything that is listed.
const aFirewall = `
table inet t {
	comment "mine"
	counter named { packets 0 bytes 0; }
	set blocked { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1-192.0.2.9 }; }
	map ways { type inet_service : verdict; elements = { 22 : accept, 80 : jump web }; }
	chain web { limit rate 3/second accept; }
	chain input {
		type filter hook input priority filter; policy drop;
		iif lo accept
		ip saddr @blocked counter name named drop comment "why"
		tcp dport { 443, 8443 } ct state new log prefix "x" accept
		tcp dport vmap @ways
	}
}
table bridge b { chain c { type filter hook forward priority 0; }; }`

func saved(t *testing.T, conn *kernel.Conn) kernel.Snapshot {
	t.Helper()
	s, err := conn.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := s.Write(&file); err != nil {
		t.Fatal(err)
	}
	if s, err = kernel.ReadSnapshot(&file); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSnapshotReadsAsTheKernelDid: through a file, and when the kernel's
// ruleset is gone.
func TestSnapshotReadsAsTheKernelDid(t *testing.T) {
	ns := nstest.NewNS(t, "snapshot")
	ns.Exec(t, "nft", aFirewall)
	conn := open(t, ns)
	for _, f := range []kernel.Filter{{}, {Family: ruleset.FamilyInet}, {Family: ruleset.FamilyBridge, Table: "b"}, {Table: "none"}} {
		live, err := conn.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		old, err := saved(t, conn).Read(f)
		if err != nil {
			t.Fatal(err)
		}
		format := ruleset.Format{Handles: true}
		if got, want := old.Text(format), live.Text(format); got != want {
			t.Errorf("%+v: %s\nwant %s", f, got, want)
		}
	}
	s := saved(t, conn)
	ns.Exec(t, "nft", "flush", "ruleset")
	if old, err := s.Read(kernel.Filter{}); err != nil || !strings.Contains(old.String(), `iif "lo" accept`) {
		t.Errorf("after a flush: %v\n%s", err, old)
	}
}

func TestSnapshotRefusesWhatIsNone(t *testing.T) {
	for file, want := range map[string]string{
		"":                       "EOF",
		"table ip x { }":         "invalid character",
		`{"nftables": []}`:       "version 0 is not allowed, 1 is",
		`{"nftnet_snapshot": 2}`: "version 2 is not allowed",
		`{"nftnet_snapshot": 1, "byte_order": "big"}`: "taken on a big-endian machine",
	} {
		if _, err := kernel.ReadSnapshot(strings.NewReader(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", file, err, want)
		}
	}
	conn := open(t, nstest.NewNS(t, "damaged"))
	s := saved(t, conn)
	s.Answers = s.Answers[:1]
	if _, err := s.Read(kernel.Filter{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a snapshot cut short: %v", err)
	}
}
