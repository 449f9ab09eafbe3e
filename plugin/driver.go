// Package plugin is nftnet's libnetwork remote driver: it turns Docker's calls
// into desired state, and has package realise make the kernel so.
//
// Every call goes the same way: the state on disk first, then the kernel, both
// so that doing them again changes nothing. What a call undoes is never written
// by hand: the state without the thing is realised. Calls for one container, and
// those that make or remove one network, take turns; others do not wait for each
// other.
package plugin

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/slowlock"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/option"
	"nftnet/plugin/port"
	"nftnet/plugin/realise"
	"nftnet/plugin/store"
)

// Config is what a Driver needs.
type Config struct {
	// State is the path of the state file.
	State string
	Log   *slog.Logger
	// Docker answers what the engine believes; it may be nil.
	Docker Docker
	// Closed publishes ports of networks that do not say otherwise to nobody but
	// the sources that are named.
	Closed bool
	// Firewalld keeps the bridges in a zone of the firewalld on the system bus.
	Firewalld bool
	// Shelf keeps the port sockets over a restart; nil for none.
	Shelf port.Shelf
	// MarkMask are the bits of the marks of packets and connections that the driver
	// uses on hosts with several uplinks; 0 for none.
	MarkMask uint32
	// Step is called after each step of a change, by its name; nil for nothing. A
	// test lets the process end there.
	Step func(name string)
}

// Driver answers Docker's calls. Its methods may be called from several
// goroutines.
type Driver struct {
	log      *slog.Logger
	defaults option.Defaults
	docker   Docker
	store    *store.Store
	// file is the path of the state file.
	file    string
	kernel  realise.Realiser
	step    func(name string)
	inside  *inside
	compare *comparison
	// beside counts the goroutines that work beside the calls. None begins once ctx
	// has ended, which besideMu keeps from happening meanwhile.
	besideMu sync.Mutex
	beside   sync.WaitGroup
	ctx      context.Context
	end      context.CancelFunc

	// calls keeps those who change the same thing from each other: keys are the
	// ids of networks and endpoints, sandboxes, and "redirects".
	calls slowlock.Keyed
	// mu protects the fields below, and nothing that takes time.
	mu    *slowlock.Mutex
	state desired.State
	// turn numbers the calls that make an endpoint a gateway.
	turn uint64
	// made is when this process made networks and endpoints, by their ids.
	made map[string]time.Time
	// left is when they went, for as long as an answer of Docker's may have them
	// still.
	left map[string]time.Time
	// adrift says that the state is lost, and Docker could not be asked yet.
	adrift bool
	// salvaged is what could be read of it, for [Driver.land] alone.
	salvaged desired.State
}

// Open reads the state file and brings the kernel to what it asks for.
func Open(_ context.Context, c Config) (*Driver, error) {
	s, err := store.Open(c.State)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		log: c.Log, defaults: option.Defaults{Closed: c.Closed}, docker: c.Docker, store: s, file: c.State,
		step: c.Step, mu: slowlock.New(c.Log, "state"), state: desired.New(), made: map[string]time.Time{}, left: map[string]time.Time{},
	}
	if d.step == nil {
		d.step = func(string) {}
	}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.inside = openInside(c.Log, d.familyChanged)
	d.compare = &comparison{}
	k, err := realise.Open(realise.Config{Log: c.Log, UserRules: s, Forwarding: s, Firewalld: c.Firewalld, Gone: d.linkGone, Shelf: c.Shelf, MarkMask: c.MarkMask, Step: c.Step})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d.kernel = k
	if err := d.restore(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.followDocker()
	d.goBeside(d.settleDebts)
	return d, nil
}

// Close gives back what the process holds. Networks, links and rules stay:
// containers keep their connections, and the next start takes up from here.
func (d *Driver) Close() error {
	d.besideMu.Lock()
	d.end()
	d.besideMu.Unlock()
	d.inside.close()
	d.beside.Wait()
	return errors.Join(d.kernel.Close(), d.store.Close())
}

// goBeside runs fn beside the calls, unless the driver is closed.
func (d *Driver) goBeside(fn func()) {
	d.besideMu.Lock()
	defer d.besideMu.Unlock()
	if d.ctx.Err() == nil {
		d.beside.Go(fn)
	}
}

// Docker's ids are hexadecimal, those of Swarm base 36.
var dockerID = regexp.MustCompile(`^[0-9a-z]{12,128}$`)

func checkID(what, id string) error {
	if !dockerID.MatchString(id) {
		return badRequest("%s %q is not an id of Docker's: at least 12 characters from 0-9 and a-z are", what, id)
	}
	return nil
}

func (d *Driver) getCapabilities(context.Context, libnetwork.Empty) (libnetwork.Capabilities, error) {
	return libnetwork.Capabilities{Scope: "local", ConnectivityScope: "local", GwAllocChecker: true}, nil
}

// read returns what fn finds in the state.
func read[T any](d *Driver, by string, fn func(desired.State) T) T {
	defer d.mu.Lock(by)()
	return fn(d.state)
}

// nextTurn numbers a call that makes an endpoint a gateway.
func (d *Driver) nextTurn() uint64 {
	defer d.mu.Lock("turn")()
	d.turn++
	return d.turn
}
