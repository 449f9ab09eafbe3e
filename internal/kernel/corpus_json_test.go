package kernel_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/nftjson"
	"nftnet/internal/ruleset/rulesettest"
)

// leastEqualJSON is the least share of foreign rules and rulesets for which our
// JSON must be nft's, of those where nft's is complete.
const leastEqualJSON = 0.99

// wrongInNft are objects of which nft's JSON is not what the kernel holds: of the
// key "ip saddr . ct original proto-dst" it leaves the second type out.
var wrongInNft = map[string]bool{"5be0c90e79c1 object 1, a map": true}

type jsonMap = map[string]any

// TestRulesOfTheCorpusAreJSONAsByNft holds our JSON of foreign rules against
// nft's. nft does not load rules whose sets the corpus has in a whole ruleset
// only, which the test of rulesets reads.
func TestRulesOfTheCorpusAreJSONAsByNft(t *testing.T) {
	var tally jsonTally
	for _, group := range jsonGroups(t) {
		b := newCorpusBatch(group)
		ns := nstest.NewNS(t, "json")
		loaded := b.load(t, ns)
		conn := open(t, ns)
		rs, err := conn.Read(kernel.Filter{Family: b.family, Table: b.table})
		if err != nil {
			t.Fatal(err)
		}
		ours, live := rulesByChain(ourJSON(t, rs)), rulesByChain(nftJSON(t, ns))
		tally.refused += len(b.rules) - len(loaded)
		for _, i := range loaded {
			r := b.rules[i]
			chain := fmt.Sprintf("c%d", slices.Index(b.chains, r.Hook))
			if len(ours[chain]) == 0 || len(ours[chain]) != len(live[chain]) {
				t.Fatalf("%s: %d rules left, and %d of nft", r.Rule, len(ours[chain]), len(live[chain]))
			}
			tally.object(t, "rule", r.Rule, ours[chain][0], r.JSON, live[chain][0])
			ours[chain], live[chain] = ours[chain][1:], live[chain][1:]
		}
	}
	tally.check(t, "rules")
}

// jsonGroups are the rules that go into one table together.
func jsonGroups(t *testing.T) map[string][]corpusRule {
	t.Helper()
	groups := map[string][]corpusRule{}
	for _, r := range readCorpusFile(t) {
		if r.IPTables != "" {
			continue
		}
		group := string(r.Family)
		if len(r.Setup) > 0 || strings.Contains(r.Rule, "\n") {
			group = fmt.Sprintf("%s-%d", r.Family, r.ID)
		}
		groups[group] = append(groups[group], r)
	}
	return groups
}

// TestIPTablesRulesOfTheCorpusAreJSON has iptables-nft load foreign rules. nft's
// JSON of an extension is its name; ours has what it says, too.
func TestIPTablesRulesOfTheCorpusAreJSON(t *testing.T) {
	ns := nstest.NewNS(t, "json")
	conn := open(t, ns)
	var tally jsonTally
	var extensions, worded int
	for _, r := range readCorpusFile(t) {
		if r.IPTables == "" {
			continue
		}
		command := map[ruleset.Family]string{ruleset.FamilyIP: "iptables-nft", ruleset.FamilyIP6: "ip6tables-nft"}[r.Family]
		ns.Exec(t, "nft", "flush", "ruleset")
		if _, err := ns.Try("sh", "-c", command+" -t "+r.Table+" "+r.IPTables); err != nil {
			t.Logf("not loaded: %s: %v", r.IPTables, err)
			tally.refused++
			continue
		}
		rs, err := conn.Read(kernel.Filter{Family: r.Family, Table: r.Table})
		if err != nil {
			t.Fatal(err)
		}
		ours, live := rulesByChain(ourJSON(t, rs))[r.Chain], rulesByChain(nftJSON(t, ns))[r.Chain]
		if len(ours) != 1 || len(live) != 1 {
			t.Fatalf("%s: %d rules, %d of nft", r.IPTables, len(ours), len(live))
		}
		tally.object(t, "rule", r.IPTables, ours[0], r.JSON, live[0])
		for _, e := range ours[0]["expr"].([]any) {
			xt, ok := e.(jsonMap)["xt"].(jsonMap)
			if !ok {
				continue
			}
			extensions++
			words, _ := xt["iptables"].(string)
			if words != "" {
				worded++
			} else if data, _ := xt["data"].(string); data == "" {
				t.Errorf("%s: only the name of %v", r.IPTables, xt)
			}
		}
	}
	tally.check(t, "rules of iptables")
	t.Logf("%d of %d extensions in the words of iptables, the others as bytes", worded, extensions)
}

// TestRulesetsOfTheCorpusAreJSONAsByNft holds our JSON of whole foreign rulesets
// against nft's, and against what nft prints of the same kernel: there handles
// and what counters count must be the same, too.
func TestRulesetsOfTheCorpusAreJSONAsByNft(t *testing.T) {
	ns := nstest.NewNS(t, "json")
	conn := open(t, ns)
	var rulesets, objects jsonTally
	for _, c := range readRulesets(t) {
		if !nftLoads(t, ns, c.Text) {
			rulesets.refused++
			continue
		}
		rs, err := conn.Read(kernel.Filter{})
		if err != nil {
			t.Fatalf("%s: %v", c.ID, err)
		}
		ours, live := ourJSON(t, rs)[1:], nftJSON(t, ns)[1:]
		before := objects.equal + objects.incomplete
		objects.list(t, c.ID, ours, c.JSON.Nftables[1:], live)
		rulesets.total++
		if objects.equal+objects.incomplete-before == len(ours) {
			rulesets.equal++
		}
	}
	objects.check(t, "objects of rulesets")
	rulesets.check(t, "rulesets")
}

