package kernel

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// rawRule builds expressions that no nft would write.
type rawRule struct{ message }

func (r *rawRule) expr(name string, fill func(*message)) *rawRule {
	r.nest(unix.NFTA_LIST_ELEM, func(m *message) {
		m.str(unix.NFTA_EXPR_NAME, name)
		m.nest(unix.NFTA_EXPR_DATA, fill)
	})
	return r
}

// numbers is an expression whose attributes are all numbers, in pairs of type
// and value.
func (r *rawRule) numbers(name string, pairs ...uint32) *rawRule {
	return r.expr(name, func(m *message) {
		for i := 0; i < len(pairs); i += 2 {
			m.u32(uint16(pairs[i]), pairs[i+1])
		}
	})
}

func (r *rawRule) meta(key, reg uint32) *rawRule {
	return r.numbers("meta", unix.NFTA_META_KEY, key, unix.NFTA_META_DREG, reg)
}

func (r *rawRule) cmp(reg, op uint32, data string) *rawRule {
	return r.expr("cmp", func(m *message) {
		m.u32(unix.NFTA_CMP_SREG, reg)
		m.u32(unix.NFTA_CMP_OP, op)
		m.nest(unix.NFTA_CMP_DATA, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, []byte(data)) })
	})
}

// mask leaves some bits of what is in register 1.
func (r *rawRule) mask(mask string) *rawRule {
	return r.expr("bitwise", func(m *message) {
		m.u32(unix.NFTA_BITWISE_SREG, 1)
		m.u32(unix.NFTA_BITWISE_DREG, 1)
		m.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		m.nest(unix.NFTA_BITWISE_MASK, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, []byte(mask)) })
		m.nest(unix.NFTA_BITWISE_XOR, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, make([]byte, len(mask))) })
	})
}

func (r *rawRule) lookup(set string, reg uint32) *rawRule {
	return r.expr("lookup", func(m *message) {
		m.str(unix.NFTA_LOOKUP_SET, set)
		m.u32(unix.NFTA_LOOKUP_SREG, reg)
	})
}

