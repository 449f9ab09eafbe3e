package inspect

import (
	"context"
	"slices"
	"time"

	"nftnet/internal/ruleset"
)

// Rate is how fast a rule or an element counts.
type Rate struct {
	Object Object
	// Text is the object in nft's words, without numbers.
	Text string
	// Packets and Bytes are per second.
	Packets, Bytes float64
}

// sample is a counter at one moment.
type sample struct {
	ruleset.Counter
	at   time.Time
	text string
	// object is where the counter stands now.
	object Object
}

// samples are the counters of rules and elements. A rule is known by its
// handle, which stays when others come before it.
func (f *Follower) samples(rs ruleset.Ruleset, now time.Time) map[Object]sample {
	out := map[Object]sample{}
	for i := range rs.Tables {
		t := &rs.Tables[i]
		table := tableObject(t)
		for _, c := range t.Chains {
			for j, r := range c.Rules {
				if n, ok := counterOf(r); ok {
					key := table.chain(c.Name).rule(int(r.Handle))
					out[key] = sample{n, now, r.Text(stateless), table.chain(c.Name).rule(j)}
				}
			}
		}
		for _, s := range t.Sets {
			for j, e := range s.Elements {
				if e.Counter != nil {
					// An element has no handle; its key is as good.
					key := table.set(s.Name + "\x00" + e.KeyText())
					out[key] = sample{*e.Counter, now, e.Text(stateless), table.set(s.Name).element(j)}
				}
			}
		}
	}
	return out
}

// counterOf is the first counter of a rule.
func counterOf(r ruleset.Rule) (ruleset.Counter, bool) {
	for _, p := range r.Parts {
		if c, ok := p.(ruleset.Counter); ok {
			return c, true
		}
	}
	return ruleset.Counter{}, false
}

// tick tells how fast counters went since the last one. A counter that went
// back was reset, and one that is new has no rate yet.
func (f *Follower) tick(ctx context.Context, now time.Time) error {
	rs, gen, err := f.read(ctx)
	if err != nil {
		return err
	}
	counts := f.samples(rs, now)
	var rates []Rate
	for key, is := range counts {
		was, ok := f.counts[key]
		seconds := now.Sub(was.at).Seconds()
		if !ok || seconds <= 0 || is.Packets <= was.Packets || is.Bytes < was.Bytes {
			continue
		}
		rates = append(rates, Rate{
			Object: is.object, Text: is.text,
			Packets: float64(is.Packets-was.Packets) / seconds, Bytes: float64(is.Bytes-was.Bytes) / seconds,
		})
	}
	slices.SortFunc(rates, func(a, b Rate) int { return compareObjects(rs, a.Object, b.Object) })
	f.counts = counts
	return f.Tell(Step{At: now, Generation: gen.ID, Ticked: true, Rates: rates, Model: f.model})
}

// compareObjects orders rules and elements as they stand in the ruleset.
func compareObjects(rs ruleset.Ruleset, a, b Object) int {
	place := func(o Object) []int {
		table := slices.IndexFunc(rs.Tables, func(t ruleset.Table) bool { return t.Family == o.Family && t.Name == o.Table })
		t := rs.Tables[table]
		if o.Set != "" {
			return []int{table, 1, slices.IndexFunc(t.Sets, func(s ruleset.Set) bool { return s.Name == o.Set }), o.Index}
		}
		return []int{table, 0, slices.IndexFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == o.Chain }), o.Index}
	}
	return slices.Compare(place(a), place(b))
}
