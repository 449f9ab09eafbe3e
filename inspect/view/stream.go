package view

import (
	"io"

	"nftnet/internal/ruleset"
)

// Stream writes a ruleset as [NFT] does, while it is read: it is a visitor of
// the kernel's. What it wrote is kept until the ruleset is known to have held
// still, as text, a tenth of what the values take.
type Stream struct {
	options Options
	text    spool
	printer *ruleset.Printer
	skip    bool
	// Found says whether there is a table that the options show.
	Found bool
	// Tables are the names of all tables.
	Tables []string
}

// NewStream shows what the options say.
func NewStream(o Options) *Stream { return &Stream{options: o} }

// Restart implements the kernel's visitor.
func (s *Stream) Restart() {
	s.text = spool{}
	s.printer = ruleset.NewPrinter(&s.text, s.options.format())
	s.Found, s.Tables = false, nil
}

// Table implements the kernel's visitor.
func (s *Stream) Table(t *ruleset.Table) {
	s.Tables = append(s.Tables, string(t.Family)+" "+t.Name)
	s.skip = !s.options.shows(t)
	if !s.skip {
		s.Found = true
		s.printer.Table(t)
	}
}

// Chain implements the kernel's visitor.
func (s *Stream) Chain(c *ruleset.Chain) {
	if !s.skip {
		s.printer.Chain(c)
	}
}

// Rule implements the kernel's visitor.
func (s *Stream) Rule(r *ruleset.Rule) {
	if !s.skip {
		s.printer.Rule(r)
	}
}

// EndChain implements the kernel's visitor.
func (s *Stream) EndChain() {
	if !s.skip {
		s.printer.EndChain()
	}
}

// EndTable implements the kernel's visitor.
func (s *Stream) EndTable() {
	if !s.skip {
		s.printer.EndTable()
	}
}

// WriteTo writes the text.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	var n int64
	for _, block := range s.text.blocks {
		m, err := w.Write(block)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// spool keeps text in blocks: one long buffer would be copied, and be there
// twice, each time that it grows.
type spool struct{ blocks [][]byte }

const spoolBlock = 1 << 16

func (s *spool) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		last := len(s.blocks) - 1
		if last < 0 || len(s.blocks[last]) == spoolBlock {
			s.blocks = append(s.blocks, make([]byte, 0, spoolBlock))
			last++
		}
		n := min(len(rest), spoolBlock-len(s.blocks[last]))
		s.blocks[last] = append(s.blocks[last], rest[:n]...)
		rest = rest[n:]
	}
	return len(b), nil
}