func ourJSON(t *testing.T, rs ruleset.Ruleset) []map[string]jsonMap {
	t.Helper()
	var tables []*ruleset.Table
	for i := range rs.Tables {
		tables = append(tables, &rs.Tables[i])
	}
	var b bytes.Buffer
	if err := nftjson.Write(&b, tables, nftjson.Options{Version: "test"}); err != nil {
		t.Fatal(err)
	}
	return readJSON(t, b.String())
}

func nftJSON(t *testing.T, ns *nstest.NS) []map[string]jsonMap {
	t.Helper()
	return readJSON(t, ns.Exec(t, "nft", "-j", "list", "ruleset"))
}

func readJSON(t *testing.T, text string) []map[string]jsonMap {
	t.Helper()
	objects, err := rulesettest.ParseJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func rulesByChain(objects []map[string]jsonMap) map[string][]jsonMap {
	out := map[string][]jsonMap{}
	for _, o := range objects {
		if r := o["rule"]; r != nil {
			chain := r["chain"].(string)
			out[chain] = append(out[chain], r)
		}
	}
	return out
}

// jsonTally counts what is equal: reloaded of it to what nft makes of its own
// listing, which is something else than it listed. Of what is incomplete nft
// prints text.
type jsonTally struct{ total, equal, reloaded, incomplete, refused int }

// list compares the objects of a ruleset.
func (c *jsonTally) list(t *testing.T, id string, ours, corpus, live []map[string]jsonMap) {
	t.Helper()
	if len(ours) != len(live) {
		t.Errorf("%s: %d objects, nft has %d", id, len(ours), len(live))
		return
	}
	for i := range ours {
		for kind := range ours[i] {
			text := fmt.Sprintf("%s object %d, a %s", id, i, kind)
			var theirs jsonMap
			if len(corpus) == len(ours) {
				theirs = corpus[i][kind]
			}
			c.object(t, kind, text, ours[i][kind], theirs, live[i][kind])
			got, want := rulesettest.CommonJSON(kind, ours[i][kind], true), rulesettest.CommonJSON(kind, live[i][kind], true)
			if textInside(live[i][kind]) == "" && !wrongInNft[text] && !reflect.DeepEqual(got, want) {
				differences.note("json live "+text, marshal(want), marshal(got))
				t.Errorf("%s: of the same kernel\nnft prints %s\nwe print   %s", text, marshal(want), marshal(got))
			}
		}
	}
}

// object compares an object with the corpus. nft may load of a
// listing something else than what it listed: then what it says of that counts.
func (c *jsonTally) object(t *testing.T, kind, text string, ours, corpus, live jsonMap) {
	t.Helper()
	if textInside(live) != "" {
		c.incomplete++
		c.whole(t, text, ours, textInside(live))
		return
	}
	c.total++
	got, first, second := content(kind, ours), content(kind, corpus), content(kind, live)
	switch {
	case reflect.DeepEqual(got, first):
		c.equal++
		return
	case reflect.DeepEqual(got, second):
		c.equal++
		c.reloaded++
		return
	}
	differences.note("json "+text, marshal(second), marshal(got))
}

// whole checks what we print where nft prints text.
func (c *jsonTally) whole(t *testing.T, text string, ours jsonMap, theirs string) {
	t.Helper()
	if s := textInside(ours); s != "" {
		t.Errorf("%s: we print the text %q, too", text, s)
	}
	all := marshal(ours)
	wanted := []string{`"map":{`, `"elem":`, `"data":`, `"op":`}
	if strings.Contains(theirs, "{\n") {
		wanted = []string{`{"rules":[`, `"expr":[`}
	}
	for _, w := range wanted {
		if !strings.Contains(all, w) {
			t.Errorf("%s: no %s in %s", text, w, all)
		}
	}
}

func (c *jsonTally) check(t *testing.T, what string) {
	t.Helper()
	differences.write(t)
	t.Logf("%d %s: %d (%.1f %%) are the JSON of nft, %d of them not the corpus'; of %d more nft has no JSON, %d nft does not load",
		c.total, what, c.equal, 100*float64(c.equal)/float64(c.total), c.reloaded, c.incomplete, c.refused)
	if c.total == 0 || float64(c.equal) < leastEqualJSON*float64(c.total) {
		t.Errorf("%d of %d %s are the JSON of nft", c.equal, c.total, what)
	}
}

// textInside is the text that nft prints in the place of a statement that it has
// no JSON for.
func textInside(rule jsonMap) string {
	expr, _ := rule["expr"].([]any)
	for _, e := range expr {
		if s, ok := e.(string); ok {
			return s
		}
	}
	return ""
}

// content is what an object says beside its place.
func content(kind string, o jsonMap) any {
	c, _ := rulesettest.CommonJSON(kind, o, false).(jsonMap)
	for _, place := range []string{"table", "chain", "family", "expires"} {
		delete(c, place)
	}
	return c
}

func marshal(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
