package port

import (
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"

	"nftnet/internal/desired"
)

// verdict runs a filter over a header whose addresses are given: the machine of
// x/net/bpf knows no network offset, so that it is taken off first.
func verdict(t *testing.T, program []bpf.RawInstruction, source, destination string) bool {
	t.Helper()
	list, ok := bpf.Disassemble(program)
	if !ok {
		t.Fatal("the filter has unknown instructions")
	}
	for i, x := range list {
		if load, ok := x.(bpf.LoadAbsolute); ok {
			load.Off -= networkHeader
			list[i] = load
		}
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	from, to := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	header := make([]byte, 40)
	l := layoutOf(from)
	copy(header[l.source:], from.AsSlice())
	copy(header[l.destination:], to.AsSlice())
	n, err := vm.Run(header)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestSourceFilter(t *testing.T) {
	var sources desired.Sources
	sources.Limited = true
	for _, p := range []string{"192.0.2.0/24", "198.51.100.7/32", "203.0.113.128/25", "2001:db8::/33", "2001:db8:8000::5/128", "fd00::/8"} {
		sources.Prefixes = append(sources.Prefixes, netip.MustParsePrefix(p))
	}
	for host, rows := range map[string]map[string]bool{
		"192.0.2.1": {
			"192.0.2.200": true, "192.0.3.1": false, "198.51.100.7": true, "198.51.100.6": false, "203.0.113.127": false,
			"203.0.113.128": true, "127.0.0.1": true, "10.0.0.1": false,
		},
		"10.0.0.1": {"10.0.0.1": true, "10.0.0.2": false},
		"2001:db8:ffff::1": {
			"2001:db8:7fff::1": true, "2001:db8:8000::1": false, "2001:db8:8000::5": true, "fdff::1": true, "fc00::1": false,
			"2001:db8:ffff::1": true, "::1": false,
		},
		"::1": {"::1": true},
	} {
		program, err := fromSources(netip.MustParseAddr(host), sources)
		if err != nil {
			t.Fatal(err)
		}
		for source, want := range rows {
			if got := verdict(t, program, source, host); got != want {
				t.Errorf("%s to %s passes: %v, want %v", source, host, got, want)
			}
		}
	}
	nobody, err := fromSources(netip.MustParseAddr("::"), desired.Sources{Limited: true})
	if err != nil || verdict(t, nobody, "fd00::1", "fd00::2") || !verdict(t, nobody, "fd00::2", "fd00::2") {
		t.Errorf("a port for the host alone lets others in, or not the host: %v", err)
	}
}

// TestLongestListIsAFilter: the kernel takes the filter of the longest list.
func TestLongestListIsAFilter(t *testing.T) {
	s := desired.Sources{Limited: true}
	for i := range 256 {
		s.Prefixes = append(s.Prefixes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 14: byte(i)}), 127))
	}
	if program, err := fromSources(netip.IPv6Unspecified(), s); err != nil || len(program) > 4096 {
		t.Errorf("%d instructions, %v", len(program), err)
	}
}
