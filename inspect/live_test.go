package inspect_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/inspect"
	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// captured holds rulesets that were taken from running firewalls. They are not
// part of the module.
const captured = "../../shared/rulesets"

func connect(t *testing.T, ns *nstest.NS) *kernel.Conn {
	t.Helper()
	conn, err := kernel.OpenAt(int(ns.Handle()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func live(t *testing.T, conn *kernel.Conn) *inspect.Model {
	t.Helper()
	rs, err := inspect.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return inspect.NewModel(rs, inspect.Names{})
}

// flaw finds what a whole sentence never holds: a name without its argument, or
// an id without its template.
var flaw = regexp.MustCompile(`\{[a-z]+\}|\b(act|verb|cond|expr|noun|hook|type|state|end|chain|set)\.[a-z]+(\.|\b)`)

// checkSentences explains every object.
func checkSentences(t *testing.T, m *inspect.Model) {
	t.Helper()
	for _, o := range m.Objects() {
		notes := m.Explain(o)
		if len(notes) == 0 {
			t.Errorf("%s is not explained", o)
		}
		for _, n := range notes {
			if n.Sentence == "" || flaw.MatchString(n.Sentence) {
				t.Errorf("%s: %q", o, n.Sentence)
			}
			if n.Object != o {
				t.Errorf("%s: the note is about %s", o, n.Object)
			}
		}
	}
}

// TestCapturedRulesets explains what Docker, firewalld and others load.
func TestCapturedRulesets(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(captured, "*.nft"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(captured); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the captured rulesets are not here: %v", err)
	}
	ns := nstest.NewNS(t, "captured")
	conn := connect(t, ns)
	loaded := 0
	for _, file := range files {
		ns.Exec(t, "nft", "flush", "ruleset")
		if _, err := ns.Try("nft", "-f", file); err != nil {
			// nft cannot load every text that it lists: parts of iptables are lost.
			continue
		}
		loaded++
		t.Run(filepath.Base(file), func(t *testing.T) {
			m := live(t, conn)
			checkSentences(t, m)
			if unknown := m.Unknown(); len(unknown) > 0 {
				t.Errorf("not understood: %v", unknown)
			}
		})
	}
	if loaded < len(files)/2 {
		t.Errorf("nft loaded %d of %d files", loaded, len(files))
	}
}

// TestIPTables: what iptables stored as its own extension is told in its words.
func TestIPTables(t *testing.T) {
	if _, err := exec.LookPath("iptables-nft"); err != nil {
		t.Skipf("iptables-nft is needed: %v", err)
	}
	ns := nstest.NewNS(t, "iptables")
	ns.Exec(t, "iptables-nft", "-A", "FORWARD", "-p", "tcp", "-m", "recent", "--name", "x", "--set", "-j", "DROP")
	ns.Exec(t, "iptables-nft", "-t", "mangle", "-A", "FORWARD", "-j", "TTL", "--ttl-set", "64")
	m := live(t, connect(t, ns))
	checkSentences(t, m)
	drops := inspect.Object{Kind: inspect.KindRule, Family: ruleset.FamilyIP, Table: "filter", Chain: "FORWARD"}
	check(t, say(m, drops), "A packet that is tcp and passes the test “-m recent --set --name x --mask 255.255.255.255 --rsource” of iptables is counted and dropped. Nothing later sees it.")
	sets := drops
	sets.Table = "mangle"
	check(t, say(m, sets), "Every packet that gets here is counted and treated by iptables as “-j TTL --ttl-set 64” says. It then meets the policy of FORWARD (accept).")
	if got := m.Unknown(); len(got) != 0 {
		t.Errorf("unknown: %v", got)
	}
}

// TestOrderIsTheKernels sends a packet past a nat chain whose own number is
// higher than that of a filter chain that drops it: the nat chain has counted
// it all the same, and the model has it first.
func TestOrderIsTheKernels(t *testing.T) {
	ns := nstest.NewNS(t, "order")
	ns.Exec(t, "nft", `table inet t {
		chain dropping { type filter hook output priority -50; policy accept; udp dport 9 ct state new drop; }
		chain counting { type nat hook output priority 0; policy accept; udp dport 9 counter; }
		chain before { type filter hook output priority -110; policy accept; udp dport 9 counter; }
	}`)
	conn := connect(t, ns)
	if got, want := called(live(t, conn)), []string{"before", "counting", "dropping"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if err := ns.Do(func() error {
		c, err := net.DialTimeout("udp", "127.0.0.1:9", time.Second)
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("x"))
		// The drop comes back as an error of the write.
		if err != nil && !strings.Contains(err.Error(), "not permitted") {
			return err
		}
		return c.Close()
	}); err != nil {
		t.Fatal(err)
	}
	rs := live(t, conn).Ruleset
	for _, name := range []string{"counting", "before"} {
		r := rs.Table(ruleset.FamilyInet, "t").Chain(name).Rules[0]
		if !strings.Contains(r.String(), "counter packets 1 ") {
			t.Errorf("%s: %s", name, r)
		}
	}
}

func called(m *inspect.Model) []string {
	h, _ := m.Hook(inspect.Object{Kind: inspect.KindHook, Layer: inspect.LayerIP, Hook: ruleset.HookOutput})
	var out []string
	for _, b := range h.Chains {
		out = append(out, b.Chain.Name)
	}
	return out
}
