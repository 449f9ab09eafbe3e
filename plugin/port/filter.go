package port

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"

	"nftnet/internal/desired"
)

// networkHeader is where a socket filter finds the IP header, whatever the
// socket's own data begin with (linux/filter.h, SKF_NET_OFF).
const networkHeader = 0xfff00000

// What a filter returns: how many bytes of the packet are kept.
var (
	keepPacket = bpf.RetConstant{Val: 0xffffffff}
	dropPacket = bpf.RetConstant{Val: 0}
)

// layout is where the words of the addresses stand in an IP header (RFC 791,
// RFC 8200).
type layout struct{ source, destination, words uint32 }

func layoutOf(a netip.Addr) layout {
	if a.Is4() {
		return layout{12, 16, 1}
	}
	return layout{8, 24, 4}
}

func loadWord(at uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: networkHeader + at, Size: 4} }

// fromSources is the socket filter that keeps packets from some sources, and
// from the host itself: those from 127.0.0.0/8, and those whose two addresses
// are the same. Others see no more than of a port that nobody has.
func fromSources(host netip.Addr, s desired.Sources) ([]bpf.RawInstruction, error) {
	l := layoutOf(host)
	out := sameAddresses(l)
	prefixes := s.Prefixes
	if host.Is4() {
		prefixes = append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, prefixes...)
	}
	for _, p := range prefixes {
		if p.Addr().Is4() == host.Is4() {
			out = append(out, fromPrefix(l, p)...)
		}
	}
	return bpf.Assemble(append(out, dropPacket))
}

func sameAddresses(l layout) []bpf.Instruction {
	var out []bpf.Instruction
	for i := range l.words {
		behind := uint8(4*(l.words-1-i) + 1)
		out = append(out, loadWord(l.destination+4*i), bpf.TAX{}, loadWord(l.source+4*i),
			bpf.JumpIfX{Cond: bpf.JumpNotEqual, SkipTrue: behind})
	}
	return append(out, keepPacket)
}

// fromPrefix compares the words of the source that the prefix covers.
func fromPrefix(l layout, p netip.Prefix) []bpf.Instruction {
	addr := p.Masked().Addr().AsSlice()
	words := (p.Bits() + 31) / 32
	var out []bpf.Instruction
	for i := range words {
		mask := uint32(0xffffffff)
		if bits := p.Bits() - 32*i; bits < 32 {
			mask <<= 32 - bits
		}
		out = append(out, loadWord(l.source+uint32(4*i)), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(addr[4*i:]), SkipTrue: uint8(3*(words-1-i) + 1)})
	}
	return append(out, keepPacket)
}
