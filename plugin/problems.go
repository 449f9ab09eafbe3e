package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"nftnet/internal/control"
	"nftnet/internal/desired"
)

// handleProblems registers the requests about what is wrong.
func handleProblems(s *Server) {
	handleOwn(s, "GET "+control.PathProblems, func(ctx context.Context, _ struct{}) ([]control.Problem, error) {
		return s.driver.Problems(ctx), nil
	})
	handleOwn(s, "GET "+control.PathGhosts, func(ctx context.Context, _ struct{}) ([]control.Ghost, error) {
		return s.driver.Ghosts(ctx)
	})
	handleOwn(s, "POST "+control.PathPrune, s.driver.Prune)
}

// Problems lists what is not as it should be and was not repaired: in the
// kernel, on the disk, and between Docker and the driver.
func (d *Driver) Problems(ctx context.Context) []control.Problem {
	out := []control.Problem{}
	for _, p := range d.kernel.Problems() {
		level := "warn"
		if p.Severe {
			level = "error"
		}
		out = append(out, control.Problem{
			Code: p.Code, Level: level, Network: p.Network, Endpoint: p.Endpoint, Object: p.Object, Text: p.Text, Fix: p.Fix, Command: p.Command,
		})
	}
	out = append(out, d.stateProblems()...)
	out = append(out, d.dockerProblems(ctx)...)
	slices.SortStableFunc(out, func(a, b control.Problem) int { return cmp.Compare(a.Level, b.Level) })
	return out
}

// stateProblems are those of the state file.
func (d *Driver) stateProblems() []control.Problem {
	var out []control.Problem
	if n := d.store.Owed(); n > 0 {
		out = append(out, control.Problem{
			Code: "state-not-written", Level: "error", Object: d.file,
			Text: fmt.Sprintf("%d removals are not written to the state file: %v", n, d.store.OwedError()),
			Fix:  "free space on its file system: nftnet writes them by itself then",
		})
	}
	if d.ready() != nil {
		out = append(out, control.Problem{
			Code: "state-lost", Level: "error", Object: d.file,
			Text: "the state file was lost while networks run, and Docker cannot be asked yet what was in it",
			Fix:  "start Docker: nftnet rebuilds the state when Docker answers",
		})
	}
	return out
}

// dockerProblems are the differences between what Docker and the driver know.
func (d *Driver) dockerProblems(ctx context.Context) []control.Problem {
	if d.docker == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	ghosts, b, err := d.confirmedGhosts(ctx)
	var cut []control.Problem
	if err == nil {
		cut, err = d.confirmedCutOff(ctx, b)
	}
	if err != nil {
		return []control.Problem{{
			Code: "docker-unknown", Level: "warn",
			Text: fmt.Sprintf("Docker cannot be asked which networks it knows: %v", err), Command: "systemctl start docker",
		}}
	}
	var out []control.Problem
	for _, g := range ghosts {
		what := "network " + g.Bridge
		if g.Kind == "endpoint" {
			what = fmt.Sprintf("an endpoint with ports %v", g.Ports)
		}
		out = append(out, control.Problem{
			Code: "ghost-" + g.Kind, Level: "error", Network: cmp.Or(g.Network, g.ID), Object: g.ID,
			Text: fmt.Sprintf("Docker does not know %s (%.12s), which nftnet has", what, g.ID), Command: "nftnet prune",
		})
	}
	return append(out, cut...)
}

// answerTimeout bounds how long the command line waits for what Docker says: less
// than for the driver itself.
const answerTimeout = 8 * time.Second

// confirmedCutOff asks Docker once more for containers that the driver does not
// serve: one that stops goes from the driver first.
func (d *Driver) confirmedCutOff(ctx context.Context, b Belief) ([]control.Problem, error) {
	first := d.cutOff(b)
	if len(first) == 0 {
		return nil, nil
	}
	b, err := d.believesLater(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(d.cutOff(b), func(p control.Problem) bool {
		return !slices.ContainsFunc(first, func(o control.Problem) bool { return o.Endpoint == p.Endpoint })
	}), nil
}

// cutOff are running containers that the driver does not serve.
func (d *Driver) cutOff(b Belief) []control.Problem {
	s := read(d, "status", desired.State.Clone)
	var out []control.Problem
	for _, e := range b.Endpoints {
		have, ok := s.Endpoints[e.ID]
		if !e.Running || ok && have.HostLink != "" || d.isYoung(e.ID) {
			continue
		}
		out = append(out, control.Problem{
			Code: "container-cut-off", Level: "error", Network: e.NetworkID, Endpoint: e.ID, Container: e.Container,
			Text:    fmt.Sprintf("container %s is cut off from network %s: its link is gone", e.Container, e.Network),
			Command: fmt.Sprintf("docker network disconnect -f %[1]s %[2]s && docker network connect %[1]s %[2]s", e.Network, e.Container),
		})
	}
	return out
}

// born is when a network or endpoint was made, as far as this process made it.
func (d *Driver) born(id string) time.Time {
	defer d.mu.Lock("born")()
	return d.made[id]
}
