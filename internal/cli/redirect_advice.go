package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nftnet/internal/control"
	"nftnet/internal/host"
)

// adviceFor looks up who listens on the port that a redirect leads to, and says
// what of the redirect will not be answered.
func adviceFor(r control.Redirect) []string {
	list, err := host.ListenersOn(r.Proto, r.To)
	if err != nil {
		// Of sctp nothing is known, and without /proc nothing at all.
		return nil
	}
	all := ways(r)
	if !host.HasIPv6() {
		all = slices.DeleteFunc(all, func(w way) bool { return w.v6 })
	}
	return advice(r, all, list, programs(list))
}

// serverOf names the programs that listen on the port that a redirect leads to,
// and where.
func serverOf(r control.Redirect) string {
	list, err := host.ListenersOn(r.Proto, r.To)
	switch {
	case err != nil:
		return "unknown"
	case len(list) == 0:
		return "none listens"
	}
	return programs(list) + " on " + addresses(list)
}

// programs names the programs of sockets.
func programs(list []host.Socket) string {
	owners := host.Owners(list)
	var out []string
	for _, s := range list {
		name := "a program"
		if p, ok := owners[s.Inode]; ok {
			name = fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}

func addresses(list []host.Socket) string {
	var out []string
	for _, s := range list {
		if a := s.Addr.Addr().String(); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return strings.Join(out, ", ")
}

// way is a way by which packets come to a redirect.
type way struct {
	words    string
	v6, host bool
	answered func(host.Socket) bool
}

// ways lists the ways to a redirect's port: of every address or of one.
func ways(r control.Redirect) []way {
	var out []way
	at, _ := netip.ParseAddr(r.Address)
	for _, lo := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		v6, family := lo.Is6(), "IPv4"
		if v6 {
			family = "IPv6"
		}
		if at.IsValid() && at.Is6() != v6 {
			continue
		}
		to := lo
		if at.IsValid() {
			to = at
		}
		out = append(out, way{
			fmt.Sprintf("from the host itself to %s", netip.AddrPortFrom(to, r.Port)), v6, true,
			func(s host.Socket) bool { return s.Takes(lo) },
		})
		if !at.IsLoopback() {
			out = append(out, way{"from outside and from containers by " + family, v6, false, func(s host.Socket) bool { return s.Every(v6) }})
		}
	}
	return out
}

// except names the addresses of a way's family on which a server does listen:
// by their interfaces it answers.
func except(w way, list []host.Socket) string {
	var out []string
	for _, s := range list {
		a := s.Addr.Addr()
		if !w.host && a.Is6() == w.v6 && !a.IsLoopback() && !a.IsUnspecified() {
			out = append(out, a.String())
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ", but by the interface whose first address is " + strings.Join(out, " or ")
}

// advice says by which ways a redirect will not be answered by the sockets that
// listen on its port now, and what to do. A server without IPv6 is worth a
// note, everything else a warning.
func advice(r control.Redirect, ways []way, list []host.Socket, programs string) []string {
	if len(list) == 0 {
		return []string{fmt.Sprintf("note: nothing listens on port %d/%s yet: clients of port %d are refused until a server does", r.To, r.Proto, r.Port)}
	}
	var missing []string
	level := "note"
	for _, w := range ways {
		if slices.ContainsFunc(list, w.answered) {
			continue
		}
		missing = append(missing, "    "+w.words+except(w, list))
		if !w.v6 {
			level = "warning"
		}
	}
	if len(missing) == 0 {
		return nil
	}
	out := append([]string{fmt.Sprintf("%s: %s listens on %s only, so it does not answer", level, programs, addresses(list))}, missing...)
	return append(out,
		"  what comes from outside and from containers is led to the address of the interface it came in by,",
		"  what comes from the host itself to 127.0.0.1 or [::1]:",
		fmt.Sprintf("  let the server listen on every address, \":%d\" in most programs; in Caddy \"bind 0.0.0.0 [::]\"", r.To))
}
