package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// TestA56ClassicDocker explains the ruleset of Docker's own driver, as a real
// engine makes it by iptables.
func TestA56ClassicDocker(t *testing.T) {
	w := newWorld(t)
	w.engine.Docker(t, "network", "create", "--subnet", "172.31.5.0/24", "shop")
	w.engine.Docker(t, "run", "-d", "--name", "caddy", "--network", "shop", "--ip", "172.31.5.9", "-p", "8080:80",
		w.image, "/peer", "serve", "-http", ":80")
	w.engine.WaitLog(t, "caddy", "ready")
	reaches(t, w.LAN, "LAN", url(w.HostAddr4, 8080))
	nat, filter := w.nftnet(t, "inspect", "--table", "ip nat", "--handles"), w.nftnet(t, "inspect", "--table", "ip filter")
	bridge := "br-" + w.engine.Docker(t, "network", "inspect", "-f", "{{.Id}}", "shop")[:12]
	for out, sentences := range map[string][]string{
		nat: {
			"calls it at hook prerouting for every IPv4 packet, at priority -100 (dstnat)",
			"counters count connections here, not packets",
			"goes to an address of this host itself (loopback included) is counted (once for each connection) and sent through chain DOCKER",
			"does not go to an address in 127.0.0.0/8 (loopback) and goes to an address of this host itself",
			"came in by bridge " + bridge + " (network shop) is counted (once for each connection) and taken out of this chain",
			"goes to tcp port 8080 is counted (once for each connection) and given the destination 172.31.5.9 (container caddy) port 80",
			"no later nat rule at this hook is asked",
			"Packets from hook output have no input interface and always pass that test",
			"comes from an address in 172.31.5.0/24 (network shop) is counted (once for each connection) and given the address of the interface that it leaves by as its source (masquerade)",
			"iptables ! -i " + bridge + " -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.31.5.9:80",
			"# handle ",
			"So far the first packet of 1 connection.",
		},
		filter: {
			"at priority 0 (filter)",
			"By Docker's custom this chain belongs to the user of the host",
			"leaves by bridge " + bridge + " (network shop) and belongs to an established connection or a connection that another one brought about (related) is counted and accepted",
			"That ends only FORWARD; at hook forward there still follows: perhaps FORWARD of table inet nftnet",
			"goes to tcp port 80 of 172.31.5.9 (container caddy) is counted and accepted",
			"leaves by bridge docker0 (network bridge) is counted and dropped. Nothing later sees it",
			"is counted and taken out of this chain. It then goes on after rule 2 of FORWARD",
		},
	} {
		text := prose(out)
		for _, want := range sentences {
			if !strings.Contains(text, want) {
				t.Errorf("the text lacks %q", want)
			}
		}
		for _, word := range []string{"unknown", "not understood", "” of iptables", "by iptables as", "Not whole"} {
			if strings.Contains(text, word) {
				t.Errorf("the text says %q", word)
			}
		}
	}
	rules := regexp.MustCompile(`(?m)^ +\d+  \S.*\n`).FindAllStringIndex(nat+filter, -1)
	for _, at := range rules {
		if next := (nat + filter)[at[1]:]; !strings.HasPrefix(next, "          ") {
			t.Errorf("no sentence stands below %q", (nat + filter)[at[0]:at[1]])
		}
	}
	if len(rules) < 25 {
		t.Errorf("%d rules are shown", len(rules))
	}
	if t.Failed() {
		t.Log(nat, filter)
	}
}
