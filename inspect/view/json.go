package view

import (
	"io"

	"nftnet/inspect"
	"nftnet/internal/ruleset"
	"nftnet/internal/ruleset/nftjson"
)

// JSON writes the ruleset as nft -j list ruleset does, and what that leaves out
// besides; version is that of the program.
func JSON(w io.Writer, m *inspect.Model, o Options, version string) error {
	var tables []*ruleset.Table
	for i := range m.Ruleset.Tables {
		if t := &m.Ruleset.Tables[i]; o.shows(t) {
			chosen := o.Only.Table(*t)
			tables = append(tables, &chosen)
		}
	}
	return nftjson.Write(w, tables, nftjson.Options{Version: version, Stateless: o.HideCounters, ChainsOnly: o.Brief})
}
