package desired

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
)

// Redirect is a host redirect: what arrives at Port of this host goes to the
// port To of the same host, so that a program without privileges can answer on
// a privileged port.
type Redirect struct {
	Name string `json:"name"`
	// Proto is the transport protocol's number.
	Proto uint8  `json:"proto"`
	Port  uint16 `json:"port"`
	To    uint16 `json:"to"`
	// Address is the only address of the host that is redirected; the zero Addr
	// stands for every address of both families.
	Address netip.Addr `json:"address,omitzero"`
}

// RedirectName is the name of a redirect whose user gave none.
func RedirectName(proto uint8, port uint16) string {
	return fmt.Sprintf("%d-%s", port, ProtoName(proto))
}

// ProtoNumber is the number of a protocol that ports are published for, by the
// name that Docker writes.
func ProtoNumber(name string) (uint8, bool) {
	for number, n := range protoNames {
		if n == name {
			return number, true
		}
	}
	return 0, false
}

var (
	// A name is a part of the name of a chain and of comments in the kernel,
	// which hold 128 bytes.
	redirectName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	// What is a number alone means a port to the command line.
	digits = regexp.MustCompile(`^[0-9]+$`)
)

// Validate says what is wrong with a redirect, by itself.
func (r Redirect) Validate() error {
	switch a := r.Address; {
	case !redirectName.MatchString(r.Name) || digits.MatchString(r.Name):
		return fmt.Errorf("name %q is not allowed: up to 63 letters, digits, \"_\", \".\" and \"-\" are, the first a letter or digit, not digits alone", r.Name)
	case protoNames[r.Proto] == "":
		return fmt.Errorf("protocol %d is not allowed: tcp, udp and sctp are", r.Proto)
	case r.Port == 0 || r.To == 0:
		return fmt.Errorf("port 0 is not a port: allowed is 1 to 65535")
	case r.Port == r.To:
		return fmt.Errorf("a redirect of port %d to itself is not allowed: without one the port leads there", r.Port)
	case a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() || a.Is6() && a.IsLinkLocalUnicast()):
		return fmt.Errorf("address %s is not allowed: an own address of this host is, no link-local one of IPv6; leave it out for every address", a)
	}
	return nil
}

// String names the redirect for people.
func (r Redirect) String() string {
	on := ""
	if r.Address.IsValid() {
		on = " on " + r.Address.String()
	}
	return fmt.Sprintf("redirect %s (%d/%s%s to %d)", r.Name, r.Port, ProtoName(r.Proto), on, r.To)
}

// Ports are the host ports that the redirect takes, by family, IPv4 first.
// They lead to the unspecified address: to this host, by whichever of its
// addresses the kernel takes.
func (r Redirect) Ports() []Port {
	var out []Port
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		host := any
		if r.Address.IsValid() {
			host = r.Address
		}
		if host.Is4() == any.Is4() {
			out = append(out, Port{
				Proto: r.Proto, Host: netip.AddrPortFrom(host, r.Port), Container: netip.AddrPortFrom(any, r.To),
			})
		}
	}
	return out
}

// Overlaps says whether two ports would answer the same packet.
func (p Port) Overlaps(o Port) bool {
	return p.Host.IsValid() && o.Host.IsValid() && p.Proto == o.Proto && p.Host.Port() == o.Host.Port() && p.Host.Addr().Is4() == o.Host.Addr().Is4() &&
		(p.Any() || o.Any() || p.Host.Addr() == o.Host.Addr())
}

// InTheWay says whether a redirect and a port cannot be had together: both are
// for the same packets, or the port takes from every program of the host the
// port that the redirect leads to.
func (r Redirect) InTheWay(p Port) bool {
	for _, own := range r.Ports() {
		target := Port{Proto: own.Proto, Host: own.Container}
		if own.Overlaps(p) || p.Any() && target.Overlaps(p) {
			return true
		}
	}
	return false
}

// Owner names whose the redirect's ports are.
func (r Redirect) Owner() string { return "redirect " + r.Name }

// SortedRedirects lists the redirects by port, protocol and address.
func (s State) SortedRedirects() []Redirect {
	return slices.SortedFunc(maps.Values(s.Redirects), func(a, b Redirect) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), a.Address.Compare(b.Address), cmp.Compare(a.Name, b.Name))
	})
}

// RedirectPart is the state of one redirect alone, as [State.Part] is that of
// a network or endpoint.
func (s State) RedirectPart(name string) State {
	out := New()
	if r, ok := s.Redirects[name]; ok {
		out.Redirects[name] = r
	}
	return out
}
