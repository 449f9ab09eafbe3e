package control

// Where the driver's socket answers what is not as it should be (GET), which
// networks and endpoints Docker does not know (GET [PathGhosts]), and removes
// those (POST a [Prune]).
const (
	PathProblems = "/nftnet/problems"
	PathGhosts   = "/nftnet/ghosts"
	PathPrune    = PathGhosts + "/rm"
)

// Problem is what the driver knows to be wrong, and could not repair.
type Problem struct {
	// Code names the kind, for programs.
	Code string `json:"code"`
	// Level is "error" where packets are lost or Docker and the driver disagree,
	// else "warn".
	Level string `json:"level"`
	// Network and Endpoint are Docker's ids, Container the name that Docker gives.
	Network   string `json:"network,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	Container string `json:"container,omitempty"`
	// Object is the interface, kernel parameter, port or file that it is about.
	Object string `json:"object,omitempty"`
	// Text says what is wrong, Fix what to do in words, Command the line for a shell
	// that does it, each without a full stop.
	Text    string `json:"text"`
	Fix     string `json:"fix,omitempty"`
	Command string `json:"command,omitempty"`
}

// Ghost is a network or endpoint of the driver that Docker does not know.
type Ghost struct {
	// Kind is "network" or "endpoint".
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Network is the id of an endpoint's network.
	Network string `json:"network,omitempty"`
	// Bridge and Subnets are those of a network.
	Bridge  string   `json:"bridge,omitempty"`
	Subnets []string `json:"subnets,omitempty"`
	// Addresses and Ports are those of an endpoint.
	Addresses []string `json:"addresses,omitempty"`
	Ports     []string `json:"ports,omitempty"`
}

// Prune is the request to remove ghosts, by their ids. What Docker knows by then
// stays.
type Prune struct {
	IDs []string `json:"ids"`
}

// Pruned is the answer: what was removed.
type Pruned struct {
	Removed []Ghost `json:"removed"`
}
