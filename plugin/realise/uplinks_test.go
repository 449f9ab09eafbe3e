package realise

import (
	"os/exec"
	"strings"
	"testing"

	"nftnet/internal/desired"
	rs "nftnet/internal/ruleset"
	"nftnet/nat"
)

// chainsOfUplinks lists the chains of the table that uplinks have.
func chainsOfUplinks(t *testing.T, r *rig) string {
	t.Helper()
	var names []string
	tables := r.tables(t)
	if table := tables.Table(rs.FamilyInet, "nftnet"); table != nil {
		for _, c := range table.Chains {
			if strings.HasPrefix(c.Name, "UPLINK") {
				names = append(names, c.Name)
			}
		}
	}
	return strings.Join(names, " ")
}

func marks(t *testing.T) string {
	t.Helper()
	var out []string
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(run(t, "ip", family, "rule", "show")) {
			if strings.Contains(line, "fwmark") {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, "; ")
}

// TestUplinksFollow: chains and routing rules come with the second uplink, or
// with the first network, follow what others change, and go with either; what
// the table has otherwise stays as it is.
func TestUplinksFollow(t *testing.T) {
	r := open(t, Config{MarkMask: 0x3000})
	t.Cleanup(func() {
		for _, family := range []string{"-4", "-6"} {
			_ = exec.Command("ip", family, "rule", "del", "pref", "200").Run()
			_ = exec.Command("ip", family, "rule", "del", "pref", "200").Run()
		}
	})
	run(t, "ip", "link", "add", "up2", "up", "type", "veth", "peer", "name", "to-up2")
	run(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "up2")
	r.restore(t, desired.New())
	one := stateOf([]desired.Network{network(1)})
	r.add(t, one)
	if c, m := chainsOfUplinks(t, r), marks(t); c != "" || m != "" {
		t.Fatalf("with one uplink there are chains %q and rules %q", c, m)
	}
	r.isWhole(t, one)
	const all = "UPLINK-MARK UPLINK-RETURN UPLINK-OUTPUT"
	is := func(when, chains, rules string) {
		t.Helper()
		eventually(t, when+": chains "+chains+", rules "+rules, func() bool { return chainsOfUplinks(t, r) == chains && marks(t) == rules })
	}
	run(t, "ip", "rule", "add", "pref", "200", "from", "198.51.100.1", "lookup", "100")
	mine := "200: from all fwmark 0x1000/0x3000 lookup 100 proto 78"
	is("a rule by source", all, mine)
	// Whoever deletes the driver's rule, or chains, gets them back.
	run(t, "ip", "rule", "del", "fwmark", "0x1000/0x3000", "lookup", "100")
	is("the driver's rule deleted", all, mine)
	run(t, "nft", "flush", "ruleset")
	is("flushed", all, mine)
	run(t, "nft", "flush chain inet nftnet UPLINK-RETURN")
	eventually(t, "the chain has its rules", func() bool {
		have := r.tables(t)
		want := nat.Uplinks([]nat.Uplink{{Mark: 0x1000, Mask: 0x3000}}).Tables[0].Chain("UPLINK-RETURN").Rules
		c := have.Table(rs.FamilyInet, "nftnet").Chain("UPLINK-RETURN")
		return c != nil && len(c.Rules) == 1 && c.Rules[0].Equal(want[0])
	})
	if text := run(t, "nft", "-s", "list", "chain", "inet", "nftnet", "UPLINK-MARK"); !strings.Contains(text, "198.51.100.1 ct mark set") {
		t.Errorf("UPLINK-MARK:\n%s", text)
	}
	// The next driver takes it up, and changes nothing.
	r.close()
	before := run(t, "nft", "-a", "list", "table", "inet", "nftnet")
	r = open(t, Config{MarkMask: 0x3000})
	r.restore(t, one)
	if after := run(t, "nft", "-a", "list", "table", "inet", "nftnet"); after != before {
		t.Errorf("the next driver changes the table to\n%s\nfrom\n%s", after, before)
	}
	is("the next driver", all, mine)

	if err := r.Realise(one, desired.New()); err != nil {
		t.Fatal(err)
	}
	is("without networks", "", "")
	r.add(t, one)
	is("with a network again", all, mine)
	run(t, "ip", "addr", "del", "198.51.100.1/24", "dev", "up2")
	is("without the address", "", "")
	run(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "up2")
	is("with the address again", all, mine)
	run(t, "ip", "rule", "del", "pref", "200", "from", "198.51.100.1")
	is("without the rule by source", "", "")
	r.isWhole(t, one)

	// A driver that finds no uplink clears what an earlier one had for it.
	run(t, "ip", "rule", "add", "pref", "200", "from", "198.51.100.1", "lookup", "100")
	is("once more", all, mine)
	r.close()
	run(t, "ip", "rule", "del", "pref", "200", "from", "198.51.100.1")
	r = open(t, Config{MarkMask: 0x3000})
	r.restore(t, one)
	is("without the rule while no driver ran", "", "")
	r.isWhole(t, one)
}
