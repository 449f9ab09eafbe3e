// Package nftjson prints a ruleset as nft -j does: the JSON schema of
// libnftables (man libnftables-json), as nft 1.0.6 fills it.
//
// nft's JSON leaves out some of what a ruleset says. What stands here beside it
// has keys that nft does not use at that place, so that a program that reads
// nft's JSON reads this:
//
//	table, chain    comment; chain: flags, and dev, the interfaces of its hook
//	set, map        typeof and map_typeof, the expressions that it was declared
//	                by; auto-merge; interval, where a map holds ranges;
//	                dynamic among the flags; timeout_ms and gc-interval_ms, where
//	                they are no whole seconds
//	elem            timeout_ms, likewise; every state, as counter and limit, where
//	                nft has the first
//	flowtable       flags
//	xt              rev, and iptables, the words of iptables-save, or data, the
//	                bytes of the extension, where it is not understood
//	socket          level, of a control group
//
// Two statements are no objects in nft 1.0.6 but strings, a rule's text. Adding to
// a map is {"map": {"op", "elem", "data", "map"}}, as later versions of nft have
// it, and a chain that was written inside a rule {"jump": {"rules": [...]}}, each
// rule with handle, comment and expr.
//
// What the reader of the kernel does not understand is {"unknown": {"name",
// "data"}}, the kernel's name for the expression and its bytes.
package nftjson
