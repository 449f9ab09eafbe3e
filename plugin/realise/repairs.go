package realise

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"nftnet/internal/layout"
	"nftnet/plugin/link"
)

// Problem is what is not as the state asks for.
type Problem struct {
	// Code names the kind.
	Code string
	// Network and Endpoint are Docker's ids, empty where it is about neither.
	Network, Endpoint string
	// Object is what it is about: an interface, a parameter, a port.
	Object string
	// Text says what is wrong, Fix what to do in words, Command the line for a shell
	// that does it.
	Text, Fix, Command string
	// Severe problems stop packets.
	Severe bool
}

// Codes of problems; those of links are the kinds of faults.
const (
	ProblemUndone   = "keeps-being-undone"
	ProblemRules    = "rules-refused"
	ProblemPort     = "port-not-held"
	ProblemLeftover = "link-left-over"
)

// How often the same repair is made at once: somebody who undoes it again and
// again is left to work, with longer and longer pauses.
const (
	repairsAtOnce = 5
	repairWindow  = 10 * time.Second
	firstBackOff  = time.Second
	lastBackOff   = time.Minute
)

// repairs remembers what was repaired, and backs off where that is undone.
type repairs struct {
	mu      sync.Mutex
	records map[string]*record
}

// record is the history of one fault.
type record struct {
	fault link.Fault
	// count are the repairs in a row, the last of them at last.
	count int
	last  time.Time
	// until is when the next one may be made, wait how long that is put off.
	until time.Time
	wait  time.Duration
	// open says that the fault was met and not repaired.
	open bool
	err  error
	told bool
}

func faultKey(f link.Fault) string { return string(f.Kind) + " " + f.Object }

func (r *repairs) of(f link.Fault) *record {
	if r.records == nil {
		r.records = map[string]*record{}
	}
	x := r.records[faultKey(f)]
	if x == nil {
		x = &record{}
		r.records[faultKey(f)] = x
	}
	x.fault = f
	return x
}

// allowed reports whether a fault may be repaired now, and counts the repair.
func (r *repairs) allowed(f link.Fault, log *slog.Logger) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	x := r.of(f)
	x.open = now.Before(x.until)
	if x.open {
		return false
	}
	if now.Sub(x.last) > max(repairWindow, 2*x.wait) {
		x.count, x.wait = 0, 0
	}
	x.count++
	x.last, x.err = now, nil
	if x.count >= repairsAtOnce {
		x.wait = min(max(firstBackOff, 2*x.wait), lastBackOff)
		x.until = now.Add(x.wait)
		log.Error("a repair keeps being undone, it is left alone for a while", "fault", f.String(), "repairs", x.count, "next", x.wait)
	}
	return true
}

// failed notes that the kernel refused a repair.
func (r *repairs) failed(f link.Fault, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of(f)
	x.err, x.open = err, true
	// A longer pause that allowed has set stays.
	if until := time.Now().Add(firstBackOff); x.until.Before(until) {
		x.until = until
	}
}

// settle forgets what is open, or was logged, of faults that are gone. A repair
// that is put off still may have been met after these faults were looked for.
func (r *repairs) settle(faults []link.Fault) {
	there := map[string]bool{}
	for _, f := range faults {
		there[faultKey(f)] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, x := range r.records {
		x.open = x.open && (there[key] || now.Before(x.until))
		x.told = x.told && there[key]
	}
}

// stuck logs once what cannot be repaired.
func (r *repairs) stuck(f link.Fault, log *slog.Logger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.of(f)
	if !x.told {
		x.told = true
		log.Error("cannot repair", "fault", f.String(), "kind", f.Kind)
	}
}

// due reports whether a repair that was put off may be made now.
func (r *repairs) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, x := range r.records {
		if x.open && !now.Before(x.until) {
			return true
		}
		if !x.open && !x.told && now.Sub(x.last) > 2*lastBackOff {
			delete(r.records, key)
		}
	}
	return false
}

// note says what became of repairs of a fault that is there now.
func (r *repairs) note(f link.Fault) (code, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.records[faultKey(f)]
	switch {
	case x == nil:
		return string(f.Kind), f.String()
	case x.err != nil:
		return string(f.Kind), fmt.Sprintf("%s, and the kernel refuses the repair: %v", f, x.err)
	case x.count >= repairsAtOnce:
		return ProblemUndone, fmt.Sprintf("%s: another program undid the repair %d times, nftnet tries again every %s", f, x.count, x.wait)
	}
	return string(f.Kind), f.String()
}

// Problems implements Realiser.
func (k *Kernel) Problems() []Problem {
	out := k.pending.problems()
	if why := k.broken.Load(); why != nil {
		out = append(out, Problem{
			Code: ProblemRules, Object: "table inet " + layout.Table, Severe: true,
			Text: fmt.Sprintf("the kernel refuses to make table inet %s whole: %s", layout.Table, *why),
		})
	}
	survey, err := link.Look()
	if err != nil {
		return append(out, Problem{Code: "links-unknown", Text: fmt.Sprintf("the links of this host cannot be read: %v", err)})
	}
	for _, f := range survey.Faults(k.snapshot()) {
		if f.Kind == link.VethMissing {
			// Its endpoint is dropped; the driver tells whose it was.
			continue
		}
		code, text := k.repairs.note(f)
		out = append(out, Problem{Code: code, Network: f.Network, Endpoint: f.Endpoint, Object: f.Object, Text: text, Fix: f.Fix(), Command: f.Command(), Severe: true})
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Object+a.Code, b.Object+b.Code) })
	return out
}
