package firewalld

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names of firewalld on the bus, see firewalld.dbus(5).
const (
	busName      = "org.fedoraproject.FirewallD1"
	path         = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	configPath   = path + "/config"
	configIface  = busName + ".config"
	exception    = busName + ".Exception"
	noOwner      = "org.freedesktop.DBus.Error.NameHasNoOwner"
	ownerChanged = "NameOwnerChanged"
)

const (
	zoneName   = "nftnet"
	policyName = "nftnet-forwarding"
)

// callTimeout is far longer than Docker waits: firewalld is on the bus before it
// has loaded its rules, and answers only then.
const callTimeout = 30 * time.Second

// object is what must be in firewalld's configuration. Only a permanent one can
// be added, and it counts after a reload.
type object struct {
	name         string
	list, create string
	settings     map[string]dbus.Variant
}

var objects = []object{
	{
		name: zoneName, list: busName + ".zone.getZones", create: configIface + ".addZone2",
		settings: map[string]dbus.Variant{
			"short":       dbus.MakeVariant("nftnet"),
			"description": dbus.MakeVariant("Bridges of Docker networks made by nftnet, whose own table decides what enters and leaves them."),
			"target":      dbus.MakeVariant("ACCEPT"),
		},
	},
	{
		// The zone alone accepts what comes from its interfaces, not what goes
		// there.
		name: policyName, list: busName + ".policy.getPolicies", create: configIface + ".addPolicy",
		settings: map[string]dbus.Variant{
			"short":         dbus.MakeVariant("nftnet forwarding"),
			"description":   dbus.MakeVariant("Leaves what is forwarded to Docker networks of nftnet to nftnet's own table."),
			"ingress_zones": dbus.MakeVariant([]string{"ANY"}),
			"egress_zones":  dbus.MakeVariant([]string{zoneName}),
			"target":        dbus.MakeVariant("ACCEPT"),
		},
	},
}

// firewall is the firewalld on the bus.
type firewall struct {
	log     *slog.Logger
	conn    *dbus.Conn
	signals chan *dbus.Signal

	// owner is the connection of the firewalld that was seen last, and reloaded
	// that of the one that was reloaded for the objects: once is enough, or
	// something is wrong.
	owner, reloaded string
	// mine are the bridges that were wanted in the zone last.
	mine []string
	// elsewhere is, for each bridge that is in another zone, that zone.
	elsewhere map[string]string
	strict    bool
}

// connect connects to the system bus and asks for the signals after which the
// zone may be empty.
func (f *firewall) connect(ctx context.Context) error {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	f.conn, f.signals = conn, make(chan *dbus.Signal, 16)
	conn.Signal(f.signals)
	return errors.Join(
		conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(busName), dbus.WithMatchInterface(busName), dbus.WithMatchMember("Reloaded")),
		conn.AddMatchSignalContext(ctx, dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember(ownerChanged), dbus.WithMatchArg(0, busName)),
	)
}

func (f *firewall) close() { _ = f.conn.Close() }

// lost is closed when the bus is gone.
func (f *firewall) lost() <-chan struct{} { return f.conn.Context().Done() }

// call calls a method of firewalld, which it does not start.
func (f *firewall) call(ctx context.Context, object dbus.ObjectPath, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	call := f.conn.Object(busName, object).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		call.Err = fmt.Errorf("%s: %w", method, call.Err)
	}
	return call
}

func (f *firewall) list(ctx context.Context, method string, args ...any) (names []string, err error) {
	err = f.call(ctx, path, method, args...).Store(&names)
	return names, err
}

// code is the name that an exception of firewalld begins with, such as
// ZONE_CONFLICT; it is empty for other errors.
func code(err error) string {
	var e dbus.Error
	if !errors.As(err, &e) || e.Name != exception {
		return ""
	}
	name, _, _ := strings.Cut(e.Error(), ":")
	return name
}

// settle brings the zone to the wanted bridges, where firewalld is running. That
// firewalld ends meanwhile is no error: the next one's coming is signalled.
func (f *firewall) settle(ctx context.Context, want []string) error {
	running, err := f.find(ctx)
	if err != nil || !running {
		return err
	}
	owner := f.owner
	if err = f.bring(ctx, want); err == nil {
		return nil
	}
	if _, gone := f.find(ctx); gone == nil && f.owner != owner {
		f.log.Debug("firewalld ended meanwhile", "error", err)
		return nil
	}
	return err
}

