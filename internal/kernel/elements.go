package kernel

import (
	"fmt"
	"maps"
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
// elements were added, some come twice and as many not at all; where a change
// is being prepared at the same time, some are left out and none comes twice
// (both seen on 6.18). Such a listing counts when each element came once and a
// second listing has the same.
func (s *socket) elements(family uint8, table, set string) ([]attr, error) {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	var before map[elementIdentity]bool
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
		if len(lists) < 2 && before == nil {
			return lists, nil
		}
		found, once := identities(lists)
		if once && maps.Equal(found, before) {
			return lists, nil
		}
		if before = nil; once {
			before = found
			continue
		}
		time.Sleep(elementPause)
	}
	return nil, fmt.Errorf("set %s: the kernel did not end rearranging it: %w", set, errInterrupted)
}

// elementIdentity is what makes an element the same as another.
type elementIdentity struct{ key, end, flags string }

// identities are the elements in the lists, and whether each is there once.
func identities(lists []attr) (found map[elementIdentity]bool, once bool) {
	found, once = map[elementIdentity]bool{}, true
	for _, list := range lists {
		for _, e := range list.nested() {
			as := e.nested()
			id := elementIdentity{
				string(as.bytes(unix.NFTA_SET_ELEM_KEY)), string(as.bytes(nftaSetElemKeyEnd)),
				string(as.bytes(unix.NFTA_SET_ELEM_FLAGS)),
			}
			once = once && !found[id]
			found[id] = true
		}
	}
	return found, once
}
