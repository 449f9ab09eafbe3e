package ruleset

import (
	"fmt"
	"io"
	"strings"
)

// Printer writes a ruleset piece by piece as nft list ruleset does, so that
// nobody needs to hold all of it. The pieces come in the order in which they
// stand in a table: [Printer.Table], then for each chain [Printer.Chain], its
// rules and [Printer.EndChain], then [Printer.EndTable].
type Printer struct {
	w      io.Writer
	format Format
	// blocks counts what stands in the table so far: a blank line parts them.
	blocks int
	err    error
}

// NewPrinter writes to w.
func NewPrinter(w io.Writer, f Format) *Printer { return &Printer{w: w, format: f} }

// Err is the first error of the writer.
func (p *Printer) Err() error { return p.err }

func (p *Printer) write(parts ...string) {
	for _, s := range parts {
		if p.err == nil {
			_, p.err = io.WriteString(p.w, s)
		}
	}
}

func (p *Printer) block(text string) {
	if p.blocks > 0 {
		p.write("\n")
	}
	p.blocks++
	p.write(text)
}

// Table writes what stands in a table before its chains.
func (p *Printer) Table(t *Table) {
	p.blocks = 0
	p.write(fmt.Sprintf("table %s %s {%s\n", t.Family, t.Name, p.format.handle(t.Handle)))
	if len(t.Flags) > 0 {
		p.write("\tflags ", strings.Join(t.Flags, ","), "\n")
	}
	if t.Comment != "" {
		p.write("\tcomment ", quote(t.Comment), "\n")
	}
	if len(t.Flags) > 0 && len(t.Objects)+len(t.Sets)+len(t.Chains) > 0 {
		p.write("\n")
	}
	for _, o := range t.Objects {
		p.block(o.Text(p.format))
	}
	for _, s := range t.Sets {
		if !s.Anonymous {
			p.block(s.Text(p.format))
		}
	}
	for _, ft := range t.Flowtables {
		p.block(ft.Text(p.format))
	}
}

// Chain writes what stands in a chain before its rules.
func (p *Printer) Chain(c *Chain) {
	p.block(fmt.Sprintf("\tchain %s {%s\n", c.Name, p.format.handle(c.Handle)))
	if c.Comment != "" {
		p.write("\t\tcomment ", quote(c.Comment), "\n")
	}
	flags := ""
	if len(c.Flags) > 0 {
		flags = fmt.Sprintf(" flags %s;", strings.Join(c.Flags, ","))
	}
	if c.Base != nil {
		p.write("\t\t", c.Base.String(), flags, "\n")
	}
}

// Rule writes a rule of the chain.
func (p *Printer) Rule(r *Rule) {
	p.write("\t\t", r.text(p.format), p.format.handle(r.Handle), "\n")
}

// EndChain ends a chain.
func (p *Printer) EndChain() { p.write("\t}\n") }

// EndTable ends a table.
func (p *Printer) EndTable() { p.write("}\n") }

func (p *Printer) chain(c *Chain) {
	p.Chain(c)
	for i := range c.Rules {
		p.Rule(&c.Rules[i])
	}
	p.EndChain()
}

func (p *Printer) table(t *Table) {
	p.Table(t)
	for i := range t.Chains {
		if !t.Chains[i].Anonymous {
			p.chain(&t.Chains[i])
		}
	}
	p.EndTable()
}