// bring brings the zone to the wanted bridges.
func (f *firewall) bring(ctx context.Context, want []string) error {
	if len(want) == 0 {
		return f.empty(ctx)
	}
	f.checkStrict(ctx)
	ensured := f.ensure(ctx)
	have, err := f.list(ctx, busName+".zone.getInterfaces", zoneName)
	if err != nil {
		return errors.Join(ensured, err)
	}
	errs := []error{ensured, f.add(ctx, want, have), f.remove(ctx, want, have)}
	err = errors.Join(errs...)
	if err == nil {
		f.mine = want
	}
	return err
}

// find says whether firewalld is on the bus.
func (f *firewall) find(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var owner string
	err := f.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, busName).Store(&owner)
	var e dbus.Error
	if errors.As(err, &e) && e.Name == noOwner {
		err = nil
	}
	if owner != f.owner {
		f.log.Debug("firewalld came, went or was replaced", "bus_name", owner)
		f.owner, f.strict, f.elsewhere = owner, false, map[string]string{}
	}
	return owner != "", err
}

// empty takes all bridges out of the zone, and makes none where there is none.
func (f *firewall) empty(ctx context.Context) error {
	zones, err := f.list(ctx, objects[0].list)
	if err != nil || !slices.Contains(zones, zoneName) {
		return err
	}
	have, err := f.list(ctx, busName+".zone.getInterfaces", zoneName)
	if err = errors.Join(err, f.remove(ctx, nil, have)); err == nil {
		f.mine = nil
	}
	return err
}

// ensure makes the zone and the policy, where firewalld lacks one, and reloads
// it then: it has no others than permanent ones.
func (f *firewall) ensure(ctx context.Context) error {
	var missing []string
	for _, o := range objects {
		names, err := f.list(ctx, o.list)
		if err != nil {
			return err
		}
		if slices.Contains(names, o.name) {
			continue
		}
		missing = append(missing, o.name)
		err = f.call(ctx, configPath, o.create, o.name, o.settings).Err
		if err != nil && code(err) != "NAME_CONFLICT" {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if f.reloaded == f.owner {
		return fmt.Errorf("firewalld was reloaded, and lacks %s still", strings.Join(missing, " and "))
	}
	f.reloaded = f.owner
	if err := f.call(ctx, path, busName+".reload").Err; err != nil {
		return err
	}
	f.log.Info("added to firewalld's permanent configuration, and reloaded it", "added", missing)
	return nil
}

// add puts bridges into the zone. One that is in another zone stays there: the
// user put it there.
func (f *firewall) add(ctx context.Context, want, have []string) error {
	var errs []error
	for _, name := range want {
		if slices.Contains(have, name) {
			continue
		}
		err := f.call(ctx, path, busName+".zone.addInterface", zoneName, name).Err
		switch code(err) {
		case "ZONE_ALREADY_SET":
		case "ZONE_CONFLICT":
			f.tellElsewhere(ctx, name)
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (f *firewall) tellElsewhere(ctx context.Context, bridge string) {
	var zone string
	if err := f.call(ctx, path, busName+".zone.getZoneOfInterface", bridge).Store(&zone); err != nil {
		f.log.Debug("ask for the zone of an interface", "interface", bridge, "error", err)
	}
	if f.elsewhere[bridge] == zone {
		return
	}
	f.elsewhere[bridge] = zone
	f.log.Warn("bridge is in another zone of firewalld and stays there: that zone decides on packets of its containers, too", "bridge", bridge, "zone", zone)
}

// remove takes bridges out of the zone that were wanted there once, and
// interfaces that are gone: "firewall-cmd --runtime-to-permanent" makes the
// bridges of its time come back. Others are the user's.
func (f *firewall) remove(ctx context.Context, want, have []string) error {
	var errs []error
	for _, name := range have {
		if slices.Contains(want, name) || !slices.Contains(f.mine, name) && exists(name) {
			continue
		}
		err := f.call(ctx, path, busName+".zone.removeInterface", zoneName, name).Err
		if code(err) != "UNKNOWN_INTERFACE" {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func exists(link string) bool {
	_, err := net.InterfaceByName(link)
	return err == nil
}

// checkStrict warns where firewalld rejects published ports that it does not
// know: with StrictForwardPorts (firewalld 2.3, firewalld.conf(5)) no zone or
// policy lets them through. Older ones have no such property.
func (f *firewall) checkStrict(ctx context.Context) {
	var value string
	err := f.call(ctx, configPath, "org.freedesktop.DBus.Properties.Get", configIface, "StrictForwardPorts").Store(&value)
	strict := err == nil && value == "yes"
	if strict && !f.strict {
		f.log.Warn("firewalld rejects published ports, unless each is allowed there by firewall-cmd --add-forward-port: its configuration has StrictForwardPorts=yes")
	}
	f.strict = strict
}
