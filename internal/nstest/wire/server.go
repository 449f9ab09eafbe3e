package wire

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
)

// ServeHTTP answers every request on l with a Reply, until l is closed.
func ServeHTTP(l net.Listener) error {
	srv := &http.Server{
		Handler:  http.HandlerFunc(answer),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	// Each request must be a connection of its own: only a new connection
	// passes the NAT hooks.
	srv.SetKeepAlivesEnabled(false)
	return untilClosed(srv.Serve(l))
}

func answer(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	client, err := net.ResolveTCPAddr("tcp", r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b, err := line(client.AddrPort(), addrPort(conn))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

// ServeTCP greets each connection with a Reply and then echoes what it sends,
// until l is closed.
func ServeTCP(l net.Listener) error {
	return accept(l, func(c net.Conn) {
		b, err := line(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()))
		if err != nil {
			return
		}
		if _, err := c.Write(b); err == nil {
			io.Copy(c, c)
		}
	})
}

// ServeStream sends bytes to each connection for as long as it is open, until
// l is closed.
func ServeStream(l net.Listener) error {
	return accept(l, func(c net.Conn) {
		block := make([]byte, 64<<10)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
}

func accept(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return untilClosed(err)
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// untilClosed drops the error by which a server learns that it was closed.
func untilClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
