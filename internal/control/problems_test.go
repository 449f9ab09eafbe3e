package control_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nftnet/internal/control"
)

// TestProblemsGhostsPrune: what the driver knows to be wrong comes back as it is,
// and what is to be removed arrives.
func TestProblemsGhostsPrune(t *testing.T) {
	problems := []control.Problem{
		{
			Code: "container-cut-off", Level: "error", Network: "n", Endpoint: "e", Container: "web", Object: "nfv0",
			Text: "it is cut off", Fix: "connect it", Command: "docker network connect n web",
		},
		{Code: "port-not-held", Level: "warn", Text: "a port is not held"},
	}
	ghosts := []control.Ghost{
		{Kind: "network", ID: "1", Bridge: "nft-1", Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}},
		{Kind: "endpoint", ID: "2", Network: "3", Addresses: []string{"10.1.0.2"}, Ports: []string{"0.0.0.0:80->80/tcp"}},
	}
	var asked control.Prune
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /nftnet/problems", func(w http.ResponseWriter, _ *http.Request) { answer(w, problems) })
	mux.HandleFunc("GET /nftnet/ghosts", func(w http.ResponseWriter, _ *http.Request) { answer(w, ghosts) })
	mux.HandleFunc("POST /nftnet/ghosts/rm", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		answer(w, control.Pruned{Removed: ghosts[:1]})
	})
	c := serve(t, mux)
	if got, err := c.Problems(t.Context()); err != nil || !reflect.DeepEqual(got, problems) {
		t.Errorf("problems: %+v, %v", got, err)
	}
	if got, err := c.Ghosts(t.Context()); err != nil || !reflect.DeepEqual(got, ghosts) {
		t.Errorf("ghosts: %+v, %v", got, err)
	}
	if got, err := c.Prune(t.Context(), []string{"1", "2"}); err != nil || !reflect.DeepEqual(got, ghosts[:1]) {
		t.Errorf("pruned: %+v, %v", got, err)
	}
	if !slices.Equal(asked.IDs, []string{"1", "2"}) {
		t.Errorf("asked to remove %v", asked.IDs)
	}
}

// TestDriverThatCannotAsk: the driver's own words say why there is no answer, and
// an older driver is told from one.
func TestDriverThatCannotAsk(t *testing.T) {
	refuses := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(control.Refusal{Err: "cannot ask Docker which networks it knows"})
	}))
	if _, err := refuses.Ghosts(t.Context()); err == nil || err.Error() != "cannot ask Docker which networks it knows" {
		t.Errorf("ghosts: %v", err)
	}
	if _, err := refuses.Prune(t.Context(), nil); err == nil || err.Error() != "cannot ask Docker which networks it knows" {
		t.Errorf("prune: %v", err)
	}
	if _, err := serve(t, http.NotFoundHandler()).Problems(t.Context()); err == nil || !strings.Contains(err.Error(), "is no nftnet of this version") {
		t.Errorf("an older driver: %v", err)
	}
}
