package realise

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	"nftnet/internal/nstest"
)

func nft(t *testing.T, lines ...string) {
	t.Helper()
	for _, l := range lines {
		run(t, append([]string{"nft"}, strings.Fields(l)...)...)
	}
}

// TestRulesAreRepaired: whatever somebody does to the tables, they are whole soon
// after: right after the driver has made them, and after another start that
// found them whole.
func TestRulesAreRepaired(t *testing.T) {
	n := network(1)
	for _, start := range []string{"made", "found"} {
		for name, do := range map[string][]string{
			"flushed":                      {"flush ruleset"},
			"table deleted":                {"delete table inet nftnet"},
			"other table deleted":          {"delete table bridge nftnet"},
			"dormant":                      {"add table inet nftnet { flags dormant; }"},
			"other table dormant":          {"add table bridge nftnet { flags dormant; }"},
			"chain flushed":                {"flush chain inet nftnet DOCKER"},
			"map flushed":                  {"flush map inet nftnet publish4"},
			"element deleted":              {"delete element inet nftnet bridges { " + n.Bridge + " }"},
			"foreign rule":                 {"insert rule inet nftnet FORWARD drop"},
			"foreign element":              {"add element inet nftnet publish4 { tcp . 81 : 10.1.0.9 . 80 }"},
			"base chain renamed":           {"rename chain inet nftnet PREROUTING mine"},
			"chain renamed":                {"rename chain inet nftnet DOCKER mine"},
			"chain of a network renamed":   {"rename chain inet nftnet masq-" + layout.ShortID(n.ID) + " mine"},
			"chain and the other renamed":  {"rename chain inet nftnet DOCKER mine", "rename chain inet nftnet FORWARD too"},
			"foreign base chain":           {"add chain inet nftnet evil { type filter hook forward priority -10; policy drop; }"},
			"foreign base chain, bridge":   {"add chain bridge nftnet evil { type filter hook prerouting priority -10; policy drop; }"},
			"policy":                       {"add chain inet nftnet FORWARD { policy drop; }"},
			"left over chain of a network": {"add chain inet nftnet masq-00000000000"},
		} {
			t.Run(start+"/"+name, func(t *testing.T) {
				s := web()
				e := s.Endpoints[endpoint(1, 2).ID]
				e.AntiSpoof = desired.SpoofNothing
				s.Endpoints[e.ID] = e
				r := started(t, s)
				r.isWhole(t, s)
				if start == "found" {
					r.close()
					r = started(t, s)
				}
				nft(t, do...)
				r.isWhole(t, s)
			})
		}
	}
}

// TestRenamedAfterAChange: a chain is known by its handle also when calls have
// changed the table since it was read.
func TestRenamedAfterAChange(t *testing.T) {
	r := started(t, desired.New())
	s := web()
	r.hold(t, s)
	r.add(t, s)
	nft(t, "rename chain inet nftnet masq-"+layout.ShortID(network(1).ID)+" mine")
	r.isWhole(t, s)
}

// TestChainsOfTheUser: what the user uses in DOCKER-USER stays as it is through
// repairs, flushes and starts, and what they delete stays deleted.
func TestChainsOfTheUser(t *testing.T) {
	s := web()
	keeps := &memory{}
	r := open(t, Config{UserRules: keeps})
	r.restore(t, s)
	nft(t, "add set inet nftnet bad { type ipv4_addr; elements = { 198.51.100.1 } }",
		"add chain inet nftnet mine", "add rule inet nftnet mine counter drop",
		"add rule inet nftnet DOCKER-USER ip saddr @bad jump mine")
	words := []string{"198.51.100.1", "chain mine", "ip saddr @bad jump mine", "drop"}
	has := func(what string) {
		t.Helper()
		eventually(t, "the user's rules are there after "+what, func() bool {
			out, err := exec.Command("nft", "-s", "list", "table", "inet", "nftnet").Output()
			for _, w := range append(words, "tcp . 8080") {
				if err != nil || !strings.Contains(string(out), w) {
					return false
				}
			}
			return true
		})
	}
	has("adding them")
	eventually(t, "they are copied", func() bool {
		text, _ := keeps.UserRules()
		return strings.Contains(string(text), "mine")
	})
	nft(t, "flush chain inet nftnet DOCKER")
	has("a repair")
	nft(t, "flush ruleset")
	has("a flush")
	r.close()
	nft(t, "flush ruleset")
	r = open(t, Config{UserRules: keeps})
	r.restore(t, s)
	has("a flush while the driver was down")
	nft(t, "flush chain inet nftnet DOCKER-USER", "delete chain inet nftnet mine", "delete set inet nftnet bad")
	eventually(t, "the copy is without them", func() bool {
		text, _ := keeps.UserRules()
		return !strings.Contains(string(text), "mine")
	})
	nft(t, "flush ruleset")
	r.isWhole(t, s)
}

