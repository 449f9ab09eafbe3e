package kernel

import (
	"golang.org/x/sys/unix"

	rs "nftnet/internal/ruleset"
)

// metaKeys are the numbers of the keys of meta (enum nft_meta_keys).
var metaKeys = map[rs.MetaKey]uint32{
	rs.MetaLength: unix.NFT_META_LEN, rs.MetaProtocol: unix.NFT_META_PROTOCOL,
	rs.MetaPriority: unix.NFT_META_PRIORITY, rs.MetaMark: unix.NFT_META_MARK,
	rs.MetaIIF: unix.NFT_META_IIF, rs.MetaOIF: unix.NFT_META_OIF,
	rs.MetaIIFName: unix.NFT_META_IIFNAME, rs.MetaOIFName: unix.NFT_META_OIFNAME,
	rs.MetaIIFType: unix.NFT_META_IIFTYPE, rs.MetaOIFType: unix.NFT_META_OIFTYPE,
	rs.MetaSKUID: unix.NFT_META_SKUID, rs.MetaSKGID: unix.NFT_META_SKGID,
	rs.MetaNFTrace: unix.NFT_META_NFTRACE, rs.MetaRTClass: unix.NFT_META_RTCLASSID,
	rs.MetaNFProto: unix.NFT_META_NFPROTO, rs.MetaL4Proto: unix.NFT_META_L4PROTO,
	rs.MetaPktType: unix.NFT_META_PKTTYPE, rs.MetaCPU: unix.NFT_META_CPU,
	rs.MetaIIFGroup: unix.NFT_META_IIFGROUP, rs.MetaOIFGroup: unix.NFT_META_OIFGROUP,
	rs.MetaCGroup: unix.NFT_META_CGROUP, rs.MetaIBrName: unix.NFT_META_BRI_IIFNAME,
	rs.MetaOBrName: unix.NFT_META_BRI_OIFNAME, rs.MetaSecMark: unix.NFT_META_SECMARK,
	rs.MetaRandom: unix.NFT_META_PRANDOM, rs.MetaIPsec: 25, rs.MetaIIFKind: 26, rs.MetaOIFKind: 27,
	rs.MetaIBrPVID: 28, rs.MetaIBrProto: 29, rs.MetaTime: 30, rs.MetaDay: 31, rs.MetaHour: 32,
	rs.MetaSDIF: 33, rs.MetaSDIFName: 34,
}

// ctKeys are the numbers of the keys of ct (enum nft_ct_keys).
var ctKeys = map[rs.CtKey]uint32{
	rs.CtState: unix.NFT_CT_STATE, rs.CtDirection: unix.NFT_CT_DIRECTION, rs.CtStatus: unix.NFT_CT_STATUS,
	rs.CtMark: unix.NFT_CT_MARK, rs.CtExpiration: unix.NFT_CT_EXPIRATION, rs.CtHelper: unix.NFT_CT_HELPER,
	rs.CtL3Proto: unix.NFT_CT_L3PROTOCOL, rs.CtProtocol: unix.NFT_CT_PROTOCOL,
	rs.CtProtoSrc: unix.NFT_CT_PROTO_SRC, rs.CtProtoDst: unix.NFT_CT_PROTO_DST,
	rs.CtLabel: unix.NFT_CT_LABELS, rs.CtPackets: unix.NFT_CT_PKTS, rs.CtBytes: unix.NFT_CT_BYTES,
	rs.CtZone: unix.NFT_CT_ZONE, rs.CtIPSaddr: unix.NFT_CT_SRC_IP, rs.CtIPDaddr: unix.NFT_CT_DST_IP,
	rs.CtIP6Saddr: unix.NFT_CT_SRC_IP6, rs.CtIP6Daddr: unix.NFT_CT_DST_IP6, rs.CtID: unix.NFT_CT_ID,
	rs.CtAvgPkt: unix.NFT_CT_AVGPKT, rs.CtSecMark: unix.NFT_CT_SECMARK, rs.CtEvent: unix.NFT_CT_EVENTMASK,
	rs.CtSrc: unix.NFT_CT_SRC, rs.CtDst: unix.NFT_CT_DST,
}

var (
	metaByNumber = inverse(metaKeys)
	ctByNumber   = inverse(ctKeys)
	familyByNum  = inverse(families)
)

func inverse[K, V comparable](m map[K]V) map[V]K {
	out := make(map[V]K, len(m))
	for k, v := range m {
		out[v] = k
	}
	return out
}

func metaNumber(k rs.MetaKey) (uint32, bool) {
	n, ok := metaKeys[k]
	return n, ok
}

func ctNumber(k rs.CtKey) (uint32, bool) {
	n, ok := ctKeys[k]
	return n, ok
}
