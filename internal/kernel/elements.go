package kernel

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How often a set is listed that the kernel is rearranging, and the pause in
// between: to rehash a hundred thousand elements takes it some ten milliseconds.
const (
	elementTries = 500
	elementPause = 2 * time.Millisecond
)

// elements lists the elements of a set, as the lists of the kernel's messages.
//
// The kernel counts elements to know where a listing of several messages goes
// on. Where it rehashes the set between two messages, as it does after many
// elements were added, some come twice and as many not at all: a listing with
// an element that came twice is made again.
func (s *socket) elements(family uint8, table, set string) ([]attr, error) {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	for range elementTries {
		var lists []attr
		err := s.dump(unix.NFT_MSG_GETSETELEM, family, m.b, func(_ uint8, as attrs, _ []byte) error {
			if list, ok := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS); ok && len(list.data) > 0 {
				lists = append(lists, attr{data: slices.Clone(list.data)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(lists) < 2 || !repeats(lists) {
			return lists, nil
		}
		time.Sleep(elementPause)
	}
	return nil, fmt.Errorf("set %s: the kernel did not end rearranging it: %w", set, errInterrupted)
}

// repeats says whether an element is in the lists twice.
func repeats(lists []attr) bool {
	type identity struct{ key, end, flags string }
	seen := map[identity]bool{}
	for _, list := range lists {
		for _, e := range list.nested() {
			as := e.nested()
			text := func(typ uint16) string {
				a, _ := as.get(typ)
				return string(a.data)
			}
			id := identity{text(unix.NFTA_SET_ELEM_KEY), text(nftaSetElemKeyEnd), text(unix.NFTA_SET_ELEM_FLAGS)}
			if seen[id] {
				return true
			}
			seen[id] = true
		}
	}
	return false
}
