package port

import (
	"net/netip"
	"slices"
	"testing"

	"nftnet/internal/desired"
)

// TestUntranslated: the socket of a translated port serves those whom the kernel
// does not translate, as far as they are among the sources.
func TestUntranslated(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, x := range texts {
			out = append(out, netip.MustParsePrefix(x))
		}
		return out
	}
	any6 := desired.Port{Proto: 6, Host: netip.MustParseAddrPort("[::]:80"), Container: netip.MustParseAddrPort("[fd00::2]:80")}
	any4 := desired.Port{Proto: 6, Host: netip.MustParseAddrPort("0.0.0.0:80"), Container: netip.MustParseAddrPort("10.0.0.2:80")}
	for _, row := range []struct {
		name       string
		port       desired.Port
		neighbours []netip.Prefix
		sources    desired.Sources
		want       []netip.Prefix
	}{
		{"anybody", any6, nil, desired.Sources{}, prefixes("fe80::/10")},
		{"anybody, and neighbours", any6, prefixes("fd00::/64"), desired.Sources{}, prefixes("fe80::/10", "fd00::/64")},
		{"IPv4 neighbours", any4, prefixes("10.0.0.0/24"), desired.Sources{}, prefixes("10.0.0.0/24")},
		{"nobody", any6, prefixes("fd00::/64"), desired.Sources{Limited: true}, nil},
		{"everybody, as a list", any6, nil, desired.Sources{Limited: true, Prefixes: prefixes("::/0")}, prefixes("fe80::/10")},
		{"one neighbour of both families", any4, prefixes("10.0.0.0/24"),
			desired.Sources{Limited: true, Prefixes: prefixes("10.0.0.3/32", "fd00::3/128", "192.0.2.0/24")}, prefixes("10.0.0.3/32")},
		{"one on the link", any6, nil, desired.Sources{Limited: true, Prefixes: prefixes("fe80::7/128", "2001:db8::/32")}, prefixes("fe80::7/128")},
	} {
		got := Clients{row.neighbours, row.sources}.untranslated(row.port)
		if !got.Limited || !slices.Equal(got.Prefixes, row.want) {
			t.Errorf("%s: %+v, want %v", row.name, got, row.want)
		}
	}
}
