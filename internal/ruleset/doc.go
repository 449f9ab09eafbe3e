// Package ruleset is the vocabulary of nftables: tables, chains, rules, sets,
// maps and their elements as plain Go values.
//
// The same values are written and read: the driver builds them and applies
// them through package kernel; the inspector reads any live ruleset back into
// them. A value prints itself in nft's words, compares by content and needs no
// kernel handle. What the reader does not understand becomes an [Opaque] part:
// shown, never dropped.
//
// The package imports the standard library only.
package ruleset
