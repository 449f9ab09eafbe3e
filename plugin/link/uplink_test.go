package link

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/internal/nstest"
)

const testMask = 0x3000

// lines runs lines of ip.
func lines(t *testing.T, list ...string) {
	t.Helper()
	for _, line := range list {
		run(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
}

// uplinkHost has two interfaces: up1, which table main leads out by, and up2.
func uplinkHost(t *testing.T) {
	t.Helper()
	nstest.RequireInside(t)
	lines(t, "link add up1 up type veth peer name to-up1", "link add up2 up type veth peer name to-up2",
		"link set to-up1 up", "link set to-up2 up",
		"addr add 192.0.2.1/24 dev up1", "addr add 198.51.100.1/24 dev up2",
		"addr add 2001:db8:1::1/64 dev up1 nodad", "addr add 2001:db8:2::1/64 dev up2 nodad",
		"route add default via 192.0.2.254", "-6 route add default via 2001:db8:1::fe")
	t.Cleanup(func() {
		for _, family := range []string{"-4", "-6"} {
			restoreRules(t, family)
			for _, table := range []string{"100", "101", "102", "103", "1000"} {
				_ = exec.Command("ip", family, "route", "flush", "table", table).Run()
			}
		}
		for _, name := range []string{"up1", "up2", "nft-test"} {
			_ = exec.Command("ip", "link", "del", name).Run()
		}
		_ = exec.Command("ip", "addr", "flush", "dev", "lo", "scope", "global").Run()
	})
}

// words describes uplinks.
func words(list []Uplink) string {
	var out []string
	for _, u := range list {
		for _, w := range u.Ways {
			out = append(out, fmt.Sprintf("%d/%#x %s %s", u.Table, u.Mark, w.Addr, w.Iface))
		}
	}
	return strings.Join(out, "; ")
}

func TestUplinks(t *testing.T) {
	for _, row := range []struct {
		name  string
		setup []string
		want  string
	}{
		{"one table", nil, ""},
		{"a second uplink", []string{"route add default via 198.51.100.254 table 100", "rule add pref 200 from 198.51.100.1 lookup 100"},
			"100/0x1000 198.51.100.1 up2"},
		{"a rule for a prefix, both families", []string{
			"route add default via 198.51.100.254 table 100", "rule add from 198.51.100.0/24 lookup 100",
			"-6 route add default via 2001:db8:2::fe table 100", "-6 rule add from 2001:db8:2::/48 lookup 100",
		}, "100/0x1000 198.51.100.1 up2; 100/0x1000 2001:db8:2::1 up2"},
		{"a table for each", []string{
			"route add default via 192.0.2.253 table 101", "rule add from 192.0.2.1 lookup 101",
			"route add default via 198.51.100.254 table 1000", "rule add from 198.51.100.1 lookup 1000",
		}, "101/0x1000 192.0.2.1 up1; 1000/0x2000 198.51.100.1 up2"},
		{"a table that leads out as main does", []string{"route add default via 192.0.2.254 table 101", "rule add from 192.0.2.1 lookup 101"}, ""},
		{"a table that has no routes yet", []string{"rule add from 198.51.100.1 lookup 100"}, "100/0x1000 198.51.100.1 up2"},
		{"an address that is not the host's", []string{"rule add from 203.0.113.9 lookup 100"}, ""},
		{"rules that say more", []string{
			"rule add from 198.51.100.1 iif up1 lookup 100", "rule add from 198.51.100.1 fwmark 7 lookup 100", "rule add from 198.51.100.1 to 10.0.0.0/8 lookup 100",
			"rule add not from 198.51.100.1 lookup 100", "rule add from 198.51.100.1 ipproto tcp lookup 100",
		}, ""},
		{"an earlier rule that says main", []string{"rule add pref 200 from 198.51.100.1 lookup 100", "rule add pref 100 from 198.51.100.0/24 lookup main"}, ""},
		{"an earlier rule that says another table", []string{"rule add pref 200 from 198.51.100.1 lookup 100", "rule add pref 100 from 198.51.100.0/24 lookup 102"},
			"102/0x1000 198.51.100.1 up2"},
		{"an address of lo", []string{"addr add 203.0.113.9/32 dev lo", "route add default via 198.51.100.254 table 100", "rule add from 203.0.113.9 lookup 100"},
			"100/0x1000 203.0.113.9 up2"},
		{"one of ours", []string{"link add nft-test up type bridge", "addr add 10.1.0.1/24 dev nft-test", "rule add from 10.1.0.0/24 lookup 100"}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			uplinkHost(t)
			lines(t, row.setup...)
			got, err := Uplinks(testMask, desired.New())
			if err != nil || words(got) != row.want {
				t.Errorf("%q, %v; want %q", words(got), err, row.want)
			}
			// A second look, with the driver's rules in place, finds the same.
			if err := RuleUplinks(got, testMask); err != nil {
				t.Fatal(err)
			}
			if again, err := Uplinks(testMask, desired.New()); err != nil || words(again) != row.want {
				t.Errorf("again: %q, %v", words(again), err)
			}
		})
	}
}

// TestStrictUplinks names the uplinks on which the kernel drops, as the stricter of
// both parameters says.
func TestStrictUplinks(t *testing.T) {
	uplinkHost(t)
	lines(t, "rule add from 198.51.100.1 lookup 100")
	list, err := Uplinks(testMask, desired.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set(t, "net.ipv4.conf.all.rp_filter", "0") })
	for _, row := range []struct{ all, own, want string }{{"0", "0", "[]"}, {"0", "1", "[up2]"}, {"1", "0", "[up2]"}, {"2", "1", "[]"}, {"1", "2", "[]"}} {
		set(t, "net.ipv4.conf.all.rp_filter", row.all)
		set(t, "net.ipv4.conf.up2.rp_filter", row.own)
		if got := fmt.Sprint(StrictUplinks(list)); got != row.want {
			t.Errorf("all %s, own %s: %s, want %s", row.all, row.own, got, row.want)
		}
	}
}

