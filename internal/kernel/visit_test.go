package kernel_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// printed is a visitor that prints.
type printed struct {
	*ruleset.Printer
	text     strings.Builder
	restarts int
}

func (p *printed) Restart() {
	p.restarts++
	p.text.Reset()
	p.Printer = ruleset.NewPrinter(&p.text, ruleset.Format{})
}

// TestVisitPrintsWhatReadKeeps: chains within rules, numbers of interfaces and
// sets within rules come out alike, and as nft lists them.
func TestVisitPrintsWhatReadKeeps(t *testing.T) {
	ns := nstest.NewNS(t, "visit")
	load(t, ns, `
		table inet one {
			set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1 }; }
			chain a {
				type filter hook input priority 0; policy accept;
				iif "lo" accept
				ip saddr @s tcp dport { 22, 80-90 } counter jump b
				tcp dport 443 jump { ip saddr 10.1.0.0/16 drop; iif "lo" accept; }
			}
			chain b { }
		}
		table ip two {
			comment "second"
			chain c { ct state vmap { established : accept, new : jump d }; }
			chain d { counter drop comment "last"; }
		}
	`+manyRules(500, 3))
	conn := open(t, ns)
	all, err := conn.Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	p := &printed{}
	if err := conn.Visit(kernel.Filter{}, p); err != nil {
		t.Fatal(err)
	}
	if p.restarts != 1 {
		t.Errorf("the visitor was restarted %d times", p.restarts)
	}
	if diff := cmp.Diff(all.Text(ruleset.Format{}), p.text.String()); diff != "" {
		t.Errorf("visited otherwise than read (-read +visited):\n%s", diff)
	}
	if diff := cmp.Diff(ns.Exec(t, "nft", "list", "ruleset")+"\n", p.text.String()); diff != "" {
		t.Errorf("visited otherwise than nft lists (-nft +visited):\n%s", diff)
	}
}
