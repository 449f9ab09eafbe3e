package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
)

// Forwarding switches the host's IPv6 forwarding on for networks that need it,
// and off when the last of them goes, so that the host keeps its own IPv6: the
// kernel deletes the default routes that router advertisements gave, and ignores
// further ones, on every interface that forwards and whose accept_ra is not 2
// (rt6_purge_dflt_routers and ipv6_accept_ra of the kernel).
//
// Where forwarding was on already, nothing is touched. Its methods may be called
// from several goroutines.
type Forwarding struct {
	log    *slog.Logger
	memory ForwardingMemory

	mu sync.Mutex
	// needs are the ids of the networks that need forwarding.
	needs map[string]bool
	// was is what the host had before; nil where the driver did not switch
	// forwarding on.
	was    *forwardRecord
	writes *writeWatch
}

// ForwardingMemory keeps what the host's IPv6 was like over a restart of the
// driver; nil and empty are the same.
type ForwardingMemory interface {
	Forwarding() ([]byte, error)
	SaveForwarding([]byte) error
}

// forwardRecord is what the host had before forwarding was switched on.
type forwardRecord struct {
	// Boot is the id of the boot: the next one begins with the host's own settings.
	Boot string `json:"boot"`
	// Default is what new interfaces had.
	Default linkForward `json:"default"`
	// Links are the interfaces that were there, by index.
	Links map[int]linkForward `json:"links"`
	// Claimed says that another program switched forwarding on, too.
	Claimed bool `json:"claimed,omitempty"`
}

// linkForward are two parameters of an interface, and whether it had an IPv6
// network.
type linkForward struct {
	AcceptRA   int  `json:"accept_ra"`
	Forwarding int  `json:"forwarding,omitempty"`
	Network    bool `json:"network,omitempty"`
}

// OpenForwarding takes up what an earlier driver remembered; memory is nil for none.
func OpenForwarding(log *slog.Logger, memory ForwardingMemory) (*Forwarding, error) {
	if memory == nil {
		memory = noMemory{}
	}
	f := &Forwarding{log: log, memory: memory, needs: map[string]bool{}}
	text, err := memory.Forwarding()
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return f, nil
	}
	var was forwardRecord
	if err := json.Unmarshal(text, &was); err != nil {
		log.Error("read what IPv6 forwarding was before nftnet, it stays as it is", "error", err)
		return f, nil
	}
	if was.Boot == bootID() {
		f.was = &was
		f.watchWrites()
	}
	return f, nil
}

// bootID names the boot of the kernel; it is empty where the kernel does not say.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// Close keeps what is known.
func (f *Forwarding) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noticeClaim()
	f.writes.close()
	f.writes = nil
}

func needsForwarding(n desired.Network) bool {
	return slices.ContainsFunc(hostSettings(n), func(s setting) bool { return s.path == pathForward6 })
}

// Need switches forwarding on, where the network needs it and it is off. state
// is asked, here and below, which interfaces are the driver's.
func (f *Forwarding) Need(n desired.Network, state func() desired.State) error {
	if !needsForwarding(n) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.switchOn(state); err != nil {
		return err
	}
	f.needs[n.ID] = true
	return nil
}

// Again switches forwarding on where somebody switched it off.
func (f *Forwarding) Again(state func() desired.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.needs) == 0 {
		return nil
	}
	return f.switchOn(state)
}

// Release notes that a network is gone, and switches forwarding off if it was
// the last that needed it.
func (f *Forwarding) Release(networkID string, state func() desired.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.needs, networkID)
	return f.switchOff(state)
}

// Settle switches forwarding off where no network needs it: the driver was
// killed between two steps.
func (f *Forwarding) Settle(state func() desired.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.switchOff(state)
}

// switchOn is for a host that does not forward; f.mu is held.
func (f *Forwarding) switchOn(state func() desired.State) error {
	on, _, err := readSysctl(pathForward6)
	if err != nil {
		return err
	}
	if on != 0 {
		if f.was == nil {
			return nil
		}
		// The driver was killed between two steps.
		return f.keepRoutes(state())
	}
	st := state()
	if err := f.remember(st); err != nil {
		return err
	}
	f.watchWrites()
	if err := f.keepRoutes(st); err != nil {
		return err
	}
	if err := setSysctl(pathForward6, "1"); err != nil {
		return err
	}
	f.writes.drain()
	f.log.Info("switched IPv6 forwarding on", "parameter", sysctlName(pathForward6))
	return nil
}

