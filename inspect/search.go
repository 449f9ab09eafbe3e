package inspect

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"nftnet/internal/layout"
	"nftnet/internal/ruleset"
)

// found is what a search of a part of the ruleset came upon: the network, and
// the chains that verdicts lead to.
type found struct {
	network bool
	chains  []string
}

// search looks through a part of the ruleset, whatever its kind, for constants
// of the network and for verdicts: a kind of part that is new is searched
// without a line here.
func (b *belongings) search(part any) found {
	var f found
	b.walk(reflect.ValueOf(part), &f)
	return f
}

func (b *belongings) walk(v reflect.Value, f *found) {
	if !v.IsValid() || !v.CanInterface() {
		return
	}
	switch x := v.Interface().(type) {
	case ruleset.Value:
		f.network = f.network || b.value(x)
		return
	case netip.Prefix:
		f.network = f.network || b.prefix(x)
		return
	case ruleset.InRange:
		f.network = f.network || b.span(x.From, x.To)
		return
	case ruleset.Element:
		b.element(x, f)
		return
	case ruleset.Verdict:
		if x.Chain != "" {
			f.chains = append(f.chains, x.Chain)
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			b.walk(v.Field(i), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			b.walk(v.Index(i), f)
		}
	case reflect.Pointer, reflect.Interface:
		b.walk(v.Elem(), f)
	}
}

func (b *belongings) element(e ruleset.Element, f *found) {
	f.network = f.network || b.owns(e.Comment) || b.span(e.Key, e.End) || b.span(e.Data, e.DataEnd)
	b.walk(reflect.ValueOf(e.Verdict), f)
}

// span says whether a range lies in the network; one without an end is a value.
func (b *belongings) span(from, to ruleset.Value) bool {
	return b.value(from) && (to.Data == "" || b.value(to))
}

// value says whether a constant holds the network's bridge, or an address of
// the network.
func (b *belongings) value(v ruleset.Value) bool {
	return slices.ContainsFunc(v.Parts(), func(p ruleset.Value) bool {
		switch p.Type {
		case ruleset.TypeIfname:
			return b.net.Bridge != "" && p.Name() == b.net.Bridge
		case ruleset.TypeIfIndex:
			return b.net.Bridge != "" && p.Label == b.net.Bridge
		}
		a, ok := p.Addr()
		return ok && b.prefix(netip.PrefixFrom(a, a.BitLen()))
	})
}

// prefix says whether addresses lie in a subnet of the network.
func (b *belongings) prefix(p netip.Prefix) bool {
	return slices.ContainsFunc(b.net.Subnets, func(s Subnet) bool {
		return s.Prefix.Bits() <= p.Bits() && s.Prefix.Contains(p.Addr())
	})
}

// owns says whether a comment is one by which the driver says that an object is
// there for the network.
func (b *belongings) owns(comment string) bool {
	o, ok := layout.ParseOwner(comment)
	return ok && strings.HasPrefix(b.net.ID, o.Network)
}

// names says whether the name of a chain or set has that of the bridge in it, as
// Docker's own have.
func (b *belongings) names(name string) bool {
	before, after, ok := strings.Cut(name, b.net.Bridge)
	return ok && b.net.Bridge != "" && !endsWord(before) && !strings.ContainsFunc(after[:min(len(after), 1)], isWord)
}

func endsWord(s string) bool { return s != "" && isWord(rune(s[len(s)-1])) }

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
