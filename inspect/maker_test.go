package inspect_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// madeTable is a table of empty chains.
func madeTable(f ruleset.Family, name string, chains ...string) ruleset.Table {
	t := ruleset.Table{Family: f, Name: name}
	for _, c := range chains {
		t.Chains = append(t.Chains, ruleset.Chain{Name: c})
	}
	return t
}

// madeBy writes a maker on one line.
func madeBy(m *inspect.Model, o inspect.Object) string {
	k, ok := m.Maker(o)
	if !ok {
		return ""
	}
	return strings.Join([]string{k.Name, k.Version, k.Backend}, "|")
}

// TestMakers: each program by the least that it is told by, and what falls
// short of that.
func TestMakers(t *testing.T) {
	const ip, ip6, inet, bridge = ruleset.FamilyIP, ruleset.FamilyIP6, ruleset.FamilyInet, ruleset.FamilyBridge
	owned := madeTable(inet, "nftnet-keep", "pre")
	owned.Flags = []string{"owner"}
	one := func(t ruleset.Table) []ruleset.Table { return []ruleset.Table{t} }
	for _, row := range []struct {
		name   string
		tables []ruleset.Table
		// chain is the one asked for, empty for the first table.
		chain, want string
	}{
		{"ours", one(madeTable(inet, "nftnet", "in-nat")), "", "nftnet||"},
		{"our keeper", one(owned), "", "nftnet||"},
		{"a keeper without owner", one(madeTable(inet, "nftnet-keep", "pre")), "", ""},
		{"our frames", one(madeTable(bridge, "nftnet", "PREROUTING")), "", "nftnet||"},
		{"a table of our name", one(madeTable(inet, "nftnet", "mine")), "", ""},
		{"our name in another family", one(madeTable(ip, "nftnet", "in-nat")), "", ""},
		{"docker's nftables", one(madeTable(ip6, "docker-bridges", "filter-FORWARD")), "", "dockerd|29 or later|nftables"},
		{"an empty table of docker's name", one(madeTable(ip, "docker-bridges")), "", ""},
		{"docker's resolver", one(madeTable(ip, "docker-dns", "dns-dnat")), "", "dockerd|29 or later|nftables"},
		{"docker's resolver, iptables", one(madeTable(ip, "nat", "DOCKER_OUTPUT", "DOCKER_POSTROUTING")), "DOCKER_OUTPUT", "dockerd||iptables"},
		{"half a resolver", one(madeTable(ip, "nat", "DOCKER_OUTPUT")), "DOCKER_OUTPUT", ""},
		{"docker 28", one(madeTable(ip, "filter", "DOCKER-FORWARD", "DOCKER-USER")), "DOCKER-USER", "dockerd|28 or later|iptables"},
		{"docker 28 with the old chains", one(madeTable(ip, "filter", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1")), "DOCKER-ISOLATION-STAGE-1", "dockerd|28 or later|iptables"},
		{"docker 20", one(madeTable(ip, "filter", "DOCKER", "DOCKER-ISOLATION-STAGE-1")), "DOCKER", "dockerd|28.0.0 or older|iptables"},
		{"docker's nat", []ruleset.Table{madeTable(ip, "nat", "DOCKER"), madeTable(ip, "filter", "DOCKER-CT")}, "DOCKER", "dockerd|28 or later|iptables"},
		{"docker's old nat", []ruleset.Table{madeTable(ip, "nat", "DOCKER"), madeTable(ip, "filter", "DOCKER-ISOLATION-STAGE-2")}, "DOCKER", "dockerd|28.0.0 or older|iptables"},
		{"nat without a filter", one(madeTable(ip, "nat", "DOCKER")), "DOCKER", ""},
		{"nat with the other family's filter", []ruleset.Table{madeTable(ip, "nat", "DOCKER"), madeTable(ip6, "filter", "DOCKER-CT")}, "DOCKER", ""},
		{"a user's own chain alone", one(madeTable(ip, "filter", "DOCKER-USER")), "DOCKER-USER", ""},
		{"firewalld", one(madeTable(inet, "firewalld", "filter_INPUT")), "", "firewalld||nftables"},
		{"an old firewalld", one(madeTable(ip, "firewalld", "nat_PREROUTING")), "", "firewalld||nftables"},
		{"firewalld by iptables", one(madeTable(ip, "filter", "INPUT_ZONES", "INPUT_direct")), "INPUT_ZONES", "firewalld||iptables"},
		{"a table called firewalld", one(madeTable(inet, "firewalld", "input")), "", ""},
		{"ufw", one(madeTable(ip, "filter", "ufw-not-local", "ufw-user-input")), "ufw-not-local", "ufw||iptables"},
		{"ufw, IPv6", one(madeTable(ip6, "filter", "ufw6-user-input")), "ufw6-user-input", "ufw||iptables"},
		{"a chain like ufw's", one(madeTable(ip, "filter", "ufw-mine")), "ufw-mine", ""},
		{"kube-proxy", one(madeTable(ip, "kube-proxy", "services")), "", "kube-proxy||nftables"},
		{"kube-proxy by iptables", one(madeTable(ip, "nat", "KUBE-SERVICES", "KUBE-SVC-X")), "KUBE-SVC-X", "kube-proxy||iptables"},
		{"kubelet", one(madeTable(ip, "mangle", "KUBE-KUBELET-CANARY")), "KUBE-KUBELET-CANARY", "kubelet||iptables"},
		{"kube-router", one(madeTable(ip, "filter", "KUBE-ROUTER-INPUT", "KUBE-SERVICES")), "KUBE-ROUTER-INPUT", "kube-router||iptables"},
		{"somebody's KUBE chain", one(madeTable(ip, "filter", "KUBE-MINE")), "KUBE-MINE", ""},
		{"libvirt", one(madeTable(ip, "libvirt_network", "guest_nat")), "", "libvirt||nftables"},
		{"libvirt by iptables", one(madeTable(ip, "filter", "LIBVIRT_INP")), "LIBVIRT_INP", "libvirt||iptables"},
		{"fail2ban", one(madeTable(inet, "f2b-table", "f2b-chain")), "", "fail2ban||nftables"},
		{"fail2ban by iptables", one(madeTable(ip, "filter", "f2b-sshd")), "f2b-sshd", "fail2ban||iptables"},
		{"podman", one(madeTable(inet, "netavark", "NETAVARK-HOSTPORT-DNAT")), "", "podman (netavark)||nftables"},
		{"podman by iptables", one(madeTable(ip, "nat", "NETAVARK-HOSTPORT-DNAT")), "NETAVARK-HOSTPORT-DNAT", "podman (netavark)||iptables"},
		{"CNI", one(madeTable(inet, "cni_hostport", "hostports")), "", "CNI plugins||nftables"},
		{"CNI by iptables", one(madeTable(ip, "nat", "CNI-HOSTPORT-DNAT", "CNI-DN-abc")), "CNI-DN-abc", "CNI plugins||iptables"},
		{"one CNI chain", one(madeTable(ip, "nat", "CNI-mine")), "CNI-mine", ""},
		{"tailscale", one(madeTable(ip, "filter", "ts-input", "ts-forward")), "ts-input", "tailscale||"},
		{"half a tailscale", one(madeTable(ip, "filter", "ts-input")), "ts-input", ""},
		{"a firewall of one's own", one(madeTable(inet, "filter", "input", "forward")), "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			first := row.tables[0]
			o := inspect.Object{Kind: inspect.KindTable, Family: first.Family, Table: first.Name}
			if row.chain != "" {
				o.Kind, o.Chain = inspect.KindChain, row.chain
			}
			if got := madeBy(model(row.tables...), o); got != row.want {
				t.Errorf("%s: %q, want %q", o, got, row.want)
			}
		})
	}
}

// TestIPTablesIsTold: by its chains and that all rules count, or by what only it
// can store.
func TestIPTablesIsTold(t *testing.T) {
	counts, plain := rule(counter, accept), rule(accept)
	hint := rule(ruleset.Compat{Name: "recent"}, drop)
	input := func(rules ...ruleset.Rule) ruleset.Chain {
		return base("INPUT", "filter", ruleset.HookInput, 0, rules...)
	}
	for name, row := range map[string]struct {
		table ruleset.Table
		want  string
	}{
		"empty":            {table(ruleset.FamilyIP, "filter", nil, input()), "iptables-nft||"},
		"counts":           {table(ruleset.FamilyIP6, "filter", nil, input(counts)), "iptables-nft||"},
		"does not count":   {table(ruleset.FamilyIP, "filter", nil, input(counts, plain)), ""},
		"extension":        {table(ruleset.FamilyIP, "filter", nil, input(hint, plain)), "iptables-nft||"},
		"another base":     {table(ruleset.FamilyIP, "filter", nil, input(counts), base("mine", "filter", ruleset.HookInput, 0)), ""},
		"another priority": {table(ruleset.FamilyIP, "filter", nil, base("INPUT", "filter", ruleset.HookInput, -5, counts)), ""},
		"a set":            {table(ruleset.FamilyIP, "filter", []ruleset.Set{{Name: "s"}}, input(counts)), ""},
		"another family":   {table(ruleset.FamilyInet, "filter", nil, input(counts)), ""},
		"another table":    {table(ruleset.FamilyIP, "mine", nil, input(counts)), ""},
		"no base chain":    {table(ruleset.FamilyIP, "filter", nil, chain("INPUT")), ""},
	} {
		o := inspect.Object{Kind: inspect.KindTable, Family: row.table.Family, Table: row.table.Name}
		if got := madeBy(model(row.table), o); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

func TestMakerIsToldWithWhatSpeaksForIt(t *testing.T) {
	m := model(madeTable(ruleset.FamilyIP, "filter", "DOCKER-USER", "DOCKER-FORWARD", "DOCKER-CT"), madeTable(ruleset.FamilyIP, "nat", "DOCKER"))
	o := inspect.Object{Kind: inspect.KindChain, Family: ruleset.FamilyIP, Table: "filter", Chain: "DOCKER-USER"}
	told := func() string {
		for _, n := range m.Explain(o) {
			if n.Topic == inspect.TopicMaker {
				return n.Sentence
			}
		}
		return ""
	}
	check(t, []string{told()}, "It looks made by dockerd 28 or later with iptables, because it is called DOCKER-USER and chains DOCKER-CT and DOCKER-FORWARD are beside it.")
	o.Table, o.Chain = "nat", "DOCKER"
	check(t, []string{told()}, "It looks made by dockerd 28 or later with iptables, because it is called DOCKER and table filter has chains DOCKER-CT and DOCKER-FORWARD.")
}

// TestMakersOfCapturedRulesets: what is said of rulesets whose maker is known.
func TestMakersOfCapturedRulesets(t *testing.T) {
	if _, err := os.Stat(captured); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the captured rulesets are not here: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(captured, "*.nft"))
	if err != nil {
		t.Fatal(err)
	}
	ns := nstest.NewNS(t, "makers")
	conn := connect(t, ns)
	for _, file := range files {
		ns.Exec(t, "nft", "flush", "ruleset")
		if _, err := ns.Try("nft", "-f", file); err != nil {
			// nft cannot load every text that it lists: parts of iptables are lost.
			continue
		}
		name := filepath.Base(file)
		m := live(t, conn)
		for _, o := range m.Objects() {
			if o.Kind == inspect.KindTable || o.Kind == inspect.KindChain {
				if got, want := madeBy(m, o), capturedMaker(name, o); got != want {
					t.Errorf("%s: %s: %q, want %q", name, o, got, want)
				}
			}
		}
	}
}

// capturedMaker is who made an object of a captured file, by the file's name.
func capturedMaker(file string, o inspect.Object) string {
	of := func(prefix string) bool { return strings.HasPrefix(file, prefix) }
	switch {
	case o.Family == ruleset.FamilyInet && o.Table == "filter":
		return "" // a user's own
	case of("firewalld"), of("docker-nft"):
		if o.Kind == inspect.KindChain {
			return ""
		}
		if of("firewalld") {
			return "firewalld||nftables"
		}
		return "dockerd|29 or later|nftables"
	case o.Kind == inspect.KindTable:
		return "iptables-nft||"
	case strings.Contains(file, "container-dns") && strings.HasPrefix(o.Chain, "DOCKER"):
		return "dockerd||iptables"
	case strings.HasPrefix(o.Chain, "ufw"):
		return "ufw||iptables"
	case strings.HasPrefix(o.Chain, "DOCKER") && of("docker-classic"):
		return "dockerd|28.0.0 or older|iptables"
	case strings.HasPrefix(o.Chain, "DOCKER"):
		return "dockerd|28 or later|iptables"
	}
	return ""
}
