package inspect

import (
	"slices"
	"strings"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// Maker is the program that most likely made a table or a chain, and why that
// can be said. The kernel does not keep who made what: names and shapes are all
// there is to go by.
type Maker struct {
	// Name is the program's.
	Name string
	// Version is the class of versions that make it so, empty where all do.
	Version string
	// Backend is the way to the kernel, where the program has several: iptables
	// or nftables.
	Backend string
	// Because is what it rests upon, part of a sentence.
	Because string
}

// fingerprint is how a program's tables and chains are told: the first of
// [fingerprints] that fits counts.
type fingerprint struct {
	maker, version, backend string
	families                []ruleset.Family
	// table is the table's name, empty for any.
	table string
	// chain is what the chain is called, empty for a print of whole tables.
	chain string
	// in names the table of the same family that has the chains of any, empty for
	// the table itself.
	in string
	// any are chains of which one must be there, none such as must not.
	any, none []string
	// owned asks for a table that belongs to a running program.
	owned bool
}

var (
	ip4and6  = []ruleset.Family{ruleset.FamilyIP, ruleset.FamilyIP6}
	inetOnly = []ruleset.Family{ruleset.FamilyInet}
	bridged  = []ruleset.Family{ruleset.FamilyBridge}
)

// A name that ends in "*" stands for every name that begins so.
var (
	newDocker  = []string{"DOCKER-FORWARD", "DOCKER-CT", "DOCKER-BRIDGE"}
	oldDocker  = []string{"DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"}
	ufwChains  = []string{"ufw-before-*", "ufw-user-*", "ufw6-before-*", "ufw6-user-*"}
	kubeProxy  = []string{"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY"}
	f2bActions = []string{"f2b-chain", "input", "forward"}
)

// Classes of versions of dockerd. DOCKER-FORWARD came with 28.0.1, the backend
// for nftables with 29.
const (
	dockerOld = "28.0.0 or older"
	dockerNew = "28 or later"
	dockerNFT = "29 or later"
)

const byIPTables, byNFTables = "iptables", "nftables"

var fingerprints = []fingerprint{
	// Ours. The keeper belongs to the socket of the driver.
	{maker: layout.Driver, families: inetOnly, table: layout.Table, any: []string{layout.ChainInNAT, layout.ChainInPublished, layout.ChainStage2}},
	{maker: layout.Driver, families: inetOnly, table: layout.KeeperTable, owned: true, any: []string{layout.KeeperPre, layout.KeeperPost}},
	{maker: layout.Driver, families: bridged, table: layout.Table, any: []string{"*"}},

	// Tables of one program.
	{maker: "dockerd", version: dockerNFT, backend: byNFTables, families: ip4and6, table: "docker-bridges", any: []string{"filter-*", "nat-*", "raw-*"}},
	{maker: "dockerd", version: dockerNFT, backend: byNFTables, families: ip4and6, table: "docker-dns", any: []string{"dns-dnat", "dns-snat"}},
	{maker: "firewalld", backend: byNFTables, families: append(inetOnly, ip4and6...), table: "firewalld", any: []string{"filter_INPUT", "nat_PREROUTING", "nat_POSTROUTING", "mangle_PREROUTING"}},
	{maker: "firewalld", backend: byNFTables, families: inetOnly, table: "firewalld_policy_drop", any: []string{"filter_*"}},
	{maker: "kube-proxy", backend: byNFTables, families: ip4and6, table: "kube-proxy", any: []string{"services", "nat-prerouting", "filter-forward"}},
	{maker: "libvirt", backend: byNFTables, families: ip4and6, table: "libvirt_network", any: []string{"guest_*"}},
	{maker: "fail2ban", backend: byNFTables, families: inetOnly, table: "f2b-table", any: f2bActions},
	{maker: "podman (netavark)", backend: byNFTables, families: inetOnly, table: "netavark", any: []string{"NETAVARK-*", "NETAVARK_*"}},
	{maker: "CNI plugins", backend: byNFTables, families: inetOnly, table: "cni_hostport", any: []string{"hostports", "prerouting", "masquerading"}},
	{maker: "CNI plugins", backend: byNFTables, families: inetOnly, table: "cni_plugins_masquerade", any: []string{"*"}},

	// Chains in the tables of iptables.
	{maker: "dockerd", version: dockerNew, backend: byIPTables, families: ip4and6, table: "filter", chain: "DOCKER*", any: newDocker},
	{maker: "dockerd", version: dockerOld, backend: byIPTables, families: ip4and6, table: "filter", chain: "DOCKER*", any: oldDocker, none: newDocker},
	{maker: "dockerd", version: dockerNew, backend: byIPTables, families: ip4and6, table: "nat", chain: "DOCKER", in: "filter", any: newDocker},
	{maker: "dockerd", version: dockerOld, backend: byIPTables, families: ip4and6, table: "nat", chain: "DOCKER", in: "filter", any: oldDocker, none: newDocker},
	{maker: "dockerd", backend: byIPTables, families: ip4and6, table: "nat", chain: "DOCKER_OUTPUT", any: []string{"DOCKER_POSTROUTING"}},
	{maker: "dockerd", backend: byIPTables, families: ip4and6, table: "nat", chain: "DOCKER_POSTROUTING", any: []string{"DOCKER_OUTPUT"}},
	{maker: "ufw", backend: byIPTables, families: ip4and6, table: "filter", chain: "ufw-*", any: ufwChains},
	{maker: "ufw", backend: byIPTables, families: ip4and6, table: "filter", chain: "ufw6-*", any: ufwChains},
	{maker: "kube-router", backend: byIPTables, families: ip4and6, chain: "KUBE-ROUTER-*"},
	{maker: "kubelet", backend: byIPTables, families: ip4and6, chain: "KUBE-KUBELET-*"},
	{maker: "kubelet", backend: byIPTables, families: ip4and6, chain: "KUBE-IPTABLES-HINT"},
	{maker: "kube-proxy", backend: byIPTables, families: ip4and6, chain: "KUBE-*", any: kubeProxy},
	{maker: "libvirt", backend: byIPTables, families: ip4and6, chain: "LIBVIRT_*"},
	{maker: "fail2ban", backend: byIPTables, families: ip4and6, chain: "f2b-*"},
	{maker: "podman (netavark)", backend: byIPTables, families: ip4and6, chain: "NETAVARK-*"},
	{maker: "podman (netavark)", backend: byIPTables, families: ip4and6, chain: "NETAVARK_*"},
	{maker: "CNI plugins", backend: byIPTables, families: ip4and6, chain: "CNI-HOSTPORT-*"},
	{maker: "CNI plugins", backend: byIPTables, families: ip4and6, chain: "CNI-*", any: []string{"CNI-FORWARD", "CNI-ADMIN", "CNI-HOSTPORT-*", "CNI-DN-*"}},
	{maker: "firewalld", backend: byIPTables, families: ip4and6, chain: "*_ZONES", any: []string{"*_direct"}},
	// It makes the same chains by iptables and by nftables.
	{maker: "tailscale", families: ip4and6, chain: "ts-input", any: []string{"ts-forward"}},
	{maker: "tailscale", families: ip4and6, chain: "ts-forward", any: []string{"ts-input"}},
	{maker: "tailscale", families: ip4and6, table: "nat", chain: "ts-postrouting"},
}

// Maker says who most likely made a table or a chain; false where nothing
// speaks for anybody, and for a chain of a table that one program made as a
// whole.
func (m *Model) Maker(o Object) (Maker, bool) {
	t := m.Ruleset.Table(o.Family, o.Table)
	if t == nil || o.Kind != KindTable && o.Kind != KindChain {
		return Maker{}, false
	}
	if o.Kind == KindChain && m.chains[o] == nil {
		return Maker{}, false
	}
	for _, p := range fingerprints {
		if because, ok := m.matches(p, o, t); ok {
			return Maker{p.maker, p.version, p.backend, because}, true
		}
	}
	if o.Kind == KindTable {
		return m.iptables(t)
	}
	return Maker{}, false
}

// matches holds a fingerprint against an object, and says what speaks for it.
func (m *Model) matches(p fingerprint, o Object, t *ruleset.Table) (string, bool) {
	if p.families != nil && !slices.Contains(p.families, t.Family) || p.table != "" && p.table != t.Name ||
		(p.chain == "") != (o.Kind == KindTable) || !like(p.chain, o.Chain) || p.owned && !slices.Contains(t.Flags, "owner") {
		return "", false
	}
	where := t
	if p.in != "" {
		where = m.Ruleset.Table(t.Family, p.in)
	}
	if where == nil || chainLike(where, p.none) != nil {
		return "", false
	}
	found := chainLike(where, p.any)
	if p.any != nil && found == nil {
		return "", false
	}
	return m.because(p, o, found), true
}

// because is the evidence of a fingerprint in words.
func (m *Model) because(p fingerprint, o Object, found []string) string {
	name := o.Table
	if o.Kind == KindChain {
		name = o.Chain
	}
	reasons := []string{m.say.Say("maker.name", "name", name)}
	if others := slices.DeleteFunc(found, func(c string) bool { return c == o.Chain }); len(others) > 0 {
		switch {
		case p.in != "":
			reasons = append(reasons, m.say.Count("maker.in", uint64(len(others)), "table", p.in, "chains", m.say.And(m.shortened(others))))
		case o.Kind == KindTable:
			reasons = append(reasons, m.say.Count("maker.has", uint64(len(others)), "chains", m.say.And(m.shortened(others))))
		default:
			reasons = append(reasons, m.say.Count("maker.beside", uint64(len(others)), "chains", m.say.And(m.shortened(others))))
		}
	}
	if p.owned {
		reasons = append(reasons, m.say.Say("maker.owned"))
	}
	return m.say.And(reasons)
}

// like says whether a name is as a pattern has it.
func like(pattern, name string) bool {
	if end, ok := strings.CutPrefix(pattern, "*_"); ok {
		return strings.HasSuffix(name, "_"+end)
	}
	if start, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, start)
	}
	return pattern == name || pattern == ""
}

