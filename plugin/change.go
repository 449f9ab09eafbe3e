package plugin

import (
	"errors"
	"maps"
	"reflect"
	"time"

	"nftnet/internal/desired"
)

// change alters a part of the state and makes disk and kernel follow. Where one
// of them refuses, all is as it was. check may refuse, too: it sees the whole
// state at the moment of the change, and no two changes pass it at once. Whoever
// calls change keeps others from the same part.
func (d *Driver) change(by string, before desired.State, check func(desired.State) error, alter func(*desired.State)) error {
	after := before.Clone()
	alter(&after)
	if reflect.DeepEqual(before, after) {
		return nil
	}
	if err := d.assume(by, before, after, check); err != nil {
		return err
	}
	d.step("state assumed")
	was, is := desired.Differing(before, after)
	if err := d.store.Save(was, is); err != nil {
		return errors.Join(err, d.assume(by, after, before, nil))
	}
	d.step("state saved")
	if err := d.kernel.Realise(before, after); err != nil {
		d.store.Owe(is, was)
		return errors.Join(err, d.assume(by, after, before, nil))
	}
	return nil
}

// settle is change for what Docker does not ask again: it is done in the kernel
// whatever the disk says, and written when the disk allows.
func (d *Driver) settle(by string, before desired.State, alter func(*desired.State)) error {
	after := before.Clone()
	alter(&after)
	if reflect.DeepEqual(before, after) {
		return nil
	}
	if err := d.assume(by, before, after, nil); err != nil {
		return err
	}
	d.step("state assumed")
	d.store.Owe(desired.Differing(before, after))
	d.step("state saved")
	if err := d.kernel.Realise(before, after); err != nil {
		// It is there still, so it must not be forgotten.
		d.store.Owe(desired.Differing(after, before))
		return errors.Join(err, d.assume(by, after, before, nil))
	}
	return nil
}

// assume replaces a part of the state in memory.
func (d *Driver) assume(by string, before, after desired.State, check func(desired.State) error) error {
	defer d.mu.Lock(by)()
	if check != nil {
		if err := check(d.state); err != nil {
			return err
		}
	}
	d.state.Replace(before, after)
	d.age(before, after)
	return nil
}

// age notes when networks and endpoints were made; d.mu is held.
func (d *Driver) age(before, after desired.State) {
	for id := range before.Networks {
		if _, stays := after.Networks[id]; !stays {
			d.noteLeft(id)
		}
	}
	for id := range before.Endpoints {
		if _, stays := after.Endpoints[id]; !stays {
			d.noteLeft(id)
		}
	}
	for id := range after.Networks {
		if _, had := before.Networks[id]; !had {
			d.made[id] = time.Now()
		}
	}
	for id := range after.Endpoints {
		if _, had := before.Endpoints[id]; !had {
			d.made[id] = time.Now()
		}
	}
}

// noteLeft notes that a network or endpoint goes now; d.mu is held.
func (d *Driver) noteLeft(id string) {
	delete(d.made, id)
	d.left[id] = time.Now()
	maps.DeleteFunc(d.left, func(_ string, at time.Time) bool { return time.Since(at) > leftFor })
}

// leftFor is longer than Docker takes for an answer.
const leftFor = time.Minute

// leftSince reports whether a network or endpoint has gone since a time.
func (d *Driver) leftSince(id string, since time.Time) bool {
	defer d.mu.Lock("left since")()
	at, ok := d.left[id]
	return ok && !at.Before(since)
}
