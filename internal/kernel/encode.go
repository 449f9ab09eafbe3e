package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// families are the numbers of table families (linux/netfilter.h).
var families = map[rs.Family]uint8{
	rs.FamilyInet:   unix.NFPROTO_INET,
	rs.FamilyIP:     unix.NFPROTO_IPV4,
	rs.FamilyIP6:    unix.NFPROTO_IPV6,
	rs.FamilyARP:    unix.NFPROTO_ARP,
	rs.FamilyBridge: unix.NFPROTO_BRIDGE,
	rs.FamilyNetdev: unix.NFPROTO_NETDEV,
}

// hooks are the numbers of the hooks by family (enum nf_inet_hooks,
// nf_netdev_hooks, linux/netfilter_arp.h).
var hooks = map[rs.Family]map[rs.Hook]uint32{
	rs.FamilyInet:   inetHooks,
	rs.FamilyIP:     inetHooks,
	rs.FamilyIP6:    inetHooks,
	rs.FamilyBridge: inetHooks,
	rs.FamilyARP:    {rs.HookInput: 0, rs.HookOutput: 1, rs.HookForward: 2},
	rs.FamilyNetdev: {rs.HookIngress: 0, rs.HookEgress: 1},
}

var inetHooks = map[rs.Hook]uint32{
	rs.HookPrerouting: 0, rs.HookInput: 1, rs.HookForward: 2, rs.HookOutput: 3, rs.HookPostrouting: 4,
	rs.HookIngress: 5,
}

// register is the number of the register that begins 4*word bytes into the
// kernel's register file: 16 byte registers count from 1, 4 byte ones from 8
// (enum nft_registers).
func register(word int) uint32 {
	if word%4 == 0 {
		return uint32(1 + word/4)
	}
	return uint32(unix.NFT_REG32_00 + word)
}

// ruleEncoder turns the parts of one rule into expressions. Like nft it puts
// in, before a part that reads a header, the check that the packet has it.
type ruleEncoder struct {
	family rs.Family
	out    []expr.Any
	// link, network and transport are the protocols that earlier checks in the
	// rule established.
	link, network, transport string
	// tagged says that a check for a VLAN tag was.
	tagged bool
}

// encodeRule is the list of expressions of a rule.
func encodeRule(family rs.Family, r rs.Rule) ([]expr.Any, error) {
	e := ruleEncoder{family: family, network: networkOfFamily[family]}
	if family == rs.FamilyBridge {
		e.link = "ether"
	}
	for _, p := range r.Parts {
		if err := e.part(p); err != nil {
			return nil, err
		}
	}
	return e.out, nil
}

func (e *ruleEncoder) emit(x ...expr.Any) { e.out = append(e.out, x...) }

func (e *ruleEncoder) part(p rs.Part) error {
	switch p := p.(type) {
	case rs.Match:
		return e.match(p)
	case rs.Statement:
		return e.statement(p)
	}
	return fmt.Errorf("cannot write %T", p)
}

func (e *ruleEncoder) match(m rs.Match) error {
	switch m := m.(type) {
	case rs.Compare:
		return e.compare(m)
	case rs.InPrefix:
		return e.inPrefix(m)
	case rs.HasAny:
		return e.hasAny(m)
	case rs.InRange:
		return e.inRange(m)
	case rs.Lookup:
		if m.Anonymous != nil {
			return fmt.Errorf("cannot write an anonymous set: %s", m)
		}
		if err := e.loadKey(m.Left); err != nil {
			return err
		}
		e.emit(&expr.Lookup{SourceRegister: register(0), SetName: m.Set, Invert: m.Op == rs.NotEqual})
		return nil
	}
	return fmt.Errorf("cannot write %T", m)
}