// chainLike lists the chains of a table that are called as a pattern has it.
func chainLike(t *ruleset.Table, patterns []string) []string {
	var out []string
	for _, c := range t.Chains {
		if slices.ContainsFunc(patterns, func(p string) bool { return like(p, c.Name) }) {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return out
}

// builtin are the base chains of the tables of iptables, with the priority of
// each (iptables/nft.c): no other chain of those tables is one.
var builtin = map[string]map[string]struct {
	hook     ruleset.Hook
	priority int32
}{
	"filter": {
		"INPUT": {ruleset.HookInput, 0}, "FORWARD": {ruleset.HookForward, 0}, "OUTPUT": {ruleset.HookOutput, 0},
	},
	"nat": {
		"PREROUTING": {ruleset.HookPrerouting, -100}, "INPUT": {ruleset.HookInput, 100},
		"OUTPUT": {ruleset.HookOutput, -100}, "POSTROUTING": {ruleset.HookPostrouting, 100},
	},
	"mangle": {
		"PREROUTING": {ruleset.HookPrerouting, -150}, "INPUT": {ruleset.HookInput, -150},
		"FORWARD": {ruleset.HookForward, -150}, "OUTPUT": {ruleset.HookOutput, -150}, "POSTROUTING": {ruleset.HookPostrouting, -150},
	},
	"raw":      {"PREROUTING": {ruleset.HookPrerouting, -300}, "OUTPUT": {ruleset.HookOutput, -300}},
	"security": {"INPUT": {ruleset.HookInput, 50}, "FORWARD": {ruleset.HookForward, 50}, "OUTPUT": {ruleset.HookOutput, 50}},
}

// iptables says whether a table looks as iptables-nft makes it: base chains are
// the built-in ones, there are no sets of its user's, and all rules count, as
// iptables always has them do.
func (m *Model) iptables(t *ruleset.Table) (Maker, bool) {
	chains := builtin[t.Name]
	if chains == nil || !slices.Contains(ip4and6, t.Family) || slices.ContainsFunc(t.Sets, func(s ruleset.Set) bool { return !s.Anonymous }) {
		return Maker{}, false
	}
	var based []string
	extended, all := false, true
	for _, c := range t.Chains {
		if b := c.Base; b != nil {
			want, ok := chains[c.Name]
			if !ok || b.Hook != want.hook || b.Priority != want.priority {
				return Maker{}, false
			}
			based = append(based, c.Name)
		}
		for _, r := range c.Rules {
			extended = extended || hasPart[ruleset.Compat](r)
			all = all && hasPart[ruleset.Counter](r)
		}
	}
	if len(based) == 0 || !extended && !all {
		return Maker{}, false
	}
	slices.Sort(based)
	reasons := []string{m.say.Count("maker.builtin", uint64(len(based)), "chains", m.say.And(based))}
	if extended {
		reasons = append(reasons, m.say.Say("maker.extended"))
	} else {
		reasons = append(reasons, m.say.Say("maker.counts"))
	}
	return Maker{Name: "iptables-nft", Because: m.say.And(reasons)}, true
}

func hasPart[T ruleset.Part](r ruleset.Rule) bool {
	return slices.ContainsFunc(r.Parts, func(p ruleset.Part) bool {
		_, ok := p.(T)
		return ok
	})
}

// makerNotes says who made a table or chain.
func (m *Model) makerNotes(o Object) []Note {
	k, ok := m.Maker(o)
	if !ok {
		return nil
	}
	return []Note{{
		Object: o, Level: Info, Topic: TopicMaker,
		Sentence: m.say.Say("maker", "maker", m.makerName(k), "because", k.Because),
	}}
}

// makerName names a maker with its version and backend.
func (m *Model) makerName(k Maker) string {
	name := k.Name
	if k.Version != "" {
		name = m.say.Say("maker.version", "name", name, "version", k.Version)
	}
	if k.Backend != "" {
		return m.say.Say("maker.backend", "name", name, "backend", k.Backend)
	}
	return name
}
