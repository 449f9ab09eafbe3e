package host

import (
	"os/exec"
	"slices"
	"testing"

	"nftnet/internal/nstest"
)

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// TestLinks: bridges are told by their names, and addresses without those of
// the link alone.
func TestLinks(t *testing.T) {
	nstest.RequireInside(t)
	run(t, "ip", "link", "add", "br-0123456789ab", "type", "bridge")
	defer run(t, "ip", "link", "del", "br-0123456789ab")
	run(t, "ip", "link", "add", "br-lan", "type", "bridge")
	defer run(t, "ip", "link", "del", "br-lan")
	for _, a := range []string{"10.9.0.1/16", "fd00:9::1/64", "fe80::9/64"} {
		run(t, "ip", "addr", "add", a, "dev", "br-0123456789ab", "nodad")
	}
	if got := DockerBridges(); !slices.Equal(got, []string{"br-0123456789ab"}) {
		t.Errorf("bridges: %v", got)
	}
	var got []string
	for _, p := range Addresses("br-0123456789ab") {
		got = append(got, p.String())
	}
	if !slices.Equal(got, []string{"10.9.0.1/16", "fd00:9::1/64"}) {
		t.Errorf("addresses: %v", got)
	}
	if got := Addresses("none"); got != nil {
		t.Errorf("addresses of no interface: %v", got)
	}
}

// TestSwitches: settings are those of now, and one that is not there is off.
func TestSwitches(t *testing.T) {
	nstest.RequireInside(t)
	for _, value := range []string{"1", "0"} {
		run(t, "sysctl", "-q", "-w", "net.ipv4.ip_forward="+value, "net.ipv6.conf.all.forwarding="+value)
		if want := value == "1"; IPv4().Forward != want || IPv6().Forward != want {
			t.Errorf("forwarding set to %s: IPv4 %v, IPv6 %v", value, IPv4().Forward, IPv6().Forward)
		}
	}
	if IsOn("net/none") {
		t.Error("a setting that is not there is on")
	}
}