var cmpOps = map[rs.Op]expr.CmpOp{
	"": expr.CmpOpEq, rs.Equal: expr.CmpOpEq, rs.NotEqual: expr.CmpOpNeq, rs.Less: expr.CmpOpLt,
	rs.LessOrEqual: expr.CmpOpLte, rs.Greater: expr.CmpOpGt, rs.GreaterOrEqual: expr.CmpOpGte,
}

func (e *ruleEncoder) compare(m rs.Compare) error {
	left := m.Left
	masked, isMasked := left.(rs.Masked)
	if isMasked {
		left = masked.Expr
	}
	data := []byte(m.Right.Data)
	size := loadSize(left)
	if isBits(left) && isMasked {
		return fmt.Errorf("cannot mask %s", left)
	}
	if fib, ok := left.(rs.Fib); ok && fib.Result == "check" {
		// The kernel puts one byte into the register; nft compares all four.
		size, data = 4, append(slices.Clone(data), make([]byte, 4-min(4, len(data)))...)
	}
	wildcard := left.Type() == rs.TypeIfname && len(data) > 0 && len(data) < size
	if _, ok := left.(rs.ConcatExpr); ok || len(data) != size && !wildcard || isMasked && len(masked.Mask.Data) != size {
		return fmt.Errorf("cannot compare %s with %d bytes", m.Left, len(data))
	}
	if err := e.load(left); err != nil {
		return err
	}
	if field, ok := left.(rs.Payload); ok && field.Bits != 0 {
		e.emit(bitwise(bitsAt(field, ^uint64(0))))
		n, _ := m.Right.Uint()
		data = bitsAt(field, n)
	}
	if isMasked {
		e.emit(bitwise([]byte(masked.Mask.Data)))
	}
	if m.Op != rs.Equal && m.Op != rs.NotEqual && m.Op != "" {
		data = e.ordered(left, data)
	}
	e.emit(&expr.Cmp{Op: cmpOps[m.Op], Register: register(0), Data: data})
	e.learn(m)
	return nil
}

// bitsAt is a number where the bits of a field stand among the bytes read.
func bitsAt(field rs.Payload, n uint64) []byte {
	n &= 1<<field.Bits - 1
	b := binary.BigEndian.AppendUint64(nil, n<<field.Shift)
	return b[len(b)-field.Length:]
}

// ordered turns the number in the register, where it is in host byte order, so
// that the kernel can compare it byte by byte, and the constant with it.
func (e *ruleEncoder) ordered(left rs.Expr, data []byte) []byte {
	if !turns(left.Type(), len(data)) {
		return data
	}
	if e.swaps() {
		return turned(data)
	}
	n := uint32(len(data))
	e.emit(&expr.Byteorder{Op: expr.ByteorderHton, SourceRegister: register(0), DestRegister: register(0), Len: n, Size: n})
	return turned(data)
}

// swaps says whether the number in the register was turned already.
func (e *ruleEncoder) swaps() bool {
	_, ok := e.out[len(e.out)-1].(*expr.Byteorder)
	return ok
}

// learn notes what a comparison of the user's own establishes for the rest of
// the rule.
func (e *ruleEncoder) learn(m rs.Compare) {
	n, ok := m.Right.Uint()
	if !ok || (m.Op != rs.Equal && m.Op != "") {
		return
	}
	switch m.Left {
	case rs.Meta{Key: rs.MetaIIFType}:
		e.link = linkNames[n]
	case rs.Meta{Key: rs.MetaNFProto}:
		e.network = nfprotoNames[n]
	case rs.Meta{Key: rs.MetaProtocol}, rs.EtherType:
		e.tagged = n == unix.ETH_P_8021Q || n == unix.ETH_P_8021AD
		// A table of family inet is asked for the other number as well, as nft does.
		if e.family != rs.FamilyInet {
			e.network = etherNames[n]
		}
	case rs.Meta{Key: rs.MetaL4Proto}, rs.IPProtocol, rs.IP6NextHdr:
		e.transport = transportNames[uint8(n)]
	}
}

