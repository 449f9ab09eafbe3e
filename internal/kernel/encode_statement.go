package kernel

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

var verdictKinds = map[rs.VerdictKind]expr.VerdictKind{
	rs.Accept: expr.VerdictAccept, rs.Drop: expr.VerdictDrop, rs.Continue: expr.VerdictContinue,
	rs.Return: expr.VerdictReturn, rs.Jump: expr.VerdictJump, rs.Goto: expr.VerdictGoto,
}

func (e *ruleEncoder) statement(s rs.Statement) error {
	switch s := s.(type) {
	case rs.Counter:
		e.emit(&expr.Counter{Packets: s.Packets, Bytes: s.Bytes})
	case rs.Verdict:
		kind, ok := verdictKinds[s.Kind]
		if !ok || s.Anonymous != nil {
			return fmt.Errorf("cannot write the verdict %s", s)
		}
		e.emit(&expr.Verdict{Kind: kind, Chain: s.Chain})
	case rs.VMap:
		if s.Anonymous != nil {
			return fmt.Errorf("cannot write an anonymous map: %s", s)
		}
		if err := e.loadKey(s.Key); err != nil {
			return err
		}
		e.emit(&expr.Lookup{SourceRegister: register(0), SetName: s.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
	case rs.NAT:
		return e.nat(s)
	case rs.Masquerade:
		if s.Port.Data != "" {
			return fmt.Errorf("cannot write %s", s)
		}
		flags, err := natBits(s, s.Flags)
		if err != nil {
			return err
		}
		e.emit(&expr.Masq{
			Random: flags&natRandom != 0, FullyRandom: flags&natFullyRandom != 0, Persistent: flags&natPersistent != 0,
		})
	case rs.Redirect:
		if s.PortEnd.Data != "" || s.To != nil {
			return fmt.Errorf("cannot write %s", s)
		}
		flags, err := natBits(s, s.Flags)
		if err != nil {
			return err
		}
		r := &expr.Redir{Flags: flags}
		if s.Port.Data != "" {
			e.emit(&expr.Immediate{Register: register(0), Data: []byte(s.Port.Data)})
			r.RegisterProtoMin = register(0)
			r.Flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
		}
		e.emit(r)
	case rs.Notrack:
		e.emit(&expr.Notrack{})
	case rs.Mangle:
		return e.mangle(s)
	case rs.Reject:
		r, ok := rejects[rejectKey{e.family == rs.FamilyInet || e.family == rs.FamilyBridge, s.With}]
		if !ok {
			return fmt.Errorf("cannot write %s", s)
		}
		if r.Type == unix.NFT_REJECT_TCP_RST && e.transport != "tcp" {
			e.check(expr.MetaKeyL4PROTO, []byte{rs.ProtoTCP})
			e.transport = "tcp"
		}
		e.emit(&r)
	default:
		return fmt.Errorf("cannot write %s", s)
	}
	return nil
}

// mangle writes the changes that the driver needs: the greatest segment that a
// TCP connection may use, from the route's MTU, and some bits of a mark.
func (e *ruleEncoder) mangle(s rs.Mangle) error {
	if b, ok := s.From.(rs.Binary); ok {
		return e.setBits(s, b)
	}
	x, isOption := s.Left.(rs.Exthdr)
	if !isOption || x.Kind != rs.ExthdrTCP || x.Bits != 0 || x.Length != 2 || s.From != rs.Expr(rs.Route{Key: "mtu"}) {
		return fmt.Errorf("cannot write %s", s)
	}
	if e.transport != "tcp" {
		e.check(expr.MetaKeyL4PROTO, []byte{rs.ProtoTCP})
		e.transport = "tcp"
	}
	e.emit(&expr.Rt{Register: register(0), Key: expr.RtTCPMSS},
		&expr.Byteorder{Op: expr.ByteorderHton, SourceRegister: register(0), DestRegister: register(0), Len: 2, Size: 2},
		&expr.Exthdr{
			Op: expr.ExthdrOpTcpopt, Type: x.Number, Offset: uint32(x.Offset), Len: uint32(x.Length), SourceRegister: register(0),
		})
	return nil
}

// setBits writes "mark set mark & MASK | BITS", or without the mask, for the mark of a packet or of its
// connection. The kernel has one operation for both, whose mask has none of the
// bits.
func (e *ruleEncoder) setBits(s rs.Mangle, b rs.Binary) error {
	var store expr.Any
	switch s.Left {
	case rs.Expr(rs.Meta{Key: rs.MetaMark}):
		store = &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)}
	case rs.Expr(rs.Ct{Key: rs.CtMark}):
		store = &expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: register(0)}
	default:
		return fmt.Errorf("cannot write %s", s)
	}
	kept, ok := b.Left.(rs.Masked)
	if !ok {
		// All other bits stay, and are not named.
		kept = rs.Masked{Expr: b.Left, Mask: rs.HostUint32(rs.TypeMark, ^uint32(0))}
	}
	if b.Op != "|" || kept.Expr != s.Left || len(kept.Mask.Data) != 4 || len(b.Right.Data) != 4 {
		return fmt.Errorf("cannot write %s", s)
	}
	if err := e.load(s.Left); err != nil {
		return err
	}
	mask, bits := []byte(kept.Mask.Data), []byte(b.Right.Data)
	for i := range mask {
		mask[i] &^= bits[i]
	}
	e.emit(&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: mask, Xor: bits}, store)
	return nil
}

