package nftjson_test

import (
	"strings"
	"testing"

	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/nftjson"
)

func printed(t *testing.T, table ruleset.Table, o nftjson.Options) string {
	t.Helper()
	var b strings.Builder
	if err := nftjson.Write(&b, []*ruleset.Table{&table}, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestWhatNftLeavesOut has the parts of which nft's JSON says less than the
// kernel holds, or nothing. All others are held against nft itself (package
// kernel, corpus_json_test.go).
func TestWhatNftLeavesOut(t *testing.T) {
	saddr, mark := ruleset.IPSaddr, ruleset.Meta{Key: ruleset.MetaMark}
	inside := ruleset.Chain{Anonymous: true, Rules: []ruleset.Rule{
		{Handle: 7, Comment: "in", Parts: []ruleset.Part{ruleset.Verdict{Kind: ruleset.Drop}}},
	}}
	rows := []struct {
		part ruleset.Part
		want string
	}{
		{
			ruleset.Opaque{Name: "inner", Data: "\x01\xff"},
			`{"unknown": {"name": "inner", "data": "01ff"}}`,
		},
		{
			ruleset.Compat{Name: "nosuch", Revision: 2, Info: "\x02"},
			`{"xt": {"type": "match", "name": "nosuch", "rev": 2, "data": "02"}}`,
		},
		{
			ruleset.Compat{Target: true, Name: "MARK", Revision: 2, Info: "\x05\x00\x00\x00\xff\xff\xff\xff"},
			`{"xt": {"type": "target", "name": "MARK", "rev": 2, "iptables": "-j MARK --set-xmark 0x5/0xffffffff"}}`,
		},
		{
			ruleset.Verdict{Kind: ruleset.Jump, Anonymous: &inside},
			`{"jump": {"rules": [{"handle": 7, "comment": "in", "expr": [{"drop": null}]}]}}`,
		},
		{
			ruleset.SetUpdate{Op: "add", Set: "m", Key: saddr, Data: mark, Timeout: 1500, Parts: []ruleset.Part{ruleset.Counter{}}},
			`{"map": {"op": "add", "elem": {"elem": {"val": {"payload": {"protocol": "ip", "field": "saddr"}}, "timeout": 1, "timeout_ms": 1500}}, ` +
				`"data": {"meta": {"key": "mark"}}, "map": "@m", "stmt": [{"counter": null}]}}`,
		},
		{
			ruleset.Compare{Left: ruleset.Socket{Key: "cgroupv2", Level: 3}, Right: ruleset.Value{Type: ruleset.TypeMark, Data: "\x01\x00\x00\x00"}},
			`{"match": {"op": "==", "left": {"socket": {"key": "cgroupv2", "level": 3}}, "right": 1}}`,
		},
		{
			ruleset.FlowAdd{Table: "f"}, `{"flow": {"op": "add", "flowtable": "@f"}}`,
		},
		{
			ruleset.Enqueue{From: 1, To: 3, Flags: []string{"bypass"}}, `{"queue": {"num": {"range": [1, 3]}, "flags": "bypass"}}`,
		},
		{
			ruleset.Last{Used: true, Ago: 20}, `{"last": {"used": 20}}`,
		},
		{
			ruleset.Log{Prefix: "\xff<\"\n"}, `{"log": {"prefix": "\ufffd<\"\n"}}`,
		},
	}
	for _, row := range rows {
		got := printed(t, ruleset.Table{
			Family: ruleset.FamilyIP, Name: "t", Chains: []ruleset.Chain{{Name: "c", Rules: []ruleset.Rule{{Parts: []ruleset.Part{row.part}}}}},
		}, nftjson.Options{})
		if want := `"expr": [` + row.want + "]}}]}\n"; !strings.HasSuffix(got, want) {
			t.Errorf("%s\nprinted %swant    %s", row.part, got[strings.LastIndex(got[:len(got)-1], "\n")+1:], want)
		}
	}
}

func TestOptions(t *testing.T) {
	table := ruleset.Table{
		Family: ruleset.FamilyInet, Name: "t", Handle: 1, Flags: []string{"dormant"}, Comment: "c",
		Flowtables: []ruleset.Flowtable{{Name: "f", Hook: ruleset.HookIngress, Devices: []string{"a", "b"}, Flags: []string{"counter"}}},
		Sets:       []ruleset.Set{{Name: "s", Key: ruleset.TypeMark, Elements: []ruleset.Element{{CatchAll: true, Expires: 5000, Counter: &ruleset.Counter{}}}}},
		Chains:     []ruleset.Chain{{Name: "c", Handle: 2, Rules: []ruleset.Rule{{Parts: []ruleset.Part{ruleset.Counter{Packets: 3}}}}}},
	}
	head := `{"nftables": [{"metainfo": {"version": "1", "release_name": "nftnet", "json_schema_version": 1}},
{"table": {"family": "inet", "name": "t", "handle": 1, "flags": "dormant", "comment": "c"}},
`
	const chain = `{"chain": {"family": "inet", "table": "t", "name": "c", "handle": 2}}`
	if got, want := printed(t, table, nftjson.Options{Version: "1", ChainsOnly: true}), head+chain+"]}\n"; got != want {
		t.Errorf("chains only:\n%swant\n%s", got, want)
	}
	want := head + `{"set": {"family": "inet", "name": "s", "table": "t", "type": "mark", "handle": 0, "elem": [{"elem": {"val": "*", "counter": null}}]}},
{"flowtable": {"family": "inet", "name": "f", "table": "t", "handle": 0, "hook": "ingress", "prio": 0, "dev": ["a", "b"], "flags": ["counter"]}},
` + chain + `,
{"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 0, "expr": [{"counter": null}]}}]}
`
	if got := printed(t, table, nftjson.Options{Version: "1", Stateless: true}); got != want {
		t.Errorf("stateless:\n%swant\n%s", got, want)
	}
}
