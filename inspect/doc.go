// Package inspect reads a live ruleset and says in plain words what it does:
// which chains a packet meets at each hook and in which order, how it gets to
// a chain, what each rule asks and does and what follows for the packet.
//
// A [Model] is made of a [ruleset.Ruleset], whoever wrote it, and of [Names]
// for networks and containers, which may be empty. It is pure: nothing is read
// while it is made or asked. [Model.Explain] gives the notes on one object.
// Sentences are composed of the typed parts of a rule and never say more than
// these do; a part that is not understood is named as such and makes the note's
// level [Unknown].
//
// [Read] is the only function here that talks to the kernel.
package inspect
