package ruleset

import (
	"fmt"
	"strings"
)

// Quota lets packets through until that many bytes came by; with Over, those
// beyond.
type Quota struct {
	Bytes, Used uint64
	Over        bool
}

func (q Quota) String() string {
	over, used := "", ""
	if q.Over {
		over = "over"
	}
	if q.Used != 0 {
		used = "used " + byteRate(q.Used)
	}
	return joined("quota", over, byteRate(q.Bytes), used)
}

// ConnLimit lets packets through while there are at most Count connections;
// with Over, when there are more.
type ConnLimit struct {
	Count uint32
	Over  bool
}

func (c ConnLimit) String() string {
	if c.Over {
		return fmt.Sprintf("ct count over %d", c.Count)
	}
	return fmt.Sprintf("ct count %d", c.Count)
}

// Last remembers when a packet came by last. Ago is in milliseconds.
type Last struct {
	Used bool
	Ago  uint64
}

func (l Last) String() string {
	if !l.Used {
		return "last used never"
	}
	return "last used " + duration(l.Ago)
}

// SynProxy answers the first packets of TCP connections in the server's place.
type SynProxy struct {
	MSS                 uint16
	WScale              uint8
	HasMSS, HasWScale   bool
	Timestamp, SackPerm bool
}

func (s SynProxy) String() string { return joined(append([]string{"synproxy"}, s.options()...)...) }

func (s SynProxy) options() []string {
	var words []string
	if s.HasMSS || s.HasWScale {
		words = append(words, fmt.Sprintf("mss %d wscale %d", s.MSS, s.WScale))
	}
	if s.Timestamp {
		words = append(words, "timestamp")
	}
	if s.SackPerm {
		words = append(words, "sack-perm")
	}
	return words
}

// ObjectRef hands the packet to a named object of the table: by its name, or by
// what a map holds for a key.
type ObjectRef struct {
	// Kind is nft's word for the kind of object ("counter", "ct helper").
	Kind string
	Name string
	// Key is looked up in Map.
	Key       Expr
	Map       string
	Anonymous *Set
}

func (o ObjectRef) String() string {
	verb := o.Kind + " name"
	switch o.Kind {
	case "ct helper", "ct timeout", "ct expectation":
		verb = o.Kind + " set"
	case "secmark":
		verb = "meta secmark set"
	}
	if o.Key != nil {
		return verb + " " + o.Key.String() + " map " + setText(o.Map, o.Anonymous)
	}
	return verb + " " + quote(o.Name)
}

// SetUpdate adds an element to a set for each packet, or removes one. Parts are
// what the element carries: counters, limits.
type SetUpdate struct {
	// Op is add, update or delete.
	Op  string
	Set string
	Key Expr
	// Data is what a map is to hold for the key.
	Data Expr
	// Timeout is in milliseconds.
	Timeout uint64
	Parts   []Part
	// Meter marks a set that the rule made itself, Size is its bound.
	Meter bool
	Size  uint32
}

func (u SetUpdate) String() string {
	words := []string{u.Op, "@" + u.Set, "{", u.Key.String()}
	if u.Meter {
		words = []string{"meter", u.Set, fmt.Sprintf("size %d", u.Size), "{", u.Key.String()}
	}
	if u.Timeout != 0 {
		words = append(words, "timeout "+duration(u.Timeout))
	}
	for _, p := range u.Parts {
		words = append(words, partText(p, Format{Stateless: true}))
	}
	if u.Data != nil {
		words = append(words, ":", u.Data.String())
	}
	return strings.Join(append(words, "}"), " ")
}

// Enqueue hands the packet to a program.
type Enqueue struct {
	// From and To are the numbers of the first and the last queue.
	From, To uint16
	// By gives the number where it is no constant.
	By    Expr
	Flags []string
}

func (q Enqueue) String() string {
	to := fmt.Sprint(q.From)
	if q.To != q.From {
		to = fmt.Sprintf("%d-%d", q.From, q.To)
	}
	if q.By != nil {
		to = q.By.String()
	}
	flags := ""
	if len(q.Flags) > 0 {
		flags = "flags " + strings.Join(q.Flags, ",")
	}
	return joined("queue", flags, "to", to)
}

// FlowAdd takes a connection into a flow table: its packets bypass the rules
// from then on.
type FlowAdd struct{ Table string }

func (f FlowAdd) String() string { return "flow add @" + f.Table }

// ResetOption overwrites an option of TCP so that nobody reads it.
type ResetOption struct{ Option Exthdr }

func (r ResetOption) String() string { return "reset " + r.Option.String() }

func (Quota) part()       {}
func (ConnLimit) part()   {}
func (Last) part()        {}
func (SynProxy) part()    {}
func (ObjectRef) part()   {}
func (SetUpdate) part()   {}
func (Enqueue) part()     {}
func (FlowAdd) part()     {}
func (ResetOption) part() {}

func (Quota) statement()       {}
func (ConnLimit) statement()   {}
func (Last) statement()        {}
func (SynProxy) statement()    {}
func (ObjectRef) statement()   {}
func (SetUpdate) statement()   {}
func (Enqueue) statement()     {}
func (FlowAdd) statement()     {}
func (ResetOption) statement() {}