// remember records the host as it is. Interfaces that an earlier record has
// may have been changed by the driver since.
func (f *Forwarding) remember(st desired.State) error {
	survey, err := Look()
	if err != nil {
		return err
	}
	routed, err := routedLinks()
	if err != nil {
		return err
	}
	was := forwardRecord{Boot: bootID(), Links: map[int]linkForward{}}
	if was.Default.AcceptRA, _, err = readSysctl(pathDefaultRA); err != nil {
		return err
	}
	if was.Default.Forwarding, _, err = readSysctl(pathDefaultForward6); err != nil {
		return err
	}
	for _, l := range survey.view().foreign(st) {
		had := l.forward()
		had.Network = survey.hasNetwork(l, routed)
		was.Links[l.index] = had
	}
	if f.was != nil {
		was.Default = f.was.Default
		for index, l := range f.was.Links {
			if _, there := was.Links[index]; there {
				was.Links[index] = l
			}
		}
	}
	f.was = &was
	f.save()
	return nil
}

// save writes the record. A disk that is full is no reason to do without
// forwarding: then it is not switched off after a restart.
func (f *Forwarding) save() {
	var text []byte
	var err error
	if f.was != nil {
		text, err = json.Marshal(f.was)
	}
	if err == nil {
		err = f.memory.SaveForwarding(text)
	}
	if err != nil {
		f.log.Warn("write down what IPv6 forwarding was before nftnet", "error", err)
	}
}

// Parameters of interfaces that come later.
const (
	pathDefaultRA       = "ipv6/conf/default/accept_ra"
	pathDefaultForward6 = "ipv6/conf/default/forwarding"
)

// Values of accept_ra (networking/ip-sysctl.rst of the kernel).
const (
	acceptNever, acceptUnlessForwarding, acceptAlways = 0, 1, 2
)

// keepRoutes has interfaces that take routes from router advertisements do so
// while they forward; f.mu is held.
func (f *Forwarding) keepRoutes(st desired.State) error {
	links, err := foreignLinks(st)
	if err != nil {
		return err
	}
	return f.acceptAlways(links, true)
}

// acceptAlways sets accept_ra of those links that listen to router advertisements
// unless they forward, and with byDefault of new ones.
func (f *Forwarding) acceptAlways(links []seenLink, byDefault bool) error {
	var names []string
	later := false
	for _, l := range links {
		before, known := f.was.Links[l.index]
		if now, ok := l.parameter(confAcceptRA); !ok || now != acceptUnlessForwarding || before.Forwarding != 0 {
			continue
		}
		if !known {
			f.was.Links[l.index] = linkForward{AcceptRA: acceptUnlessForwarding}
			later = true
		}
		if err := setLinkRA(l.name, acceptAlways); err != nil {
			return err
		}
		names = append(names, l.name)
	}
	if later {
		f.save()
	}
	if d := f.was.Default; byDefault && d.AcceptRA == acceptUnlessForwarding && d.Forwarding == 0 {
		if err := setSysctl(pathDefaultRA, fmt.Sprint(acceptAlways)); err != nil {
			return err
		}
	}
	if len(names) > 0 {
		f.log.Info("set accept_ra to 2, so that the host keeps its routes from router advertisements while it forwards IPv6",
			"interfaces", strings.Join(names, ","))
	}
	return nil
}

// setLinkRA sets accept_ra of an interface, which may be gone.
func setLinkRA(name string, value int) error {
	err := setSysctl("ipv6/conf/"+name+"/accept_ra", fmt.Sprint(value))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Follow looks after interfaces that came, or that somebody set back, while
// forwarding is on by the driver.
func (f *Forwarding) Follow(s Survey, state func() desired.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.was == nil || s.host[pathForward6] == 0 {
		return nil
	}
	return f.acceptAlways(s.view().foreign(state()), false)
}

// Drifted reports whether an interface that was there when forwarding was
// switched on no longer listens to router advertisements.
func (f *Forwarding) Drifted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.was == nil || len(f.needs) == 0 {
		return false
	}
	f.noticeClaim()
	for index, before := range f.was.Links {
		if before.AcceptRA != acceptUnlessForwarding || before.Forwarding != 0 {
			continue
		}
		name, err := nameOf(index)
		if err != nil {
			continue
		}
		if now, ok, err := readSysctl("ipv6/conf/" + name + "/accept_ra"); err == nil && ok && now == acceptUnlessForwarding {
			return true
		}
	}
	return false
}

func nameOf(index int) (string, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", err
	}
	return l.Attrs().Name, nil
}

