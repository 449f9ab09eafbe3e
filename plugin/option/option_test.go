package option

import (
	rs "nftnet/internal/ruleset"
	"nftnet/isolation"
	"nftnet/nat"

	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nftnet/internal/desired"
	"nftnet/plugin/libnetwork"
)

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// request is a CreateNetwork of one IPv4 subnet with these -o options.
func request(t testing.TB, options map[string]string) libnetwork.CreateNetworkRequest {
	t.Helper()
	generic, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return libnetwork.CreateNetworkRequest{
		NetworkID: testID,
		Options:   libnetwork.NetworkOptions{libnetwork.Generic: generic},
		IPv4Data:  []libnetwork.IPAMData{{Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"}},
	}
}

// parse reads a request where the administrator chose nothing.
var parse = Defaults{}.ParseNetwork

func TestNetworkOptions(t *testing.T) {
	for option, want := range map[string]func(desired.Network) bool{
		BridgeName + "=br0":              func(n desired.Network) bool { return n.Bridge == "br0" },
		optionMTU + "=1400":              func(n desired.Network) bool { return n.MTU == 1400 },
		optionMTU + "=0":                 func(n desired.Network) bool { return n.MTU == 0 },
		optionICC + "=false":             func(n desired.Network) bool { return !n.ICC },
		optionMasquerade + "=0":          func(n desired.Network) bool { return !n.Masquerade },
		optionHostBinding + "=127.0.0.1": func(n desired.Network) bool { return n.HostBinding.String() == "127.0.0.1" },
		optionIfacePrefix + "=lan":       func(n desired.Network) bool { return n.IfacePrefix == "lan" },
		optionICC + "=true":              func(n desired.Network) bool { return n.ICC && n.Masquerade && n.IfacePrefix == "eth" },
		optionHostBinding + "=fd00::1":   func(n desired.Network) bool { return n.HostBinding.Is6() },
		BridgeName + "=my_bridge.1":      func(n desired.Network) bool { return n.Bridge == "my_bridge.1" },

		optionGatewayMode4 + "=routed":          func(n desired.Network) bool { return n.IPv4.Mode == desired.ModeRouted },
		optionGatewayMode4 + "=nat":             func(n desired.Network) bool { return n.IPv4.Mode == desired.ModeNAT },
		optionGatewayMode4 + "=nat-unprotected": func(n desired.Network) bool { return n.IPv4.Mode == desired.ModeUnprotected },
		optionGatewayMode6 + "=routed":          func(n desired.Network) bool { return n.IPv6.Mode == desired.ModeRouted && n.IPv4.NAT() },
		optionHostIPv4 + "=192.0.2.7":           func(n desired.Network) bool { return n.IPv4.SNAT.String() == "192.0.2.7" },
		optionHostIPv6 + "=2001:db8::7":         func(n desired.Network) bool { return n.IPv6.SNAT.String() == "2001:db8::7" },
		optionInhibitIPv4 + "=true":             func(n desired.Network) bool { return n.InhibitIPv4 },
		optionTrusted + "=eth0:wg-0":            func(n desired.Network) bool { return slices.Equal(n.Trusted, []string{"eth0", "wg-0"}) },
		optionDefault + "=false":                func(n desired.Network) bool { return n.ICC },
		libnetwork.EnableIPv4 + "=true":         func(n desired.Network) bool { return n.IPv4.IsValid() },
		libnetwork.EnableIPv6 + "=false":        func(n desired.Network) bool { return !n.IPv6.IsValid() },
		optionAdvertiseCount + "=3":             func(n desired.Network) bool { return n.ICC },
		optionAntiSpoof + "=strict":             func(n desired.Network) bool { return n.AntiSpoof == desired.SpoofNothing },
		optionAntiSpoof + "=off":                func(n desired.Network) bool { return n.AntiSpoof == desired.SpoofUnchecked },
		optionTypes + "=vlan,0x88CC 8021ad,8021q,0x0800": func(n desired.Network) bool {
			return slices.Equal(n.EtherTypes, []uint16{0x8100, 0x88a8, 0x88cc})
		},
		optionTypes + "=llc":      func(n desired.Network) bool { return slices.Equal(n.EtherTypes, []uint16{desired.EtherLLC}) },
		optionTypes + "=none":     func(n desired.Network) bool { return len(n.EtherTypes) == 0 },
		optionRefuse + "=reject":  func(n desired.Network) bool { return n.Reject && n.AntiSpoof == desired.SpoofNeighbours },
		optionClampMSS + "=true":  func(n desired.Network) bool { return n.ClampMSS },
		optionFreeBind + "=true":  func(n desired.Network) bool { return n.FreeBind },
		optionPublish + "=closed": func(n desired.Network) bool { return !allows(n, 80, "192.0.2.1") },
		optionPublish + "=open":   func(n desired.Network) bool { return allows(n, 80, "192.0.2.1") },
		Allow + "=any":            func(n desired.Network) bool { return allows(n, 80, "192.0.2.1") },
		Allow + "=none":           func(n desired.Network) bool { return !allows(n, 80, "192.0.2.1") },
		Allow + "=192.0.2.0/24,10.0.0.1, 2001:db8::/32": func(n desired.Network) bool {
			return allows(n, 80, "192.0.2.1") && allows(n, 81, "10.0.0.1") && !allows(n, 80, "10.0.0.2") && allows(n, 80, "2001:db8::5")
		},
		Allow + ".443/tcp=10.0.0.1": func(n desired.Network) bool {
			return allows(n, 80, "192.0.2.1") && !allows(n, 443, "192.0.2.1") && allows(n, 443, "10.0.0.1")
		},
		Allow + ".443=none": func(n desired.Network) bool { return allows(n, 80, "192.0.2.1") && !allows(n, 443, "192.0.2.1") },
	} {
		key, value, _ := strings.Cut(option, "=")
		n, _, err := parse(request(t, map[string]string{key: value}))
		if err != nil || !want(n) {
			t.Errorf("%s: %+v, %v", option, n, err)
		}
	}
}

func TestNetworkOptionsRefused(t *testing.T) {
	for option, words := range map[string][]string{
		BridgeName + "=":                      {BridgeName, `""`, "15"},
		BridgeName + "=sixteen-letters-":      {BridgeName, "sixteen-letters-", "15"},
		BridgeName + "=a/b":                   {BridgeName, "a/b"},
		BridgeName + "=..":                    {BridgeName, `".."`},
		optionMTU + "=67":                     {optionMTU, `"67"`, "68 to 65535"},
		optionMTU + "=-1":                     {optionMTU, `"-1"`},
		optionMTU + "=1500 ":                  {optionMTU, `"1500 "`},
		optionICC + "=":                       {optionICC, `""`, "true or false"},
		optionHostBinding + "=224.0.0.1":      {optionHostBinding, "224.0.0.1"},
		optionHostBinding + "=fe80::1%eth0":   {optionHostBinding, "fe80::1%eth0"},
		optionIfacePrefix + "=fourteen-chars": {optionIfacePrefix, "fourteen-chars", "13"},
		optionGatewayMode4 + "=bridge":        {optionGatewayMode4, `"bridge"`, "nat-unprotected, routed"},
		optionGatewayMode6 + "=isolated":      {optionGatewayMode6, `"isolated"`, "--internal"},
		optionHostIPv4 + "=2001:db8::7":       {optionHostIPv4, "2001:db8::7", "IPv4 address"},
		optionHostIPv6 + "=192.0.2.7":         {optionHostIPv6, "192.0.2.7", "IPv6 address"},
		optionHostIPv4 + "=0.0.0.0":           {optionHostIPv4, "0.0.0.0"},
		optionTrusted + "=a b":                {optionTrusted, `"a b"`, "colons"},
		optionTrusted + "=eth0:":              {optionTrusted, `"eth0:"`},
		optionTrusted + "=sixteen-letters-":   {optionTrusted, "sixteen-letters-"},
		optionInhibitIPv4 + "=yes":            {optionInhibitIPv4, `"yes"`, "true or false"},
		optionDefault + "=true":               {optionDefault, "docker0"},
		libnetwork.EnableIPv4 + "=false":      {libnetwork.EnableIPv4, `"false"`, "--ipv4"},
		libnetwork.EnableIPv6 + "=true":       {libnetwork.EnableIPv6, `"true"`, "--ipv6"},
		optionAdvertiseCount + "=4":           {optionAdvertiseCount, `"4"`, "0 to 3"},
		optionAdvertiseEvery + "=10":          {optionAdvertiseEvery, `"10"`, "100 to 2000"},
		optionTypes + "=":                     {optionTypes, `""`, "vlan"},
		optionTypes + "=88cc":                 {optionTypes, `"88cc"`, "0x88cc"},
		optionTypes + "=0x5ff":                {optionTypes, `"0x5ff"`, "0x0600"},
		optionTypes + "=0x10000":              {optionTypes, `"0x10000"`, "0xffff"},
		optionTypes + "=vlan,lldp":            {optionTypes, `"vlan,lldp"`, "llc"},
		optionAntiSpoof + "=maybe":            {optionAntiSpoof, `"maybe"`, "strict"},
		optionRefuse + "=accept":              {optionRefuse, `"accept"`, "drop, or reject"},
		optionClampMSS + "=1400":              {optionClampMSS, `"1400"`, "true or false"},
		optionPublish + "=half":               {optionPublish, `"half"`, "closed"},
		Allow + "=":                           {Allow, `""`, "any, or none"},
		Allow + "=192.0.2.0/33":               {Allow, "192.0.2.0/33"},
		Allow + "=example.org":                {Allow, "example.org"},
		Allow + "=any,10.0.0.1":               {Allow, "any,10.0.0.1"},
		Allow + ".0=any":                      {Allow + ".0", `"0"`, "PORT"},
		Allow + ".70000=any":                  {Allow + ".70000"},
		Allow + ".80/icmp=any":                {Allow + ".80/icmp", "PORT/PROTOCOL"},
		"nftnet.alow=any":                     {"nftnet.alow=any", "no such option", Allow},
		"com.docker.network.unknown=1":        {"com.docker.network.unknown=1", "no such option", optionMTU},
	} {
		key, value, _ := strings.Cut(option, "=")
		_, _, err := parse(request(t, map[string]string{key: value}))
		if err == nil {
			t.Errorf("%s is accepted", option)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %q does not say %q", option, err, w)
			}
		}
	}
}

func allows(n desired.Network, port uint16, from string) bool {
	return n.Allow.For(6, port).Allows(netip.MustParseAddr(from))
}

// TestClosedByDefault: where the administrator closed publishing, a network
// opens it again with a word.
func TestClosedByDefault(t *testing.T) {
	closed := Defaults{Closed: true}
	for options, want := range map[string]bool{
		"": false, optionPublish + "=open": true, optionPublish + "=closed": false, Allow + "=any": true,
		Allow + "=192.0.2.1": true, Allow + "=192.0.2.2": false, Allow + ".80=any": true, Allow + ".81=any": false,
	} {
		o := map[string]string{}
		if key, value, ok := strings.Cut(options, "="); ok {
			o[key] = value
		}
		n, _, err := closed.ParseNetwork(request(t, o))
		if err != nil || allows(n, 80, "192.0.2.1") != want {
			t.Errorf("%q: 192.0.2.1 reaches port 80: %v, want %v (%v)", options, allows(n, 80, "192.0.2.1"), want, err)
		}
	}
}

// TestContradictions are options that are right alone.
func TestContradictions(t *testing.T) {
	isolated := map[string]string{optionGatewayMode4: "isolated"}
	for name, row := range map[string]struct {
		options  map[string]string
		internal bool
		aux      map[string]string
		word     string
	}{
		"isolated and not internal":  {options: isolated, word: "--internal"},
		"isolated and internal":      {options: isolated, internal: true},
		"a router and internal":      {internal: true, aux: map[string]string{auxRouter4: "10.1.0.9/24"}, word: "10.1.0.9"},
		"a router":                   {aux: map[string]string{auxRouter4: "10.1.0.9/24"}},
		"a router outside":           {aux: map[string]string{auxRouter4: "10.2.0.9/24"}, word: `"10.2.0.9/24"`},
		"unprotected with a list":    {options: map[string]string{optionGatewayMode4: "nat-unprotected", Allow: "10.0.0.1"}, word: Allow},
		"unprotected without a list": {options: map[string]string{optionGatewayMode4: "nat-unprotected"}},
	} {
		req := request(t, row.options)
		req.IPv4Data[0].AuxAddresses = row.aux
		req.Options[libnetwork.Internal] = json.RawMessage(strconv.FormatBool(row.internal))
		n, _, err := parse(req)
		if row.word == "" && err != nil || row.word != "" && (err == nil || !strings.Contains(err.Error(), row.word)) {
			t.Errorf("%s: %v, want an error with %q", name, err, row.word)
		}
		if err == nil && n.IPv4.Mode == desired.ModeIsolated && n.IPv4.Gateway.IsValid() {
			t.Errorf("%s: the bridge gets address %s", name, n.IPv4.Gateway)
		}
		if err == nil && row.aux != nil && n.IPv4.DefaultRoute() != netip.MustParseAddr("10.1.0.9") {
			t.Errorf("%s: the default route goes to %s", name, n.IPv4.DefaultRoute())
		}
	}
}

func TestEndpointOptions(t *testing.T) {
	for option, word := range map[string]string{
		Allow + "=10.0.0.1":                                            "",
		Allow + ".80/tcp=none":                                         "",
		optionAntiSpoof + "=off":                                       "",
		optionFreeBind + "=true":                                       "",
		optionAddresses + "=10.1.0.9,::5":                              "",
		optionTypes + "=vlan":                                          "",
		optionTypes + "=lldp":                                          `"lldp"`,
		optionAddresses + "=10.1.0.9,00:00:5e:00:01:33":                "",
		optionAddresses + "=01:00:5e:00:01:33":                         "MAC",
		"com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.x=1": "",
		optionAddresses + "=10.1.0.0/24":                               "10.1.0.0/24",
		optionIfname + "=lan0":                                         optionIfacePrefix,
		"nftnet.bandwidth=1":                                           "no such option",
		Allow + "=x":                                                   `"x"`,
	} {
		key, value, _ := strings.Cut(option, "=")
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var e desired.Endpoint
		err = ParseEndpoint(&e, map[string]json.RawMessage{key: text})
		if word == "" && err != nil || word != "" && (err == nil || !strings.Contains(err.Error(), word)) {
			t.Errorf("%s: %v, want an error with %q", option, err, word)
		}
	}
}

// TestAllowLists: an endpoint's list of all ports replaces the network's, one
// of a single port stands beside it.
func TestAllowLists(t *testing.T) {
	a, b := desired.Sources{Limited: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, desired.Sources{Limited: true}
	network := desired.Allow{desired.AllPorts: a, "443/tcp": b}
	for _, row := range []struct {
		name        string
		endpoint    desired.Allow
		at80, at443 desired.Sources
	}{
		{"nothing of its own", nil, a, b},
		{"one port", desired.Allow{"80": b}, b, b},
		{"all ports", desired.Allow{desired.AllPorts: b}, b, b},
		{"open to everybody", desired.Allow{desired.AllPorts: desired.Anyone}, desired.Anyone, desired.Anyone},
	} {
		got := row.endpoint.Over(network)
		if !reflect.DeepEqual(got.For(6, 80), row.at80) || !reflect.DeepEqual(got.For(6, 443), row.at443) {
			t.Errorf("%s: 80 for %v, 443 for %v", row.name, got.For(6, 80), got.For(6, 443))
		}
	}
}

func TestSubnetsRefused(t *testing.T) {
	v4 := libnetwork.IPAMData{Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"}
	for name, row := range map[string]struct {
		v4, v6 []libnetwork.IPAMData
		word   string
	}{
		"none":                {nil, nil, "IPv4 or IPv6 must be enabled"},
		"two of one family":   {[]libnetwork.IPAMData{v4, v4}, nil, "2 IPv4 subnets"},
		"no subnet":           {[]libnetwork.IPAMData{{Pool: "ten"}}, nil, `"ten"`},
		"wrong family":        {[]libnetwork.IPAMData{{Pool: "fd00::/64"}}, nil, `"fd00::/64"`},
		"null IPAM":           {[]libnetwork.IPAMData{{Pool: "0.0.0.0/0"}}, nil, "address pool"},
		"gateway outside":     {[]libnetwork.IPAMData{{Pool: "10.1.0.0/24", Gateway: "10.2.0.1/24"}}, nil, `"10.2.0.1/24"`},
		"gateway not a CIDR":  {[]libnetwork.IPAMData{{Pool: "10.1.0.0/24", Gateway: "10.1.0.1"}}, nil, `"10.1.0.1"`},
		"wrong IPv6 family":   {nil, []libnetwork.IPAMData{v4}, `"10.1.0.0/24"`},
		"IPv4-mapped as IPv6": {nil, []libnetwork.IPAMData{{Pool: "::ffff:10.1.0.0/120", Gateway: "10.1.0.1/24"}}, "gateway"},
	} {
		_, _, err := parse(libnetwork.CreateNetworkRequest{NetworkID: testID, IPv4Data: row.v4, IPv6Data: row.v6})
		if err == nil || !strings.Contains(err.Error(), row.word) {
			t.Errorf("%s: %v, want an error with %q", name, err, row.word)
		}
	}
}

// TestSmallMTUWithIPv6 is refused, as the kernel would drop IPv6 from the
// bridge without a word.
func TestSmallMTUWithIPv6(t *testing.T) {
	req := request(t, map[string]string{optionMTU: "1000"})
	req.IPv6Data = []libnetwork.IPAMData{{Pool: "fd00:1::/64", Gateway: "fd00:1::1/64"}}
	if _, _, err := parse(req); err == nil || !strings.Contains(err.Error(), "1280") {
		t.Errorf("got %v, want an error that names 1280", err)
	}
}

func TestLibnetworkFlags(t *testing.T) {
	for raw, want := range map[string]string{`true`: "true", `"true"`: "true", `false`: "false", `"0"`: "false", `7`: "error", `"x"`: "error", `null`: "false"} {
		got, err := libnetwork.NetworkOptions{libnetwork.Internal: json.RawMessage(raw)}.Flag(libnetwork.Internal, true)
		text := map[bool]string{true: "true", false: "false"}[got]
		if err != nil {
			text = "error"
		}
		if text != want {
			t.Errorf("%s is read as %s, want %s (%v)", raw, text, want, err)
		}
	}
}

// FuzzCreateNetwork: no request makes the driver panic, and one that is
// accepted gives a ruleset that can be written.
func FuzzCreateNetwork(f *testing.F) {
	plain, err := json.Marshal(request(f, map[string]string{optionMTU: "1400", BridgeName: "br0"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"NetworkID":"0123456789ab","Options":{"com.docker.network.generic":null},"IPv6Data":[{"Pool":"fd00::/64"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req libnetwork.CreateNetworkRequest
		if json.Unmarshal(body, &req) != nil || len(req.NetworkID) < 12 {
			return
		}
		n, _, err := parse(req)
		if err != nil {
			return
		}
		s := desired.New()
		s.Networks[n.ID] = n
		if text := rs.Merge(nat.Ruleset(s), isolation.Ruleset(s)).String(); !strings.Contains(text, n.Bridge) {
			t.Errorf("the ruleset does not name bridge %q", n.Bridge)
		}
	})
}
