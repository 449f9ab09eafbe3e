package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"nftnet/internal/kernel"
	"nftnet/internal/ruleset"
)

// Events tells of changes to the ruleset as they happen; [*kernel.Watch] does.
type Events interface {
	Next() (kernel.Event, error)
	Close() error
}

// Generations reads the ruleset and says of which generation it is;
// [*kernel.Conn] does.
type Generations interface {
	ReadAt(kernel.Filter) (ruleset.Ruleset, kernel.Generation, error)
}

// Process is a program that changed the ruleset.
type Process struct {
	Name string
	PID  int
}

// Step is what [Follower.Follow] tells of one moment.
type Step struct {
	At         time.Time
	Generation uint32
	// By made the changes: one process, or several where they came so fast that
	// they were seen together. It is empty where nobody is known to have.
	By []Process
	// Lost says that messages were lost: who made the changes is not known.
	Lost bool
	// Itself says that nobody made the changes: packets did, or time.
	Itself  bool
	Changes []Change
	// Rates are of what counted since the last step with rates; Ticked says that
	// this is one.
	Ticked bool
	Rates  []Rate
	// Model is the ruleset after the step.
	Model *Model
}

// Follower follows a ruleset.
type Follower struct {
	Events  Events
	Ruleset Generations
	// Names are asked for before each model is made.
	Names func() Names
	// Who names the process of a generation.
	Who func(kernel.Generation) Process
	// Interval is the time between steps with rates, 0 for none.
	Interval time.Duration
	// Tell is handed each step; its error ends the following.
	Tell func(Step) error

	generation uint32
	model      *Model
	counts     map[Object]sample
}

const (
	// followTries bounds how often a read fails in a row.
	followTries = 5
	// followWait bounds the wait for the message of a generation that was read
	// already.
	followWait = time.Second
	// followQueue is how many events wait while a ruleset is read.
	followQueue = 256
)

// followed is an event with the process that it names, who may end meanwhile.
type followed struct {
	kernel.Event
	by  Process
	err error
}

// Follow tells of the ruleset as it is, and of each change until ctx ends. It
// closes Events.
func (f *Follower) Follow(ctx context.Context) error {
	events := make(chan followed, followQueue)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f.listen(events, stop)
	}()
	defer func() {
		close(stop)
		_ = f.Events.Close()
		<-done
	}()
	if err := f.begin(ctx); err != nil {
		return err
	}
	var ticks <-chan time.Time
	if f.Interval > 0 {
		t := time.NewTicker(f.Interval)
		defer t.Stop()
		ticks = t.C
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			err = f.step(ctx, e, events)
		case now := <-ticks:
			err = f.tick(ctx, now)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// listen hands on events until there are no more.
func (f *Follower) listen(events chan<- followed, stop <-chan struct{}) {
	for {
		e, err := f.Events.Next()
		if errors.Is(err, kernel.ErrClosed) {
			return
		}
		out := followed{Event: e, err: err}
		if err == nil && !e.Overrun {
			out.by = f.Who(e.Generation)
		}
		select {
		case events <- out:
		case <-stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// begin reads the ruleset and tells of it.
func (f *Follower) begin(ctx context.Context) error {
	rs, gen, err := f.read(ctx)
	if err != nil {
		return err
	}
	f.generation, f.model = gen.ID, NewModel(rs, f.Names())
	f.counts = f.samples(rs, time.Now())
	return f.Tell(Step{At: time.Now(), Generation: gen.ID, Model: f.model})
}

// read reads the ruleset, and tries again where it changes all the time.
func (f *Follower) read(ctx context.Context) (rs ruleset.Ruleset, gen kernel.Generation, err error) {
	for range followTries {
		if err = ctx.Err(); err != nil {
			return rs, gen, err
		}
		if rs, gen, err = f.Ruleset.ReadAt(kernel.Filter{}); err == nil {
			return rs, gen, nil
		}
	}
	return rs, gen, fmt.Errorf("follow the ruleset: %w", err)
}

// after says whether generation a came after b; the numbers go round.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// step reads the ruleset after an event and tells what changed. Events that
// came meanwhile and belong to what was read are part of the step.
func (f *Follower) step(ctx context.Context, first followed, events <-chan followed) error {
	if first.err != nil {
		return first.err
	}
	if !first.Overrun && !after(first.Generation.ID, f.generation) {
		return nil
	}
	rs, gen, err := f.read(ctx)
	if err != nil {
		return err
	}
	list := []followed{first}
	timeout := time.NewTimer(followWait)
	defer timeout.Stop()
	for last := first; !last.Overrun && after(gen.ID, last.Generation.ID); {
		select {
		case last = <-events:
			if last.err != nil {
				return last.err
			}
			list = append(list, last)
		case <-timeout.C:
			last.Overrun = true
			list = append(list, last)
		case <-ctx.Done():
			return nil
		}
	}
	model := NewModel(rs, f.Names())
	changes := model.Changes(f.model)
	f.generation, f.model = gen.ID, model
	return f.tell(list, changes)
}

// tell tells of the changes of some events, and first of those that happened
// by themselves.
func (f *Follower) tell(list []followed, changes []Change) error {
	s := Step{At: time.Now(), Generation: f.generation, Model: f.model}
	for _, e := range list {
		s.Lost = s.Lost || e.Overrun
		if !e.Overrun && !slices.Contains(s.By, e.by) {
			s.By = append(s.By, e.by)
		}
	}
	if s.Lost {
		s.By, s.Changes = nil, changes
		return f.Tell(s)
	}
	itself := Step{At: s.At, Generation: s.Generation, Model: s.Model, Itself: true}
	for _, c := range changes {
		if made(c, list) {
			s.Changes = append(s.Changes, c)
		} else {
			itself.Changes = append(itself.Changes, c)
		}
	}
	if len(itself.Changes) > 0 {
		if err := f.Tell(itself); err != nil {
			return err
		}
	}
	return f.Tell(s)
}

// made says whether somebody made a change: packets add elements to sets, and
// time removes them, of which the kernel tells nothing.
func made(c Change, list []followed) bool {
	if c.Object.Kind != KindElement {
		return true
	}
	set := kernel.SetName{Table: kernel.TableName{Family: c.Object.Family, Name: c.Object.Table}, Name: c.Object.Set}
	return slices.ContainsFunc(list, func(e followed) bool { return slices.Contains(e.Sets, set) })
}
