package portmap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// Candidates lists the port numbers to try: those of the range that the user
// gave, or all that the kernel itself would give to a program that names none,
// from a random one on.
func Candidates(r Request) []uint16 {
	if r.First != 0 {
		out := make([]uint16, 0, int(r.Last-r.First)+1)
		for n := int(r.First); n <= int(r.Last); n++ {
			out = append(out, uint16(n))
		}
		return out
	}
	first, last := localPortRange()
	reserved := reservedPorts()
	n := int(last-first) + 1
	start := rand.IntN(n)
	out := make([]uint16, 0, n)
	for i := range n {
		p := first + uint16((start+i)%n)
		if !reserved.contains(p) {
			out = append(out, p)
		}
	}
	return out
}

// localPortRange is net.ipv4.ip_local_port_range, or the kernel's default.
func localPortRange() (first, last uint16) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768, 60999
	}
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil || first == 0 || last < first {
		return 32768, 60999
	}
	return first, last
}

// portRanges is a list of ranges of port numbers.
type portRanges [][2]uint16

func (r portRanges) contains(p uint16) bool {
	for _, x := range r {
		if x[0] <= p && p <= x[1] {
			return true
		}
	}
	return false
}

// reservedPorts is net.ipv4.ip_local_reserved_ports: ports that the
// administrator keeps for programs that name them.
func reservedPorts() portRanges {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return nil
	}
	return parseRanges(strings.TrimSpace(string(text)))
}

// parseRanges reads "8080,9000-9010".
func parseRanges(text string) portRanges {
	var out portRanges
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			out = append(out, [2]uint16{uint16(a), uint16(b)})
		}
	}
	return out
}