func bitwise(mask []byte) *expr.Bitwise {
	return &expr.Bitwise{
		SourceRegister: register(0), DestRegister: register(0), Len: uint32(len(mask)),
		Mask: mask, Xor: make([]byte, len(mask)),
	}
}

func (e *ruleEncoder) hasAny(m rs.HasAny) error {
	if len(m.Flags.Data) != loadSize(m.Left) || isBits(m.Left) {
		return fmt.Errorf("cannot compare %s with %d bytes", m.Left, len(m.Flags.Data))
	}
	if err := e.load(m.Left); err != nil {
		return err
	}
	op := expr.CmpOpNeq
	if m.Op == rs.NotEqual {
		op = expr.CmpOpEq
	}
	e.emit(bitwise([]byte(m.Flags.Data)), &expr.Cmp{Op: op, Register: register(0), Data: make([]byte, len(m.Flags.Data))})
	return nil
}

// inPrefix reads only the bytes that count where the prefix ends between two
// bytes, as nft does.
func (e *ruleEncoder) inPrefix(m rs.InPrefix) error {
	field, ok := m.Left.(rs.Payload)
	addr := m.Prefix.Masked().Addr().AsSlice()
	if !ok || field.Length != len(addr) {
		return fmt.Errorf("cannot compare %s with the prefix %s", m.Left, m.Prefix)
	}
	bits := m.Prefix.Bits()
	op, known := map[rs.Op]expr.CmpOp{"": expr.CmpOpEq, rs.Equal: expr.CmpOpEq, rs.NotEqual: expr.CmpOpNeq}[m.Op]
	if !known {
		return fmt.Errorf("cannot compare with %s: %s", m.Op, m)
	}
	if bits%8 == 0 && bits > 0 {
		short := field
		short.Length = bits / 8
		if err := e.loadAs(field, short); err != nil {
			return err
		}
		e.emit(&expr.Cmp{Op: op, Register: register(0), Data: addr[:bits/8]})
		return nil
	}
	if err := e.load(field); err != nil {
		return err
	}
	mask := make([]byte, len(addr))
	for i := range bits {
		mask[i/8] |= 1 << (7 - i%8)
	}
	e.emit(bitwise(mask), &expr.Cmp{Op: op, Register: register(0), Data: addr})
	return nil
}

func (e *ruleEncoder) inRange(m rs.InRange) error {
	left := m.Left
	masked, isMasked := left.(rs.Masked)
	if isMasked {
		left = masked.Expr
	}
	if n := loadSize(left); len(m.From.Data) != n || len(m.To.Data) != n || isBits(left) || isMasked && len(masked.Mask.Data) != n {
		return fmt.Errorf("cannot compare %s with %d and %d bytes", m.Left, len(m.From.Data), len(m.To.Data))
	}
	if err := e.load(left); err != nil {
		return err
	}
	if isMasked {
		e.emit(bitwise([]byte(masked.Mask.Data)))
	}
	from := e.ordered(left, []byte(m.From.Data))
	to := e.ordered(left, []byte(m.To.Data))
	if m.Op == rs.NotEqual {
		e.emit(&expr.Range{Op: expr.CmpOpNeq, Register: register(0), FromData: from, ToData: to})
		return nil
	}
	e.emit(&expr.Cmp{Op: expr.CmpOpGte, Register: register(0), Data: from},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register(0), Data: to})
	return nil
}

// loadKey loads the key of a lookup. Numbers in host byte order stand as they
// are in the keys of a set, and turned where it holds ranges, which a rule does
// not say.
func (e *ruleEncoder) loadKey(x rs.Expr) error {
	parts := []rs.Expr{x}
	if c, ok := x.(rs.ConcatExpr); ok {
		parts = c.Parts
	}
	for _, p := range parts {
		if isBits(p) || turns(p.Type(), loadSize(p)) {
			return fmt.Errorf("cannot look up %s", p)
		}
	}
	return e.load(x)
}

