package plugin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nftnet/internal/desired"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	rs "nftnet/internal/ruleset"
	"nftnet/plugin/libnetwork"
	"nftnet/plugin/realise"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// recorded is a call that a real engine made of a driver.
type recorded struct {
	Call    string          `json:"call"`
	Request json.RawMessage `json:"request"`
	Time    string          `json:"time"`
}

func transcripts(t *testing.T) map[string][]recorded {
	t.Helper()
	files, err := filepath.Glob("../../shared/transcripts/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Skip("the recorded calls of real engines are not beside the checkout (../shared/transcripts)")
	}
	out := map[string][]recorded{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var r recorded
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			out[filepath.Base(file)] = append(out[filepath.Base(file)], r)
		}
		if err := lines.Err(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		_ = f.Close()
	}
	for name, calls := range out {
		// The lines are in the order in which calls ended.
		slices.SortStableFunc(calls, func(a, b recorded) int { return strings.Compare(a.Time, b.Time) })
		out[name] = append(missingNetworks(calls), calls...)
	}
	return out
}

// missingNetworks are the creations of networks that a session uses and does
// not create: it was recorded after them.
func missingNetworks(calls []recorded) []recorded {
	created := map[string]bool{}
	var out []recorded
	for _, c := range calls {
		var req struct {
			NetworkID string
			Interface libnetwork.EndpointInterface
		}
		if json.Unmarshal(c.Request, &req) != nil || created[req.NetworkID] {
			continue
		}
		switch {
		case strings.HasSuffix(c.Call, "CreateNetwork"):
			created[req.NetworkID] = true
		case strings.HasSuffix(c.Call, "CreateEndpoint"):
			created[req.NetworkID] = true
			create := m{"NetworkID": req.NetworkID, "Options": m{}, "IPv4Data": pool(req.Interface.Address), "IPv6Data": pool(req.Interface.AddressIPv6)}
			body, _ := json.Marshal(create)
			out = append(out, recorded{Call: "/NetworkDriver.CreateNetwork", Request: body})
		}
	}
	return out
}

// pool is the subnet of an endpoint's address, with its first address as the
// gateway, as Docker gives it.
func pool(address string) []libnetwork.IPAMData {
	p, err := netip.ParsePrefix(address)
	if err != nil {
		return nil
	}
	gateway := netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())
	return []libnetwork.IPAMData{{AddressSpace: "LocalDefault", Pool: p.Masked().String(), Gateway: gateway.String()}}
}

// replay sends recorded calls to the driver. Whatever they are, each is
// answered, and state, table and sockets agree after the last.
// It returns the errors that the calls were answered with.
func (r *rig) replay(t *testing.T, calls []recorded) []string {
	t.Helper()
	var errs []string
	for _, c := range calls {
		body := []byte(c.Request)
		if string(body) == "null" {
			body = nil
		}
		status, text := r.post(t, strings.TrimPrefix(c.Call, "/"), body)
		if status != 200 && status/100 != 4 {
			t.Errorf("%s %s: status %d: %s", c.Call, body, status, text)
		}
		var answer map[string]any
		if err := json.Unmarshal([]byte(text), &answer); err != nil && status == 200 {
			t.Errorf("%s: answer %q: %v", c.Call, text, err)
		}
		if text, ok := answer["Err"].(string); ok && text != "" && body != nil {
			errs = append(errs, c.Call+": "+text)
		}
	}
	r.consistent(t)
	return errs
}

// consistent asserts that the kernel has what the state asks for, no less and
// no more.
//
// What the driver does beside the calls changes its state first: a moment later
// they agree.
func (r *rig) consistent(t *testing.T) {
	t.Helper()
	var wrong []string
	for range 100 {
		if wrong = r.inconsistencies(t); len(wrong) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func (r *rig) inconsistencies(t *testing.T) (wrong []string) {
	t.Helper()
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	state := r.state()
	conn, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	have, err := conn.Read(kernel.Filter{Table: layout.Table})
	if err != nil {
		t.Fatal(err)
	}
	if diff := rs.Diff(have, realise.Ruleset(state)); len(diff) != 0 {
		add("the table is not what the state asks for:\n%s", diff)
	}
	published := 0
	for _, e := range state.Endpoints {
		for _, p := range e.Published {
			if p.Kind() != desired.Direct {
				published++
			}
		}
	}
	for _, redirect := range state.Redirects {
		published += len(redirect.Ports())
	}
	if r.held() != published {
		add("%d ports are held, %d are published", r.held(), published)
	}
	stored, err := r.driver.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, stored, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty()); diff != "" {
		add("the state file is not what the driver has:\n%s", diff)
	}
	all := links(t)
	for _, e := range state.Endpoints {
		if e.HostLink != "" && !strings.Contains(all, e.HostLink) {
			add("link %s is missing", e.HostLink)
		}
	}
	return wrong
}

// refusals are what a session may be refused for in a namespace that is not the
// recorded host's: addresses that it lacks, options that nftnet does not have,
// and what follows from a network that was refused.
var refusals = regexp.MustCompile(`the host has no such address|no such option|is not allowed|one subnet of each family|address pool is needed|is unknown|overlaps subnet|publishes it already`)

// TestA44Transcripts replays every recorded session in the order in which the
// engine sent it.
func TestA44Transcripts(t *testing.T) {
	refused, total := 0, 0
	for name, calls := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			errs := newRig(t).replay(t, calls)
			for _, e := range errs {
				t.Log(e)
				if !refusals.MatchString(e) {
					t.Errorf("%s", e)
				}
			}
			refused, total = refused+len(errs), total+len(calls)
		})
	}
	t.Logf("%d of %d calls were refused", refused, total)
	if refused*10 > total {
		t.Errorf("%d of %d calls were refused: the sessions prove little", refused, total)
	}
}

// TestA44TranscriptsShuffled replays each session in random order: nothing that
// Docker could send in any order breaks the driver.
func TestA44TranscriptsShuffled(t *testing.T) {
	for name, calls := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for seed := range uint64(3) {
				rand.New(rand.NewPCG(seed, 1)).Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
				r.replay(t, calls)
			}
		})
	}
}
