// Package kernel moves rulesets between Go values and the kernel's nftables
// over netlink: [Conn.Apply] writes a batch that the kernel takes as a whole or
// not at all, [Conn.Read] reads tables back without loss.
//
// Messages are built and read here, on one lasting socket with large buffers,
// so that an error names the change that the kernel refused, nothing is
// dropped because a library does not know it, and a failed batch leaves the
// connection as good as before. The expressions inside a rule are encoded by
// google/nftables, which is complete for writing and lossy for reading.
package kernel