// TestNothingIsReadIntoARule lists expressions that look like something known
// and are not: all of them must be shown, as the names of the unknown say.
func TestNothingIsReadIntoARule(t *testing.T) {
	mark, length := uint32(unix.NFT_META_MARK), uint32(unix.NFT_META_LEN)
	tests := []struct {
		name string
		rule func(*rawRule)
		want string
	}{
		{"a match of what an unknown expression may have written",
			func(r *rawRule) { r.meta(mark, 1).numbers("tunnel", 1, 2, 2, 1).cmp(1, 0, "\x01\x00\x00\x00") }, "meta tunnel cmp"},
		{"a load that nothing uses", func(r *rawRule) { r.meta(mark, 1).numbers("counter") }, "meta counter"},
		{"a load over another", func(r *rawRule) { r.meta(length, 1).meta(mark, 1).cmp(1, 0, "\x01\x00\x00\x00") }, "meta =meta mark 0x00000001"},
		{"a mask whose result nothing uses", func(r *rawRule) { r.meta(mark, 1).mask("\xff\x00\x00\x00") }, "meta bitwise"},
		{"a constant of the wrong length", func(r *rawRule) { r.meta(mark, 1).cmp(1, 0, "\x01\x00") }, "meta cmp"},
		{"an order of bytes in the host's order", func(r *rawRule) { r.meta(mark, 1).cmp(1, unix.NFT_CMP_GT, "\x01\x00\x00\x00") }, "meta cmp"},
		{"an unknown key of meta", func(r *rawRule) { r.meta(99, 1) }, "meta"},
		{"an attribute beside the known", func(r *rawRule) {
			r.numbers("meta", unix.NFTA_META_KEY, mark, unix.NFTA_META_DREG, 1, 77, 5)
		}, "meta"},
		{"an attribute twice", func(r *rawRule) {
			r.numbers("meta", unix.NFTA_META_KEY, mark, unix.NFTA_META_KEY, length, unix.NFTA_META_DREG, 1)
		}, "meta"},
		{"a set that is not there", func(r *rawRule) { r.meta(mark, 1).lookup("nothing", 1) }, "meta lookup"},
		{"a key that is too short", func(r *rawRule) { r.meta(unix.NFT_META_L4PROTO, 1).lookup("publish", 1) }, "meta lookup"},
		{"a key that is too long", func(r *rawRule) { r.meta(unix.NFT_META_IIFNAME, 1).lookup("ports", 1) }, "meta lookup"},
		{"a number in the host's order in a set of ranges", func(r *rawRule) { r.meta(mark, 1).lookup("marks", 1) }, "meta lookup"},
		{"the first bytes of an address as the key of a set", func(r *rawRule) {
			r.meta(unix.NFT_META_NFPROTO, 1).cmp(1, 0, "\x02")
			r.numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, 1, unix.NFTA_PAYLOAD_OFFSET, 12, unix.NFTA_PAYLOAD_LEN, 3)
			r.lookup("hosts", 1)
		}, "=meta nfproto ipv4 payload lookup"},
		{"the first bytes of an address in a range", func(r *rawRule) {
			r.meta(unix.NFT_META_NFPROTO, 1).cmp(1, 0, "\x02")
			r.numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, 1, unix.NFTA_PAYLOAD_OFFSET, 12, unix.NFTA_PAYLOAD_LEN, 3)
			r.expr("range", func(m *message) {
				m.u32(unix.NFTA_RANGE_SREG, 1)
				m.u32(unix.NFTA_RANGE_OP, unix.NFT_RANGE_EQ)
				m.nest(unix.NFTA_RANGE_FROM_DATA, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, []byte{1, 2, 3}) })
				m.nest(unix.NFTA_RANGE_TO_DATA, func(m *message) { m.raw(unix.NFTA_DATA_VALUE, []byte{1, 2, 9}) })
			})
		}, "=meta nfproto ipv4 payload range"},
		{"a prefix with bits behind its end", func(r *rawRule) {
			r.meta(unix.NFT_META_NFPROTO, 1).cmp(1, 0, "\x02")
			r.numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, 1, unix.NFTA_PAYLOAD_OFFSET, 12, unix.NFTA_PAYLOAD_LEN, 4)
			r.mask("\xff\xff\x00\x00").cmp(1, 0, "\x0a\x00\x05\x00")
		}, "=ip saddr & 255.255.0.0 == 10.0.5.0"},
		{"an upper bound alone", func(r *rawRule) { r.meta(unix.NFT_META_PKTTYPE, 1).cmp(1, unix.NFT_CMP_LTE, "\x01") }, "=meta pkttype <= broadcast"},
		{"a second upper bound", func(r *rawRule) {
			r.meta(unix.NFT_META_PKTTYPE, 1).cmp(1, unix.NFT_CMP_GTE, "\x01").cmp(1, unix.NFT_CMP_LTE, "\x02").cmp(1, unix.NFT_CMP_LTE, "\x03")
		}, "=meta pkttype 1-2 =meta pkttype <= other"},
		{"bounds of two registers", func(r *rawRule) {
			r.meta(unix.NFT_META_PKTTYPE, 1).meta(unix.NFT_META_L4PROTO, 2).cmp(1, unix.NFT_CMP_GTE, "\x01").cmp(2, unix.NFT_CMP_LTE, "\x02")
		}, "=meta pkttype >= broadcast =meta l4proto <= igmp"},
		{"an unknown direction", func(r *rawRule) {
			r.expr("ct", func(m *message) {
				m.u32(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
				m.u32(unix.NFTA_CT_DREG, 1)
				m.raw(unix.NFTA_CT_DIRECTION, []byte{2})
			}).cmp(1, 0, "\x01\x00\x00\x00")
		}, "ct cmp"},
		{"an unknown flag of fib", func(r *rawRule) {
			r.numbers("fib", unix.NFTA_FIB_DREG, 1, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE, unix.NFTA_FIB_FLAGS, 0x102)
		}, "fib"},
		{"an unknown flag of a translation", func(r *rawRule) { r.numbers("masq", unix.NFTA_MASQ_FLAGS, 0x100) }, "masq"},
		{"an unknown flag of a limit", func(r *rawRule) {
			r.expr("limit", func(m *message) {
				m.raw(unix.NFTA_LIMIT_RATE, []byte{0, 0, 0, 0, 0, 0, 0, 1})
				m.raw(unix.NFTA_LIMIT_UNIT, []byte{0, 0, 0, 0, 0, 0, 0, 1})
				m.u32(unix.NFTA_LIMIT_FLAGS, 2)
			})
		}, "limit"},
		{"an unknown verdict", func(r *rawRule) {
			r.expr("immediate", func(m *message) {
				m.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
				m.nest(unix.NFTA_IMMEDIATE_DATA, func(m *message) {
					m.nest(unix.NFTA_DATA_VERDICT, func(m *message) { m.u32(unix.NFTA_VERDICT_CODE, 0xffffff00) })
				})
			})
		}, "immediate"},
		{"an unknown answer of reject", func(r *rawRule) { r.numbers("reject", unix.NFTA_REJECT_TYPE, 9) }, "reject"},
		{"an unknown unit of time", func(r *rawRule) { r.numbers("limit") }, "limit"},
		{"a payload of no bytes", func(r *rawRule) {
			r.numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, 1, unix.NFTA_PAYLOAD_LEN, 0)
		}, "payload"},
		{"an expression without a name", func(r *rawRule) { r.nest(unix.NFTA_LIST_ELEM, func(*message) {}) }, ""},
		{"an echo request of no known network protocol", func(r *rawRule) {
			r.meta(unix.NFT_META_L4PROTO, 1).cmp(1, 0, "\x01")
			r.numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, 2, unix.NFTA_PAYLOAD_OFFSET, 0, unix.NFTA_PAYLOAD_LEN, 1)
			r.cmp(1, 0, "\x08")
		}, "=meta l4proto icmp =icmp type echo-request"},
		{"no bits of flags", func(r *rawRule) {
			r.numbers("ct", unix.NFTA_CT_KEY, unix.NFT_CT_STATE, unix.NFTA_CT_DREG, 1).mask("\x00\x00\x00\x00").cmp(1, 0, "\x00\x00\x00\x00")
		}, "=ct state & 0x0 == 0x0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r rawRule
			tt.rule(&r)
			list, err := parseAttrs(r.b)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range decodeRule(rs.FamilyInet, fuzzSets(), list) {
				switch p := p.(type) {
				case rs.Opaque:
					got = append(got, p.Name)
				case rs.Counter:
					got = append(got, "counter")
				default:
					got = append(got, "="+p.String())
				}
			}
			if text := strings.Join(got, " "); text != tt.want || len(got) == 0 {
				t.Errorf("read as %q, want %q", text, tt.want)
			}
		})
	}
}
