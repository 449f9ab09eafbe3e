package nftjson

import "nftnet/internal/ruleset"

// state is a statement that keeps something between packets.
func (p printer) state(part ruleset.Part) (any, bool) {
	switch s := part.(type) {
	case ruleset.Counter:
		if p.stateless {
			return one("counter", nil), true
		}
		return one("counter", counter(s)), true
	case ruleset.Limit:
		return one("limit", limit(s)), true
	case ruleset.Quota:
		return one("quota", p.quota(s)), true
	case ruleset.ConnLimit:
		return one("ct count", one("val", uint64(s.Count)).with(s.Over, "inv", true)), true
	case ruleset.Last:
		if p.stateless || !s.Used {
			return one("last", nil), true
		}
		return one("last", one("used", s.Ago)), true
	case ruleset.ObjectRef:
		return p.objectRef(s), true
	case ruleset.SetUpdate:
		return p.update(s), true
	}
	return nil, false
}

func counter(c ruleset.Counter) object { return object{{"packets", c.Packets}, {"bytes", c.Bytes}} }

func limit(l ruleset.Limit) object {
	if !l.Bytes {
		return object{{"rate", l.Rate}, {"burst", uint64(l.Burst)}, {"per", l.Unit}}.with(l.Over, "inv", true)
	}
	rate, unit := ruleset.ByteUnit(l.Rate)
	burst, burstUnit := ruleset.ByteUnit(uint64(l.Burst))
	return object{{"rate", rate}, {"burst", burst}, {"per", l.Unit}}.
		with(l.Over, "inv", true).
		with(true, "rate_unit", unit).
		with(true, "burst_unit", burstUnit)
}

func (p printer) quota(q ruleset.Quota) object {
	bytes, unit := ruleset.ByteUnit(q.Bytes)
	used, usedUnit := ruleset.ByteUnit(q.Used)
	shown := q.Used != 0 && !p.stateless
	return object{{"val", bytes}, {"val_unit", unit}}.
		with(q.Over, "inv", true).
		with(shown, "used", used).
		with(shown, "used_unit", usedUnit)
}

func (p printer) objectRef(r ruleset.ObjectRef) object {
	if r.Key != nil {
		return one(r.Kind, one("map", p.mapping(r.Key, r.Map, r.Anonymous)))
	}
	return one(r.Kind, r.Name)
}

// update adds an element to a set or removes one (set_stmt_json, map_stmt_json,
// meter_stmt_json).
func (p printer) update(u ruleset.SetUpdate) object {
	p.stateless = true
	key := p.expr(u.Key)
	if u.Timeout != 0 {
		key = one("elem", span(one("val", key), "timeout", u.Timeout))
	}
	state := p.parts(u.Parts)
	if u.Meter {
		var first any
		if len(state) > 0 {
			first = state[0]
		}
		return one("meter", object{{"key", key}, {"stmt", first}, {"size", uint64(u.Size)}, {"name", u.Set}})
	}
	o := object{{"op", u.Op}, {"elem", key}}
	kind := "set"
	if u.Data != nil {
		kind = "map"
		o = append(o, member{"data", p.expr(u.Data)})
	}
	return one(kind, append(o, member{kind, "@" + u.Set}).with(len(state) > 0, "stmt", state))
}

func (p printer) objects(t *ruleset.Table) lazy {
	return each(t.Objects, all, func(o *ruleset.Object) any {
		head := named(t, o.Name, o.Handle).with(o.Comment != "", "comment", o.Comment)
		return one(o.Kind, append(head, p.held(o.State)...))
	})
}

// held is what a named object holds (obj_print_json).
func (p printer) held(state ruleset.Part) object {
	switch s := state.(type) {
	case nil:
		return nil
	case ruleset.Counter:
		if p.stateless {
			return nil
		}
		return counter(s)
	case ruleset.Quota:
		if p.stateless {
			s.Used = 0
		}
		return object{{"bytes", s.Bytes}, {"used", s.Used}, {"inv", s.Over}}
	case ruleset.Limit:
		return limit(s)
	case ruleset.SynProxy:
		return object{{"mss", uint64(s.MSS)}, {"wscale", uint64(s.WScale)}}.
			with(s.Timestamp || s.SackPerm, "flags", synproxyFlags(s))
	case ruleset.SecMark:
		return one("context", s.Context)
	case ruleset.HelperObject:
		return object{{"type", s.Helper}, {"protocol", s.Protocol}, {"l3proto", s.L3}}
	case ruleset.TimeoutObject:
		return object{{"protocol", s.Protocol}, {"l3proto", s.L3}, {"policy", timeouts(s.Policy)}}
	case ruleset.ExpectationObject:
		return object{
			{"protocol", s.Protocol}, {"dport", uint64(s.Port)}, {"timeout", uint64(s.Timeout)}, {"size", uint64(s.Size)}, {"l3proto", s.L3},
		}
	}
	if o, ok := p.part(state).(object); ok {
		return o
	}
	return unknown("object", state.String())
}

func timeouts(policy []ruleset.StateTimeout) any {
	var o object
	for _, t := range policy {
		o = append(o, member{t.State, uint64(t.Seconds)})
	}
	return o.orNull()
}
