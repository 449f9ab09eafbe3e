package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nftnet/inspect"
	"nftnet/internal/kernel"
	"nftnet/internal/nstest"
	"nftnet/internal/ruleset"
)

// patience bounds the wait for a step.
const patience = 10 * time.Second

// script is a kernel whose events and rulesets a test gives.
type script struct {
	events chan kernel.Event
	closed chan struct{}
	states chan moment
	last   moment
}

type moment struct {
	rs  ruleset.Ruleset
	gen uint32
	err error
}

func newScript(first moment) *script {
	return &script{events: make(chan kernel.Event, 8), closed: make(chan struct{}), states: make(chan moment, 8), last: first}
}

func (s *script) Next() (kernel.Event, error) {
	select {
	case e := <-s.events:
		if e.Port == broken {
			return e, errors.New("broken socket")
		}
		return e, nil
	case <-s.closed:
		return kernel.Event{}, kernel.ErrClosed
	}
}

// broken is the port of an event that stands for an error.
const broken = 99

func (s *script) Close() error {
	close(s.closed)
	return nil
}

func (s *script) ReadAt(kernel.Filter) (ruleset.Ruleset, kernel.Generation, error) {
	select {
	case s.last = <-s.states:
	default:
	}
	return s.last.rs, kernel.Generation{ID: s.last.gen}, s.last.err
}

// follow starts to follow, and returns the steps and the way to end it.
func follow(t *testing.T, events inspect.Events, rs inspect.Generations, interval time.Duration) (steps chan inspect.Step, end func() error) {
	t.Helper()
	steps = make(chan inspect.Step, 100)
	ctx, cancel := context.WithCancel(t.Context())
	f := inspect.Follower{
		Events: events, Ruleset: rs, Interval: interval,
		Names: func() inspect.Names { return inspect.Names{} },
		Who:   func(g kernel.Generation) inspect.Process { return inspect.Process{Name: g.Process, PID: int(g.PID)} },
		Tell: func(s inspect.Step) error {
			steps <- s
			return nil
		},
	}
	done := make(chan error, 1)
	go func() { done <- f.Follow(ctx) }()
	t.Cleanup(cancel)
	return steps, func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("it does not end")
		}
	}
}

// next writes the next step on lines: who, then the changes.
func next(t *testing.T, steps chan inspect.Step) []string {
	t.Helper()
	select {
	case s := <-steps:
		by := fmt.Sprint(s.By)
		switch {
		case s.Lost:
			by = "lost"
		case s.Itself:
			by = "itself"
		case s.Ticked:
			by = "tick"
		}
		return append([]string{fmt.Sprintf("%d %s", s.Generation, by)}, changed(s.Changes)...)
	case <-time.After(patience):
		t.Fatal("no step came")
		return nil
	}
}

func withSets(names ...string) ruleset.Ruleset {
	set := ruleset.Set{Name: "s", Key: ruleset.TypeIfname}
	for _, n := range names {
		set.Elements = append(set.Elements, bridge(n))
	}
	return ruleset.Ruleset{Tables: []ruleset.Table{table(ruleset.FamilyInet, "t", []ruleset.Set{set})}}
}

func event(gen uint32, process string, sets ...string) kernel.Event {
	name := kernel.TableName{Family: ruleset.FamilyInet, Name: "t"}
	e := kernel.Event{Generation: kernel.Generation{ID: gen, PID: gen, Process: process}, Tables: []kernel.TableName{name}}
	for _, s := range sets {
		e.Sets = append(e.Sets, kernel.SetName{Table: name, Name: s})
	}
	return e
}

