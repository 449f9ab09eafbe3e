package cli

import (
	"errors"

	"nftnet/inspect"
	"nftnet/internal/host"
)

// hostListeners are the sockets of this host that wait for clients; nil where
// they cannot be listed: nothing is said of them then.
func hostListeners() *inspect.Listening {
	out := &inspect.Listening{}
	var sockets []host.Socket
	for _, proto := range []string{"tcp", "udp"} {
		list, err := host.Listeners(proto)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		for _, s := range list {
			sockets = append(sockets, s)
			out.Sockets = append(out.Sockets, inspect.Listener{Proto: proto, Addr: s.Addr})
		}
	}
	owners := host.Owners(sockets)
	for i, s := range sockets {
		if p, ok := owners[s.Inode]; ok {
			out.Sockets[i].Process = inspect.Process(p)
		}
	}
	return out
}
