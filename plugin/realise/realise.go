// Package realise makes the kernel what a state asks for, and keeps it so:
// bridges and links, the rules of both tables, port sockets, and what other
// firewalls must know of them.
//
// It knows nothing of Docker. Whatever changes beside it (a flush, a bridge that
// somebody takes down, a parameter that is set back) it repairs from the state
// that was realised last.
package realise

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/internal/slowlock"
	"nftnet/isolation"
	"nftnet/nat"
	"nftnet/plugin/firewalld"
	"nftnet/plugin/link"
	"nftnet/plugin/port"
)

// Realiser is what the driver needs of the kernel.
type Realiser interface {
	// Restore brings the kernel to a whole state, and guards it from then on.
	Restore(desired.State) error
	// Hold takes a host port for an owner before the state that publishes it is
	// realised. What an owner holds it may hold again. An error wraps EADDRINUSE
	// where another has the port.
	Hold(p desired.Port, owner string) error
	// Release gives back a port that an owner holds.
	Release(p desired.Port, owner string)
	// Realise brings the kernel from one state of a part to another. On an error
	// the kernel is as it was before. A host port does not go from one owner to
	// another in one call: it is released first.
	Realise(before, after desired.State) error
	// Adopt is Realise where the links of what is new are there already.
	Adopt(before, after desired.State) error
	// Found is what the kernel had of ours before Restore.
	Found() Found
	// Problems lists what is not as the state asks for, and cannot be repaired.
	Problems() []Problem
	// Close gives back what the process holds. What is in the kernel stays.
	Close() error
}

// Config is what a Kernel needs.
type Config struct {
	Log *slog.Logger
	// UserRules keeps the copy of the user's rules.
	UserRules UserRules
	// Forwarding keeps what the host's IPv6 was like before forwarding; nil for
	// nothing.
	Forwarding link.ForwardingMemory
	// Firewalld keeps the bridges in a zone of the firewalld on the system bus.
	Firewalld bool
	// Gone is called when the link of an endpoint went away while the state asked
	// for it, in a goroutine of its own.
	Gone func(endpointID, by string)
	// Shelf keeps the sockets over a restart; nil for none.
	Shelf port.Shelf
	// MarkMask are the bits of the marks of packets and connections that the driver
	// uses on hosts with several uplinks; 0 for none.
	MarkMask uint32
	// Step is called after each step of a change, by its name; nil for nothing. A
	// test lets the process end there.
	Step func(name string)
}

// UserRules keeps the copy of what the user has in DOCKER-USER.
type UserRules interface {
	UserRules() ([]byte, error)
	SaveUserRules([]byte) error
}

// Kernel is the Realiser of the network namespace that it is opened in. Its
// methods may be called from several goroutines.
type Kernel struct {
	log  *slog.Logger
	gone func(endpointID, by string)
	step func(name string)

	nft   *kernel.Conn
	ports *port.Holder
	// keeper holds the keeper table open; nil on a kernel without owners.
	keeper *kernel.Conn
	// bridgeFamily reports whether the kernel has tables of family bridge.
	bridgeFamily bool
	// socketMatch reports whether the kernel's rules can ask for sockets.
	socketMatch bool
	// flows works beside the calls.
	flows *flows
	// zones is firewalld's part; nil where Config does not ask for it.
	zones *firewalld.Zone
	watch *watch
	// forwarding is of IPv6.
	forwarding *link.Forwarding
	memory     link.ForwardingMemory
	uplinks    uplinks
	// networks keeps a repair of a network's links from the calls that make and
	// remove them.
	networks slowlock.Keyed
	repairs  repairs
	// broken is why the rules could not be repaired; nil where they are whole.
	broken  atomic.Pointer[string]
	contest contest
	found   Found
	// foreign keeps two from writing to other tables at once.
	foreign sync.Mutex
	pending pending
	// settling keeps a port from being served by an older state than the last.
	settling sync.Mutex

	// mu keeps a change of state together with the change of the rules.
	mu    *slowlock.Mutex
	state desired.State
	// version counts the changes to state.
	version uint64
	whole   *rs.Ruleset
	user    userCopy
	// handles are those of our chains, by which a renamed one is known.
	handles map[chainID]bool
}

