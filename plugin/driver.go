// Package plugin is nftnet's libnetwork remote driver: it turns Docker's calls
// into desired state, and desired state into bridges, links, port sockets and
// rules.
//
// Every call goes the same way: the state on disk first, then the kernel, both
// so that doing them again changes nothing. What a call undoes is never written
// by hand: the state without the thing is applied.
package plugin

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"sync"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/firewalld"
	"nftnet/plugin/port"
	"nftnet/plugin/store"
)

// Config is what a Driver needs.
type Config struct {
	// State is the path of the state file.
	State string
	Log   *slog.Logger
	// ContainerName asks Docker for the name of an endpoint's container, for
	// errors that speak of another container; empty where it does not know. It
	// must end soon: Docker waits for the driver meanwhile. It may be nil.
	ContainerName func(ctx context.Context, endpointID string) string
	// Closed publishes ports of networks that do not say otherwise to nobody but
	// the sources that are named.
	Closed bool
	// Shelf keeps the port sockets while the driver restarts. It may be nil.
	Shelf port.Shelf
	// Firewalld keeps the bridges in a zone of the firewalld on the system bus.
	Firewalld bool
}

// Driver answers Docker's calls. Its methods may be called from several
// goroutines.
type Driver struct {
	log           *slog.Logger
	defaults      defaults
	containerName func(ctx context.Context, endpointID string) string

	store *store.Store
	nft   *kernel.Conn
	ports *port.Holder
	// flows works beside the calls, guard watches the table.
	flows *flows
	guard *guard
	// bridgeFamily says whether the kernel has tables of family bridge.
	bridgeFamily bool
	// keeper holds the keeper table open; nil on a kernel without owners.
	keeper *kernel.Conn
	// zones is firewalld's part; nil where Config does not ask for it.
	zones *firewalld.Zone

	// mu protects state, and keeps a change to it together with the change to
	// the kernel.
	mu    sync.Mutex
	state desired.State
	whole *rs.Ruleset
	// userRules is the copy of what the user has in DOCKER-USER, and
	// userRulesText the same as it stands in the state file.
	userRules     kernel.Saved
	userRulesText []byte
}

// Open reads the state file and brings the kernel to what it asks for.
func Open(ctx context.Context, c Config) (*Driver, error) {
	s, err := store.Open(c.State)
	if err != nil {
		return nil, err
	}
	nft, err := kernel.Open()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d := &Driver{
		log: c.Log, defaults: defaults{closed: c.Closed}, containerName: c.ContainerName,
		store: s, nft: nft, ports: port.NewHolder(c.Log, c.Shelf), flows: &flows{log: c.Log},
	}
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.startZones(c.Firewalld)
	return d, nil
}

// begin restores the state, and watches over it from then on. The watch is
// opened before the table is read, so that no change slips between.
func (d *Driver) begin(ctx context.Context) error {
	var err error
	if d.keeper, err = openKeeper(d.log); err != nil {
		return err
	}
	d.bridgeFamily = hasBridgeFamily(d.nft, d.log)
	watch, err := kernel.OpenWatch()
	if err != nil {
		return err
	}
	d.guard = &guard{watch: watch}
	if err := d.restore(ctx); err != nil {
		return err
	}
	d.guard.start(d)
	return nil
}

// Close gives back what the process holds. Networks, links and rules stay:
// containers keep their connections, and the next start takes up from here.
func (d *Driver) Close() error {
	var errs []error
	d.stopZones()
	if d.guard != nil {
		errs = append(errs, d.guard.stop())
		d.keepUserRules()
	}
	d.flows.wait()
	if d.keeper != nil {
		errs = append(errs, d.keeper.Close())
	}
	return errors.Join(append(errs, d.ports.Close(), d.nft.Close(), d.store.Close())...)
}

var dockerID = regexp.MustCompile(`^[0-9a-f]{12,128}$`)

func checkID(what, id string) error {
	if !dockerID.MatchString(id) {
		return badRequest("%s %q is not an id of Docker's: at least 12 digits from 0-9 and a-f are", what, id)
	}
	return nil
}

func (d *Driver) getCapabilities(context.Context, empty) (capabilities, error) {
	return capabilities{Scope: "local", ConnectivityScope: "local", GwAllocChecker: true}, nil
}

// drop forgets an endpoint and all that it had; d.mu is held.
func (d *Driver) drop(e desired.Endpoint) error {
	return d.change(e.NetworkID, e.ID, func(s *desired.State) { delete(s.Endpoints, e.ID) })
}
