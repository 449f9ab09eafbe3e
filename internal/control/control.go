// Package control is what the command line and the running driver say to each
// other. The driver answers it on the socket on which Docker finds it, beside
// the calls of Docker's protocol.
package control

// DefaultSocket is where the driver listens unless its user says otherwise:
// Docker looks for plugins in this directory.
const DefaultSocket = "/run/docker/plugins/nftnet.sock"

// The requests that the driver answers.
const (
	// PathPorts lists the published ports (GET: a list of [Port]).
	PathPorts = "/nftnet/ports"
	// PathRedirects lists the redirects (GET: a list of [Redirect]), and adds one
	// (POST: a [Redirect], answered by the redirect as it is now).
	PathRedirects = "/nftnet/redirects"
	// PathRemoveRedirect removes a redirect (POST: a [RedirectName]).
	PathRemoveRedirect = PathRedirects + "/rm"
)

// Port is a published port and what it leads to.
type Port struct {
	// Host is the address and port on the host, Container those of the
	// container, Proto the protocol as Docker writes it.
	Host      string `json:"host"`
	Container string `json:"container"`
	Proto     string `json:"proto"`
	// Network and Endpoint are Docker's ids.
	Network  string `json:"network"`
	Endpoint string `json:"endpoint"`
	// Served reports whether nftnet's own socket serves the port, because the
	// kernel cannot translate it: the container sees the host's address.
	Served bool `json:"served,omitempty"`
	// Routed reports whether the container's own address is the published one:
	// Host is empty.
	Routed bool `json:"routed,omitempty"`
	// Sources may reach the port; nil for everybody.
	Sources []string `json:"sources,omitempty"`
	// Closed reports whether only the host itself may reach the port.
	Closed bool `json:"closed,omitempty"`
}

// Redirect is a host redirect.
type Redirect struct {
	// Name may be left out of a request: "80-tcp" is the name then.
	Name string `json:"name"`
	// Proto is "tcp", "udp" or "sctp"; tcp where a request leaves it out.
	Proto string `json:"proto"`
	// Port of the host leads to To, on every address where Address is empty.
	Port    uint16 `json:"port"`
	To      uint16 `json:"to"`
	Address string `json:"address,omitempty"`
}

// RedirectName is the request that removes a redirect.
type RedirectName struct {
	Name string `json:"name"`
}

// Refusal is the body of an answer with an error status.
type Refusal struct {
	Err string
}
