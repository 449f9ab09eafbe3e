package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"nftnet/inspect"
	"nftnet/inspect/view"
	"nftnet/internal/host"
	"nftnet/internal/kernel"
)

// watchFlags are what the user asks of --watch.
type watchFlags struct {
	on, counters bool
	interval     time.Duration
}

func (f *watchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.on, "watch", false, "follow the ruleset: who changes what, as it happens, until ^C")
	flags.BoolVar(&f.counters, "counters", false, "with --watch: how fast rules and elements count")
	flags.DurationVar(&f.interval, "interval", time.Second, "with --counters: the time between two looks")
}

// minInterval keeps looks at counters from being all that the host does.
const minInterval = 100 * time.Millisecond

// checkWatch refuses flags that do not go together.
func (f inspectFlags) checkWatch(cmd *cobra.Command) error {
	w := f.watch
	switch {
	case !w.on && (w.counters || cmd.Flags().Changed("interval")):
		return errors.New("--counters and --interval are allowed with --watch only")
	case w.on && f.save != "":
		return errors.New("--watch and --save are not allowed together")
	case w.on && (f.table != "" || !f.whole()):
		return errors.New("--watch follows the whole ruleset of this host: --table, --chain, --network, --container, --netns and --file are not allowed with it")
	case f.save != "" && (f.table != "" || !f.whole()):
		return errors.New("--save keeps the whole ruleset of this host: --table, --chain, --network, --container, --netns and --file are not allowed with it")
	case w.on && w.interval < minInterval:
		return fmt.Errorf("interval %v is not allowed: %v or more is", w.interval, minInterval)
	case w.on:
		return checkFormat(f.format, "text", "json")
	}
	return nil
}

// runWatch follows the ruleset until ctx ends.
func runWatch(ctx context.Context, f inspectFlags, out, errOut io.Writer) error {
	options, err := f.options()
	if err != nil {
		return err
	}
	watch, err := kernel.OpenWatch()
	if err != nil {
		return needsRoot(err)
	}
	conn, err := kernel.Open()
	if err != nil {
		return errors.Join(err, watch.Close())
	}
	defer conn.Close()
	say, err := language(f.lang)
	if err != nil {
		return errors.Join(err, watch.Close())
	}
	names := &freshNames{host: f.docker, names: inspect.Names{Language: say}}
	if err := names.ask(ctx); err != nil {
		fmt.Fprintln(errOut, "nftnet: names are missing:", err)
	}
	follower := inspect.Follower{
		Events: watch, Ruleset: conn, Names: names.latest(ctx), Who: whoChanged,
		Tell: func(s inspect.Step) error {
			if f.format == "json" {
				return view.StepLine(out, s)
			}
			return view.Step(out, s, options)
		},
	}
	if f.watch.counters {
		follower.Interval = f.watch.interval
	}
	return needsRoot(follower.Follow(ctx))
}

// freshNames are Docker's names, asked for again beside the work: Docker may
// hold its answer back while it makes the change that is being told.
type freshNames struct {
	host string

	mu     sync.Mutex
	names  inspect.Names
	asking bool
}

// namesTimeout bounds a question to Docker.
const namesTimeout = 10 * time.Second

func (n *freshNames) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	names, err := dockerNames(ctx, n.host)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asking = false
	if err == nil {
		names.Language = n.names.Language
		n.names = names
	}
	return err
}

// latest gives the names that are known, and asks for those of the next time.
func (n *freshNames) latest(ctx context.Context) func() inspect.Names {
	return func() inspect.Names {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.asking {
			n.asking = true
			go func() { _ = n.ask(ctx) }()
		}
		return n.names
	}
}

// whoChanged names the process of a generation.
func whoChanged(g kernel.Generation) inspect.Process {
	return inspect.Process(host.ProcessOf(int(g.PID), g.Process))
}
