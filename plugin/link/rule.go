package link

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// policyRule is a rule of the routing policy (ip-rule(8)): which table the kernel
// asks for which packets.
type policyRule struct {
	priority uint32
	// action is one of FR_ACT_*; table is the one that FR_ACT_TO_TBL asks.
	action uint8
	table  uint32
	// invert says that the rule is for packets that its selectors do not match.
	invert bool
	// from and to are zero for every address.
	from, to netip.Prefix
	iif, oif string
	// mark and mask select by the packet's mark, where mask is not 0.
	mark, mask uint32
	tos        uint8
	// l3mdev asks the table of the packet's VRF.
	l3mdev bool
	// suppress is the longest prefix whose routes do not count; -1 for none.
	suppress int
	// protocol is who made the rule (RTPROT_*).
	protocol uint8
	// others are further selectors, in ip's words.
	others []string
}

// Actions of a rule (FR_ACT_* of linux/fib_rules.h).
const actionTable = 1

// Tables and the priority of the rule that asks main (linux/rtnetlink.h,
// fib_default_rules_init of the kernel).
const (
	tableDefault = unix.RT_TABLE_DEFAULT
	tableMain    = unix.RT_TABLE_MAIN
	tableLocal   = unix.RT_TABLE_LOCAL
	priorityMain = 0x7ffe
)

// listRules lists the rules of a family in the order in which the kernel asks
// them. A kernel without rules asks local and main.
func listRules(family int) ([]policyRule, error) {
	var out []policyRule
	err := dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, func(req *nl.NetlinkRequest) {
		req.AddData(nl.NewIfInfomsg(family))
	}, func() { out = nil }, func(m []byte) error {
		r, err := parseRule(m)
		if err == nil {
			out = append(out, r)
		}
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return []policyRule{
			{action: actionTable, table: tableLocal, suppress: -1},
			{priority: priorityMain, action: actionTable, table: tableMain, suppress: -1},
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	slices.SortStableFunc(out, func(a, b policyRule) int { return cmp.Compare(a.priority, b.priority) })
	return out, nil
}

// sizeofFibRule is that of struct fib_rule_hdr of linux/fib_rules.h.
const sizeofFibRule = 12

func parseRule(m []byte) (policyRule, error) {
	if len(m) < sizeofFibRule {
		return policyRule{}, fmt.Errorf("a message on a routing rule has %d bytes, want %d or more", len(m), sizeofFibRule)
	}
	const invert = 2 // FIB_RULE_INVERT
	dstLen, srcLen := int(m[1]), int(m[2])
	r := policyRule{tos: m[3], table: uint32(m[4]), action: m[7], suppress: -1, invert: binary.NativeEndian.Uint32(m[8:])&invert != 0}
	return r, eachAttr(m[sizeofFibRule:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.FRA_PRIORITY:
			r.priority = number(v)
		case unix.FRA_TABLE:
			r.table = number(v)
		case unix.FRA_SRC:
			r.from = prefixOf(v, srcLen)
		case unix.FRA_DST:
			r.to = prefixOf(v, dstLen)
		case unix.FRA_IIFNAME:
			r.iif = unix.ByteSliceToString(v)
		case unix.FRA_OIFNAME:
			r.oif = unix.ByteSliceToString(v)
		case unix.FRA_FWMARK:
			r.mark = number(v)
		case unix.FRA_FWMASK:
			r.mask = number(v)
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.suppress = int(int32(number(v)))
		case unix.FRA_L3MDEV:
			r.l3mdev = isSet(v)
		case unix.FRA_PROTOCOL:
			if len(v) > 0 {
				r.protocol = v[0]
			}
		default:
			r.addOther(kind, v)
		}
		return nil
	})
}

// addOther notes a selector that is only shown.
func (r *policyRule) addOther(kind uint16, v []byte) {
	pair := func(size int) string {
		if len(v) < 2*size {
			return "?"
		}
		from, to := number(v), uint32(0)
		if size == 2 {
			from, to = uint32(binary.NativeEndian.Uint16(v)), uint32(binary.NativeEndian.Uint16(v[2:]))
		} else {
			to = number(v[4:])
		}
		if from == to && size == 2 {
			return strconv.Itoa(int(from))
		}
		return fmt.Sprintf("%d-%d", from, to)
	}
	switch kind {
	case unix.FRA_UID_RANGE:
		r.others = append(r.others, "uidrange "+pair(4))
	case unix.FRA_IP_PROTO:
		if len(v) > 0 {
			r.others = append(r.others, fmt.Sprintf("ipproto %d", v[0]))
		}
	case unix.FRA_SPORT_RANGE:
		r.others = append(r.others, "sport "+pair(2))
	case unix.FRA_DPORT_RANGE:
		r.others = append(r.others, "dport "+pair(2))
	case unix.FRA_TUN_ID:
		r.others = append(r.others, "tun_id")
	}
}

// prefixOf reads an address of a netlink message.
func prefixOf(address []byte, bits int) netip.Prefix {
	a, ok := netip.AddrFromSlice(address)
	if !ok || bits == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, bits)
}

// selective reports whether the rule is for some packets only, whatever their
// destination.
func (r policyRule) selective() bool {
	return r.invert || r.from.IsValid() || r.iif != "" || r.oif != "" || r.mask != 0 || r.tos != 0 || r.l3mdev || len(r.others) > 0
}

// leadsTo reports whether the rule may be for packets to addresses of p.
func (r policyRule) leadsTo(p netip.Prefix) bool {
	switch {
	case !r.to.IsValid():
		return true
	case r.invert:
		return r.to.Bits() > p.Bits() || !r.to.Overlaps(p)
	}
	return r.to.Overlaps(p)
}

// String writes the rule as ip-rule(8) does, without its priority.
func (r policyRule) String() string {
	text := "from all"
	if r.from.IsValid() {
		text = "from " + addrOrPrefix(r.from)
	}
	if r.invert {
		text = "not " + text
	}
	if r.to.IsValid() {
		text += " to " + addrOrPrefix(r.to)
	}
	if r.tos != 0 {
		text += fmt.Sprintf(" tos %#x", r.tos)
	}
	if r.mask != 0 {
		text += fmt.Sprintf(" fwmark %#x", r.mark)
		if r.mask != ^uint32(0) {
			text += fmt.Sprintf("/%#x", r.mask)
		}
	}
	if r.iif != "" {
		text += " iif " + r.iif
	}
	if r.oif != "" {
		text += " oif " + r.oif
	}
	for _, o := range r.others {
		text += " " + o
	}
	if r.l3mdev {
		return text + " lookup [l3mdev-table]"
	}
	text += " lookup " + tableName(r.table)
	if r.suppress >= 0 {
		text += fmt.Sprintf(" suppress_prefixlength %d", r.suppress)
	}
	return text
}

func addrOrPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func tableName(table uint32) string {
	switch table {
	case tableLocal:
		return "local"
	case tableMain:
		return "main"
	case tableDefault:
		return "default"
	}
	return strconv.FormatUint(uint64(table), 10)
}
