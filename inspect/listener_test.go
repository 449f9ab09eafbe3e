package inspect_test

import (
	"strings"
	"testing"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
)

// TestWhoListens: where a rule leads to a port of this host, and there only.
func TestWhoListens(t *testing.T) {
	dport := func(proto string, port uint16) ruleset.Compare {
		return ruleset.Is(field(proto, "dport"), ruleset.Port(port))
	}
	names := inspect.Names{Listening: &inspect.Listening{Sockets: []inspect.Listener{
		{Proto: "tcp", Addr: addrPort("127.0.0.1:3000"), Process: inspect.Process{Name: "node", PID: 12}},
		{Proto: "tcp", Addr: addrPort("[::]:22"), Process: inspect.Process{Name: "sshd", PID: 7}},
		{Proto: "tcp", Addr: addrPort("0.0.0.0:22"), Process: inspect.Process{Name: "sshd", PID: 7}},
		{Proto: "udp", Addr: addrPort("0.0.0.0:51820")},
	}}}
	many := &ruleset.Set{Elements: []ruleset.Element{{Key: ruleset.Port(22)}, {Key: ruleset.Port(80)}}}
	both := ruleset.Lookup{Left: field("tcp", "dport"), Op: ruleset.Equal, Anonymous: many}
	to := func(a string, port uint16) ruleset.NAT {
		return ruleset.NAT{Kind: ruleset.DNAT, Addr: ruleset.Addr(addr(a)), Port: ruleset.Port(port)}
	}
	for _, row := range []struct {
		name   string
		family ruleset.Family
		hook   ruleset.Hook
		rule   ruleset.Rule
		want   string
	}{
		{"redirect", ruleset.FamilyInet, ruleset.HookPrerouting, rule(dport("tcp", 80), ruleset.Redirect{Port: ruleset.Port(3000)}), "On 3000/tcp listens node (pid 12) at 127.0.0.1."},
		{"redirect of a protocol", ruleset.FamilyInet, ruleset.HookPrerouting, rule(ruleset.Is(l4proto, ruleset.Proto(6)), ruleset.Redirect{Port: ruleset.Port(22)}), "On 22/tcp listens sshd (pid 7)."},
		{"redirect to nobody", ruleset.FamilyIP, ruleset.HookPrerouting, rule(dport("udp", 80), ruleset.Redirect{Port: ruleset.Port(3000)}), "Nothing listens on 3000/udp now."},
		{"redirect of IPv6", ruleset.FamilyIP6, ruleset.HookPrerouting, rule(dport("tcp", 80), ruleset.Redirect{Port: ruleset.Port(3000)}), "Nothing listens on 3000/tcp now."},
		{"redirect without a protocol", ruleset.FamilyIP, ruleset.HookPrerouting, rule(ruleset.Redirect{Port: ruleset.Port(3000)}), ""},
		{"redirect to many", ruleset.FamilyIP, ruleset.HookPrerouting, rule(dport("tcp", 80), ruleset.Redirect{Port: ruleset.Port(3000), PortEnd: ruleset.Port(3010)}), ""},
		{"dnat to this host", ruleset.FamilyIP, ruleset.HookOutput, rule(dport("tcp", 80), to("127.0.0.1", 3000)), "On 3000/tcp listens node (pid 12) at 127.0.0.1."},
		{"dnat to another address of lo", ruleset.FamilyIP, ruleset.HookOutput, rule(dport("tcp", 80), to("127.0.0.2", 3000)), "Nothing listens on 3000/tcp now."},
		{"dnat elsewhere", ruleset.FamilyIP, ruleset.HookOutput, rule(dport("tcp", 80), to("192.0.2.1", 3000)), ""},
		{"input", ruleset.FamilyInet, ruleset.HookInput, rule(dport("udp", 51820), counter, accept), "On 51820/udp listens the kernel, or a program that cannot be seen."},
		{"input of two ports", ruleset.FamilyIP, ruleset.HookInput, rule(both, accept), "On 22/tcp listens sshd (pid 7). Nothing listens on 80/tcp now."},
		{"forward", ruleset.FamilyInet, ruleset.HookForward, rule(dport("tcp", 22), accept), ""},
		{"drop", ruleset.FamilyInet, ruleset.HookInput, rule(dport("tcp", 22), drop), ""},
		{"all but a port", ruleset.FamilyInet, ruleset.HookInput, rule(ruleset.Compare{Left: field("tcp", "dport"), Op: ruleset.NotEqual, Right: ruleset.Port(22)}, accept), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			tables := table(row.family, "t", nil, base("c", "filter", row.hook, 0, row.rule))
			o := inspect.Object{Kind: inspect.KindRule, Family: row.family, Table: "t", Chain: "c"}
			if got := listening(named(names, tables), o); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
			if got := listening(model(tables), o); got != "" {
				t.Errorf("where nobody knows: %q", got)
			}
		})
	}
}

// listening is what is said of who listens.
func listening(m *inspect.Model, o inspect.Object) string {
	var out []string
	for _, n := range m.Explain(o) {
		if n.Topic == inspect.TopicListener {
			out = append(out, n.Sentence)
		}
	}
	return strings.Join(out, " ")
}
