package plugin

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nftnet/plugin/libnetwork"
)

// TestA65AnyOrder: whatever calls come for the endpoints of some containers, in
// whatever order, state, disk, table, links and sockets agree, after the next
// start too, and nothing is left at the end.
func TestA65AnyOrder(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			const containers, calls = 4, 60
			state := filepath.Join(t.TempDir(), "state.db")
			r := newRigAt(t, state)
			for n := 1; n <= 3; n++ {
				r.ok(t, "CreateNetwork", anyNetwork(n))
			}
			empty := table(t)
			var all sync.WaitGroup
			for c := range containers {
				all.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(c)))
					for range calls {
						r.anyCall(t, random, c)
					}
				})
			}
			all.Wait()
			r.stop()
			r = newRigAt(t, state)
			r.consistent(t)
			for c := range containers {
				for n := 1; n <= 3; n++ {
					r.ok(t, "DeleteEndpoint", ids(n, 10*c+n))
				}
			}
			r.consistent(t)
			if got := table(t); got != empty || r.held() != 0 {
				t.Errorf("%d ports are held, the table is\n%s\nat first it was\n%s", r.held(), got, empty)
			}
		})
	}
}

// anyNetwork is the call for network 1 with IPv4 and ports on 127.0.0.1, 2 with
// IPv6, or 3 with both.
func anyNetwork(n int) m {
	options, req := m{}, m{"NetworkID": id(n)}
	if n == 1 {
		options["com.docker.network.bridge.host_binding_ipv4"] = "127.0.0.1"
	}
	req["Options"] = m{libnetwork.Generic: options}
	if n != 2 {
		req["IPv4Data"] = []m{{"Pool": fmt.Sprintf("10.%d.0.0/24", n), "Gateway": fmt.Sprintf("10.%d.0.1/24", n)}}
	}
	if n != 1 {
		req["IPv6Data"] = []m{{"Pool": fmt.Sprintf("fd00:%d::/64", n), "Gateway": fmt.Sprintf("fd00:%d::1/64", n)}}
	}
	return req
}

// anyCall makes a call for an endpoint of a container, which may be refused but
// where it takes something back. Two containers want the same port.
func (r *rig) anyCall(t *testing.T, random *rand.Rand, container int) {
	n := 1 + random.IntN(3)
	who := ids(n, 10*container+n)
	ports := m{"com.docker.network.portmap": []m{published(8080+container%2, 80), {"Proto": 17, "Port": 53}}}
	switch random.IntN(8) {
	case 0, 1:
		at := m{}
		if n != 2 {
			at["Address"] = fmt.Sprintf("10.%d.0.%d/24", n, container+2)
		}
		if n != 1 {
			at["AddressIPv6"] = fmt.Sprintf("fd00:%d::%d/64", n, container+2)
		}
		r.call(t, "CreateEndpoint", with(who, "Interface", at))
	case 2, 3:
		sandbox := fmt.Sprintf("/nowhere/netns/%011d%d", container, random.IntN(2))
		r.call(t, "Join", with(with(who, "SandboxKey", sandbox), "Options", ports))
	case 4, 5:
		r.call(t, "ProgramExternalConnectivity", with(who, "Options", ports))
	case 6:
		r.ok(t, "RevokeExternalConnectivity", who)
	case 7:
		r.ok(t, []string{"Leave", "DeleteEndpoint"}[random.IntN(2)], who)
	}
}

// TestA43PortGivenUp: a port that a container is giving up is there for another
// that asks for it meanwhile.
func TestA43PortGivenUp(t *testing.T) {
	for _, way := range []string{"RevokeExternalConnectivity", "Leave", "DeleteEndpoint"} {
		t.Run(way, func(t *testing.T) { portGivenUp(t, way) })
	}
}

func portGivenUp(t *testing.T, way string) {
	var armed atomic.Bool
	reached, goOn := make(chan struct{}), make(chan struct{})
	r := newRigWith(t, Config{State: filepath.Join(t.TempDir(), "state.db"), Docker: silentDocker{}, Step: func(string) {
		if armed.CompareAndSwap(true, false) {
			close(reached)
			<-goOn
		}
	}})
	r.network(t, 1)
	r.attach(t, 1, 1, published(8080, 80))
	r.attach(t, 1, 2)
	armed.Store(true)
	var both sync.WaitGroup
	both.Go(func() { r.ok(t, way, ids(1, 1)) })
	<-reached
	both.Go(func() { r.ok(t, "ProgramExternalConnectivity", with(ids(1, 2), "Options", web)) })
	// Time enough to be refused.
	time.Sleep(200 * time.Millisecond)
	close(goOn)
	both.Wait()
	r.consistent(t)
}
