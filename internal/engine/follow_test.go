package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/events"
)

// logCounter counts what is logged.
type logCounter struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logCounter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logCounter) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *logCounter) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// follow runs a follower, and asserts in the end that it ends with its context.
func follow(t *testing.T, f *follower) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("it does not end with its context")
		}
	})
}

// events streams events as an engine does, and breaks the stream at will.
type eventEngine struct {
	send, sever chan string
	silent      atomic.Int64 // requests that are not answered
	refuse      atomic.Bool  // events are not allowed
	asked       atomic.Int64
}

func newEventEngine(t *testing.T) (e *eventEngine, host string) {
	e = &eventEngine{send: make(chan string), sever: make(chan string)}
	return e, fakeEngine(t, e.serve)
}

func (e *eventEngine) serve(w http.ResponseWriter, r *http.Request) {
	e.asked.Add(1)
	if e.silent.Add(-1) >= 0 {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Api-Version", "1.41")
	switch {
	case !strings.HasSuffix(r.URL.Path, "/events"):
	case e.refuse.Load():
		w.WriteHeader(http.StatusForbidden)
	default:
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case text := <-e.send:
				_, _ = io.WriteString(w, text)
				_ = http.NewResponseController(w).Flush()
			case <-e.sever:
				return
			case <-r.Context().Done():
				return
			}
		}
	}
}

const ourDestroy = `{"Type":"network","Action":"destroy","Actor":{"ID":"n","Attributes":{"type":"nftnet"}}}`

// TestFollowASilentEngine: an engine that starts accepts connections, and answers
// none of them until it is ready.
func TestFollowASilentEngine(t *testing.T) {
	e, host := newEventEngine(t)
	e.silent.Store(5)
	log := new(logCounter)
	var answered atomic.Int64
	f := newFollower(host, log.logger(), func(context.Context) { answered.Add(1) }, nil)
	f.wait, f.most, f.firstWord = time.Millisecond, time.Millisecond, 200*time.Millisecond
	follow(t, f)
	eventually(t, "it answers", func() bool { return answered.Load() == 1 })
	if n := log.count("docker engine at " + host + ": " + errSilent.Error()); n == 0 {
		t.Error("the log does not say that the engine is silent")
	}
	if n := log.count("level=INFO"); n != 2 {
		t.Errorf("%d lines at level info, want one for the silence and one for the answer", n)
	}
}

// TestFollowWithoutEvents: an engine behind a proxy that lets no events through
// is not taken for one that can be followed.
func TestFollowWithoutEvents(t *testing.T) {
	e, host := newEventEngine(t)
	e.refuse.Store(true)
	log := new(logCounter)
	var answered atomic.Int64
	f := newFollower(host, log.logger(), func(context.Context) { answered.Add(1) }, nil)
	f.wait, f.most = time.Millisecond, time.Millisecond
	follow(t, f)
	eventually(t, "it tried again and again", func() bool { return e.asked.Load() > 20 })
	e.refuse.Store(false)
	eventually(t, "it answers", func() bool { return answered.Load() > 0 })
}

// TestFollowCallsOneAtATime: the context of a function that runs ends with the
// connection, and nothing else is called before it returned.
func TestFollowCallsOneAtATime(t *testing.T) {
	e, host := newEventEngine(t)
	var inside, answered, ended atomic.Int64
	enter := func(n *atomic.Int64) {
		if inside.Add(1) != 1 {
			t.Error("two functions run at a time")
		}
		n.Add(1)
	}
	left, hang := make(chan struct{}), make(chan struct{})
	f := newFollower(host, slog.New(slog.DiscardHandler), func(ctx context.Context) {
		enter(&answered)
		defer inside.Add(-1)
		if answered.Load() == 1 {
			<-ctx.Done()
			close(left)
			<-hang
		}
	}, func(context.Context) {
		enter(&ended)
		inside.Add(-1)
	})
	f.wait, f.most, f.soon = time.Millisecond, time.Millisecond, time.Millisecond
	follow(t, f)
	eventually(t, "it answers", func() bool { return answered.Load() == 1 })
	e.send <- ourDestroy
	asked := e.asked.Load()
	e.sever <- ""
	<-left
	// What must not come cannot be waited for.
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if e.asked.Load() != asked {
			t.Fatal("the engine was asked while a function ran")
		}
	}
	close(hang)
	eventually(t, "it answers again", func() bool { return answered.Load() == 2 })
	e.send <- ourDestroy
	eventually(t, "the end was reported", func() bool { return ended.Load() > 0 })
}