// load reads x into the registers from 0 on, its parts one behind the other.
func (e *ruleEncoder) load(x rs.Expr) error { return e.loadAs(x, x) }

// loadAs loads read where the checks are those for x.
func (e *ruleEncoder) loadAs(x, read rs.Expr) error {
	parts := []rs.Expr{x}
	reads := []rs.Expr{read}
	if c, ok := x.(rs.ConcatExpr); ok {
		parts, reads = c.Parts, c.Parts
	}
	for _, p := range parts {
		e.require(p)
	}
	word := 0
	for _, p := range reads {
		size, err := e.loadOne(p, register(word))
		if err != nil {
			return err
		}
		word += words(size)
	}
	return nil
}

// require puts in the checks that a packet has the header that x reads.
func (e *ruleEncoder) require(x rs.Expr) {
	p, ok := x.(rs.Payload)
	if !ok {
		return
	}
	switch p.Proto {
	case "ether":
		if e.link != "ether" {
			e.check(expr.MetaKeyIIFTYPE, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))
			e.link = "ether"
		}
	case "ip", "ip6":
		e.requireNetwork(p.Proto, false)
	case "arp":
		e.requireNetwork("arp", true)
	case "vlan":
		if !e.tagged {
			e.checkFrame(unix.ETH_P_8021Q)
			e.tagged = true
		}
	case "icmp", "icmpv6":
		// The user's own check of either protocol stands, even a contradicting one.
		if e.network == "" && e.transport != p.Proto {
			e.requireNetwork(map[string]string{"icmp": "ip", "icmpv6": "ip6"}[p.Proto], true)
		}
	}
	if want, ok := transportProtos[p.Proto]; ok && e.transport != p.Proto {
		e.check(expr.MetaKeyL4PROTO, []byte{want})
		e.transport = p.Proto
	}
}

// requireNetwork checks for a network protocol. Only a table of family inet has
// the protocol family at hand; elsewhere it is the frame's protocol that tells,
// which nft reads from the frame itself for some headers in a table of family
// bridge.
func (e *ruleEncoder) requireNetwork(proto string, frame bool) {
	if e.network == proto {
		return
	}
	e.network = proto
	if e.family == rs.FamilyInet && proto != "arp" {
		e.check(expr.MetaKeyNFPROTO, []byte{nfprotos[proto]})
		return
	}
	if e.family == rs.FamilyBridge && frame {
		e.checkFrame(uint16(etherProtos[proto]))
		return
	}
	e.check(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, uint16(etherProtos[proto])))
}

// checkFrame checks the type that stands in the frame itself.
func (e *ruleEncoder) checkFrame(etherType uint16) {
	e.emit(&expr.Payload{DestRegister: register(0), Base: expr.PayloadBaseLLHeader, Offset: uint32(rs.EtherType.Offset), Len: uint32(rs.EtherType.Length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: binary.BigEndian.AppendUint16(nil, etherType)})
}

var (
	nfprotos    = map[string]uint8{"ip": rs.NFProtoIPv4, "ip6": rs.NFProtoIPv6}
	etherProtos = inverse(etherNames)
)

func (e *ruleEncoder) check(key expr.MetaKey, value []byte) {
	e.emit(&expr.Meta{Key: key, Register: register(0)}, &expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: value})
}

// transportProtos are the protocols whose header fields have names.
var transportProtos = map[string]uint8{
	"tcp": rs.ProtoTCP, "udp": rs.ProtoUDP, "sctp": rs.ProtoSCTP, "icmp": rs.ProtoICMP, "icmpv6": rs.ProtoICMPv6,
	"igmp": unix.IPPROTO_IGMP, "dccp": unix.IPPROTO_DCCP, "udplite": unix.IPPROTO_UDPLITE, "ah": unix.IPPROTO_AH,
	"esp": unix.IPPROTO_ESP, "comp": unix.IPPROTO_COMP,
}

