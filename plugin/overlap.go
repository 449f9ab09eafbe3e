package plugin

import (
	"reflect"
	"slices"

	"nftnet/internal/desired"
	"nftnet/plugin/portmap"
)

// portNumber is where ports of different addresses meet.
type portNumber struct {
	proto uint8
	port  uint16
}

// shed gives up those ports of a container that overlap with one that it is to
// have: its next gateway may publish the same number on all addresses instead of
// one, and no two sockets can have both. It returns the container's part of the
// state without them.
func (d *Driver) shed(by string, before desired.State, c portmap.Container) (desired.State, error) {
	if len(heldBy(before)) == 0 {
		return before, nil
	}
	wishes, err := c.Wishes()
	if err != nil {
		// It is reported where ports are assigned.
		return before, nil
	}
	wanted := map[portNumber][]desired.Port{}
	for _, w := range wishes {
		if !w.Exact() {
			continue
		}
		at := portNumber{w.Proto, w.First}
		for _, t := range w.Targets {
			wanted[at] = append(wanted[at], t.Port(w.Proto, w.First, w.Port))
		}
	}
	after := before.Clone()
	for id, e := range after.Endpoints {
		e.Published = slices.DeleteFunc(slices.Clone(e.Published), func(p desired.Port) bool {
			list := wanted[portNumber{p.Proto, p.Host.Port()}]
			same := func(o desired.Port) bool { return o.Key() == p.Key() }
			return slices.ContainsFunc(list, p.Overlaps) && !slices.ContainsFunc(list, same)
		})
		after.Endpoints[id] = e
	}
	return after, d.commit(by, before, after, lenient)
}

// putBack takes again what a container has shed for a change that failed.
func (d *Driver) putBack(by, owner string, shed, before desired.State) {
	if reflect.DeepEqual(shed, before) {
		return
	}
	held, after := heldBy(shed), before.Clone()
	for id, e := range after.Endpoints {
		e.Published = slices.DeleteFunc(slices.Clone(e.Published), func(p desired.Port) bool {
			if p.Kind() == desired.Direct || held[p.Key()] {
				return false
			}
			err := d.hold(p, owner)
			if err != nil {
				d.log.Error("a port of a container is published no more", "endpoint", id, "error", err)
			}
			return err != nil
		})
		after.Endpoints[id] = e
	}
	if err := d.commit(by, shed, after, lenient); err != nil {
		d.log.Error("publish ports again", "error", err)
	}
}