// TestFollowCollects: many events make one call, and the one that is most urgent
// says when. The times are those of a clock that the test moves.
func TestFollowCollects(t *testing.T) {
	network := func(driver string) events.Message {
		return events.Message{Type: events.NetworkEventType, Action: events.ActionDestroy, Actor: events.Actor{Attributes: map[string]string{"type": driver}}}
	}
	container := events.Message{Type: events.ContainerEventType, Action: events.ActionDie}
	rows := []struct {
		name string
		send []events.Message // one after the other, a tenth of a second apart
		want []time.Duration
	}{
		{"none", nil, nil},
		{"ours", []events.Message{network("nftnet")}, []time.Duration{500 * time.Millisecond}},
		{"ours as a managed plugin", []events.Message{network("registry.example/x/nftnet:v1")}, []time.Duration{500 * time.Millisecond}},
		{"another driver's", []events.Message{network("bridge")}, []time.Duration{5 * time.Second}},
		{"a container", []events.Message{container}, []time.Duration{5 * time.Second}},
		{"many", []events.Message{network("nftnet"), network("nftnet"), container, network("nftnet")}, []time.Duration{500 * time.Millisecond}},
		{"a container before ours", []events.Message{container, container, network("nftnet")}, []time.Duration{700 * time.Millisecond}},
		{
			"more than one call covers",
			[]events.Message{network("nftnet"), container, container, container, container, container, network("nftnet")},
			[]time.Duration{500 * time.Millisecond, 1100 * time.Millisecond},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFollower("", nil, nil, nil)
				messages, broken, due := make(chan events.Message), make(chan error), make(chan struct{}, 1)
				began := time.Now()
				var got []time.Duration
				stop := make(chan struct{})
				go func() {
					for {
						select {
						case <-due:
							got = append(got, time.Since(began))
						case <-stop:
							return
						}
					}
				}()
				go func() {
					for _, m := range row.send {
						messages <- m
						time.Sleep(100 * time.Millisecond)
					}
					time.Sleep(time.Minute)
					broken <- errors.New("broken")
				}()
				if err := f.collect(messages, broken, due); err == nil || err.Error() != "broken" {
					t.Errorf("ended with %v", err)
				}
				close(stop)
				synctest.Wait()
				if len(got) != len(row.want) {
					t.Fatalf("calls at %v, want %v", got, row.want)
				}
				for i := range got {
					if got[i] != row.want[i] {
						t.Errorf("calls at %v, want %v", got, row.want)
					}
				}
			})
		})
	}
}

// TestFollow follows a real engine over its life: its socket is missing at first,
// it is stopped, killed, and things end in it.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	host := "unix://" + filepath.Join(w.Dir, "docker.sock")
	var answered, networks, containers atomic.Int64
	contexts := make(chan context.Context, 10)
	ask := func(ctx context.Context) {
		c, err := Connect(ctx, host)
		if err != nil {
			t.Errorf("the engine answers, but: %v", err)
			return
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Inventory(ctx, "nftnet"); err != nil {
			t.Errorf("the engine answers, but: %v", err)
		}
	}
	ours := newFollower(host, slog.New(slog.NewTextHandler(t.Output(), nil)), func(ctx context.Context) {
		ask(ctx)
		contexts <- ctx
		answered.Add(1)
	}, func(context.Context) { networks.Add(1) })
	// One sees networks of ours only, the other what else ends.
	ours.soon, ours.later = time.Millisecond, time.Hour
	others := newFollower(host, slog.New(slog.DiscardHandler), func(context.Context) {}, func(context.Context) { containers.Add(1) })
	others.soon, others.later = time.Hour, time.Millisecond
	follow(t, ours)
	follow(t, others)

	w.startEngine(t, "--live-restore")
	eventually(t, "the engine answers", func() bool { return answered.Load() == 1 })
	first := <-contexts

	ends := func(what string, n *atomic.Int64, args ...string) {
		t.Helper()
		before := n.Load()
		w.engine.Docker(t, args...)
		eventually(t, what, func() bool { return n.Load() > before })
	}
	w.network(t, "net")
	w.run(t, "web", "net")
	ends("a container leaves our network", &networks, "network", "disconnect", "net", "web")
	ends("our network goes", &networks, "network", "rm", "net")
	ends("a container goes", &containers, "rm", "-f", "web")
	before := networks.Load()
	ends("a container of no network of ours goes", &containers, "run", "--rm", w.image, "sleep", "0")
	if networks.Load() != before {
		t.Error("a container of no network of ours counts as one of our network")
	}
	if answered.Load() != 1 || first.Err() != nil {
		t.Errorf("the engine answered %d times, context %v", answered.Load(), first.Err())
	}

	w.engine.Kill(t)
	eventually(t, "the context ends", func() bool { return first.Err() != nil })
	w.engine.Start(t)
	eventually(t, "the engine answers after it was killed", func() bool { return answered.Load() == 2 })
	w.engine.Restart(t)
	eventually(t, "the engine answers after a restart", func() bool { return answered.Load() == 3 })
}
