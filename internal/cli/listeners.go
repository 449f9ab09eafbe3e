package cli

import (
	"errors"

	"nftnet/inspect"
	"nftnet/internal/listen"
)

// hostListeners are the sockets of this host that wait for clients; nil where
// they cannot be listed: nothing is said of them then.
func hostListeners() *inspect.Listening {
	out := &inspect.Listening{}
	var sockets []listen.Socket
	for _, proto := range []string{"tcp", "udp"} {
		list, err := listen.All(proto)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		for _, s := range list {
			sockets = append(sockets, s)
			out.Sockets = append(out.Sockets, inspect.Listener{Proto: proto, Addr: s.Addr})
		}
	}
	owners := listen.Owners(sockets)
	for i, s := range sockets {
		if p, ok := owners[s.Inode]; ok {
			out.Sockets[i].Process = inspect.Process{Name: p.Name, PID: p.PID}
		}
	}
	return out
}
