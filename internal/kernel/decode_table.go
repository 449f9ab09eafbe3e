package kernel

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// Attributes and flags that golang.org/x/sys/unix lacks
// (linux/netfilter/nf_tables.h).
const (
	nftaTableUserdata = 6
	nftaChainFlags    = 10
	nftaChainUserdata = 12
	nftChainHWOffload = 2
	nftChainBinding   = 4
)

// decodeTable reads a table without its objects.
func decodeTable(family rs.Family, as attrs) rs.Table {
	t := rs.Table{
		Family: family, Name: as.str(unix.NFTA_TABLE_NAME), Handle: as.u64(nftaTableHandle),
		Comment: readComment(as.bytes(nftaTableUserdata), udataTableComment),
	}
	flags := as.u32(unix.NFTA_TABLE_FLAGS)
	for _, f := range tableFlags {
		if flags&f.bit != 0 {
			t.Flags = append(t.Flags, f.word)
			flags &^= f.bit
		}
	}
	if flags != 0 {
		t.Flags = append(t.Flags, fmt.Sprintf("0x%x", flags))
	}
	return t
}

// decodeChain reads a chain without its rules.
func decodeChain(family rs.Family, as attrs) rs.Chain {
	c := rs.Chain{
		Name: as.str(unix.NFTA_CHAIN_NAME), Handle: as.u64(unix.NFTA_CHAIN_HANDLE),
		Comment:   readComment(as.bytes(nftaChainUserdata), udataChainComment),
		Anonymous: as.u32(nftaChainFlags)&nftChainBinding != 0,
	}
	if as.u32(nftaChainFlags)&nftChainHWOffload != 0 {
		c.Flags = []string{"offload"}
	}
	hook, ok := as.get(unix.NFTA_CHAIN_HOOK)
	if !ok {
		return c
	}
	h := hook.nested()
	c.Base = &rs.Base{
		Type: as.str(unix.NFTA_CHAIN_TYPE), Policy: rs.Accept, Priority: int32(h.u32(unix.NFTA_HOOK_PRIORITY)),
		Hook: hookByNumber(family, h.u32(unix.NFTA_HOOK_HOOKNUM)), Family: family,
	}
	if as.has(unix.NFTA_CHAIN_POLICY) && as.u32(unix.NFTA_CHAIN_POLICY) == 0 {
		c.Base.Policy = rs.Drop
	}
	if dev := h.str(unix.NFTA_HOOK_DEV); dev != "" {
		c.Base.Devices = []string{dev}
	}
	if devs, ok := h.get(nftaHookDevs); ok {
		c.Base.Devices = nil
		for _, d := range devs.nested() {
			c.Base.Devices = append(c.Base.Devices, d.str())
		}
	}
	return c
}

const nftaHookDevs = 4

func hookByNumber(family rs.Family, n uint32) rs.Hook {
	for h, num := range hooks[family] {
		if num == n {
			return h
		}
	}
	return rs.Hook("hook" + strconv.FormatUint(uint64(n), 10))
}

// joinAnonymous puts the chains without a name of their own into the rules that
// call them.
func joinAnonymous(t *rs.Table) {
	chains := map[string]*rs.Chain{}
	for i := range t.Chains {
		if c := &t.Chains[i]; c.Anonymous {
			chains[c.Name] = c
		}
	}
	if len(chains) == 0 {
		return
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for i, p := range r.Parts {
				if v, ok := p.(rs.Verdict); ok && chains[v.Chain] != nil {
					v.Anonymous = chains[v.Chain]
					r.Parts[i] = v
				}
			}
		}
	}
}