// Open opens the network namespace of the caller. Restore comes next.
func Open(c Config) (*Kernel, error) {
	k := &Kernel{
		log: c.Log, gone: c.Gone, step: c.Step, ports: port.NewHolder(c.Log, c.Shelf), flows: &flows{log: c.Log},
		memory: c.Forwarding, mu: slowlock.New(c.Log, "rules"), state: desired.New(), user: userCopy{store: c.UserRules, log: c.Log},
	}
	k.uplinks.mask = c.MarkMask
	if k.step == nil {
		k.step = func(string) {}
	}
	var err error
	if k.nft, err = kernel.Open(); err != nil {
		return nil, err
	}
	if err := k.begin(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	if c.Firewalld {
		k.zones = firewalld.Watch(c.Log)
	}
	return k, nil
}

// begin opens the watches before anything is read, so that no change slips
// between.
func (k *Kernel) begin() error {
	var err error
	if k.keeper, err = openKeeper(k.log); err != nil {
		return err
	}
	k.bridgeFamily = hasBridgeFamily(k.nft, k.log)
	k.socketMatch = hasSocketMatch(k.nft, k.log)
	if k.forwarding, err = link.OpenForwarding(k.log, k.memory); err != nil {
		return err
	}
	if err := k.user.load(); err != nil {
		return err
	}
	if k.watch, err = openWatch(); err != nil {
		return err
	}
	return k.find()
}

// Close gives back what the process holds: networks, links and rules stay.
func (k *Kernel) Close() error {
	var errs []error
	if k.zones != nil {
		k.zones.Close()
	}
	if k.watch != nil {
		errs = append(errs, k.watch.close())
		k.keepUserRules()
	}
	if k.forwarding != nil {
		k.forwarding.Close()
	}
	k.flows.wait()
	k.user.wait()
	if k.keeper != nil {
		errs = append(errs, k.keeper.Close())
	}
	return errors.Join(append(errs, k.ports.Close(), k.nft.Close())...)
}

// Ruleset is what a state asks for: the table of both IP families, and the one
// of family bridge.
func Ruleset(s desired.State) rs.Ruleset { return rs.Merge(nat.Ruleset(s), isolation.Ruleset(s)) }

// rules is the ruleset of a state, as far as this kernel can have it.
func (k *Kernel) rules(s desired.State) rs.Ruleset {
	r := Ruleset(s)
	if !k.socketMatch {
		r = isolation.WithoutSockets(r)
	}
	r.Tables = slices.DeleteFunc(r.Tables, func(t rs.Table) bool { return t.Family == rs.FamilyBridge && !k.bridgeFamily })
	return r
}

// Held returns how many ports of the host are held.
func (k *Kernel) Held() int { return k.ports.Len() }

// Hold implements Realiser.
func (k *Kernel) Hold(p desired.Port, owner string) error { return k.ports.Hold(p, owner) }

// Release implements Realiser.
func (k *Kernel) Release(p desired.Port, owner string) { k.ports.Release(p, owner) }

// Realise implements Realiser: what is made has its links first, so that rules
// find their bridge; what is removed loses its rules first.
func (k *Kernel) Realise(before, after desired.State) error {
	defer k.shareNetworks(before, after)()
	if err := k.makeLinks(before, after); err != nil {
		return errors.Join(err, k.removeLinks(after, before))
	}
	if err := k.changeRules(before, after); err != nil {
		return errors.Join(err, k.removeLinks(after, before))
	}
	k.step("rules changed")
	k.settlePorts(before, after)
	k.step("ports settled")
	k.announce(before, after)
	k.followBridges(before, after)
	k.followNeeds(before, after)
	if err := k.removeLinks(before, after); err != nil {
		// The state is without them already: they are removed when it can be.
		k.log.Error("remove links", "error", err)
		k.pending.add(before, after)
	}
	return nil
}

// shareNetworks keeps repairs away from the networks of a change.
func (k *Kernel) shareNetworks(before, after desired.State) (unlock func()) {
	ids := slices.Sorted(maps.Keys(before.Networks))
	for id := range after.Networks {
		if _, had := before.Networks[id]; !had {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var unlocks []func()
	for _, id := range ids {
		unlocks = append(unlocks, k.networks.RLock(id))
	}
	return func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}
}

// Adopt implements Realiser.
func (k *Kernel) Adopt(before, after desired.State) error {
	defer k.shareNetworks(before, after)()
	if err := k.changeRules(before, after); err != nil {
		return err
	}
	k.settlePorts(before, after)
	k.followBridges(before, after)
	for _, n := range after.Networks {
		if err := k.forwarding.Need(n, k.snapshot); err != nil {
			return err
		}
	}
	k.followNeeds(before, after)
	return nil
}

// followNeeds has the uplinks follow a change of what needs them.
func (k *Kernel) followNeeds(before, after desired.State) {
	if len(before.Networks) != len(after.Networks) || len(before.Redirects) != len(after.Redirects) {
		k.followUplinks()
	}
}

// Found is what the kernel has of networks of ours.
type Found struct {
	// Bridges are the bridges with names of ours, Ports what the table publishes,
	// Redirects the host redirects that it has.
	Bridges   []string
	Ports     []desired.Port
	Redirects []desired.Redirect
}

// Empty reports whether there is nothing.
func (f Found) Empty() bool { return len(f.Bridges) == 0 && len(f.Ports) == 0 && len(f.Redirects) == 0 }

// Found implements Realiser.
func (k *Kernel) Found() Found { return k.found }

// find looks for networks of ours in the kernel.
func (k *Kernel) find() error {
	have, err := k.nft.Read(kernel.Filter{Family: rs.FamilyInet, Table: layout.Table})
	if err != nil {
		return err
	}
	if t := have.Table(rs.FamilyInet, layout.Table); t != nil {
		k.found.Ports, k.found.Redirects = nat.Published(*t), nat.Redirects(*t)
	}
	k.found.Bridges, err = link.OurBridges()
	return err
}

func (k *Kernel) makeLinks(before, after desired.State) error {
	for id, n := range after.Networks {
		if _, had := before.Networks[id]; !had {
			if err := k.makeNetwork(n, k.snapshot); err != nil {
				return err
			}
			k.step("bridge made")
		}
	}
	for id, e := range after.Endpoints {
		if e.HostLink != "" && before.Endpoints[id].HostLink == "" {
			if err := link.Attach(after.Networks[e.NetworkID], e); err != nil {
				return err
			}
			k.step("link made")
		}
	}
	return nil
}

// makeNetwork makes the bridge of a network, and has the host forward for it.
func (k *Kernel) makeNetwork(n desired.Network, state func() desired.State) error {
	if err := k.forwarding.Need(n, state); err != nil {
		return err
	}
	return link.EnsureBridge(n)
}

func (k *Kernel) removeLinks(before, after desired.State) error {
	var errs []error
	for id, e := range before.Endpoints {
		if e.HostLink != "" && after.Endpoints[id].HostLink == "" {
			errs = append(errs, link.Detach(e), link.ForgetNeighbours(before.Networks[e.NetworkID], e))
			k.step("link removed")
		}
	}
	for id, n := range before.Networks {
		if _, stays := after.Networks[id]; !stays {
			errs = append(errs, link.DeleteBridge(n))
			k.step("bridge removed")
			errs = append(errs, k.forwarding.Release(id, k.snapshot))
		}
	}
	return errors.Join(errs...)
}

// assume replaces a part of the state; k.mu is held.
func (k *Kernel) assume(before, after desired.State) {
	k.whole = nil
	k.version++
	k.state.Replace(before, after)
}

// settlePorts lets go of the sockets of ports that are published no more, points
// the others to where they lead now, and has flows forgotten that the change
// left astray.
func (k *Kernel) settlePorts(before, after desired.State) {
	k.settling.Lock()
	defer k.settling.Unlock()
	old, now := hostPorts(before), hostPorts(after)
	var leads []link.Lead
	for key, h := range old {
		if _, stays := now[key]; !stays {
			k.ports.Release(h.port, h.owner)
			leads = append(leads, link.Lead{Port: h.port, Gone: true})
		}
	}
	for key, h := range now {
		if had, ok := old[key]; !ok || !reflect.DeepEqual(had, h) {
			k.ports.Serve(h.port, h.clients)
			leads = append(leads, link.Lead{Port: h.port})
		}
	}
	k.flows.forget(leads)
}

// hostPort is a port of the host that a state takes.
type hostPort struct {
	port    desired.Port
	owner   string
	clients port.Clients
}

// hostPorts are the ports of the host that a state takes, for containers and
// for redirects, by their keys.
func hostPorts(s desired.State) map[string]hostPort {
	out := map[string]hostPort{}
	for _, e := range s.Endpoints {
		for _, p := range e.Published {
			if p.Kind() != desired.Direct {
				out[p.Key()] = hostPort{p, e.Owner(), port.Clients{
					Neighbours: relayed(s.Networks[e.NetworkID], p),
					Sources:    e.Allow.For(p.Proto, p.Container.Port()),
				}}
			}
		}
	}
	for _, r := range s.Redirects {
		for _, p := range r.Ports() {
			out[p.Key()] = hostPort{port: p, owner: r.Owner()}
		}
	}
	return out
}

// relayed are the subnets whose containers reach a port by its socket.
func relayed(n desired.Network, p desired.Port) []netip.Prefix {
	if subnet := n.Subnet(p.Host.Addr()); nat.Relayed(n, p) && subnet.IsValid() {
		return []netip.Prefix{subnet.Prefix.Masked()}
	}
	return nil
}

// Restore implements Realiser: after a restart of the driver the kernel is
// mostly so already, after one of the host nothing is.
func (k *Kernel) Restore(state desired.State) error {
	whole := func() desired.State { return state }
	for _, n := range state.SortedNetworks() {
		if err := k.makeNetwork(n, whole); err != nil {
			// One network that is in somebody's way must not take the others down.
			k.log.Error("restore network", "network", fmt.Sprintf("%.12s", n.ID), "error", err)
		}
	}
	if err := k.forwarding.Settle(whole); err != nil {
		k.log.Error("switch IPv6 forwarding off", "error", err)
	}
	hasIPv6 := port.HasIPv6()
	for _, h := range hostPorts(state) {
		if h.port.Host.Addr().Is6() && !hasIPv6 {
			// The kernel had it when the port was published.
			continue
		}
		if err := k.ports.Hold(h.port, h.owner); err != nil {
			k.pending.unheld(h, err)
			k.log.Error("a published or redirected port was taken while nftnet was not running", "port", h.port.Key(), "error", err)
		}
	}
	k.uplinks.mu.Lock()
	ways := k.findUplinks(state)
	k.uplinks.mu.Unlock()
	unlock := k.mu.Lock("restore")
	k.uplinks.list = ways
	k.state = state.Clone()
	k.whole = nil
	k.version++
	changed, err := k.reconcileRules()
	unlock()
	if err != nil {
		return err
	}
	if changed != "" {
		k.log.Info("made the table", "table", layout.Table, "changed", changed)
	}
	k.settlePorts(desired.New(), state)
	// What an earlier driver left, and nobody serves by now.
	k.ports.DropUnclaimed()
	k.openForeign()
	if k.zones != nil {
		// The start does not wait for a slow bus.
		go k.zones.Set(bridges(state))
	}
	k.watch.start(k)
	// What was unplugged or set down while no driver ran.
	k.repairLinks(names(nil))
	return nil
}

// snapshot is a copy of the state that is realised now.
func (k *Kernel) snapshot() desired.State {
	defer k.mu.Lock("snapshot")()
	return k.state.Clone()
}

// stateSince returns the state where it is not the one of a version, with its
// own.
func (k *Kernel) stateSince(version uint64) (desired.State, uint64, bool) {
	defer k.mu.Lock("snapshot")()
	if k.version == version {
		return desired.State{}, version, false
	}
	return k.state.Clone(), k.version, true
}
