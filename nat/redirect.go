package nat

import (
	"nftnet/internal/desired"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"strings"
)

// Maps of the host redirects: to the chain of the redirect. The word redirect
// alone cannot name one, nft reserves it.
const (
	mapRedirects   = "redirects"
	mapRedirects4  = "redirects4_at"
	mapRedirects6  = "redirects6_at"
	redirectPrefix = "redirect-"
)

func redirectSets() []rs.Set {
	at := func(addr rs.Type) rs.Type { return rs.ConcatTypes(addr, rs.TypeInetProto, rs.TypeInetService) }
	return []rs.Set{
		{Name: mapRedirects, Key: typePublish4, Data: rs.TypeVerdict},
		{Name: mapRedirects4, Key: at(rs.TypeIPv4Addr), Data: rs.TypeVerdict},
		{Name: mapRedirects6, Key: at(rs.TypeIPv6Addr), Data: rs.TypeVerdict},
	}
}

// redirectRules find the redirect of a packet by one lookup, of one address
// before those of every address. They stand before the rules that leave ::1 and
// link-local clients to the port socket: a redirect does not leave the host, so
// the kernel can translate both.
//
// Maps of ports that "redirect to :… map" would look up itself hold less, but
// nft 1.0.6 refuses to load such a rule of its own listing, where one
// map serves all protocols: a saved ruleset would not load.
func redirectRules() []rs.Rule {
	return []rs.Rule{
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(rs.IPDaddr, l4proto, rs.THDport), Map: mapRedirects4}),
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(rs.IP6Daddr, l4proto, rs.THDport), Map: mapRedirects6}),
		rs.NewRule(rs.VMap{Key: rs.ConcatOf(l4proto, rs.THDport), Map: mapRedirects}),
	}
}

// addRedirect adds the chain of a redirect, and the element that leads there.
func addRedirect(t *rs.Table, r desired.Redirect) {
	comment := layout.RedirectComment(r.Name)
	chain := redirectPrefix + r.Name
	t.Chains = append(t.Chains, rs.Chain{Name: chain, Rules: []rs.Rule{
		rs.NewRule(rs.Is(l4proto, rs.Proto(r.Proto)), rs.Counter{}, rs.Redirect{Port: rs.Port(r.To)}).Because(comment),
	}})
	name, key := redirectKey(r)
	t.AddElement(name, rs.Element{Key: key, Verdict: rs.GotoChain(chain), Comment: comment})
}

func redirectKey(r desired.Redirect) (string, rs.Value) {
	proto, port := rs.Proto(r.Proto), rs.Port(r.Port)
	if !r.Address.IsValid() {
		return mapRedirects, rs.Concat(proto, port)
	}
	return pick(r.Address, mapRedirects4, mapRedirects6), rs.Concat(rs.Addr(r.Address), proto, port)
}

// Redirects reads back from a table the host redirects that [Ruleset] made.
func Redirects(t rs.Table) []desired.Redirect {
	var out []desired.Redirect
	for _, name := range []string{mapRedirects, mapRedirects4, mapRedirects6} {
		set := t.Set(name)
		if set == nil {
			continue
		}
		for _, e := range set.Elements {
			if r, ok := redirectOf(t, e); ok {
				out = append(out, r)
			}
		}
	}
	return out
}

// redirectOf reads an element of one of the maps of redirects, and the chain that
// it leads to.
func redirectOf(t rs.Table, e rs.Element) (desired.Redirect, bool) {
	name, ours := strings.CutPrefix(e.Verdict.Chain, redirectPrefix)
	chain, key := t.Chain(e.Verdict.Chain), e.Key.Parts()
	if !ours || chain == nil || len(key) < 2 {
		return desired.Redirect{}, false
	}
	r := desired.Redirect{Name: name}
	if len(key) == 3 {
		r.Address, _ = key[0].Addr()
		key = key[1:]
	}
	proto, _ := key[0].Uint()
	port, _ := key[1].Uint()
	r.Proto, r.Port = uint8(proto), uint16(port)
	for _, rule := range chain.Rules {
		for _, part := range rule.Parts {
			if to, ok := part.(rs.Redirect); ok {
				number, _ := to.Port.Uint()
				r.To = uint16(number)
			}
		}
	}
	return r, r.Validate() == nil
}
