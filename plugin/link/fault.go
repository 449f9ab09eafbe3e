package link

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nftnet/internal/desired"
)

// FaultKind names what is wrong, for programs.
type FaultKind string

// The kinds of faults.
const (
	HostParameter   FaultKind = "host-parameter"
	BridgeMissing   FaultKind = "bridge-missing"
	BridgeRenamed   FaultKind = "bridge-renamed"
	BridgeNameTaken FaultKind = "bridge-name-taken"
	BridgeDown      FaultKind = "bridge-down"
	BridgeMACWrong  FaultKind = "bridge-mac"
	BridgeMTU       FaultKind = "bridge-mtu"
	BridgeParameter FaultKind = "bridge-parameter"
	AddressMissing  FaultKind = "address-missing"
	AddressFailed   FaultKind = "address-failed"
	VethMissing     FaultKind = "veth-missing"
	VethRenamed     FaultKind = "veth-renamed"
	VethNameTaken   FaultKind = "veth-name-taken"
	VethDown        FaultKind = "veth-down"
	VethUnplugged   FaultKind = "veth-unplugged"
	VethMTU         FaultKind = "veth-mtu"
	VethHairpin     FaultKind = "veth-hairpin"
	VethIsolation   FaultKind = "veth-isolation"
)

// Fault is one way in which the host is not as the state asks for.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Network and Endpoint are Docker's ids; both are empty for the whole host,
	// Endpoint for a bridge.
	Network  string `json:"network,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Object is the interface, by the name that it should have, or the kernel
	// parameter.
	Object string `json:"object"`
	// Was is what the survey found, Want what the state asks for.
	Was  string `json:"was,omitempty"`
	Want string `json:"want,omitempty"`
	// Adopted says that the bridge is its user's, who alone makes and removes it.
	Adopted bool `json:"adopted,omitempty"`
}

// remedy is what is known of a kind of fault: its words, how the
// driver repairs it, and what an administrator can do about one that the driver
// leaves alone. In words and fix, the names in braces stand for the fields of the
// fault.
type remedy struct {
	words, fix, command string
	repair              func(repairer, Fault) error
}

var remedies = map[FaultKind]remedy{
	HostParameter: {words: "{object} was {was} instead of {want}", repair: repairer.parameter},
	BridgeMissing: {
		words: "bridge {object} was missing", repair: repairer.bridgeAndPorts,
		fix: "create the bridge", command: "ip link add {object} type bridge && ip link set {object} up",
	},
	BridgeRenamed: {words: "bridge {object} was renamed to {was}", repair: repairer.bridgeAndPorts},
	BridgeNameTaken: {
		words: "the name of bridge {object} belongs to another interface, a {was}",
		fix:   "delete that interface, or give it another name", command: "ip link delete {object}",
	},
	BridgeDown: {
		words: "bridge {object} was down", repair: repairer.bridge,
		fix: "set the bridge up", command: "ip link set {object} up",
	},
	BridgeMACWrong:  {words: "bridge {object} had MAC address {was} instead of {want}", repair: repairer.bridge},
	BridgeMTU:       {words: "bridge {object} had MTU {was} instead of {want}", repair: repairer.bridge},
	BridgeParameter: {words: "{object} was {was} instead of {want}", repair: repairer.parameter},
	AddressMissing:  {words: "bridge {object} lacked its address {want}", repair: repairer.address},
	AddressFailed:   {words: "address {want} of bridge {object} was unusable: duplicate address detection failed", repair: repairer.address},
	VethMissing: {
		words: "veth {object} is missing: its container is cut off from the network",
		fix:   "restart the container, or disconnect it from the network and connect it again",
	},
	VethRenamed: {words: "veth {object} was renamed to {was}", repair: repairer.veth},
	VethNameTaken: {
		words: "the name of veth {object} belongs to another interface, a {was}",
		fix:   "delete that interface, or give it another name", command: "ip link delete {object}",
	},
	VethDown:      {words: "veth {object} was down", repair: repairer.veth},
	VethUnplugged: {words: "veth {object} was on {was} instead of bridge {want}", repair: repairer.veth},
	VethMTU:       {words: "veth {object} had MTU {was} instead of {want}", repair: repairer.veth},
	VethHairpin:   {words: "hairpin mode of veth {object} was {was}", repair: repairer.veth},
	VethIsolation: {words: "port isolation of veth {object} was {was}", repair: repairer.veth},
}

// String describes the fault in words, as what was found.
func (f Fault) String() string {
	return format(remedies[f.Kind].words, f)
}

// Repairable reports whether [Repair] can put it right. It never can where a
// container has lost its interface, where somebody else's interface has a name
// that is ours, and where a bridge that its user made is gone or down.
func (f Fault) Repairable() bool { return !f.Adopted && remedies[f.Kind].repair != nil }

// Fix tells an administrator what to do about a fault that the driver cannot
// repair; it is empty for any other.
func (f Fault) Fix() string {
	if f.Repairable() {
		return ""
	}
	return format(remedies[f.Kind].fix, f)
}

// Command is the line for a shell that does what Fix says; empty where there is
// none.
func (f Fault) Command() string {
	if f.Repairable() {
		return ""
	}
	return format(remedies[f.Kind].command, f)
}

func format(words string, f Fault) string {
	return strings.NewReplacer("{object}", f.Object, "{was}", f.Was, "{want}", f.Want).Replace(words)
}

// Faults lists what is not as a state asks for: of the host first, then by
// network and endpoint, in the order in which it is to be repaired. What follows
// from another fault in the list is left out, such as the ports of a bridge that
// is missing.
func (s Survey) Faults(st desired.State) []Fault {
	v := s.view()
	endpoints := map[string][]desired.Endpoint{}
	for _, e := range st.SortedEndpoints() {
		if e.HostLink != "" {
			endpoints[e.NetworkID] = append(endpoints[e.NetworkID], e)
		}
	}
	networks := st.SortedNetworks()
	out := v.hostFaults(networks)
	for _, n := range networks {
		faults, br := v.bridgeFaults(n, endpoints[n.ID])
		out = append(out, faults...)
		for _, e := range endpoints[n.ID] {
			out = append(out, v.vethFaults(n, br, e)...)
		}
	}
	return out
}

// view is a survey made quick to ask.
type view struct {
	survey  Survey
	links   map[string]*seenLink
	byMAC   map[string][]*seenLink
	byIndex map[int]*seenLink
}

func (s Survey) view() view {
	v := view{
		survey: s, links: make(map[string]*seenLink, len(s.links)),
		byMAC: make(map[string][]*seenLink, len(s.links)), byIndex: make(map[int]*seenLink, len(s.links)),
	}
	for i := range s.links {
		l := &s.links[i]
		v.links[l.name] = l
		v.byIndex[l.index] = l
		v.byMAC[string(l.mac)] = append(v.byMAC[string(l.mac)], l)
	}
	return v
}

func (v view) hostFaults(networks []desired.Network) []Fault {
	var out []Fault
	seen := map[string]bool{}
	for _, n := range networks {
		for _, s := range hostSettings(n) {
			have, ok := v.survey.host[s.path]
			if !seen[s.path] && (!ok || have != s.want) {
				out = append(out, Fault{Kind: HostParameter, Object: s.name(), Was: value(have, ok), Want: strconv.Itoa(s.want)})
			}
			seen[s.path] = true
		}
	}
	return out
}

// value writes a parameter that the kernel may not have.
func value(v int, ok bool) string {
	if !ok {
		return "missing"
	}
	return strconv.Itoa(v)
}

// bridgeFaults returns the faults of a network's bridge, and the bridge if its
// ports can be looked at.
func (v view) bridgeFaults(n desired.Network, endpoints []desired.Endpoint) ([]Fault, *seenLink) {
	fault := func(k FaultKind, was, want string) Fault {
		return Fault{Kind: k, Network: n.ID, Object: n.Bridge, Was: was, Want: want}
	}
	br, elsewhere := v.links[n.Bridge], v.renamed(n, endpoints)
	switch {
	case br == nil && elsewhere != nil:
		return []Fault{fault(BridgeRenamed, elsewhere.name, n.Bridge)}, nil
	case br == nil:
		f := fault(BridgeMissing, "", n.Bridge)
		f.Adopted = n.Adopted
		return []Fault{f}, nil
	case br.kind != KindBridge:
		return []Fault{fault(BridgeNameTaken, describe(*br), KindBridge)}, nil
	case elsewhere != nil:
		return []Fault{fault(BridgeNameTaken, "bridge beside the network's own, now named "+elsewhere.name, KindBridge)}, nil
	}
	var out []Fault
	if !br.up {
		f := fault(BridgeDown, "down", "up")
		f.Adopted = n.Adopted
		out = append(out, f)
	}
	if mac := BridgeMAC(n.ID); !n.Adopted && !bytes.Equal(br.mac, mac) {
		out = append(out, fault(BridgeMACWrong, br.mac.String(), mac.String()))
	}
	if !n.Adopted && n.MTU != 0 && br.mtu != n.MTU {
		out = append(out, fault(BridgeMTU, strconv.Itoa(br.mtu), strconv.Itoa(n.MTU)))
	}
	out = append(out, v.parameterFaults(n, br)...)
	return append(out, v.addressFaults(n, br)...), br
}

// renamed returns the bridge of a network that has another name now: the one
// with its MAC address, or one with its gateway's address and one of its
// containers, as older versions left it.
func (v view) renamed(n desired.Network, endpoints []desired.Endpoint) *seenLink {
	if n.Adopted {
		return nil
	}
	for _, l := range v.byMAC[string(BridgeMAC(n.ID))] {
		if l.kind == KindBridge && l.name != n.Bridge {
			return l
		}
	}
	if v.links[n.Bridge] != nil {
		return nil
	}
	for _, e := range endpoints {
		port := v.links[e.HostLink]
		if port == nil {
			continue
		}
		if br := v.byIndex[port.master]; br != nil && br.kind == KindBridge && v.hasGateway(br, n) {
			return br
		}
	}
	return nil
}

func (v view) hasGateway(br *seenLink, n desired.Network) bool {
	for _, a := range v.survey.addrs[br.index] {
		for _, s := range n.Subnets() {
			if p := gatewayAddr(n, s); p.IsValid() && a.prefix == p {
				return true
			}
		}
	}
	return false
}

func (v view) parameterFaults(n desired.Network, br *seenLink) []Fault {
	var out []Fault
	for _, s := range bridgeSettings(n) {
		if !s.guarded(n) {
			continue
		}
		have, ok := br.parameter(s.conf)
		if ok && have == s.want || !ok && s.optional {
			continue
		}
		if s.conf == confForwarding && v.survey.host[pathForward4] == 0 {
			// The kernel sets it with that of the host.
			continue
		}
		out = append(out, Fault{Kind: BridgeParameter, Network: n.ID, Object: s.name(), Was: value(have, ok), Want: strconv.Itoa(s.want)})
	}
	return out
}

func (v view) addressFaults(n desired.Network, br *seenLink) []Fault {
	var out []Fault
	have := v.survey.addrs[br.index]
	for _, p := range bridgeAddrs(n) {
		if n.Adopted && n.Subnet(p.Addr()).Kept {
			continue
		}
		f := Fault{Kind: AddressMissing, Network: n.ID, Object: n.Bridge, Want: p.String()}
		if i := slices.IndexFunc(have, func(a seenAddr) bool { return a.prefix == p }); i >= 0 {
			if !have[i].failed {
				continue
			}
			f.Kind = AddressFailed
		}
		out = append(out, f)
	}
	return out
}

// vethFaults returns the faults of an endpoint's host link; br is nil where the
// bridge itself has to be repaired first.
func (v view) vethFaults(n desired.Network, br *seenLink, e desired.Endpoint) []Fault {
	fault := func(k FaultKind, was, want string) Fault {
		return Fault{Kind: k, Network: n.ID, Endpoint: e.ID, Object: e.HostLink, Was: was, Want: want}
	}
	l, elsewhere := v.links[e.HostLink], v.renamedVeth(e)
	switch {
	case l == nil && elsewhere != nil:
		return []Fault{fault(VethRenamed, elsewhere.name, e.HostLink)}
	case l == nil:
		return []Fault{fault(VethMissing, "", e.HostLink)}
	case l.kind != kindVeth || elsewhere != nil:
		return []Fault{fault(VethNameTaken, describe(*l), kindVeth)}
	case br == nil:
		return nil
	}
	var out []Fault
	if l.master != br.index {
		// The flags of the port went with it.
		out = append(out, fault(VethUnplugged, v.masterOf(l), n.Bridge))
	} else {
		if !l.hairpin {
			out = append(out, fault(VethHairpin, "off", "on"))
		}
		if l.isolated == n.ICC {
			out = append(out, fault(VethIsolation, onOff(l.isolated), onOff(!n.ICC)))
		}
	}
	if n.MTU != 0 && l.mtu != n.MTU {
		out = append(out, fault(VethMTU, strconv.Itoa(l.mtu), strconv.Itoa(n.MTU)))
	}
	if !l.up {
		out = append(out, fault(VethDown, "down", "up"))
	}
	return out
}

func (v view) renamedVeth(e desired.Endpoint) *seenLink {
	for _, l := range v.byMAC[string(vethMAC(e.ID))] {
		if l.kind == kindVeth && l.name != e.HostLink {
			return l
		}
	}
	return nil
}

func (v view) masterOf(l *seenLink) string {
	if l.master == 0 {
		return "no bridge"
	}
	m := v.byIndex[l.master]
	if m == nil {
		return fmt.Sprintf("interface %d", l.master)
	}
	return describe(*m) + " " + m.name
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