func TestFollow(t *testing.T) {
	s := newScript(moment{rs: withSets("a"), gen: 4})
	steps, end := follow(t, s, s, 0)
	check(t, next(t, steps), "4 []")
	// What is in the first ruleset already is not told again.
	s.events <- event(4, "old")
	s.states <- moment{rs: withSets("a", "b"), gen: 5}
	s.events <- event(5, "nft", "s")
	check(t, next(t, steps), "5 [{nft 5}]", `+ element inet t s 2: "b"`)
	// Two changes that are seen together.
	s.states <- moment{rs: withSets("c"), gen: 7}
	s.events <- event(6, "nft", "s")
	s.events <- event(7, "dockerd", "s")
	check(t, next(t, steps), "7 [{nft 6} {dockerd 7}]", `- element inet t s 1: "a"`, `- element inet t s 2: "b"`, `+ element inet t s 1: "c"`)
	// An element that packets brought, seen with somebody's change of no account.
	s.states <- moment{rs: withSets("c", "d"), gen: 8}
	s.events <- event(8, "nft")
	check(t, next(t, steps), "8 itself", `+ element inet t s 2: "d"`)
	check(t, next(t, steps), "8 [{nft 8}]")
	// Lost messages.
	s.states <- moment{rs: withSets("d"), gen: 30}
	s.events <- kernel.Event{Overrun: true}
	check(t, next(t, steps), "30 lost", `- element inet t s 1: "c"`)
	// The event of a generation that was read does not come.
	s.states <- moment{rs: withSets(), gen: 33}
	s.events <- event(31, "nft", "s")
	check(t, next(t, steps), "33 lost", `- element inet t s 1: "d"`)
	// The count of generations goes round.
	s.states <- moment{rs: withSets("e"), gen: 1 << 31}
	s.events <- event(1<<31, "nft", "s")
	check(t, next(t, steps), "2147483648 [{nft 2147483648}]", `+ element inet t s 1: "e"`)
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestFollowFails(t *testing.T) {
	s := newScript(moment{err: errors.New("no root")})
	_, end := follow(t, s, s, 0)
	<-s.closed
	if err := end(); err == nil || !strings.Contains(err.Error(), "no root") {
		t.Errorf("a ruleset that cannot be read: %v", err)
	}
	s = newScript(moment{gen: 1})
	steps, end := follow(t, s, s, 0)
	next(t, steps)
	s.events <- kernel.Event{Port: broken}
	<-s.closed
	if err := end(); err == nil || !strings.Contains(err.Error(), "broken socket") {
		t.Errorf("a socket that breaks: %v", err)
	}
}

func TestFollowRates(t *testing.T) {
	counting := func(n uint64) ruleset.Ruleset {
		r := rule(counted(n), accept)
		r.Handle = 7
		return ruleset.Ruleset{Tables: []ruleset.Table{table(ruleset.FamilyInet, "t", nil, chain("c", rule(drop), r))}}
	}
	s := newScript(moment{rs: counting(10), gen: 1})
	steps, end := follow(t, s, s, 20*time.Millisecond)
	check(t, next(t, steps), "1 []")
	s.states <- moment{rs: counting(30), gen: 1}
	for range 100 {
		step := <-steps
		if len(step.Rates) == 0 {
			continue
		}
		r := step.Rates[0]
		if r.Object.String() != "rule inet t c 2" || r.Text != "counter accept" || r.Packets <= 0 || r.Packets > 1001 {
			t.Errorf("%+v", r)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		return
	}
	t.Error("there are no rates")
}

// TestFollowTheKernel: nft's own changes, with its name and number.
func TestFollowTheKernel(t *testing.T) {
	ns := nstest.NewNS(t, "follow")
	var watch *kernel.Watch
	if err := ns.Do(func() (err error) {
		watch, err = kernel.OpenWatch()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	steps, end := follow(t, watch, connect(t, ns), 0)
	next(t, steps)
	ns.Exec(t, "nft", "add table inet t { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { accept; }; }")
	got := next(t, steps)
	if !strings.Contains(got[0], "[{nft ") {
		t.Errorf("by %s", got[0])
	}
	check(t, got[1:], "+ table inet t: table inet t", "+ set inet t s: set s type ipv4_addr",
		"+ element inet t s 1: 192.0.2.1", "+ chain inet t c: chain c", "+ rule inet t c 1: accept")
	ns.Exec(t, "nft", "flush ruleset")
	got = next(t, steps)
	if len(got) != 6 || !strings.Contains(got[0], "[{nft ") {
		t.Errorf("a flush: %v", got)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}
