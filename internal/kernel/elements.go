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
// A listing that stays the same this often counts, whatever else is said.
const (
	elementTries   = 500
	elementPause   = 2 * time.Millisecond
	elementSettled = 50
)

// elements lists the elements of a set, as the lists of the kernel's messages.
//
// The kernel keeps most sets in a hash table that it enlarges and shrinks by
// itself, some time after a change or while one is being prepared. Meanwhile a
// listing is not to be trusted (seen on 6.18): some elements come twice and as
// many not at all, or those that were added last are left out and none comes
// twice, several times in a row. So a listing counts when no element came twice
// and the kernel's own number of elements is the same. Where the kernel (before
// 6.16) or the kind of set gives no such number, a listing of several messages
// counts when the next one is the same.
func (s *socket) elements(family uint8, table, set string) ([]attr, error) {
	var before map[elementIdentity]bool
	same := 0
	for range elementTries {
		lists, err := s.listElements(family, table, set)
		if err != nil {
			return nil, err
		}
		found, once := identities(lists)
		number, given, err := s.elementCount(family, table, set)
		if err != nil {
			return nil, err
		}
		if same++; before == nil || !maps.Equal(found, before) {
			same = 0
		}
		whole := number == len(found)
		if !given {
			whole = len(lists) < 2 || same > 0
		}
		if once && (whole || same >= elementSettled) {
			return lists, nil
		}
		before = found
		time.Sleep(elementPause)
	}
	return nil, fmt.Errorf("set %s: the kernel did not end rearranging it: %w", set, errInterrupted)
}

func (s *socket) listElements(family uint8, table, set string) ([]attr, error) {
	var m message
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	var lists []attr
	err := s.dump(unix.NFT_MSG_GETSETELEM, family, m.b, func(_ uint8, as attrs, _ []byte) error {
		if list, ok := as.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS); ok && len(list.data) > 0 {
			lists = append(lists, attr{data: slices.Clone(list.data)})
		}
		return nil
	})
	return lists, err
}

// elementCount is the kernel's number of a set's elements, "*" not among them;
// false where it has none, or counts what it does not list: the ends of ranges,
// and elements whose time is over.
func (s *socket) elementCount(family uint8, table, set string) (number int, given bool, err error) {
	var m message
	m.str(unix.NFTA_SET_TABLE, table)
	m.str(unix.NFTA_SET_NAME, set)
	const uncounted = unix.NFT_SET_INTERVAL | unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	err = s.get(unix.NFT_MSG_GETSET, family, m.b, func(_ uint8, as attrs, _ []byte) error {
		number = int(as.u32(nftaSetCount))
		given = as.has(nftaSetCount) && as.u32(unix.NFTA_SET_FLAGS)&uncounted == 0
		return nil
	})
	return number, given, err
}

// elementIdentity is what makes an element the same as another.
type elementIdentity struct{ key, end, flags string }

// identities are the elements in the lists but "*", and whether each is there
// once.
func identities(lists []attr) (found map[elementIdentity]bool, once bool) {
	found, once = map[elementIdentity]bool{}, true
	for _, list := range lists {
		for _, e := range list.nested() {
			as := e.nested()
			if as.u32(unix.NFTA_SET_ELEM_FLAGS)&nftSetElemCatchAll != 0 {
				continue
			}
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
