package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"nftnet/inspect"
)

// clock is how the time of a step is written.
const clock = "15:04:05.000"

// Step writes a step of following a ruleset as text.
func Step(w io.Writer, s inspect.Step, o Options) error {
	t := newText(w, s.Model, o)
	at, say := s.At.Format(clock), s.Model.Language()
	head := func(id string, args ...string) {
		args = append(args, "generation", strconv.FormatUint(uint64(s.Generation), 10))
		t.line(0, t.style.header, at+"  "+say.Say(id, args...))
	}
	switch {
	case s.Ticked:
		for _, r := range s.Rates {
			t.line(0, t.style.nft, fmt.Sprintf("%s  %10.1f packets/s  %12s/s  %s: %s", at, r.Packets, size(r.Bytes), r.Object, r.Text))
		}
		return t.w.Flush()
	case s.Lost:
		head("follow.lost")
	case s.Itself:
		head("follow.itself")
	case len(s.By) == 0:
		head("follow.begin", "tables", say.Count("tables", uint64(len(s.Model.Ruleset.Tables))))
		return t.w.Flush()
	default:
		var by []string
		for _, p := range s.By {
			by = append(by, say.Say("follow.process", "process", p.Name, "pid", strconv.Itoa(p.PID)))
		}
		head("follow.by", "by", say.And(by))
	}
	if len(s.Changes) == 0 {
		t.line(2, t.style.levels[inspect.Info], say.Say("follow.nothing"))
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	if err := Changes(w, s.Changes, s.Model, o); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// size writes bytes in the unit that suits.
func size(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for n >= 1000 && len(units) > 1 {
		n, units = n/1000, units[1:]
	}
	return strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0") + " " + units[0]
}

// StepJSON is an [inspect.Step], one line of JSON.
type StepJSON struct {
	// Version is [ChangesVersion].
	Version int `json:"version"`
	// Event is begin, change or rates.
	Event      string        `json:"event"`
	Time       time.Time     `json:"time"`
	Generation uint32        `json:"generation"`
	By         []ProcessJSON `json:"by,omitempty"`
	// Lost says that messages were lost and nobody can be named, Itself that
	// packets or time made the changes.
	Lost    bool         `json:"lost,omitempty"`
	Itself  bool         `json:"itself,omitempty"`
	Tables  *int         `json:"tables,omitempty"`
	Changes []ChangeJSON `json:"changes,omitempty"`
	Rates   []RateJSON   `json:"rates,omitempty"`
}

// ProcessJSON is an [inspect.Process].
type ProcessJSON struct {
	Process string `json:"process"`
	PID     int    `json:"pid"`
}

// RateJSON is an [inspect.Rate].
type RateJSON struct {
	Object  string  `json:"object"`
	NFT     string  `json:"nft"`
	Packets float64 `json:"packets_per_second"`
	Bytes   float64 `json:"bytes_per_second"`
}

// StepLine writes a step as a line of JSON.
func StepLine(w io.Writer, s inspect.Step) error {
	out := StepJSON{Version: ChangesVersion, Event: "change", Time: s.At, Generation: s.Generation, Lost: s.Lost, Itself: s.Itself}
	switch {
	case s.Ticked:
		out.Event = "rates"
		for _, r := range s.Rates {
			out.Rates = append(out.Rates, RateJSON{r.Object.String(), r.Text, r.Packets, r.Bytes})
		}
	case !s.Lost && !s.Itself && len(s.By) == 0:
		tables := len(s.Model.Ruleset.Tables)
		out.Event, out.Tables = "begin", &tables
	default:
		for _, p := range s.By {
			out.By = append(out.By, ProcessJSON{p.Name, p.PID})
		}
		out.Changes = ChangesJSON(s.Changes)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(out)
}
