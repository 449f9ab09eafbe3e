package kernel_test

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// TestRulesAreWrittenAsNftWritesThem reads rules that nft wrote and writes them
// into another chain: the kernel must hold the same bytes in both. What the
// encoder cannot write it must refuse before the kernel sees anything.
func TestRulesAreWrittenAsNftWritesThem(t *testing.T) {
	for _, rows := range rulesToRead {
		t.Run(string(rows.family)+" "+rows.chain, func(t *testing.T) {
			t.Parallel()
			ns := nstest.NewNS(t, "write")
			loaded := loadRows(t, ns, rows)
			conn := open(t, ns)
			table := readTable(t, conn, rows.family, "t")
			chain := *table.Chain("c")
			again := ruleset.Chain{Name: "again", Base: chain.Base}
			if rows.family == ruleset.FamilyNetdev {
				again.Base = nil
			}
			add := ruleset.Change{Verb: ruleset.Add, Family: rows.family, Table: "t", Chain: &again}
			if err := conn.Apply(ruleset.Batch{add}); err != nil {
				t.Fatal(err)
			}
			theirs := rawByChain(t, conn, rows.family, "t")["c"]
			var want []string
			var twoWays []bool
			for i, r := range chain.Rules {
				change := add
				change.Rule = &r
				err := conn.Apply(ruleset.Batch{change})
				if err == nil {
					want = append(want, theirs[i])
					twoWays = append(twoWays, loaded[i].twoWays)
					continue
				}
				if refused := new(kernel.ApplyError); errors.As(err, &refused) {
					t.Errorf("the kernel refuses what was read: %v", err)
				} else if !beyondTheEncoder(r) {
					t.Errorf("not written: %v", err)
				}
			}
			ours := rawByChain(t, conn, rows.family, "t")["again"]
			written := readTable(t, conn, rows.family, "t").Chain("again").Rules
			for i := range want {
				if diff := cmp.Diff(want[i], ours[i]); (diff != "") != twoWays[i] {
					t.Errorf("%s (-nft's +ours)\n%s", written[i], diff)
				}
			}
			t.Logf("%d of %d rules written", len(want), len(chain.Rules))
		})
	}
}

// beyondTheEncoder says whether a rule has a part of a kind that the driver does
// not need and the encoder does not write.
func beyondTheEncoder(r ruleset.Rule) bool {
	return slices.ContainsFunc(r.Parts, func(p ruleset.Part) bool {
		switch p := p.(type) {
		case ruleset.Compare:
			return !writes(p.Left)
		case ruleset.InRange:
			return !writes(p.Left)
		case ruleset.InPrefix:
			return !writes(p.Left)
		case ruleset.Lookup:
			return p.Anonymous != nil
		case ruleset.VMap:
			return p.Anonymous != nil
		case ruleset.Counter, ruleset.Verdict, ruleset.Notrack:
			return false
		case ruleset.NAT:
			return p.AddrEnd.Data != "" || p.PortEnd.Data != "" || p.To != nil || p.Anonymous != nil
		case ruleset.Masquerade:
			return p.Port.Data != ""
		case ruleset.Redirect:
			return p.PortEnd.Data != "" || p.To != nil
		case ruleset.HasAny:
			return false
		case ruleset.Mangle:
			b, _ := p.From.(ruleset.Binary)
			if kept, ok := b.Left.(ruleset.Masked); ok {
				b.Left = kept.Expr
			}
			return b.Op != "|" || b.Left != p.Left
		}
		return true
	})
}

// writes says whether the encoder reads what the driver reads.
func writes(x ruleset.Expr) bool {
	switch x := x.(type) {
	case ruleset.Ct:
		return x.Dir == ""
	case ruleset.Payload:
		return x.Bits == 0
	case ruleset.Masked:
		return writes(x.Expr)
	case ruleset.Meta, ruleset.Fib:
		return true
	}
	return false
}

func readTable(t *testing.T, conn *kernel.Conn, family ruleset.Family, name string) *ruleset.Table {
	t.Helper()
	rs, err := conn.Read(kernel.Filter{Family: family, Table: name})
	if err != nil {
		t.Fatal(err)
	}
	table := rs.Table(family, name)
	if table == nil {
		t.Fatalf("no table %s %s", family, name)
	}
	return table
}

