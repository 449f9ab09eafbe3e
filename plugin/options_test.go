package plugin

import (
	"encoding/json"
	"strings"
	"testing"

	"nftnet/internal/desired"
)

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// request is a CreateNetwork of one IPv4 subnet with these -o options.
func request(t testing.TB, options map[string]string) createNetworkRequest {
	t.Helper()
	generic, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return createNetworkRequest{
		NetworkID: testID,
		Options:   networkOptions{optionGeneric: generic},
		IPv4Data:  []ipamData{{Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"}},
	}
}

func TestNetworkOptions(t *testing.T) {
	for option, want := range map[string]func(desired.Network) bool{
		optionBridgeName + "=br0":         func(n desired.Network) bool { return n.Bridge == "br0" },
		optionMTU + "=1400":               func(n desired.Network) bool { return n.MTU == 1400 },
		optionMTU + "=0":                  func(n desired.Network) bool { return n.MTU == 0 },
		optionICC + "=false":              func(n desired.Network) bool { return !n.ICC },
		optionMasquerade + "=0":           func(n desired.Network) bool { return !n.Masquerade },
		optionHostBinding + "=127.0.0.1":  func(n desired.Network) bool { return n.HostBinding.String() == "127.0.0.1" },
		optionIfacePrefix + "=lan":        func(n desired.Network) bool { return n.IfacePrefix == "lan" },
		optionICC + "=true":               func(n desired.Network) bool { return n.ICC && n.Masquerade && n.IfacePrefix == "eth" },
		optionHostBinding + "=fd00::1":    func(n desired.Network) bool { return n.HostBinding.Is6() },
		optionBridgeName + "=my_bridge.1": func(n desired.Network) bool { return n.Bridge == "my_bridge.1" },
	} {
		key, value, _ := strings.Cut(option, "=")
		n, err := parseNetwork(request(t, map[string]string{key: value}))
		if err != nil || !want(n) {
			t.Errorf("%s: %+v, %v", option, n, err)
		}
	}
}

func TestNetworkOptionsRefused(t *testing.T) {
	for option, words := range map[string][]string{
		optionBridgeName + "=":                 {optionBridgeName, `""`, "15"},
		optionBridgeName + "=sixteen-letters-": {optionBridgeName, "sixteen-letters-", "15"},
		optionBridgeName + "=a/b":              {optionBridgeName, "a/b"},
		optionBridgeName + "=..":               {optionBridgeName, `".."`},
		optionMTU + "=67":                      {optionMTU, `"67"`, "68 to 65535"},
		optionMTU + "=-1":                      {optionMTU, `"-1"`},
		optionMTU + "=1500 ":                   {optionMTU, `"1500 "`},
		optionICC + "=":                        {optionICC, `""`, "true or false"},
		optionHostBinding + "=224.0.0.1":       {optionHostBinding, "224.0.0.1"},
		optionHostBinding + "=fe80::1%eth0":    {optionHostBinding, "fe80::1%eth0"},
		optionIfacePrefix + "=fourteen-chars":  {optionIfacePrefix, "fourteen-chars", "13"},
		"com.docker.network.unknown=1":         {"com.docker.network.unknown=1", "no such option", optionMTU},
	} {
		key, value, _ := strings.Cut(option, "=")
		_, err := parseNetwork(request(t, map[string]string{key: value}))
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

func TestSubnetsRefused(t *testing.T) {
	v4 := ipamData{Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"}
	for name, row := range map[string]struct {
		v4, v6 []ipamData
		word   string
	}{
		"none":                {nil, nil, "IPv4 or IPv6 must be enabled"},
		"two of one family":   {[]ipamData{v4, v4}, nil, "2 IPv4 subnets"},
		"no subnet":           {[]ipamData{{Pool: "ten"}}, nil, `"ten"`},
		"wrong family":        {[]ipamData{{Pool: "fd00::/64"}}, nil, `"fd00::/64"`},
		"null IPAM":           {[]ipamData{{Pool: "0.0.0.0/0"}}, nil, "address pool"},
		"gateway outside":     {[]ipamData{{Pool: "10.1.0.0/24", Gateway: "10.2.0.1/24"}}, nil, `"10.2.0.1/24"`},
		"gateway not a CIDR":  {[]ipamData{{Pool: "10.1.0.0/24", Gateway: "10.1.0.1"}}, nil, `"10.1.0.1"`},
		"wrong IPv6 family":   {nil, []ipamData{v4}, `"10.1.0.0/24"`},
		"IPv4-mapped as IPv6": {nil, []ipamData{{Pool: "::ffff:10.1.0.0/120", Gateway: "10.1.0.1/24"}}, "gateway"},
	} {
		_, err := parseNetwork(createNetworkRequest{NetworkID: testID, IPv4Data: row.v4, IPv6Data: row.v6})
		if err == nil || !strings.Contains(err.Error(), row.word) {
			t.Errorf("%s: %v, want an error with %q", name, err, row.word)
		}
	}
}

// TestSmallMTUWithIPv6 is refused, as the kernel would drop IPv6 from the
// bridge without a word.
func TestSmallMTUWithIPv6(t *testing.T) {
	req := request(t, map[string]string{optionMTU: "1000"})
	req.IPv6Data = []ipamData{{Pool: "fd00:1::/64", Gateway: "fd00:1::1/64"}}
	if _, err := parseNetwork(req); err == nil || !strings.Contains(err.Error(), "1280") {
		t.Errorf("got %v, want an error that names 1280", err)
	}
}

func TestLibnetworkFlags(t *testing.T) {
	for raw, want := range map[string]string{`true`: "true", `"true"`: "true", `false`: "false", `"0"`: "false", `7`: "error", `"x"`: "error", `null`: "false"} {
		got, err := networkOptions{optionInternal: json.RawMessage(raw)}.flag(optionInternal, true)
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
	plain, err := json.Marshal(request(f, map[string]string{optionMTU: "1400", optionBridgeName: "br0"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(`{"NetworkID":"0123456789ab","Options":{"com.docker.network.generic":null},"IPv6Data":[{"Pool":"fd00::/64"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req createNetworkRequest
		if json.Unmarshal(body, &req) != nil || checkID("network", req.NetworkID) != nil {
			return
		}
		n, err := parseNetwork(req)
		if err != nil {
			return
		}
		s := desired.New()
		s.Networks[n.ID] = n
		if text := Ruleset(s).String(); !strings.Contains(text, n.Bridge) {
			t.Errorf("the ruleset does not name bridge %q", n.Bridge)
		}
	})
}
