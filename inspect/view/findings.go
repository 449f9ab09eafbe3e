package view

import (
	"fmt"
	"io"

	"nftnet/inspect"
)

// Findings writes findings as text: the sentence, what it rests upon, and the
// line that mends it, which is never broken, so that it can be copied.
func Findings(w io.Writer, list []inspect.Finding, o Options) error {
	p := newPalette(o.Color)
	for _, f := range list {
		mark := p.levels[f.Level]
		lines := wrap(printable(f.Sentence), o.width()-len(findingIndent))
		if _, err := fmt.Fprintf(w, "\n%s\n", mark(string(f.Level)+":")); err != nil {
			return err
		}
		for _, l := range lines {
			if _, err := fmt.Fprintf(w, "%s%s\n", findingIndent, l); err != nil {
				return err
			}
		}
		for _, e := range f.Evidence {
			if _, err := fmt.Fprintf(w, "%s%s\n", evidenceIndent, p.nft(printable(e.Text))); err != nil {
				return err
			}
		}
		if f.Mend == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%smend it by\n%s%s\n", findingIndent, evidenceIndent, p.header(printable(f.Mend))); err != nil {
			return err
		}
	}
	return nil
}

const findingIndent, evidenceIndent = "  ", "      "

// FindingJSON is a finding for programs.
type FindingJSON struct {
	Level    string   `json:"level"`
	Object   string   `json:"object,omitempty"`
	Flow     string   `json:"flow,omitempty"`
	Networks []string `json:"networks,omitempty"`
	Families []string `json:"families,omitempty"`
	Sentence string   `json:"sentence"`
	Evidence []string `json:"evidence,omitempty"`
	Mend     string   `json:"mend,omitempty"`
}

// FindingsJSON makes findings fit for JSON; of none it makes an empty list.
func FindingsJSON(list []inspect.Finding) []FindingJSON {
	out := make([]FindingJSON, len(list))
	for i, f := range list {
		out[i] = FindingJSON{
			Level: string(f.Level), Flow: string(f.Flow), Networks: f.Networks, Families: f.Families,
			Sentence: f.Sentence, Mend: f.Mend,
		}
		if f.Object.Kind != inspect.KindRuleset {
			out[i].Object = f.Object.String()
		}
		for _, e := range f.Evidence {
			out[i].Evidence = append(out[i].Evidence, e.Object.String()+": "+e.Text)
		}
	}
	return out
}
