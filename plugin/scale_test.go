package plugin

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
)

// TestManyNetworksAndPorts: 200 networks with 10,000 published ports in one
// process behave as the first one does.
func TestManyNetworksAndPorts(t *testing.T) {
	const networks, portsEach = 200, 50
	r := newRig(t)
	rules := func() int { return strings.Count(table(t), "\n\t\t") - strings.Count(table(t), "\n\t\t\t") }
	before := rules()
	hostPort := func(n, i int) int { return 10000 + n*portsEach + i }
	attach := func(n int) {
		var ports []m
		for i := range portsEach {
			// One family: an open file is a port, and the test's limit may be low.
			p := published(hostPort(n, i), 80+i)
			p["HostIP"] = "0.0.0.0"
			ports = append(ports, p)
		}
		r.network(t, n)
		generation := generationOf(t, r)
		r.attach(t, n, n, ports...)
		if steps := generationOf(t, r) - generation; steps != 3 {
			t.Errorf("network %d: the ruleset changed in %d steps, want three: for the container, its link, its ports", n, steps)
		}
	}
	attach(1)
	one := rules()
	for n := 2; n <= networks; n++ {
		attach(n)
	}
	if got := len(r.driver.Published()); got != networks*portsEach {
		t.Errorf("%d ports are published, want %d", got, networks*portsEach)
	}
	// The lines of a network are its own chain; elements are behind deeper indents.
	if grown := rules() - one; grown > (one-before)*(networks-1) {
		t.Errorf("the first network added %d lines to the table, the other %d added %d", one-before, networks-1, grown)
	}
	for _, n := range []int{1, networks / 2, networks} {
		ns := nstest.NewNS(t, fmt.Sprintf("c%d", n))
		link := "nfc" + id(1000 + n)[:12]
		moveLink(t, ns, link, fmt.Sprintf("10.%d.0.%d/24", n, n+2))
		ns.Exec(t, "ip", "route", "add", "default", "via", fmt.Sprintf("10.%d.0.1", n))
		nstest.Serve(t, ns, fmt.Sprintf(":%d", 80+portsEach-1), "")
		url := fmt.Sprintf("http://127.0.0.1:%d/", hostPort(n, portsEach-1))
		if out, err := exec.Command("curl", "-sS", "-m", "3", url).CombinedOutput(); err != nil {
			t.Errorf("network %d: %v: %s", n, err, out)
		}
	}
	r.removeAll(t)
	if after := rules(); after != before || r.held() != 0 {
		t.Errorf("%d lines of the table and %d held ports are left, want %d and 0", after, r.held(), before)
	}
}

func generationOf(t *testing.T, r *rig) uint32 {
	t.Helper()
	conn, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g, err := conn.Generation()
	if err != nil {
		t.Fatal(err)
	}
	return g.ID
}