// own lists the driver's routing rules as ip shows them.
func own(t *testing.T, family string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(run(t, "ip", family, "rule", "show")) {
		if strings.Contains(line, "fwmark") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return out
}

// TestRuleUplinks: the driver's rules stand beside the user's, follow them, keep
// their marks, and go without a trace; the user's stay.
func TestRuleUplinks(t *testing.T) {
	uplinkHost(t)
	lines(t, "rule add pref 50 fwmark 0x7 lookup 1000", "route add default via 198.51.100.254 table 100", "rule add pref 200 from 198.51.100.1 lookup 100")
	before := run(t, "ip", "rule", "show")
	follow := func() []Uplink {
		t.Helper()
		list, err := Uplinks(testMask, desired.New())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time changes nothing
			if err := RuleUplinks(list, testMask); err != nil {
				t.Fatal(err)
			}
		}
		return list
	}
	is := func(when string, want ...string) {
		t.Helper()
		want = append([]string{"50: from all fwmark 0x7 lookup 1000"}, want...)
		if got := own(t, "-4"); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	follow()
	is("one uplink", "200: from all fwmark 0x1000/0x3000 lookup 100 proto 78")
	if got := own(t, "-6"); len(got) != 0 {
		t.Errorf("IPv6 has %q", got)
	}
	// One that is listed before it keeps the marks of connections as they are.
	lines(t, "rule add pref 201 from 192.0.2.1 lookup 99")
	follow()
	is("two uplinks", "200: from all fwmark 0x1000/0x3000 lookup 100 proto 78", "201: from all fwmark 0x2000/0x3000 lookup 99 proto 78")
	lines(t, "rule del pref 201 from 192.0.2.1", "rule del pref 200 from 198.51.100.1", "rule add pref 300 from 198.51.100.1 lookup 100")
	follow()
	is("another priority", "300: from all fwmark 0x1000/0x3000 lookup 100 proto 78")
	lines(t, "rule del pref 300 from 198.51.100.1", "rule add pref 200 from 198.51.100.1 lookup 100")
	if err := RuleUplinks(nil, 0); err != nil {
		t.Fatal(err)
	}
	if after := run(t, "ip", "rule", "show"); after != before {
		t.Errorf("rules are\n%s\nwere\n%s", after, before)
	}
}

// TestUplinksBeyondTheMask: there are as many marks as the mask has room for, and
// the error says what is missing.
func TestUplinksBeyondTheMask(t *testing.T) {
	uplinkHost(t)
	for n := range 5 {
		lines(t, fmt.Sprintf("addr add 198.51.100.%d/24 dev up2", 10+n), fmt.Sprintf("rule add from 198.51.100.%d lookup %d", 10+n, 100+n))
	}
	list, err := Uplinks(testMask, desired.New())
	if want := "100/0x1000 198.51.100.10 up2; 101/0x2000 198.51.100.11 up2; 102/0x3000 198.51.100.12 up2"; words(list) != want {
		t.Errorf("%q, want %q", words(list), want)
	}
	for _, word := range []string{"table 103", "table 104", "0x3000 has 3", "--mark-mask"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error %v does not name %q", err, word)
		}
	}
	list, err = Uplinks(0x10000f01, desired.New())
	if err != nil || len(list) != 5 || list[2].Mark != 0x101 {
		t.Errorf("%q, %v", words(list), err)
	}
}

// TestWatchOfRules: rules of routing are news.
func TestWatchOfRules(t *testing.T) {
	uplinkHost(t)
	w, err := OpenWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	for _, line := range []string{"rule add pref 200 lookup 100", "-6 rule add pref 200 lookup 100", "rule del pref 200"} {
		lines(t, line)
		for {
			c, err := w.Next()
			if err != nil {
				t.Fatal(err)
			}
			if c.Rules {
				break
			}
		}
	}
}
