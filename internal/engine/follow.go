package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// Follow runs until ctx ends. It calls answers each time that the engine at host
// (as for [Connect]) can be asked again: once when it answers first, and each
// time that it comes back. After something ended that concerns a network driver,
// it calls ended: half a second after a network of nftnet was removed or a
// container left one, five seconds after any other container ended, once for all
// of them. What ends after the engine was asked is never missed: the stream of
// events is open before answers is called, and what ends while a function runs
// is reported after it.
//
// An engine that stops tells of its containers' ends and takes no connections any
// more: a function that ended is called for may find that the engine is gone.
//
// The functions are called one at a time. Their context ends with ctx, or when
// the engine goes away; they must return then, as nothing is followed before.
//
// While the engine is there Follow waits for its events and does nothing else.
// While it is away Follow tries its socket, which may be missing, ten times a
// second at first and once a second in the end. It waits ten seconds for the
// engine's first word and then tries again: an engine that starts accepts
// connections long before it answers, while it waits for the driver itself.
// Follow does not connect to a socket that only systemd holds, because that would
// start an engine which somebody stopped: it looks every three seconds whether
// there is an engine.
func Follow(ctx context.Context, host string, log *slog.Logger, answers, ended func(context.Context)) {
	f := newFollower(host, log, answers, ended)
	f.run(ctx)
}

// follower is what Follow goes by; tests choose shorter times.
type follower struct {
	host           string
	log            *slog.Logger
	answers, ended func(context.Context)

	firstWord   time.Duration // how long the engine may take to answer at all
	wait, most  time.Duration // between two tries: at first, and in the end
	asleep      time.Duration // between two looks at a socket that systemd holds
	soon, later time.Duration // from an event to the call
	socket      activator
}

func newFollower(host string, log *slog.Logger, answers, ended func(context.Context)) *follower {
	return &follower{
		host: host, log: log, answers: answers, ended: ended,
		firstWord: 10 * time.Second, wait: 100 * time.Millisecond, most: time.Second, asleep: 3 * time.Second,
		soon: 500 * time.Millisecond, later: 5 * time.Second,
		socket: systemd,
	}
}

var errSilent = errors.New("it accepts connections and does not answer")

func (f *follower) run(ctx context.Context) {
	wait, told := f.wait, false
	for ctx.Err() == nil {
		began := time.Now()
		answered, err := f.once(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case answered:
			told = true
			f.log.Info("docker engine went away", "err", err)
		case !told:
			told = true
			f.log.Info("docker engine does not answer yet", "err", err)
		default:
			f.log.Debug("docker engine does not answer", "err", err)
		}
		// One that ends every stream at once is not asked faster and faster.
		if answered && time.Since(began) > f.most {
			wait = f.wait
		}
		pause := wait
		if errors.Is(err, errAsleep) {
			// A look at all processes takes milliseconds.
			pause = max(pause, f.asleep)
		} else {
			wait = min(2*wait, f.most)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// once follows the engine until it goes away. answered reports whether it was
// there at all.
func (f *follower) once(ctx context.Context) (answered bool, err error) {
	c, err := newClient(f.host, f.socket)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	// Each connection looks by itself, too; this is to look once only.
	if path, ok := c.socket(); ok && f.socket.holdsAlone(path) {
		return false, c.fail(errAsleep)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(f.firstWord, func() { cancel(errSilent) })
	defer silent.Stop()
	messages, broken := c.api.Events(ctx, events.ListOptions{Filters: endings})
	// Events does not say whether the stream is open. An engine that answers this
	// has answered that.
	err = c.reachable(ctx)
	if !silent.Stop() {
		return false, c.fail(cmp.Or(context.Cause(ctx), errSilent))
	}
	if err != nil {
		return false, err
	}
	select {
	case err := <-broken:
		return false, c.fail(err)
	default:
	}
	f.log.Info("docker engine answers", "host", c.host, "api", c.version)
	return true, c.fail(f.listen(ctx, messages, broken))
}

// endings chooses the events after which the driver may have something that the
// engine has no more. A container is disconnected from its networks after it
// died; "die" and "destroy" come also where the engine forgot the networks.
var endings = filters.NewArgs(
	filters.Arg("type", string(events.NetworkEventType)),
	filters.Arg("type", string(events.ContainerEventType)),
	filters.Arg("event", string(events.ActionDestroy)),
	filters.Arg("event", string(events.ActionDisconnect)),
	filters.Arg("event", string(events.ActionDie)),
)

// listen calls answers, and ended after events, until the stream breaks.
func (f *follower) listen(ctx context.Context, messages <-chan events.Message, broken <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	due, finished := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(finished)
		f.answers(ctx)
		for {
			select {
			case <-ctx.Done():
				return
			case <-due:
				f.ended(ctx)
			}
		}
	}()
	defer func() {
		cancel()
		<-finished
	}()
	return f.collect(messages, broken, due)
}

// collect makes one call due for all events of a while.
func (f *follower) collect(messages <-chan events.Message, broken <-chan error, due chan<- struct{}) error {
	var at time.Time
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case m := <-messages:
			when := time.Now().Add(f.delay(m))
			if at.IsZero() || when.Before(at) {
				at = when
				timer.Reset(time.Until(at))
			}
		case <-timer.C:
			at = time.Time{}
			select {
			case due <- struct{}{}:
			default: // one that waits covers this one
			}
		case err := <-broken:
			if err == nil {
				err = io.EOF
			}
			return err
		}
	}
}

// delay is how long after an event a call is due: a network says whose it is, a
// container does not.
func (f *follower) delay(m events.Message) time.Duration {
	if m.Type == events.NetworkEventType && isOurs(m.Actor.Attributes["type"]) {
		return f.soon
	}
	return f.later
}
