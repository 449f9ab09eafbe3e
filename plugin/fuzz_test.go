package plugin

import (
	"encoding/json"
	"nftnet/plugin/libnetwork"
	"testing"
)

// fuzzedCalls are the calls that a body is sent to.
var fuzzedCalls = []string{
	"CreateNetwork", "DeleteNetwork", "CreateEndpoint", "DeleteEndpoint", "Join", "Leave", "EndpointOperInfo",
	"ProgramExternalConnectivity", "RevokeExternalConnectivity", "GwAllocCheck", "DiscoverNew",
}

// FuzzHandlers sends any body to any call of a driver that has a network and an
// endpoint: it answers, and state, table and sockets agree.
func FuzzHandlers(f *testing.F) {
	seed := func(call byte, body m) {
		text, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(call, text)
	}
	seed(0, m{"NetworkID": id(2), "Options": m{libnetwork.Generic: m{"com.docker.network.driver.mtu": "1400"}}, "IPv4Data": []m{{"Pool": "10.2.0.0/24", "Gateway": "10.2.0.1/24"}}})
	seed(1, m{"NetworkID": id(2)})
	seed(2, with(ids(1, 2), "Interface", m{"Address": "10.1.0.9/24", "MacAddress": "02:00:00:00:00:01"}))
	seed(4, ids(1, 1))
	seed(7, with(ids(1, 1), "Options", m{"com.docker.network.portmap": []m{published(8081, 80)}}))
	for i := range fuzzedCalls {
		seed(byte(i), ids(1, 1))
	}
	r := newRig(f)
	r.network(f, 1)
	r.attach(f, 1, 1, published(8080, 80))
	f.Fuzz(func(t *testing.T, call byte, body []byte) {
		name := fuzzedCalls[int(call)%len(fuzzedCalls)]
		status, text := r.post(t, "NetworkDriver."+name, body)
		if status != 200 && status/100 != 4 {
			t.Errorf("%s: status %d: %s", name, status, text)
		}
		if status == 200 && !json.Valid([]byte(text)) {
			t.Errorf("%s: answer %q", name, text)
		}
		r.consistent(t)
	})
}
