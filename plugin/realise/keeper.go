package realise

import (
	rs "nftnet/internal/ruleset"

	"errors"
	"fmt"
	"log/slog"
	"nftnet/internal/kernel"
	"nftnet/internal/layout"
	"syscall"
)

// keeper is a table that keeps connection tracking and NAT of running
// connections alive while ours is flushed: without any NAT chain and any rule
// that uses conntrack the kernel unhooks both, and translated connections die
// before the table is back. It belongs to a socket of the daemon and goes with it.
func keeper() rs.Ruleset {
	nat := func(name string, h rs.Hook, priority int32) rs.Chain {
		return rs.Chain{Name: name, Base: &rs.Base{Type: "nat", Hook: h, Priority: priority, Policy: rs.Accept}}
	}
	pre := nat(layout.KeeperPre, rs.HookPrerouting, rs.PriorityDstNAT)
	pre.Rules = []rs.Rule{rs.NewRule(rs.Has(rs.Ct{Key: rs.CtState}, rs.HostUint32(rs.TypeCtState, rs.StateEstablished)))}
	return rs.Ruleset{Tables: []rs.Table{{
		Family: rs.FamilyInet, Name: layout.KeeperTable, Flags: []string{"owner"},
		Chains: []rs.Chain{
			pre, nat("in", rs.HookInput, rs.PrioritySrcNAT), nat("out", rs.HookOutput, rs.PriorityDstNAT),
			nat(layout.KeeperPost, rs.HookPostrouting, rs.PrioritySrcNAT),
		},
	}}}
}

// openKeeper makes the keeper table on a connection of its own. On a kernel
// older than 5.12 there is none, and nil is returned.
func openKeeper(log *slog.Logger) (*kernel.Conn, error) {
	conn, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	err = conn.Apply(rs.Diff(rs.Ruleset{}, keeper()))
	if err == nil {
		return conn, nil
	}
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
		log.Warn("this kernel has no tables with an owner (5.12 has): running connections break when somebody flushes the ruleset")
		return nil, conn.Close()
	}
	return nil, errors.Join(fmt.Errorf("make the keeper table: %w", err), conn.Close())
}

// hasBridgeFamily finds out whether the kernel has tables of family bridge
// (CONFIG_NF_TABLES_BRIDGE), which anti-spoofing needs.
func hasBridgeFamily(conn *kernel.Conn, log *slog.Logger) bool {
	err := try(conn, rs.FamilyBridge, rs.Chain{Base: &rs.Base{Type: "filter", Hook: rs.HookPrerouting, Policy: rs.Accept}})
	if err != nil {
		log.Warn("this kernel has no nftables of family bridge: containers are not kept from using addresses of others", "error", err)
		return false
	}
	return true
}

// hasSocketMatch finds out whether the kernel's rules can ask for the socket of a
// packet (CONFIG_NFT_SOCKET).
func hasSocketMatch(conn *kernel.Conn, log *slog.Logger) bool {
	x := rs.Socket{Key: "transparent"}
	err := try(conn, rs.FamilyInet, rs.Chain{Rules: []rs.Rule{rs.NewRule(rs.Is(x, rs.Value{Type: x.Type(), Data: "\x00"}))}})
	if err != nil {
		log.Warn("this kernel's rules cannot ask for sockets (CONFIG_NFT_SOCKET): a segment outside its window makes this host reset a masqueraded connection", "error", err)
		return false
	}
	return true
}

// try has the kernel make a chain and remove it again, in one batch.
func try(conn *kernel.Conn, family rs.Family, c rs.Chain) error {
	c.Name = "probe"
	probe := rs.Ruleset{Tables: []rs.Table{{Family: family, Name: "nftnet-probe", Chains: []rs.Chain{c}}}}
	return conn.Apply(append(rs.Diff(rs.Ruleset{}, probe), rs.Diff(probe, rs.Ruleset{})...))
}
