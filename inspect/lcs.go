package inspect

import "sort"

// maxPairs bounds the work of [common]: the pairs of equal lines in two lists.
const maxPairs = 1 << 21

// common is a longest common subsequence of two lists of lines, as pairs of
// places (Hunt and Szymanski). Of very long lists of the same few lines it is a
// common subsequence that need not be the longest.
func common(a, b []string) [][2]int {
	var out [][2]int
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		out = append(out, [2]int{start, start})
		start++
	}
	endA, endB := len(a), len(b)
	for endA > start && endB > start && a[endA-1] == b[endB-1] {
		endA--
		endB--
	}
	out = append(out, rising(a[:endA], b[:endB], start)...)
	for i := range len(a) - endA {
		out = append(out, [2]int{endA + i, endB + i})
	}
	return out
}

// link is a pair of places, with the one before it in a subsequence.
type link struct {
	pair   [2]int
	before *link
}

// rising finds the pairs from a place on: a longest rising sequence among all
// pairs of equal lines.
func rising(a, b []string, start int) [][2]int {
	places := map[string][]int{}
	for j := start; j < len(b); j++ {
		places[b[j]] = append(places[b[j]], j)
	}
	candidates := few(a, places, start)
	// ends[n] is the subsequence of n+1 pairs that ends first in b.
	var ends []*link
	for i := start; i < len(a); i++ {
		list := candidates(i)
		// Backwards, so that a line of a is used once.
		for k := len(list) - 1; k >= 0; k-- {
			j := list[k]
			n := sort.Search(len(ends), func(n int) bool { return ends[n].pair[1] >= j })
			l := &link{pair: [2]int{i, j}}
			if n > 0 {
				l.before = ends[n-1]
			}
			if n == len(ends) {
				ends = append(ends, l)
			} else {
				ends[n] = l
			}
		}
	}
	if len(ends) == 0 {
		return nil
	}
	out := make([][2]int, len(ends))
	for l, n := ends[len(ends)-1], len(ends)-1; l != nil; l, n = l.before, n-1 {
		out[n] = l.pair
	}
	return out
}

// few says with which places of b a place of a is paired: with all that hold the
// same line or, where that is too much, the first of them with the first, the
// second with the second.
func few(a []string, places map[string][]int, start int) func(int) []int {
	pairs := 0
	for _, line := range a[start:] {
		pairs += len(places[line])
	}
	if pairs <= maxPairs {
		return func(i int) []int { return places[a[i]] }
	}
	return func(i int) []int {
		list := places[a[i]]
		if len(list) == 0 {
			return nil
		}
		places[a[i]] = list[1:]
		return list[:1]
	}
}
