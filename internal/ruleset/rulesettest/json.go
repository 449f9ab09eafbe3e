package rulesettest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// ParseJSON reads a listing of nft -j: objects of which the one member is named
// by their kind.
func ParseJSON(listing string) ([]map[string]map[string]any, error) {
	var doc struct{ Nftables []map[string]map[string]any }
	// nft warns on its standard output of what it has no JSON for.
	const begin = `{"nftables"`
	if _, after, ok := strings.Cut(listing, begin); ok {
		listing = begin + after
	}
	if err := json.Unmarshal([]byte(listing), &doc); err != nil {
		return nil, fmt.Errorf("no listing of nft -j: %w", err)
	}
	return doc.Nftables, nil
}

// jsonMore are the keys that only we have, by the kind of object that they stand in
// (package nftjson documents them). The flags of a table are nft's, too, but nft
// 1.0.6 writes the table's name there.
var jsonMore = map[string][]string{
	"table": {"comment", "flags"}, "chain": {"dev", "comment", "flags"}, "flowtable": {"flags"}, "socket": {"level"},
	"set":  {"typeof", "auto-merge", "timeout_ms", "gc-interval_ms"},
	"map":  {"typeof", "map_typeof", "auto-merge", "interval", "timeout_ms", "gc-interval_ms"},
	"elem": {"timeout_ms"}, "xt": {"rev", "iptables", "data"},
}

// CommonJSON is the JSON that stands under a key, without what only we have and
// what is different each time: times to live, and where the kernel is not the
// same one, handles and what counters count.
func CommonJSON(key string, v any, same bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, member := range v {
			out[k] = CommonJSON(k, member, same)
			if list, ok := out[k].([]any); ok && len(list) == 0 {
				delete(out, k)
			}
		}
		drop := append([]string{"expires"}, jsonMore[key]...)
		if !same {
			drop = append(drop, "handle", "packets", "bytes", "used", "used_unit")
		}
		if _, ok := out["limit"]; ok && key == "elem" {
			// Of several states of an element nft has the first.
			drop = append(drop, "counter")
		}
		for _, d := range drop {
			delete(out, d)
		}
		return out
	case []any:
		out := []any{}
		for _, member := range v {
			// nft has no word for this flag of a set.
			if key != "flags" || member != "dynamic" {
				out = append(out, CommonJSON("", member, same))
			}
		}
		return out
	}
	return v
}
