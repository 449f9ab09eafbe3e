package plugin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
)

// portsFrom are n published ports of IPv4, from a number on.
func portsFrom(first, n int) []m {
	out := make([]m, n)
	for i := range out {
		out[i] = m{"Proto": 6, "Port": 1 + i, "HostIP": "0.0.0.0", "HostPort": first + i, "HostPortEnd": first + i}
	}
	return out
}

// BenchmarkPublish is the driver's part of publishing n ports and taking them
// back, with none and with many other ports there.
func BenchmarkPublish(b *testing.B) {
	for _, present := range []int{0, 5000} {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("ports=%d/present=%d", n, present), func(b *testing.B) {
				r := newRig(b)
				r.network(b, 1)
				r.attach(b, 1, 1, portsFrom(10000, present)...)
				r.attach(b, 1, 2)
				publish := with(ids(1, 2), "Options", m{"com.docker.network.portmap": portsFrom(30000, n)})
				var times []time.Duration
				for b.Loop() {
					start := time.Now()
					r.ok(b, "ProgramExternalConnectivity", publish)
					times = append(times, time.Since(start))
					r.ok(b, "RevokeExternalConnectivity", ids(1, 2))
				}
				report(b, times, "publish")
			})
		}
	}
}

// report adds the median and the worst of some times.
func report(b *testing.B, times []time.Duration, what string) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), what+"-p50-µs")
	b.ReportMetric(float64(times[len(times)-1].Microseconds()), what+"-max-µs")
}

// generation counts the changes that are in force.
func generation(b *testing.B, conn *kernel.Conn) uint32 {
	g, err := conn.Generation()
	if err != nil {
		b.Fatal(err)
	}
	return g.ID
}

// BenchmarkRepair is the time from the commit that takes the table away to the
// one that brings it back, which is when packets meet the new table.
func BenchmarkRepair(b *testing.B) {
	for _, n := range []int{10, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			r := newRig(b)
			r.network(b, 1)
			r.attach(b, 1, 1, portsFrom(10000, n)...)
			flush, err := kernel.Open()
			if err != nil {
				b.Fatal(err)
			}
			defer flush.Close()
			gone := rs.Batch{{Verb: rs.Delete, Family: rs.FamilyInet, Table: layout.Table}}
			var times []time.Duration
			for b.Loop() {
				// Two changes: the flush, and its repair.
				repaired := generation(b, flush) + 2
				if err := flush.Apply(gone); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				for generation(b, flush) < repaired && time.Since(start) < 10*time.Second {
					// Asking without a pause would keep the driver from its lock.
					time.Sleep(100 * time.Microsecond)
				}
				times = append(times, time.Since(start))
			}
			report(b, times, "repair")
			if !strings.Contains(table(b), "tcp . 10000") {
				b.Error("the table is not whole")
			}
		})
	}
}
