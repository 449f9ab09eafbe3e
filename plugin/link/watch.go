package link

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watch tells of changes to the host's links, their addresses, routing rules, and
// parameters of forwarding, as rtnetlink does. Parameters that rtnetlink does not tell of are
// for [Sysctls].
type Watch struct {
	socket *newsSocket
	// names are the links by their index, to tell the name that one had.
	names map[int]string
}

// Change is what has changed since the last call of Next.
type Change struct {
	// Overrun says that news was lost: everything may have changed. Gone is
	// complete all the same; Came and Went are not.
	Overrun bool
	// Links, Addresses, Parameters and Rules say what kind of news there was. Rules
	// are those of routing.
	Links, Addresses, Parameters, Rules bool
	// Gone are the links that no longer have the name that they had.
	Gone []Gone
	// Came and Went are addresses of the host that can be used now, or no longer.
	// One that came again, because its lifetime was renewed, is among them.
	Came, Went []netip.Addr
	// By are the other processes that made the changes, as far as the kernel says
	// it: of addresses it does, of links and parameters it does not (Linux 6.18).
	By []Process
}

// Gone is a link that was deleted, moved to another network namespace, or
// renamed.
type Gone struct {
	Name string
	// NewName is the name that it was given; empty where it is no longer here.
	NewName string
}

// Process is a process of this host.
type Process struct {
	PID int
	// Name is that of the program (/proc/PID/comm); empty where the process has
	// ended already.
	Name string
}

// String writes the process for a log: "NetworkManager (pid 812)".
func (p Process) String() string {
	if p.Name == "" {
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
}

// quiet is how long Next gathers after the first news: changes come in bursts,
// a container that starts makes some twenty.
const quiet = 20 * time.Millisecond

// watchedGroups are the groups of rtnetlink that tell of what a network needs.
var watchedGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
}

// OpenWatch begins to watch the network namespace of the process.
func OpenWatch() (*Watch, error) {
	socket, err := openNews(false, watchedGroups...)
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	w := &Watch{socket: socket}
	// After the socket has joined: no change falls in between.
	if w.names, err = linkNames(); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("watch links: %w", err)
	}
	return w, nil
}

// Close ends the watch. A call of Next that waits returns [os.ErrClosed].
func (w *Watch) Close() error { return w.socket.close() }

// Next waits for news, gathers what comes within the next 20 ms, and returns
// what has changed. It is for one goroutine.
func (w *Watch) Next() (Change, error) {
	g := gathering{watch: w, addrs: map[netip.Addr]bool{}, gone: map[int]Gone{}, by: map[int]Process{}}
	if err := g.take(true); err != nil {
		return Change{}, err
	}
	time.Sleep(quiet)
	for more := true; more; {
		before := g.messages
		if err := g.take(false); err != nil {
			return Change{}, err
		}
		more = g.messages > before
	}
	return g.change()
}

// gathering is a Change while news of it comes in.
type gathering struct {
	watch    *Watch
	out      Change
	messages int
	// gone are links by their index, with the name that they had at first.
	gone map[int]Gone
	// addrs are those with news: whether they are there by the last one.
	addrs map[netip.Addr]bool
	// by are who made changes, by their process id.
	by map[int]Process
}

// take reads news once.
func (g *gathering) take(wait bool) error {
	messages, err := g.watch.socket.read(wait)
	if errors.Is(err, errOverrun) {
		g.messages++
		g.out.Overrun = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	for _, m := range messages {
		g.messages++
		if err := g.add(m); err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
	}
	return nil
}

func (g *gathering) add(m syscall.NetlinkMessage) error {
	g.madeBy(m.Header.Pid)
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		g.out.Links = true
		return g.addLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		g.out.Addresses = true
		_, a, err := parseAddr(m.Data)
		if addr := a.prefix.Addr(); err == nil && addr.IsValid() {
			g.addrs[addr] = m.Header.Type == unix.RTM_NEWADDR && !a.failed && !a.tentative
		}
		return err
	case unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		g.out.Parameters = true
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		g.out.Rules = true
	}
	return nil
}

func (g *gathering) addLink(m syscall.NetlinkMessage) error {
	if len(m.Data) > 0 && m.Data[0] == unix.AF_BRIDGE {
		// A port of a bridge changed or left: the link itself stays.
		return nil
	}
	l, err := parseLink(m.Data)
	if err != nil {
		return err
	}
	had, known := g.watch.names[l.index]
	if m.Header.Type == unix.RTM_DELLINK {
		delete(g.watch.names, l.index)
		g.left(l.index, had, "")
		return nil
	}
	g.watch.names[l.index] = l.name
	if known && had != l.name {
		g.left(l.index, had, l.name)
	}
	return nil
}

// left notes that a link lost its name. Of several names in a row the first
// counts.
func (g *gathering) left(index int, had, now string) {
	gone, again := g.gone[index]
	if !again {
		gone.Name = had
	}
	gone.NewName = now
	g.gone[index] = gone
}

func (g *gathering) change() (Change, error) {
	if g.out.Overrun {
		if err := g.catchUp(); err != nil {
			return Change{}, fmt.Errorf("watch links: %w", err)
		}
	}
	for _, gone := range g.gone {
		// One that has its own name back, or that came and went unseen, is no news.
		if gone.Name != gone.NewName && gone.Name != "" {
			g.out.Gone = append(g.out.Gone, gone)
		}
	}
	slices.SortFunc(g.out.Gone, func(a, b Gone) int { return strings.Compare(a.Name, b.Name) })
	for a, there := range g.addrs {
		if there {
			g.out.Came = append(g.out.Came, a)
		} else {
			g.out.Went = append(g.out.Went, a)
		}
	}
	g.out.By = slices.SortedFunc(maps.Values(g.by), func(a, b Process) int { return a.PID - b.PID })
	slices.SortFunc(g.out.Came, netip.Addr.Compare)
	slices.SortFunc(g.out.Went, netip.Addr.Compare)
	return g.out, nil
}

// catchUp finds the links that went while news was lost.
func (g *gathering) catchUp() error {
	now, err := linkNames()
	if err != nil {
		return err
	}
	for index, had := range g.watch.names {
		if now[index] != had {
			g.left(index, had, now[index])
		}
	}
	g.watch.names = now
	g.out.Links, g.out.Addresses, g.out.Parameters, g.out.Rules = true, true, true, true
	return nil
}

func linkNames() (map[int]string, error) {
	links, err := dumpLinks(linkFilter{})
	if err != nil {
		return nil, err
	}
	return maps.Collect(func(yield func(int, string) bool) {
		for _, l := range links {
			if !yield(l.index, l.name) {
				return
			}
		}
	}), nil
}

// madeBy notes the process of a netlink socket. The kernel gives the first
// socket of a process its id as port, and further ones numbers that are no
// process's.
func (g *gathering) madeBy(port uint32) {
	const pidMax = 1 << 22 // PID_MAX_LIMIT of linux/threads.h
	pid := int(port)
	if _, known := g.by[pid]; known || port == 0 || port > pidMax || pid == os.Getpid() {
		return
	}
	p := Process{PID: pid}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		p.Name = strings.TrimSpace(string(comm))
	}
	g.by[pid] = p
}
