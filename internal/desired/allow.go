package desired

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Sources are the addresses that may reach a port: everybody, unless Limited.
// The host itself always may.
type Sources struct {
	Limited  bool           `json:"limited"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// Anyone are sources without a limit.
var Anyone = Sources{}

// Allows says whether a is one of the sources.
func (s Sources) Allows(a netip.Addr) bool {
	return !s.Limited || slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// Allow says who may reach the published ports of a container, by the
// container's port ("80/tcp", or "80" for every protocol), and for all other
// ports under "". A missing entry allows everybody.
type Allow map[string]Sources

// AllPorts is the key of the ports that have no entry of their own.
const AllPorts = ""

// For is who may reach one of the container's ports.
func (a Allow) For(proto uint8, port uint16) Sources {
	for _, key := range []string{fmt.Sprintf("%d/%s", port, ProtoName(proto)), fmt.Sprint(port), AllPorts} {
		if s, ok := a[key]; ok {
			return s
		}
	}
	return Anyone
}

// Over is a with the entries that it lacks taken from those behind it. Where it
// speaks of all ports itself, nothing is taken.
func (a Allow) Over(behind Allow) Allow {
	if _, all := a[AllPorts]; all || len(behind) == 0 {
		return a
	}
	out := maps.Clone(behind)
	maps.Copy(out, a)
	return out
}
