package kernel_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// manyRules is a ruleset of so many rules, spread over chains.
func manyRules(rules, chains int) string {
	var b strings.Builder
	b.WriteString("table inet big {\n")
	for i := range chains {
		fmt.Fprintf(&b, "chain c%d {\n", i)
		for j := range rules / chains {
			k := i*(rules/chains) + j
			fmt.Fprintf(&b, "ip saddr 10.%d.%d.%d tcp dport %d counter accept\n", k>>16&255, k>>8&255, k&255, k%60000+1)
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// BenchmarkRead reads and prints 20,000 rules, kept and not kept.
func BenchmarkRead(b *testing.B) {
	ns := nstest.NewNS(b, "bench")
	load(b, ns, manyRules(20000, 100))
	conn := open(b, ns)
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			all, err := conn.Read(kernel.Filter{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.WriteString(io.Discard, all.Text(ruleset.Format{})); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("streamed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := conn.Visit(kernel.Filter{}, &discard{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// discard prints to nowhere.
type discard struct{ *ruleset.Printer }

func (d *discard) Restart() { d.Printer = ruleset.NewPrinter(io.Discard, ruleset.Format{}) }