// switchOff gives the host back what it had; f.mu is held.
func (f *Forwarding) switchOff(state func() desired.State) error {
	if f.was == nil || len(f.needs) > 0 {
		return nil
	}
	on, _, err := readSysctl(pathForward6)
	if err != nil {
		return err
	}
	survey, err := Look()
	if err != nil {
		return err
	}
	links := survey.view().foreign(state())
	if on != 0 {
		f.noticeClaim()
		why, err := f.neededBy(survey, links)
		if err != nil {
			return err
		}
		if why != "" {
			f.log.Info("IPv6 forwarding stays on", "reason", why)
			return nil
		}
		if err := setSysctl(pathForward6, "0"); err != nil {
			return err
		}
	}
	if err := f.giveBack(links, on != 0); err != nil {
		return err
	}
	f.writes.close()
	f.was, f.writes = nil, nil
	f.save()
	f.log.Info("switched IPv6 forwarding off, and accept_ra back to what it was: no network needs it any more",
		"parameter", sysctlName(pathForward6))
	return nil
}

// giveBack sets the parameters of interfaces back. With on, forwarding was on
// until now, which the kernel has switched off for every interface.
func (f *Forwarding) giveBack(links []seenLink, on bool) error {
	var errs []error
	for _, l := range links {
		before, known := f.was.Links[l.index]
		if now, ok := l.parameter(confAcceptRA); ok && now == acceptAlways {
			switch {
			case known:
				errs = append(errs, setLinkRA(l.name, before.AcceptRA))
			case f.was.Default.AcceptRA == acceptUnlessForwarding:
				// It came later, and has what the driver made the default. While it does
				// not forward, 1 and 2 mean the same.
				errs = append(errs, setLinkRA(l.name, acceptUnlessForwarding))
			}
		}
		if on && known && before.Forwarding != 0 {
			err := setSysctl("ipv6/conf/"+l.name+"/forwarding", fmt.Sprint(before.Forwarding))
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	if now, _, err := readSysctl(pathDefaultRA); err == nil && now == acceptAlways {
		errs = append(errs, setSysctl(pathDefaultRA, fmt.Sprint(f.was.Default.AcceptRA)))
	}
	if on && f.was.Default.Forwarding != 0 {
		errs = append(errs, setSysctl(pathDefaultForward6, fmt.Sprint(f.was.Default.Forwarding)))
	}
	return errors.Join(errs...)
}

// foreignLinks are the interfaces of the host that are not the driver's and take
// part in IPv6 themselves.
func foreignLinks(st desired.State) ([]seenLink, error) {
	links, err := dumpLinks(linkFilter{})
	if err != nil {
		return nil, err
	}
	return Survey{links: links}.view().foreign(st), nil
}

// foreign lists the interfaces that are not the driver's, nor lo, nor ports of a
// bridge, whose packets the bridge takes.
func (v view) foreign(st desired.State) []seenLink {
	ours := owned(st)
	var out []seenLink
	for _, l := range v.survey.links {
		master := v.byIndex[l.master]
		if !l.loopback && !ours(l.name) && l.ipv6 != nil && (master == nil || master.kind != KindBridge) {
			out = append(out, l)
		}
	}
	return out
}

func (l seenLink) forward() linkForward {
	var out linkForward
	out.AcceptRA, _ = l.parameter(confAcceptRA)
	out.Forwarding, _ = l.parameter(confForwarding6)
	return out
}

// ownName reports whether a name is one that the driver gives.
func ownName(name string) bool {
	return strings.HasPrefix(name, layout.BridgePrefix) || strings.HasPrefix(name, hostPrefix) || strings.HasPrefix(name, containerPrefix)
}

// owned returns what reports whether an interface is the driver's: by its name, or
// as the bridge of a network of a state. An adopted bridge is its user's.
func owned(st desired.State) func(name string) bool {
	names := map[string]bool{}
	for _, n := range st.Networks {
		if !n.Adopted {
			names[n.Bridge] = true
		}
	}
	return func(name string) bool { return names[name] || ownName(name) }
}

// forwardIPv6 switches forwarding on for whoever keeps no record.
func forwardIPv6() error {
	f := Forwarding{log: slog.New(slog.DiscardHandler), memory: noMemory{}}
	defer f.Close()
	return f.switchOn(desired.New)
}

type noMemory struct{}

func (noMemory) Forwarding() ([]byte, error) { return nil, nil }
func (noMemory) SaveForwarding([]byte) error { return nil }