// TestSetsAreWrittenAsNftWritesThem does the same for sets and their elements.
func TestSetsAreWrittenAsNftWritesThem(t *testing.T) {
	theirs, ours := nstest.NewNS(t, "nft"), nstest.NewNS(t, "ours")
	load(t, theirs, "table inet t {\ncounter web { }\n}\n")
	load(t, theirs, setsToRead)
	nft, conn := open(t, theirs), open(t, ours)
	want := *readTable(t, nft, ruleset.FamilyInet, "t")
	sets := want.Sets
	want.Sets = nil
	for _, s := range sets {
		one := want
		one.Sets = []ruleset.Set{s}
		err := conn.Apply(ruleset.Diff(readAll(t, conn), ruleset.Ruleset{Tables: []ruleset.Table{one}}))
		beyond := len(s.Extra) > 0 || s.DataInterval || s.Name == "objects"
		if refused := new(kernel.ApplyError); errors.As(err, &refused) || (err != nil) != beyond {
			t.Errorf("%s: %v", s.Name, err)
		}
		if err == nil {
			want.Sets = append(want.Sets, s)
		}
	}
	if err := conn.Apply(ruleset.Diff(readAll(t, conn), ruleset.Ruleset{Tables: []ruleset.Table{want}})); err != nil {
		t.Fatalf("%+v", err)
	}
	for _, s := range want.Sets {
		if diff := cmp.Diff(rawSet(t, nft, s.Name), rawSet(t, conn, s.Name)); diff != "" {
			t.Errorf("%s (-nft's +ours)\n%s", s.Name, diff)
		}
	}
	if diff := ruleset.Diff(readAll(t, conn), ruleset.Ruleset{Tables: []ruleset.Table{want}}); len(diff) > 0 {
		t.Errorf("read back, there is left to do:\n%s", diff)
	}
}

func readAll(t *testing.T, conn *kernel.Conn) ruleset.Ruleset {
	t.Helper()
	rs, err := conn.Read(kernel.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// rawSet is the dump of a set and its elements without times to live. nft puts
// the end of nothing before the first of some intervals, which we leave out; the
// kernel counts it.
func rawSet(t *testing.T, conn *kernel.Conn, name string) []string {
	t.Helper()
	objects, err := conn.Raw(ruleset.FamilyInet, "t")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		if o.Name != name || o.Kind != "set" && o.Kind != "elements of" {
			continue
		}
		for _, l := range o.Lines {
			if !endOfNothing.MatchString(l) && !elementCount.MatchString(l) {
				out = append(out, timeToLive.ReplaceAllString(l, ""))
			}
		}
	}
	return out
}

var (
	elementCount = regexp.MustCompile(`^20: `)
	endOfNothing = regexp.MustCompile(`^1:\n  1:\n    1: 0+\n  3: 00000001$`)
	timeToLive   = regexp.MustCompile(`(?m)^  5: .*$`)
)

// typesOfNft are the data types that nft 1.0.6 lets a set be of, and some
// concatenations.
var typesOfNft = []ruleset.Type{
	"nf_proto", "ipv4_addr", "ipv6_addr", "ether_addr", "ether_type", "arp_op", "inet_proto", "inet_service", "icmp_type",
	"tcp_flag", "mark", "iface_index", "iface_type", "realm", "classid", "uid", "gid", "ct_state", "ct_dir", "ct_status",
	"icmpv6_type", "pkt_type", "icmp_code", "icmpv6_code", "icmpx_code", "devgroup", "dscp", "fib_addrtype", "boolean",
	"ifname", "igmp_type", "ifname . ifname", "ipv4_addr . inet_proto . inet_service", "ether_addr . mark . ipv6_addr",
}

func TestDataTypesAreThoseOfNft(t *testing.T) {
	theirs, ours := nstest.NewNS(t, "nft"), nstest.NewNS(t, "ours")
	want := ruleset.Table{Family: ruleset.FamilyInet, Name: "t"}
	var text strings.Builder
	text.WriteString("table inet t {\n")
	for i, typ := range typesOfNft {
		s := ruleset.Set{Name: fmt.Sprintf("s%d", i), Key: typ}
		m := ruleset.Set{Name: fmt.Sprintf("m%d", i), Key: ruleset.TypeInetService, Data: typ}
		want.Sets = append(want.Sets, s, m)
		fmt.Fprintf(&text, "set %s { type %s; }\nmap %s { type %s : %s; }\n", s.Name, s.Key, m.Name, m.Key, m.Data)
	}
	text.WriteString("}\n")
	load(t, theirs, text.String())
	nft, conn := open(t, theirs), open(t, ours)
	if err := conn.Apply(ruleset.Diff(ruleset.Ruleset{}, ruleset.Ruleset{Tables: []ruleset.Table{want}})); err != nil {
		t.Fatalf("%+v", err)
	}
	read := readTable(t, nft, ruleset.FamilyInet, "t")
	for _, s := range want.Sets {
		if diff := cmp.Diff(rawSet(t, nft, s.Name), rawSet(t, conn, s.Name)); diff != "" {
			t.Errorf("%s : %s (-nft's +ours)\n%s", s.Key, s.Data, diff)
		}
		if r := read.Set(s.Name); r.Key != s.Key || r.Data != s.Data {
			t.Errorf("%s : %s is read as %s : %s", s.Key, s.Data, r.Key, r.Data)
		}
	}
}