// rules is how many rules of DOCKER-USER the copy has.
func (m *memory) rules(t *testing.T) int {
	t.Helper()
	text, _ := m.UserRules()
	var saved kernel.Saved
	if err := json.Unmarshal(text, &saved); err != nil || len(saved.Chains) == 0 {
		t.Fatalf("the copy is %q: %v", text, err)
	}
	return len(saved.Chains[0].Rules)
}

// TestRepairWaitsForNoDisk: while the disk does not take the copy of the user's
// rules, repairs go on.
func TestRepairWaitsForNoDisk(t *testing.T) {
	s := web()
	keeps := &memory{block: make(chan struct{})}
	r := open(t, Config{UserRules: keeps})
	r.restore(t, s)
	nft(t, "add rule inet nftnet DOCKER-USER ip saddr 198.51.100.1 drop")
	for range 3 {
		nft(t, "flush chain inet nftnet DOCKER")
		eventually(t, "the chain is whole", func() bool {
			return strings.Contains(run(t, "nft", "list", "chain", "inet", "nftnet", "DOCKER"), "@publish4")
		})
	}
	if err := r.Realise(s, stateOf([]desired.Network{network(1)})); err != nil {
		t.Error(err)
	}
	close(keeps.block)
	r.close()
	if n := keeps.rules(t); n != 1 {
		t.Errorf("the copy on the disk has %d rules of the user's", n)
	}
}

// TestRefusedCopyIsWrittenLater: a copy of the user's rules that the disk refused
// is on the disk after the end.
func TestRefusedCopyIsWrittenLater(t *testing.T) {
	s := web()
	keeps := &memory{}
	r := open(t, Config{UserRules: keeps})
	r.restore(t, s)
	keeps.set(errors.New("no space left on device"))
	nft(t, "add rule inet nftnet DOCKER-USER ip saddr 198.51.100.1 drop")
	eventually(t, "the log says so", func() bool { return strings.Contains(r.log.String(), "no space left on device") })
	keeps.set(nil)
	r.close()
	if n := keeps.rules(t); n != 1 {
		t.Errorf("the copy on the disk has %d rules of the user's", n)
	}
}

// TestBadCopy: a copy of the user's rules that nothing can be made of is said.
func TestBadCopy(t *testing.T) {
	nstest.RequireInside(t)
	bad := &memory{text: []byte("{")}
	if _, err := Open(Config{Log: slog.New(slog.DiscardHandler), UserRules: bad}); err == nil || !strings.Contains(err.Error(), "read the copy of the user's rules") {
		t.Errorf("error: %v", err)
	}
}

// TestPolicyOfIptables: packets of our bridges pass the policy drop of the chain
// that Docker makes, and what was written there goes with the policy and with the
// last network.
func TestPolicyOfIptables(t *testing.T) {
	r := started(t, desired.New())
	s := stateOf([]desired.Network{network(1)})
	r.add(t, s)
	nft(t, "add table ip filter", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	forward := func() string { return run(t, "nft", "list", "chain", "ip", "filter", "FORWARD") }
	eventually(t, "packets pass", func() bool { return strings.Contains(forward(), network(1).Bridge) })
	nft(t, "add rule ip filter FORWARD counter")
	eventually(t, "the driver's rules are the last", func() bool {
		return strings.LastIndex(forward(), layout.ForeignComment) > strings.Index(forward(), "counter packets 0 bytes 0\n")
	})
	nft(t, "chain ip filter FORWARD { policy accept; }")
	eventually(t, "nothing is written there", func() bool { return !strings.Contains(forward(), layout.ForeignComment) })
	nft(t, "chain ip filter FORWARD { policy drop; }")
	eventually(t, "packets pass again", func() bool { return strings.Contains(forward(), network(1).Bridge) })
	if err := r.Realise(s, desired.New()); err != nil {
		t.Fatal(err)
	}
	if got := forward(); strings.Contains(got, layout.ForeignComment) {
		t.Errorf("left:\n%s", got)
	}
}
