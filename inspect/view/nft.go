package view

import (
	"io"

	"nftnet/inspect"
)

// NFT writes the ruleset as nft list ruleset does.
func NFT(w io.Writer, m *inspect.Model, o Options) error {
	for i := range m.Ruleset.Tables {
		t := &m.Ruleset.Tables[i]
		if !o.shows(t) {
			continue
		}
		if _, err := io.WriteString(w, o.Only.Table(*t).Text(o.format())); err != nil {
			return err
		}
	}
	return nil
}