// rejectKey is the answer of a rejection, in a table of both families or not.
type rejectKey struct {
	both bool
	with string
}

// rejects are the answers that can be written (linux/netfilter/nf_tables.h,
// enum nft_reject_types, nft_reject_inet_code).
var rejects = map[rejectKey]expr.Reject{
	{true, ""}:           {Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH},
	{true, "tcp reset"}:  {Type: unix.NFT_REJECT_TCP_RST},
	{false, "tcp reset"}: {Type: unix.NFT_REJECT_TCP_RST},
}

// natBits are the flags of a translation.
func natBits(s rs.Statement, words []string) (uint32, error) {
	var bits uint32
	known := 0
	for _, w := range natWords {
		if slices.Contains(words, w.name) {
			bits |= w.bit
			known++
		}
	}
	if known != len(words) {
		return 0, fmt.Errorf("cannot write the flags of %s", s)
	}
	return bits, nil
}

func (e *ruleEncoder) nat(s rs.NAT) error {
	if s.AddrEnd.Data != "" || s.PortEnd.Data != "" || s.To != nil || s.Anonymous != nil || s.Prefix {
		return fmt.Errorf("cannot write %s", s)
	}
	n := &expr.NAT{Type: expr.NATTypeDestNAT}
	if s.Kind == rs.SNAT {
		n.Type = expr.NATTypeSourceNAT
	}
	family := s.Family
	if family == "" {
		family = networkOfFamily[e.family]
	}
	addrWords := map[string]int{"ip": 1, "ip6": 4}[family]
	if addrWords == 0 || s.Addr.Data != "" && len(s.Addr.Data) != 4*addrWords || s.Port.Data != "" && len(s.Port.Data) != 2 {
		return fmt.Errorf("cannot write a translation in family %q: %s", family, s)
	}
	n.Family = uint32(nfprotos[family])
	flags, err := natBits(s, s.Flags)
	if err != nil {
		return err
	}
	n.Random, n.FullyRandom, n.Persistent = flags&natRandom != 0, flags&natFullyRandom != 0, flags&natPersistent != 0
	if s.Key != nil {
		if err := e.loadKey(s.Key); err != nil {
			return err
		}
		e.emit(&expr.Lookup{SourceRegister: register(0), SetName: s.Map, IsDestRegSet: true, DestRegister: register(0)})
		n.RegAddrMin = register(0)
		if !s.AddrOnly {
			n.RegProtoMin = register(addrWords)
		}
		e.emit(n)
		return nil
	}
	portRegister := register(0)
	if s.Addr.Data != "" {
		e.emit(&expr.Immediate{Register: register(0), Data: []byte(s.Addr.Data)})
		n.RegAddrMin, portRegister = register(0), register(4)
	}
	if s.Port.Data != "" {
		e.emit(&expr.Immediate{Register: portRegister, Data: []byte(s.Port.Data)})
		n.RegProtoMin, n.Specified = portRegister, true
	}
	e.emit(n)
	return nil
}
