package plugin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// TestStopAmidCalls: a stop is clean while calls come one after the other.
func TestStopAmidCalls(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	for i := range 80 {
		socket := filepath.Join(dir, fmt.Sprint(i))
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- NewServer(r.driver, slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
		var clients sync.WaitGroup
		stopNow := sync.OnceFunc(cancel)
		for range 24 {
			clients.Go(func() {
				for call := range 30 {
					c, err := net.Dial("unix", socket)
					if err != nil {
						return
					}
					_, _ = fmt.Fprint(c, "POST /NetworkDriver.GetCapabilities HTTP/1.1\r\nHost: driver\r\nContent-Length: 2\r\n\r\n{}")
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
					if call == i%8 {
						stopNow()
					}
				}
			})
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		clients.Wait()
		cancel()
	}
}