var payloadBases = map[rs.Header]expr.PayloadBase{
	rs.LinkHeader: expr.PayloadBaseLLHeader, rs.NetworkHeader: expr.PayloadBaseNetworkHeader,
	rs.TransportHeader: expr.PayloadBaseTransportHeader,
}

// loadOne reads one expression into a register and returns its length in bytes.
func (e *ruleEncoder) loadOne(x rs.Expr, reg uint32) (int, error) {
	switch x := x.(type) {
	case rs.Meta:
		key, ok := metaNumber(x.Key)
		if !ok {
			return 0, fmt.Errorf("cannot read %s", x)
		}
		e.emit(&expr.Meta{Key: expr.MetaKey(key), Register: reg})
		return loadSize(x), nil
	case rs.Payload:
		if _, ok := payloadBases[x.Base]; !ok {
			return 0, fmt.Errorf("cannot read %s", x)
		}
		e.emit(&expr.Payload{
			DestRegister: reg, Base: payloadBases[x.Base], Offset: uint32(x.Offset), Len: uint32(x.Length),
		})
		return x.Length, nil
	case rs.Ct:
		key, ok := ctNumber(x.Key)
		// google/nftables writes the direction as 4 bytes where the kernel reads 1.
		if !ok || x.Dir != "" {
			return 0, fmt.Errorf("cannot read %s", x)
		}
		e.emit(&expr.Ct{Key: expr.CtKey(key), Register: reg})
		return loadSize(x), nil
	case rs.Fib:
		f := &expr.Fib{Register: reg}
		if err := setFib(f, x); err != nil {
			return 0, err
		}
		e.emit(f)
		return loadSize(x), nil
	case rs.Socket:
		key := slices.Index(socketKeys, x.Key)
		if key < 0 {
			return 0, fmt.Errorf("cannot read %s", x)
		}
		e.emit(&expr.Socket{Key: expr.SocketKey(key), Level: x.Level, Register: reg})
		return loadSize(x), nil
	}
	return 0, fmt.Errorf("cannot read %s", x)
}

// isBits says whether x reads a part of the bytes that it touches.
func isBits(x rs.Expr) bool {
	p, ok := x.(rs.Payload)
	return ok && p.Bits != 0
}

// loadSize is how many bytes reading x fills.
func loadSize(x rs.Expr) int {
	switch x := x.(type) {
	case rs.Payload:
		return x.Length
	case rs.Masked:
		return loadSize(x.Expr)
	case rs.Socket:
		return socketSize(x)
	case rs.Meta:
		switch x.Key {
		case rs.MetaNFTrace:
			return 1
		case rs.MetaIBrPVID:
			return 2
		}
	case rs.Ct:
		switch x.Key {
		case rs.CtPackets, rs.CtBytes, rs.CtAvgPkt:
			return 8
		case rs.CtZone:
			return 2
		case rs.CtHelper:
			return ctHelperSize
		}
	}
	if n := x.Type().Size(); n != 0 {
		return n
	}
	return 4
}

// ctHelperSize is NF_CT_HELPER_NAME_LEN.
const ctHelperSize = 16

func setFib(f *expr.Fib, x rs.Fib) error {
	switch x.Result {
	case "type":
		f.ResultADDRTYPE = true
	case "oif":
		f.ResultOIF = true
	case "oifname":
		f.ResultOIFNAME = true
	case "check":
		f.ResultOIF, f.FlagPRESENT = true, true
	default:
		return fmt.Errorf("cannot read %s", x)
	}
	for flag := range strings.SplitSeq(x.Flags, " . ") {
		switch flag {
		case "saddr":
			f.FlagSADDR = true
		case "daddr":
			f.FlagDADDR = true
		case "mark":
			f.FlagMARK = true
		case "iif":
			f.FlagIIF = true
		case "oif":
			f.FlagOIF = true
		default:
			return fmt.Errorf("cannot read %s", x)
		}
	}
	return nil
}
