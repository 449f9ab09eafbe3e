package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nftnet/internal/nstest"
)

// run is what a command took.
type run struct {
	wall   time.Duration
	memory int64 // bytes
}

func measure(b *testing.B, ns *nstest.NS, args ...string) run {
	b.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=" + ns.Path(), "--"}, args...)...)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	cmd.Stdout = null
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v: %v", args, err)
	}
	return run{time.Since(start), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10}
}

// BenchmarkInspectNFT prints 100,000 rules in nft's words, side by side with nft
// itself, turn by turn: the medians and their ratios.
func BenchmarkInspectNFT(b *testing.B) {
	nstest.RequireRoot(b)
	const rules = 100_000
	for _, chains := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("chains=%d", chains), func(b *testing.B) {
			ns := nstest.NewNS(b, "bench")
			path := filepath.Join(b.TempDir(), "big.nft")
			if err := os.WriteFile(path, []byte(bigRuleset(rules, chains)), 0o600); err != nil {
				b.Fatal(err)
			}
			ns.Exec(b, "nft", "-f", path)
			var nft, ours []run
			// A median of fewer says little.
			for b.Loop() || len(nft) < 5 {
				nft = append(nft, measure(b, ns, "nft", "list", "ruleset"))
				ours = append(ours, measure(b, ns, binary, "inspect", "--format", "nft"))
			}
			compare(b, nft, ours)
		})
	}
}

func compare(b *testing.B, nft, ours []run) {
	median := func(runs []run, of func(run) int64) float64 {
		values := make([]int64, len(runs))
		for i, r := range runs {
			values[i] = of(r)
		}
		slices.Sort(values)
		return float64(values[len(values)/2])
	}
	wall := func(r run) int64 { return int64(r.wall) }
	memory := func(r run) int64 { return r.memory }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(nft, wall)/1e6, "nft-ms")
	b.ReportMetric(median(ours, wall)/1e6, "nftnet-ms")
	b.ReportMetric(median(nft, wall)/median(ours, wall), "times-faster")
	b.ReportMetric(median(nft, memory)/1e6, "nft-MB")
	b.ReportMetric(median(ours, memory)/1e6, "nftnet-MB")
	b.ReportMetric(median(nft, memory)/median(ours, memory), "times-smaller")
}

func bigRuleset(rules, chains int) string {
	var b strings.Builder
	b.WriteString("table inet big {\n")
	for c := range chains {
		fmt.Fprintf(&b, "chain c%d {\n", c)
		for i := range rules / chains {
			k := c*(rules/chains) + i
			fmt.Fprintf(&b, "ip saddr 10.%d.%d.%d tcp dport %d counter accept\n", k>>16&255, k>>8&255, k&255, k%60000+1)
		}
		b.WriteString("}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
