package ruleset

import (
	"fmt"
	"strings"
)

// HelperObject is the state of an object that reads a protocol for connections that
// belong to others. L3 is nft's word for the family.
type HelperObject struct{ Helper, Protocol, L3 string }

func (h HelperObject) String() string { return strings.Join(h.lines(), " ") }

func (h HelperObject) lines() []string {
	return []string{fmt.Sprintf("type %s protocol %s", quote(h.Helper), h.Protocol), "l3proto " + h.L3}
}

// TimeoutObject is the state of an object that says how long connections stay in
// each of their states.
type TimeoutObject struct {
	Protocol, L3 string
	// Policy are the states that stay for another time than they do by default.
	Policy []StateTimeout
}

// StateTimeout is how many seconds a connection stays in a state.
type StateTimeout struct {
	State   string
	Seconds uint32
}

func (c TimeoutObject) String() string { return strings.Join(c.lines(), " ") }

func (c TimeoutObject) lines() []string {
	policy := make([]string, len(c.Policy))
	for i, p := range c.Policy {
		policy[i] = fmt.Sprintf("%s : %d", p.State, p.Seconds)
	}
	return []string{"protocol " + c.Protocol, "l3proto " + c.L3, "policy = { " + strings.Join(policy, ", ") + " }"}
}

// ExpectationObject is the state of an object that makes the kernel expect
// connections to a port. Timeout is in milliseconds.
type ExpectationObject struct {
	Protocol, L3 string
	Port         uint16
	Timeout      uint32
	Size         uint8
}

func (c ExpectationObject) String() string { return strings.Join(c.lines(), " ") }

func (c ExpectationObject) lines() []string {
	return []string{
		"protocol " + c.Protocol, fmt.Sprintf("dport %d", c.Port), "timeout " + duration(uint64(c.Timeout)),
		fmt.Sprintf("size %d", c.Size), "l3proto " + c.L3,
	}
}

// SecMark is the state of an object that gives packets a security label.
type SecMark struct{ Context string }

func (s SecMark) String() string { return quote(s.Context) }

// stateLines writes what an object holds, a line each.
func stateLines(state Part, f Format) []string {
	switch s := state.(type) {
	case nil:
		return nil
	case Counter:
		if f.Stateless {
			return nil
		}
		return []string{strings.TrimPrefix(s.String(), "counter ")}
	case Quota:
		return []string{strings.TrimPrefix(partText(s, f), "quota ")}
	case Limit:
		return []string{strings.TrimPrefix(s.String(), "limit ")}
	case SynProxy:
		return s.lines()
	case interface{ lines() []string }:
		return s.lines()
	}
	return []string{state.String()}
}

func (s SynProxy) lines() []string {
	lines := []string{fmt.Sprintf("mss %d", s.MSS), fmt.Sprintf("wscale %d", s.WScale)}
	var options [2]string
	if s.Timestamp {
		options[0] = "timestamp"
	}
	if s.SackPerm {
		options[1] = "sack-perm"
	}
	if s.Timestamp || s.SackPerm {
		lines = append(lines, strings.Join(options[:], " "))
	}
	return lines
}

// Flowtable is a table of connections whose packets bypass the rules.
type Flowtable struct {
	Name     string
	Hook     Hook
	Priority int32
	Devices  []string
	// Flags are nft's words: offload, counter.
	Flags  []string
	Handle uint64
}

// Text writes the flow table as it stands in a table.
func (t Flowtable) Text(f Format) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tflowtable %s {%s\n", t.Name, f.handle(t.Handle))
	base := Base{Family: FamilyNetdev, Hook: t.Hook, Priority: t.Priority}
	fmt.Fprintf(&b, "\t\thook %s priority %s\n", t.Hook, base.PriorityText())
	if len(t.Devices) > 0 {
		fmt.Fprintf(&b, "\t\tdevices = { %s }\n", strings.Join(t.Devices, ", "))
	}
	for _, flag := range t.Flags {
		if flag == "counter" {
			fmt.Fprintf(&b, "\t\tcounter\n")
			continue
		}
		fmt.Fprintf(&b, "\t\tflags %s\n", flag)
	}
	b.WriteString("\t}\n")
	return b.String()
}

func (HelperObject) part()      {}
func (TimeoutObject) part()     {}
func (ExpectationObject) part() {}
func (SecMark) part()           {}
