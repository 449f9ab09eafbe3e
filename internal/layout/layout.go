// Package layout holds what the driver and the inspector agree on: the names of
// the driver's tables, chains, sets and interfaces, and the comments by which
// its rules say whose they are. The driver writes them, the inspector knows
// them again in a ruleset that may be anybody's.
//
// It is pure. Names that one side alone knows stand with that side.
package layout

// Driver is the name of the driver in "docker network create -d".
const Driver = "nftnet"

// The tables.
const (
	// Table is the driver's table of family inet, and the one of family bridge.
	Table = "nftnet"
	// KeeperTable is the table of family inet that belongs to the driver's socket.
	KeeperTable = "nftnet-keep"
)

// UserChain is the chain of [Table] that belongs to the user, by Docker's custom:
// its rules run before all of the driver's and survive its restarts. Other
// tables may have one of the same name, made by Docker itself.
const UserChain = "DOCKER-USER"

// Chains of [Table] of family inet.
const (
	ChainStage2      = "DOCKER-ISOLATION-STAGE-2"
	ChainInNAT       = "in-nat"
	ChainInPublished = "in-published"
)

// Chains of [KeeperTable].
const (
	KeeperPre  = "pre"
	KeeperPost = "post"
)

// Sets and maps of [Table] of family inet.
const (
	// SetBridges has the bridge of each network, with the network's id as its
	// comment.
	SetBridges = "bridges"
	// SetInternal has the bridges of internal networks.
	SetInternal = "internal"
	// MapSame decides on what stays on one bridge: accept where the containers of
	// the network may reach each other.
	MapSame = "same_if"
)

// ForeignComment marks the rules that the driver writes into chains that are not
// its own.
const ForeignComment = "nftnet"

// BridgePrefix begins the names of bridges that the driver names itself.
const BridgePrefix = "nft-"

// Prefixes of the two ends of an endpoint's veth pair.
const (
	HostLinkPrefix      = "nfv"
	ContainerLinkPrefix = "nfc"
)

// shortDigits fill the 15 bytes of an interface's name behind [BridgePrefix].
const shortDigits = 11

// ShortID is the part of a network's id that names its bridge and chains.
func ShortID(networkID string) string { return networkID[:min(len(networkID), shortDigits)] }

// BridgeName is the name of the bridge of a network whose user gave none.
func BridgeName(networkID string) string { return BridgePrefix + ShortID(networkID) }
