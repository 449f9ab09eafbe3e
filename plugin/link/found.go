package link

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"nftnet/internal/desired"
	"nftnet/internal/layout"
)

// OurBridges lists the bridges of this host that have a name which the driver
// gives.
func OurBridges() ([]string, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, l := range list {
		if l.Type() == KindBridge && strings.HasPrefix(l.Attrs().Name, layout.BridgePrefix) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// IsOurs reports whether a network's bridge is there and was made by the driver:
// it has the name or the MAC address that the driver gives.
func IsOurs(n desired.Network) (bool, error) {
	l, err := netlink.LinkByName(n.Bridge)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for interface %s: %w", n.Bridge, err)
	}
	named := n.Bridge == layout.BridgeName(n.ID)
	return l.Type() == KindBridge && (named || bytes.Equal(l.Attrs().HardwareAddr, BridgeMAC(n.ID))), nil
}

// RemoveOrphans deletes the bridges and the host's ends of veth pairs that have a
// name of ours and that a state does not know. It returns what it deleted.
func RemoveOrphans(st desired.State) ([]string, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	known := map[string]bool{}
	for _, n := range st.Networks {
		known[n.Bridge] = true
	}
	for _, e := range st.Endpoints {
		known[e.HostLink] = true
	}
	var removed []string
	var errs []error
	for _, l := range list {
		name := l.Attrs().Name
		if known[name] || !orphanKind(l) {
			continue
		}
		if err := deleteLink(name, l.Type()); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}

// orphanKind reports whether a link is of a kind and name that the driver makes.
func orphanKind(l netlink.Link) bool {
	digits := func(prefix string, n int) bool {
		rest, ok := strings.CutPrefix(l.Attrs().Name, prefix)
		return ok && len(rest) == n && strings.Trim(rest, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
	}
	switch l.Type() {
	case KindBridge:
		return digits(layout.BridgePrefix, MaxName-len(layout.BridgePrefix))
	case kindVeth:
		return digits(hostPrefix, idDigits)
	}
	return false
}
